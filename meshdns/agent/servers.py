"""Inside: one upstream server as the questions see it: how fast, whether alive, which of its sockets are in use.

Outcomes and times of attempts enter; who is asked first leaves. It must never know what was asked, nor of sockets: a
slot is a number, and what stands in it is the business of the module outside.
"""

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from meshdns.defaults import (
    DEAD_AFTER,
    HEDGE_LEAST,
    HEDGE_SAMPLES,
    HEDGE_UNKNOWN,
    SUSPECT_AFTER,
    UPSTREAM_ATTEMPTS,
    UPSTREAM_DEADLINE,
    UPSTREAM_MAX_INFLIGHT,
    UPSTREAM_SOCKET_USES,
    UPSTREAM_TIMEOUT,
)
from meshdns.values import Server

STREAM = 0xFFFF  # the slot of what goes over a server's TCP connection
USELESS = frozenset({"dead", "loop"})  # states in which a server answers nothing
CLOSED = -1  # uses left of a slot in which no socket stands

_RANK_EVERY = 16  # answers between two looks at a server's latency
_FEW = 8  # answers that say nothing of a 95th percentile

# What became of a request, by the low four bits of the reply's rcode.
OUTCOMES = ("ok", "formerr", "servfail", "nxdomain", "notimp", "refused", *("other",) * 10)


@attrs.frozen
class Options:
    """How servers are asked. `policy` is fastest, ordered or race; times in seconds; `rotate` as in resolv.conf."""

    policy: str = "fastest"
    timeout: float = UPSTREAM_TIMEOUT
    attempts: int = UPSTREAM_ATTEMPTS
    deadline: float = UPSTREAM_DEADLINE
    max_inflight: int = UPSTREAM_MAX_INFLIGHT
    rotate: bool = False


