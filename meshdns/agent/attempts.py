"""Inside: messages outstanding, each with an id, a socket and a case of its own, and the hour to look after it.

A question and the server to put it to enter; the message to send leaves. What arrives is matched by server, slot and id
alone. It must never know what a reply means nor who is asked next.
"""

import struct
from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

import attrs

from meshdns.agent.servers import STREAM, Peer
from meshdns.agent.steps import Reply, Send
from meshdns.defaults import UPSTREAM_UDP_SIZE
from meshdns.wire import Ask, Body, flip_case, upstream_query

# Random octets for one message: id, slot, and the case of the last 24 octets of a question, of which 20 are its name's.
_CHANCE = struct.Struct("!2H24s")
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


class Sole:
    """A question with one waiter, one message outstanding and nothing unusual about it: a Flight and its Attempt in one.

    As soon as anything else happens than its answer, it becomes those two.
    """

    __slots__ = ("ask", "cased", "edns", "key", "order", "over", "peer", "question", "sent", "waiter", "wake")

    order: tuple[int, ...]
    peer: Peer
    key: int
    question: bytes
    cased: bool
    edns: bool
    sent: float
    wake: float

    def __init__(self, ask: Ask, waiter: Any) -> None:
        self.ask = ask
        self.waiter = waiter
        self.over = False  # answered, or become a flight

    def whose(self) -> object:
        """Who waits for the result when it is no Sole any more."""
        return self.waiter

    def answered(self, message: bytes, body: Body, now: float, plain: bool) -> None:
        """The good answer has come. `plain`: it is nothing but records of the question's own name and type."""
        self.waiter(Reply(message, self.peer.label, now - self.sent, body))


class Attempts:
    """All that is outstanding. `random_bits(n)` gives n bits that nobody can predict; `unfold` makes of a Sole what it stands
    for, here too."""

    def __init__(self, random_bits: Callable[[int], int], unfold: Callable[[Sole], Attempt]) -> None:
        self.outstanding: dict[int, Attempt | Sole] = {}  # by key
        self._random_bits = random_bits
        self._unfold = unfold
        self._frames: dict[int, tuple[bytes, bytes]] = {}
        self._lines: dict[
            int, deque[Sole]
        ] = {}  # by server, those sent last behind the others, as their wakes are, nearly
        self._chances: list[tuple[int, int, bytes]] = []
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
        drawn, number, case = self._chances.pop() if self._chances else self._draw()
        fresh = False
        if stream:
            slot, cased = STREAM, False
            peer.streaming += 1
        else:
            slot = number % len(peer.left)
            if peer.left[slot] > 0 and now >= peer.frugal_until:
                peer.left[slot] -= 1
            else:
                slot, fresh = peer.find_slot(slot, now, self._random_bits)
            peer.busy[slot] += 1
            if cased:
                question = flip_case(question, int.from_bytes(case))
        place = index << 32 | slot << 16
        key = place | drawn
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

    def send_sole(self, sole: Sole, peer: Peer, now: float, wake: float) -> tuple[int, int, bool, bytes]:
        """As `launch`, for a plain question over UDP; what leaves is a Send in all but name."""
        ask, left, edns = sole.ask, peer.left, peer.edns
        drawn, number, case = self._chances.pop() if self._chances else self._draw()
        slot = number % len(left)
        fresh = False
        if left[slot] > 0 and now >= peer.frugal_until:
            left[slot] -= 1
        else:
            slot, fresh = peer.find_slot(slot, now, self._random_bits)
        peer.busy[slot] += 1
        index = peer.index
        place = index << 32 | slot << 16
        key = place | drawn
        while key in self.outstanding:
            key = place | self._random_bits(16)
        question = flip_case(ask.question, int.from_bytes(case)) if peer.cased else ask.question
        sole.peer, sole.key, sole.question, sole.cased, sole.edns = peer, key, question, peer.cased, edns
        sole.sent, sole.wake = now, wake
        self.outstanding[key] = sole
        line = self._lines.get(index)
        if line is None:
            line = self._lines[index] = deque()
        while line and line[0].over:
            line.popleft()
        line.append(sole)
        if wake < self.soonest:
            self.soonest = wake
        head, tail = self._frames.get(ask.flags << 1 | edns) or self._frame(ask.flags, edns)
        return index, slot, fresh, (key & 0xFFFF).to_bytes(2) + head + question + tail

    def _frame(self, flags: int, edns: bool) -> tuple[bytes, bytes]:
        """What stands before and behind the question in a query without options; the few flags there are keep it small."""
        whole = upstream_query(Ask(b"", flags, b""), 0, b"", UPSTREAM_UDP_SIZE if edns else None)
        frame = self._frames[flags << 1 | edns] = whole[2:12], whole[12:]
        return frame

    def _draw(self) -> tuple[int, int, bytes]:
        """What chance says of one message, drawn for many at once: a system call for each would be dear."""
        octets = _CHANCE.size * _CHANCES
        self._chances = list(_CHANCE.iter_unpack(self._random_bits(8 * octets).to_bytes(octets)))
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
        return self._whole(self.outstanding.get(server << 32 | slot << 16 | message[0] << 8 | message[1]))

    def at(self, server: int, slot: int) -> list[Attempt]:
        """All that is outstanding in one slot."""
        place = server << 16 | slot
        found = [attempt for key, attempt in self.outstanding.items() if key >> 16 == place]
        return [self._unfold(each) if isinstance(each, Sole) else each for each in found]

    def all(self) -> list[Attempt]:
        return [self._unfold(each) if isinstance(each, Sole) else each for each in list(self.outstanding.values())]

    def _whole(self, found: Attempt | Sole | None) -> Attempt | None:
        return self._unfold(found) if isinstance(found, Sole) else found

    # Time

    def unfolded(self, sole: Sole, attempt: Attempt) -> None:
        """An attempt stands in the place of a Sole from now on."""
        sole.over = True
        self.outstanding[sole.key] = attempt
        self.wake_at(attempt, sole.wake)

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
        return isinstance(attempt, Attempt) and attempt.wake == entry[0]

    def next_wake(self) -> float | None:
        """When an attempt must be looked after."""
        wakes = self._wakes
        self.soonest = float("inf")
        while wakes and not self._is_meant(wakes[0]):
            heappop(wakes)
        soonest = wakes[0][0] if wakes else None
        for line in self._lines.values():
            while line and line[0].over:
                line.popleft()
            if line and (soonest is None or line[0].wake < soonest):
                soonest = line[0].wake
        return soonest

    def due(self, now: float) -> Attempt | None:
        """The next attempt that must be looked after; it is for the caller to close it or set another hour."""
        for line in self._lines.values():
            while line and (line[0].over or line[0].wake <= now):
                if not (sole := line.popleft()).over:
                    self._unfold(sole)
        wake = self.next_wake()
        if wake is None or wake > now:
            return None
        return self._whole(self.outstanding[heappop(self._wakes)[1]])
