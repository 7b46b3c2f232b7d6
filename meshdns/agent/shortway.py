"""Inside: the short way of plain questions: from the UDP door to an upstream and back, with one object for each.

A packet enters; False leaves at once where it is not plain, and the ordinary way through `resolver` takes it. Plain is what
most of a workload's questions to others are: no EDNS options, a name that neither the mesh nor the search list nor a
special use claims, nothing kept about it. The upstream's reply is plain when its answer is nothing but records of the
question's own name; any other, and every failure, goes on along the ordinary way from there. So both ways give the same
answers (tests/agent/test_shortway.py). It must never know sockets.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from meshdns import messages, wire
from meshdns.agent.attempts import Sole
from meshdns.agent.cache import APART, keys_of
from meshdns.agent.chain import is_plain
from meshdns.agent.resolver import Answered, Resolver
from meshdns.agent.steps import Reply, Result
from meshdns.defaults import PLAIN_OPTS
from meshdns.wire import AD, CD, DO, RD, Ask, Body, Edns, new_ask

# Zone transfers, signatures of messages and all types at once are no plain matter.
_ODD_TYPES = frozenset(wire.TYPES[word].to_bytes(2) for word in ("OPT", "TKEY", "TSIG", "IXFR", "AXFR", "ANY"))
_IN = b"\x00\x01"
_SHORTEST = 12 + 3 + 4  # octets of a header and a question for a name of one letter
_OPT = 11  # octets of an OPT record without options


def _heads() -> dict[bytes, tuple[int, int]]:
    """Plain headers behind the id -> their RD, AD and CD bits, and the octets of OPT. RD is set; one question, no records."""
    flags = [RD | ad | cd for ad in (0, AD) for cd in (0, CD)]
    return {wire.HEADER.pack(0, each, 1, 0, 0, opts)[2:]: (each, opts * _OPT) for each in flags for opts in (0, 1)}


_HEADS = _heads()


class Door(Protocol):
    """Where a packet came in, and its answer goes out."""

    def give(self, address: tuple[object, ...], came: float, answered: Answered, /) -> None: ...
    def give_relayed(self, address: tuple[object, ...], message: bytes, qtype: int, seconds: float, /) -> None: ...


class AskAlone(Protocol):
    """The upstream side: whether a question can be asked by the short way."""

    def __call__(self, sole: Sole, now: float, /) -> bool: ...


class Relayed(Sole):
    """One plain question under way: what is asked, and the client that waits."""

    __slots__ = ("address", "door", "end", "keys", "opt", "packet", "way")

    def __init__(
        self, ask: Ask, keys: tuple[bytes, bytes], way: "ShortWay", packet: bytes, end: int, opt: Edns | None,
        address: tuple[object, ...], door: Door,
    ) -> None:  # fmt: skip
        self.ask = ask
        self.over = False
        self.keys = keys  # by which the cache knows it
        self.way = way
        self.packet = packet
        self.end = end  # of the question in it
        self.opt = opt  # the client's
        self.address = address
        self.door = door

    def whose(self) -> object:
        return self.resume

    def answered(self, message: bytes, body: Body, now: float, plain: bool) -> None:
        """Give the good answer to the client, if it is a plain one."""
        way, packet, end, opt = self.way, self.packet, self.end, self.opt
        if not plain and not (is_plain(message, body, end) and (not body.opt or body.fixed[-1] == body.opt + 1)):
            return self.resume(Reply(message, self.peer.label, now - self.sent, body))
        way.cache.put_at(self.keys, self.ask, message, body, now)
        limit = 512 if opt is None else min(max(512, opt.udp_size), way.resolver.place.udp_max)
        answer = messages.dress(packet[:2], RD | packet[3] & CD, packet[12:end], opt, message, limit, body)
        return self.door.give_relayed(self.address, answer, packet[end - 4] << 8 | packet[end - 3], now - self.sent)

    def resume(self, result: Result) -> None:
        """Go on along the ordinary way: something else came than a good answer to a question asked alone."""
        done = partial(self.door.give, self.address, self.sent)
        self.way.resolver.resume(self.packet, self.ask, result, self.way.clock(), done)


class ShortWay:
    """The way of all plain questions of one agent."""

    def __init__(self, resolver: Resolver, ask_alone: AskAlone, clock: Callable[[], float]) -> None:
        self.resolver = resolver
        self.cache = resolver.lookups.cache
        self.clock = clock
        self._ask_alone = ask_alone
        self._opts: dict[bytes, Edns] = {}  # what plain OPT records say

    def take(self, packet: bytes, address: tuple[object, ...], door: Door, now: float) -> bool:
        """Relay a packet that is plain; False: nothing was done about it."""
        head = _HEADS.get(packet[2:12])
        if head is None:
            return False
        flags, size = head
        end = len(packet) - size
        if end < _SHORTEST:
            return False
        question = packet[12:end]
        name = question[:-4].lower()
        if question[-2:] != _IN or not self.resolver.is_foreign(name) or question[-4:-2] in _ODD_TYPES:
            return False
        opt = None
        if size:
            if (opt := self._opt(packet[end:])) is None:
                return False
            flags |= opt.do and DO
        asked = name + question[-4:]
        ask = new_ask((asked, flags, b""))
        keys = keys_of(ask) if flags & APART else (asked, name)
        if not self.cache.lacks(keys):
            return False
        if not self._ask_alone(Relayed(ask, keys, self, packet, end, opt, address, door), now):
            return False
        self.cache.misses += 1
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
