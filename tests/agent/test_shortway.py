"""The short way of plain questions: it gives the very bytes that the ordinary way gives, whatever is asked and answered."""

import struct
from random import Random
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshdns import names, table, wire
from meshdns.agent.attempts import Sole
from meshdns.agent.cache import Cache
from meshdns.agent.flights import Finished, Flights, Send, Steps
from meshdns.agent.ledger import Ledger
from meshdns.agent.lifetimes import Limits
from meshdns.agent.lookups import Lookups
from meshdns.agent.resolver import Answered, Place, Resolver
from meshdns.agent.servers import Options
from meshdns.agent.shortway import ShortWay
from meshdns.agent.special import Special
from meshdns.values import Server
from tests.agent.mesh import HOSTS, SEARCH, lines

TYPES = [wire.A, wire.AAAA, wire.TXT, wire.MX, wire.CNAME, wire.HTTPS, wire.ANY, wire.PTR, wire.SOA, 65280]
NAMES = [
    "www.example.org", "a.b.c.example.org", "com", "x" * 63 + ".example.org", "db1.example.com", "other.example.com",
    "a.wild.example.com", "productpage", "reviews.ns2", "www.python.org.ns1.svc.cluster.local", "nobody.ns1.svc.cluster.local",
    "ns1.svc.cluster.local", "cluster.local", "local", "localhost", "a.localhost", "x.onion", "1.0.4.10.in-addr.arpa",
    "_http._tcp.www.example.org", "loop.meshdns.example", "corp.example.com", "www.corp.example.com",
]  # fmt: skip
FLAGS = [wire.RD, wire.RD | wire.AD, wire.RD | wire.CD, 0, wire.RD | wire.QR, wire.RD | 0x0800]
OPTS = [
    b"", wire.opt_record(1232, 0, False, b""), wire.opt_record(4096, 0, True, b""), wire.opt_record(100, 0, False, b""),
    wire.opt_record(1232, 0, False, b"\x00\x0a\x00\x08abcdefgh"), b"\x00\x00\x29\x04\xd0\x00\x01\x00\x00\x00\x00",
    b"\x00\x00\x29\x04",
]  # fmt: skip


