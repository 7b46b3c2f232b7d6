"""Inside: messages outstanding, each with an id, a socket and a case of its own, and the hour to look after it.

A question and the server to put it to enter; the message to send leaves. What arrives is matched by server, slot and id
alone. It must never know what a reply means nor who is asked next.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush

import attrs

from meshdns.agent.servers import STREAM, Peer
from meshdns.agent.steps import Send
from meshdns.defaults import UPSTREAM_UDP_SIZE
from meshdns.wire import Ask, flip_case, upstream_query

_CHANCE = 16 + 16 + 224  # random bits for one message: id, slot, and the case of the last 28 octets of a name
_CHANCES = 64  # messages for which they are drawn at once
_WAKES = 4096  # more wakes than that are tidied: most attempts are answered long before they are due


@attrs.define(eq=False)
class Flight:
    """One question under way. `order` are servers, `position` how many of them, round after round, had their turn."""

    ask: Ask
    waiters: list[object]
    began: float
    deadline: float
    order: tuple[int, ...]
    probe: bytes | None = None  # the name of a probe
    position: int = 0
    asking: list[int] = attrs.field(factory=list)  # servers with an attempt outstanding
    finished: bool = False
    reply: bytes | None = None  # the last failing or truncated one
    notes: dict[str, tuple[str, str]] | None = None  # why each server failed: (reason, text)

    def note(self, label: str, reason: str, text: str) -> None:
        self.notes = {**(self.notes or {}), label: (reason, text)}


@attrs.define(eq=False)
class Attempt:
    """One message sent to one server. It outlives its flight, until answered or timed out: so a server is known."""

    flight: Flight
    peer: Peer
    key: int  # index of the server, slot and id in one number
    question: bytes  # with the case sent
    cased: bool
    edns: bool
    sent: float
    wake: float  # when to look after it
    again: tuple[bool, bool] | None = None  # (cased, edns) with which the same server is to be asked once more
    doubted: bool = False  # that was noticed before
    second: bool = False  # it stands in for another attempt at the same server

    @property
    def streamed(self) -> bool:
        return self.key >> 16 & 0xFFFF == STREAM


class Attempts:
    """All that is outstanding. `random_bits(n)` gives n bits that nobody can predict."""

    def __init__(self, random_bits: Callable[[int], int]) -> None:
        self.outstanding: dict[int, Attempt] = {}  # by key
        self._random_bits = random_bits
        self._chances: list[int] = []
        # (when, key); an entry counts only if the attempt is still there and wants to be woken just then.
        self._wakes: list[tuple[float, int]] = []
        self._many = _WAKES
        self.soonest = float("inf")  # of the wakes set since `next_wake` was last called

    def launch(
        self, flight: Flight, peer: Peer, now: float, wake: float, stream: bool, cased: bool, edns: bool
    ) -> tuple[Attempt, Send]:
        """Put a flight's question to a server: a random id, a random socket, random case (rule D20)."""
        question = flight.ask.question
        index = peer.index
        chance = self._chances.pop() if self._chances else self._draw()
        fresh = False
        if stream:
            slot, cased = STREAM, False
            peer.streaming += 1
        else:
            slot = (chance >> 16 & 0xFFFF) % len(peer.left)
            if peer.left[slot] > 0 and now >= peer.frugal_until:
                peer.left[slot] -= 1
            else:
                slot, fresh = peer.find_slot(slot, now, self._random_bits)
            peer.busy[slot] += 1
            if cased:
                question = flip_case(question, chance >> 32)
        place = index << 32 | slot << 16
        key = place | chance & 0xFFFF
        while key in self.outstanding:
            key = place | self._random_bits(16)
        attempt = self.outstanding[key] = Attempt(flight, peer, key, question, cased, edns, now, wake)
        flight.asking.append(index)
        heappush(self._wakes, (wake, key))
        if wake < self.soonest:
            self.soonest = wake
        if len(self._wakes) > self._many:
            self._tidy()
        message = upstream_query(flight.ask, key & 0xFFFF, question, UPSTREAM_UDP_SIZE if edns else None)
        return attempt, Send(index, slot, fresh, message)

    def _draw(self) -> int:
        """Random bits for one message, drawn for many at once: a system call for each would be dear."""
        size = _CHANCE // 8
        drawn = self._random_bits(_CHANCE * _CHANCES).to_bytes(size * _CHANCES)
        self._chances = [int.from_bytes(drawn[start : start + size]) for start in range(0, len(drawn), size)]
        return self._chances.pop()

    def close(self, attempt: Attempt) -> None:
        """The attempt is over, whatever came of it."""
        key, peer = attempt.key, attempt.peer
        del self.outstanding[key]
        slot = key >> 16 & 0xFFFF
        if slot == STREAM:
            peer.streaming -= 1
        else:
            peer.busy[slot] -= 1
        attempt.flight.asking.remove(peer.index)

    def find(self, server: int, slot: int, message: bytes) -> Attempt | None:
        """The attempt that a message answers by where it arrived and by its id."""
        if len(message) < 2:
            return None
        return self.outstanding.get(server << 32 | slot << 16 | message[0] << 8 | message[1])

    def at(self, server: int, slot: int) -> list[Attempt]:
        """All that is outstanding in one slot."""
        place = server << 16 | slot
        return [attempt for key, attempt in self.outstanding.items() if key >> 16 == place]

    def all(self) -> list[Attempt]:
        return list(self.outstanding.values())

    # Time

    def wake_at(self, attempt: Attempt, when: float) -> None:
        attempt.wake = when
        heappush(self._wakes, (when, attempt.key))
        self.soonest = min(self.soonest, when)

    def _tidy(self) -> None:
        self._wakes = [entry for entry in self._wakes if self._is_meant(entry)]
        heapify(self._wakes)
        self._many = max(_WAKES, 4 * len(self._wakes))

    def _is_meant(self, entry: tuple[float, int]) -> bool:
        attempt = self.outstanding.get(entry[1])
        return attempt is not None and attempt.wake == entry[0]

    def next_wake(self) -> float | None:
        """When an attempt must be looked after."""
        wakes = self._wakes
        self.soonest = float("inf")
        while wakes and not self._is_meant(wakes[0]):
            heappop(wakes)
        return wakes[0][0] if wakes else None

    def due(self, now: float) -> Attempt | None:
        """The next attempt that must be looked after; it is for the caller to close it or set another hour."""
        wake = self.next_wake()
        if wake is None or wake > now:
            return None
        return self.outstanding[heappop(self._wakes)[1]]
