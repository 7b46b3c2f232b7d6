"""Inside: the short way of plain questions: from the UDP door to an upstream and back, with one object for each.

A packet enters; False leaves at once where it is not plain, and the ordinary way through `resolver` takes it. Plain is what
most of a workload's questions to others are: no EDNS options, a name that neither the mesh nor the search list nor a
special use claims, nothing kept about it. The upstream's reply is plain when its answer is nothing but records of the
question's own name; any other, and every failure, goes on along the ordinary way from there. So both ways give the same
answers (tests/agent/test_shortway.py). It must never know sockets.
"""

from collections.abc import Callable
from typing import Protocol

from meshdns import messages, wire
from meshdns.agent.chain import is_plain
from meshdns.agent.packed import PackedAnswers
from meshdns.agent.resolver import Answered, Resolver
from meshdns.agent.steps import Reply, Result
from meshdns.defaults import PLAIN_OPTS
from meshdns.wire import AD, CD, DO, RD, Ask, Edns

# Zone transfers, signatures of messages and all types at once are no plain matter.
_ODD_TYPES = frozenset(wire.TYPES[word].to_bytes(2) for word in ("OPT", "TKEY", "TSIG", "IXFR", "AXFR", "ANY"))
_IN = b"\x00\x01"
_UNDERSCORE = ord("_")  # of service labels, which the mesh may have below any host
_OPT = 11  # octets of an OPT record without options


def _heads() -> dict[bytes, tuple[int, int]]:
    """Plain headers behind the id -> their RD, AD and CD bits, and the octets of OPT. RD is set; one question, no records."""
    flags = [RD | ad | cd for ad in (0, AD) for cd in (0, CD)]
    return {wire.HEADER.pack(0, each, 1, 0, 0, opts)[2:]: (each, opts * _OPT) for each in flags for opts in (0, 1)}


_HEADS = _heads()


class Door(Protocol):
    """Where a packet came in, and its answer goes out."""

    def give(self, address: tuple[object, ...], came: float, answered: Answered, /) -> None: ...


class AskUpstream(Protocol):
    """The upstream side: `done` is called once with the result."""

    def __call__(self, ask: Ask, done: Callable[[Result], None], /) -> None: ...


class Relayed:
    """One plain question under way; called with its result."""

    __slots__ = ("address", "ask", "came", "door", "edns", "end", "flags", "packet", "way")

    def __init__(
        self, way: "ShortWay", packet: bytes, end: int, flags: int, edns: Edns | None, ask: Ask,
        address: tuple[object, ...], door: Door, came: float,
    ) -> None:  # fmt: skip
        self.way = way
        self.packet = packet
        self.end = end  # of the question in it
        self.flags = flags  # RD, AD and CD
        self.edns = edns
        self.ask = ask
        self.address = address
        self.door = door
        self.came = came

    def __call__(self, result: Result) -> None:
        self.way.finish(self, result)


class ShortWay:
    """The way of all plain questions of one agent."""

    def __init__(self, resolver: Resolver, ask_upstream: AskUpstream, clock: Callable[[], float]) -> None:
        self._resolver = resolver
        self._cache = resolver.lookups.cache
        self._packed: PackedAnswers = resolver.packed
        self._ask_upstream = ask_upstream
        self._clock = clock
        self._opts: dict[bytes, Edns] = {}  # what plain OPT records say

    def take(self, packet: bytes, address: tuple[object, ...], door: Door, now: float) -> bool:
        """Relay a packet that is plain; False: nothing was done about it."""
        head = _HEADS.get(packet[2:12])
        if head is None:
            return False
        flags, size = head
        end = len(packet) - size
        name = packet[12 : end - 4].lower()
        if not _is_name(name) or packet[end - 2 : end] != _IN or packet[end - 4 : end - 2] in _ODD_TYPES:
            return False
        edns = None
        if size and (edns := self._opt(packet[end:])) is None:
            return False
        if name[1] == _UNDERSCORE or not self._resolver.is_foreign(name):
            return False
        ask = Ask(name + packet[end - 4 : end], flags | DO if edns is not None and edns.do else flags, b"")
        if not self._cache.lacks(ask):
            return False
        self._ask_upstream(ask, Relayed(self, packet, end, flags, edns, ask, address, door, now))
        return True

    def _opt(self, record: bytes) -> Edns | None:
        """What an OPT record without options says; None when it is none, or of another version."""
        found = self._opts.get(record)
        if found is None:
            if not record.startswith(b"\x00\x00\x29") or record[9:] != b"\x00\x00" or record[6]:
                return None
            if len(self._opts) >= PLAIN_OPTS:
                self._opts.clear()
            found = self._opts[record] = wire.edns_at(record, 0)
        return found

    def finish(self, one: Relayed, result: Result) -> None:
        """Give a plain reply to the client; whatever else came goes the ordinary way."""
        resolver, packet, end, now = self._resolver, one.packet, one.end, self._clock()
        if type(result) is Reply and (body := result.body) is not None and is_plain(result.message, body, end):
            message, edns = result.message, one.edns
            self._cache.put(one.ask, message, body, now)
            limit = 512 if edns is None else min(max(512, edns.udp_size), resolver.place.udp_max)
            answer = messages.dress(packet[:2], one.flags, packet[12:end], edns, message, limit, body)
            qtype = packet[end - 4] << 8 | packet[end - 3]
            one.door.give(one.address, one.came, Answered(answer, "upstream", qtype, answer[3] & 0x0F))
        else:
            resolver.resume(
                packet, one.ask, result, now, lambda answered: one.door.give(one.address, one.came, answered)
            )


def _is_name(name: bytes) -> bool:
    """Whether these octets are one whole uncompressed name, not the root."""
    last = len(name) - 1
    position = 0
    try:
        while length := name[position]:
            if length > 63:
                return False
            position += 1 + length
    except IndexError:
        return False
    return position == last and 0 < last < 255