@attrs.define(eq=False)
class Peer:
    """One server, its health and its slots. `left` are the uses left of each slot, `busy` what is outstanding on it."""

    server: Server
    index: int
    label: str
    left: list[int] = attrs.field(factory=list)
    busy: list[int] = attrs.field(factory=list)
    streaming: int = 0  # what is outstanding over TCP
    frugal_until: float = 0.0  # no socket could be opened: until then the open ones must do

    smoothed: float | None = None
    hedge: float = HEDGE_UNKNOWN
    recent: list[float] = attrs.field(factory=list)
    answers: int = 0
    seconds: float = 0.0
    heard_at: float = float("-inf")
    misses: int = 0
    timeouts: int = 0
    dead: bool = False
    loops: bool = False
    cased: bool = True  # it echoes the case of the question (0x20)
    edns: bool = True  # it understands OPT
    probe_at: float | None = None
    outcomes: dict[str, int] = attrs.field(
        factory=lambda: dict.fromkeys((*dict.fromkeys(OUTCOMES), "truncated", "timeout", "error", "untrusted"), 0)
    )

    is_stream: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.is_stream = self.server.transport != "udp"

    @property
    def state(self) -> str:
        """`up`, `slow`, `dead` or `loop`."""
        return "loop" if self.loops else "dead" if self.dead else "slow" if self.misses >= SUSPECT_AFTER else "up"

    @property
    def outstanding(self) -> int:
        return sum(self.busy) + self.streaming

    @property
    def was_heard(self) -> bool:
        return self.heard_at > float("-inf")

    def status(self) -> dict[str, Any]:
        """What the status page tells of it; durations in seconds, `answers` and `seconds` make the mean."""
        return {
            "server": self.label,
            "state": self.state,
            "latency": self.smoothed,
            "hedge": self.hedge,
            "outstanding": self.outstanding,
            "sockets": sum(left != CLOSED for left in self.left),
            "max_sockets": 0 if self.is_stream else len(self.left),
            "requests": dict(self.outcomes),
            "answers": self.answers,
            "seconds": self.seconds,
            "keeps_case": self.cased,
            "edns": self.edns,
        }

    def resize(self, slots: int) -> None:
        """More slots are there at once; superfluous ones go only while nothing is outstanding on them."""
        while len(self.left) > slots and not self.busy[-1]:
            self.left.pop()
            self.busy.pop()
        missing = slots - len(self.left)
        self.left += [CLOSED] * missing
        self.busy += [0] * missing

    def find_slot(self, slot: int, now: float, random_bits: Callable[[int], int]) -> tuple[int, bool]:
        """The slot for one more message when the one drawn at random has no uses left; whether a new socket is due in it.

        A socket that had its uses is replaced once nothing is outstanding on it, and left alone until then.
        """
        left, busy = self.left, self.busy
        fresh = False
        if now < self.frugal_until:
            slot = self._standing_slot(slot)
        elif left[slot] <= 0:
            tries = 4
            while left[slot] <= 0 and busy[slot] and tries:
                slot = random_bits(16) % len(left)
                tries -= 1
            fresh = left[slot] <= 0 and not busy[slot]
            if fresh:
                left[slot] = UPSTREAM_SOCKET_USES + random_bits(7)
        left[slot] = max(left[slot], 1) - 1  # one more use is the least harm where all are used up and busy
        return slot, fresh

    def _standing_slot(self, slot: int) -> int:
        standing = [number for number, left in enumerate(self.left) if left != CLOSED]
        return standing[slot % len(standing)] if standing else slot

    @property
    def has_socket(self) -> bool:
        return any(left != CLOSED for left in self.left)

    # Health. Those that return a bool say whether the order of servers may have changed.

    def heard(self, now: float) -> bool:
        """A reply of whatever rcode: it lives."""
        self.heard_at = now
        changed = self.dead or self.misses >= SUSPECT_AFTER
        if self.dead:
            # It may have come back as another program, with other manners.
            self.smoothed, self.dead, self.cased, self.edns = None, False, True, True
        self.misses = self.timeouts = 0
        return changed

    def answered(self, seconds: float) -> bool:
        """A good answer after so long. Failures are not measured: they come fast, or as late as a timeout elsewhere."""
        self.seconds += seconds
        self.answers += 1
        if self.smoothed is None:
            self.smoothed = seconds
            self.recent.append(seconds)
            return True
        self.smoothed += (seconds - self.smoothed) / 8
        if len(self.recent) < HEDGE_SAMPLES:
            self.recent.append(seconds)
        else:
            self.recent[self.answers % HEDGE_SAMPLES] = seconds
        if self.answers % _RANK_EVERY and len(self.recent) != _FEW:
            return False
        if len(self.recent) >= _FEW:
            self.hedge = max(HEDGE_LEAST, sorted(self.recent)[len(self.recent) * 95 // 100])
        return True

    def missed(self) -> bool:
        """An attempt is older than the hedge."""
        self.misses += 1
        return self.misses == SUSPECT_AFTER

    def failed(self, sent: float, outcome: str) -> bool:
        """An attempt sent at that time ended in `timeout`, `error` or `untrusted`. Whoever has spoken since is not silent."""
        self.outcomes[outcome] += 1
        if self.heard_at > sent:
            return False
        self.timeouts += 1
        died = not self.dead and self.timeouts >= DEAD_AFTER
        self.dead = self.dead or died
        return died


def orders(peers: Sequence[Peer], options: Options) -> tuple[tuple[int, ...], ...]:
    """The orders in which to ask, by index: questions take turns with them. Empty when no server is usable.

    The dead come last, where they cost nobody anything; those whose every question comes back to us are left out.
    """
    usable = [peer for peer in peers if not peer.loops]
    alive = [peer for peer in usable if not peer.dead] or usable
    if options.policy == "race":
        return (tuple(peer.index for peer in alive),) if alive else ()
    rest = [peer for peer in usable if peer not in alive]
    if options.policy == "fastest" and not options.rotate:
        alive = sorted(alive, key=_slowness)
    turns = len(alive) if options.rotate else min(1, len(alive))
    return tuple(tuple(peer.index for peer in alive[turn:] + alive[:turn] + rest) for turn in range(turns))


def _slowness(peer: Peer) -> tuple[bool, float]:
    """A server not yet measured goes first, so that it will be."""
    return peer.misses >= SUSPECT_AFTER, peer.smoothed or 0.0