@attrs.define(slots=False)
class World:
    """One agent without sockets, asked over UDP: `short` says whether the short way is tried first."""

    short: bool
    now: float = 100.0
    given: list[bytes] = attrs.field(factory=list)
    sent: list[tuple[int, int, bytes]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.flights = Flights(Random(3).getrandbits)
        self.cache = Cache(Limits())
        lookups = Lookups(self.cache, self._ask, lambda seconds, call: lambda: None)
        search = tuple(map(names.parse, (*SEARCH, "corp.example.com")))
        place = Place(namespace="ns1", domain=names.parse("cluster.local"), search=search)
        self.resolver = Resolver(place, lookups, lambda name: False, Special())
        self.resolver.adopt(table.read(lines(HOSTS)))
        self.ledger = Ledger(self.resolver.packs.datagrams)
        self.way = ShortWay(self.resolver, self._ask_alone, lambda: self.now)
        self.took = 0
        self._run(self.flights.replace([Server("192.0.2.1")], Options(), 8, self.now))
        self.sent.clear()

    # the door

    def ask(self, packet: bytes) -> None:
        if self.short and self.way.take(packet, (), self, self.now):
            self.took += 1
        else:
            self.resolver.answer(
                packet, tcp=False, now=self.now, done=lambda answered: self.give((), self.now, answered)
            )

    def give(self, address: tuple[object, ...], came: float, answered: Answered) -> None:
        self.given.append(answered.message)
        self.ledger.answered("udp", answered, self.now - came)

    def give_relayed(self, address: tuple[object, ...], message: bytes, qtype: int, seconds: float) -> None:
        self.given.append(message)
        self.ledger.relayed(qtype, message[3] & 0x0F, seconds)

    # the upstream side, as upstream.py does it

    def _ask(self, ask: wire.Ask, done: Any) -> None:
        self._run(self.flights.ask(ask, lambda result: done(result, self.now), self.now))

    def _ask_alone(self, sole: Sole, now: float) -> bool:
        sent = self.flights.ask_alone(sole, now)
        if sent is not None:
            self._run([Send(*sent)])
        return sent is not None

    def hear(self, server: int, slot: int, message: bytes) -> None:
        answered = self.flights.answered_alone(server << 32 | slot << 16, message, self.now)
        if answered is not None:
            sole, body, plain = answered
            sole.answered(message, body, self.now, plain)
        else:
            self._run(self.flights.received(server, slot, message, self.now))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self._run(self.flights.tick(self.now))

    def _run(self, steps: Steps) -> None:
        for step in steps:
            if isinstance(step, Send):
                self.sent.append((step.server, step.slot, step.message))
            elif isinstance(step, Finished):
                for waiter in step.waiters:
                    waiter(step.result)  # type: ignore[operator]

    def packed(self) -> dict[bytes, tuple[Any, ...]]:
        """The answers kept packed."""
        known = self.resolver.packs.datagrams.known
        return {
            question: (each.tail, each.type, each.rcode, each.source, each.until, each.alone)
            for question, each in known.items()
        }

    # what the upstream says

    def answer(self, kind: str) -> None:
        """To everything that is open."""
        sent, self.sent = self.sent, []
        for server, slot, message in sent:
            if (reply := said(kind, message)) is not None:
                self.hear(server, slot, reply)


SOA = b"\x00\x00" + struct.pack("!5I", 1, 2, 3, 4, 5)
OWN = b"\xc0\x0c"  # the question's own name
# What a server says, in a word -> flags, answer, authority (as (owner, type or None for that asked, RDATA or None for any)).
SAYS: dict[str, tuple[int, list[Any], list[Any]]] = {
    "record": (0, [(OWN, None, None)], []),
    "records": (0, [(OWN, None, None)] * 60, []),
    "authority": (0, [(OWN, None, None)], [(OWN, wire.SOA, SOA)]),
    "alias": (0, [(OWN, wire.CNAME, names.parse("end.example"))], []),
    "inward": (0, [(OWN, wire.CNAME, names.parse("db1.example.com"))], []),
    "stranger": (0, [(OWN, None, None), (b"\x01z" + OWN, None, None)], []),
    "ad": (wire.AD | wire.AA, [(OWN, None, None)], []),
    "nodata": (0, [], [(OWN, wire.SOA, SOA)]),
    "nxdomain": (wire.NXDOMAIN, [], [(OWN, wire.SOA, SOA)]),
    "empty": (0, [], []),
    "servfail": (wire.SERVFAIL, [], []),
}
RDATA = {wire.A: b"\xc0\x00\x02\x01", wire.AAAA: bytes(15) + b"\x07"}


def said(kind: str, query: bytes) -> bytes | None:
    """What a server says to a query; None: nothing."""
    end = wire.skip_name(query, 12) + 4
    question, opt = query[12:end], query[end:]
    if kind == "silence":
        return None
    if kind == "cut":
        return (said("record", query) or b"")[: -1 - len(opt)]
    if kind == "lowered":
        question, kind = question[:-4].lower() + question[-4:], "record"
    if kind == "options":
        opt, kind = wire.opt_record(1232, 0, False, b"\x00\x0f\x00\x02\x00\x12"), "record"
    if kind == "bare":
        opt, kind = b"", "record"
    flags, answers, authority = SAYS[kind]
    rtype = int.from_bytes(question[-4:-2])
    body = b""
    for owner, own, rdata in answers + authority:
        rdata = RDATA.get(rtype, b"\x00") if rdata is None else rdata
        body += owner + struct.pack("!HHIH", own or rtype, wire.IN, 60, len(rdata)) + rdata
    counts = (1, len(answers), len(authority), int(bool(opt)))
    return query[:2] + struct.pack("!5H", flags | wire.QR | wire.RA | wire.RD, *counts) + question + body + opt


KINDS = [*SAYS, "cut", "lowered", "options", "bare", "silence"]


def packet(name: str, rtype: int, flags: int, opt: bytes, number: int) -> bytes:
    question = names.parse(name).replace(b"w", b"W") + struct.pack("!2H", rtype, wire.IN)
    return struct.pack("!6H", number, flags, 1, 0, 0, int(bool(opt))) + question + opt


ASK = st.tuples(
    st.just("ask"), st.sampled_from(NAMES), st.sampled_from(TYPES), st.sampled_from(FLAGS), st.sampled_from(OPTS)
)
SAY = st.tuples(st.just("say"), st.sampled_from(KINDS))
WAIT = st.tuples(st.just("wait"), st.sampled_from([0.5, 2.5, 6.0, 70.0]))


class SameTests(SynchronousTestCase):
    @settings(max_examples=400, deadline=None)
    @given(st.lists(st.one_of(ASK, ASK, SAY, SAY, WAIT), min_size=4, max_size=30))
    def test_same_bytes(self, steps: list[tuple[Any, ...]]) -> None:
        """D18, D24, D25: the same answers, the same questions upstream, the same counts."""
        short, ordinary = World(True), World(False)
        for number, (what, *rest) in enumerate(steps):
            for world in (short, ordinary):
                if what == "ask":
                    name, rtype, flags, opt = rest
                    world.ask(packet(name, rtype, flags, opt, number))
                elif what == "say":
                    world.answer(rest[0])
                else:
                    world.wait(rest[0])
            self.assertEqual(ordinary.given, short.given)
            self.assertEqual([one[2] for one in ordinary.sent], [one[2] for one in short.sent])
            self.assertEqual(ordinary.packed(), short.packed())
        self.assertEqual(ordinary.ledger.queries(), short.ledger.queries())
        self.assertEqual(
            (ordinary.cache.hits, ordinary.cache.misses, ordinary.cache.stale, ordinary.cache.entries),
            (short.cache.hits, short.cache.misses, short.cache.stale, short.cache.entries),
        )
        self.assertEqual(ordinary.flights.inflight, short.flights.inflight)

    def test_kept(self) -> None:
        """D25: what the cache holds is taken too, and once more when its TTLs have ticked."""
        world = World(True)
        asked = packet("www.example.org", wire.A, wire.RD, b"", 1)
        world.ask(asked)
        world.answer("record")
        for took, seconds in ((2, 0.5), (3, 2.5)):
            world.wait(seconds)
            world.ask(asked)
            self.assertEqual((took, 1, took), (world.took, len(world.packed()), len(world.given)))
        self.assertEqual([b"\x00\x3c", b"\x00\x3b", b"\x00\x39"], [given[-8:-6] for given in world.given])

    def test_broken_rdata(self) -> None:
        """D2, D24: names in RDATA that make no sense pass as they came; where they must be read it is SERVFAIL, not silence."""
        world = World(True)
        for number, name in enumerate(("www.example.org", "www.python.org.ns1.svc.cluster.local")):
            world.ask(packet(name, wire.MX, wire.RD, b"", number))
            while world.sent:
                world.answer("record")
        self.assertEqual([0, 2], [given[3] & 0x0F for given in world.given])

    def test_is_taken(self) -> None:
        """Plain questions do take it, and no others: else the test above would compare nothing."""
        world = World(True)
        for name in NAMES:
            world.ask(packet(name, wire.A, wire.RD, b"", 1))
            world.wait(0.0)
        self.assertEqual(6, world.took)
        for opt in OPTS:
            world.ask(packet("opt.example.org", wire.A, wire.RD, opt, 1))
            world.answer("record")
            world.cache.clear()
        self.assertEqual(10, world.took)

    def test_no_name(self) -> None:
        """D2: a packet that ends where its name should begin, the root, and names cut short are for the ordinary way."""
        world = World(True)
        head = packet("x.example.org", wire.A, wire.RD, b"", 1)[:12]
        for rest in (
            b"",
            b"\x00\x01\x00\x01",
            b"\x00\x00\x01\x00\x01",
            b"\x05x\x00\x01\x00\x01",
            b"\xc0\x0c\x00\x01\x00\x01",
        ):
            self.assertFalse(world.way.take(head + rest, (), world, 0.0))

    def test_new_table(self) -> None:
        """D28: a name that was an upstream's is the mesh's from the very next packet."""
        world = World(True)
        asked = packet("www.example.org", wire.A, wire.RD, b"", 1)
        world.ask(asked)
        self.assertEqual(1, world.took)
        world.resolver.adopt(table.read(lines([{"host": "www.example.org", "ips": ["240.240.0.9"]}])))
        world.ask(asked)
        self.assertEqual(1, world.took)
        self.assertIn(b"\xf0\xf0\x00\x09", world.given[-1])
