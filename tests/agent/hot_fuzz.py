"""The hot path against the ordinary one: for random questions, tables and changes both give the same bytes.

The real UDP door reads batches from memory. Each answer that it gives from a pack must be what the resolver says to the same
packet at the same time, or, where a service has several addresses, that in another order. Each question is answered once, and
only once. `python -m tests.agent.hot_fuzz QUESTIONS [SEED]` runs it for longer than the tests do.
"""

import struct
import sys
from collections.abc import Sequence
from copy import copy
from random import Random
from typing import Any
from zlib import crc32

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from meshdns import messages, names, table, wire
from meshdns.agent.batch import Batch
from meshdns.agent.cache import Cache
from meshdns.agent.front import Front
from meshdns.agent.hotpath import UdpPort, UdpProtocol
from meshdns.agent.ledger import Ledger
from meshdns.agent.lifetimes import Limits
from meshdns.agent.linger import Linger
from meshdns.agent.lookups import Lookups
from meshdns.agent.packs import Packs
from meshdns.agent.resolver import Answered, Place, Resolver
from meshdns.agent.slots import HOST, PACKET, SLOT, Origin
from meshdns.agent.steps import Failed, Reply
from meshdns.agent.streams import TcpFactory
from meshdns.defaults import UDP_BATCH
from meshdns.entries import Entry
from meshdns.messages import Record, Sections
from meshdns.table import Loader, Table

_LABELS = ("a", "b", "ns1", "ns2", "svc", "x-1", "_http", "_tcp")
_ENDS = (
    "ns1.svc.cluster.local",
    "ns2.svc.cluster.local",
    "svc.cluster.local",
    "cluster.local",
    "example.com",
    "corp.example.com",
)
_SEARCH = ("ns1.svc.cluster.local", "svc.cluster.local", "cluster.local")
_V4 = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "198.51.100.7")
_TYPES = (
    wire.A,
    wire.A,
    wire.A,
    wire.AAAA,
    wire.AAAA,
    wire.SRV,
    wire.PTR,
    wire.CNAME,
    wire.TXT,
    wire.SOA,
    wire.ANY,
    wire.HTTPS,
)
# Without AD: who asks with it may have the cache learn anew, and a pack says for the rest of its second what was said before.
_FLAGS = (wire.RD, wire.RD, wire.RD, wire.RD | wire.CD, 0)
_OPTS = (
    b"",
    b"",
    wire.opt_record(1232, 0, False, b""),
    wire.opt_record(4096, 0, True, b""),
    wire.opt_record(100, 0, False, b""),
)
_TTLS = (0, 1, 2, 5, 12, 30, 300, 7200)
_SOURCE = bytes([127, 0, 0, 1]) + bytes(20)


class Memory:
    """Datagrams of nobody: what shall arrive, and what left, in place or later, by the number of the packet."""

    has_one = True

    def __init__(self) -> None:
        self.octets: Any = _Octets(UDP_BATCH * SLOT)
        self.received = [0] * UDP_BATCH
        self.leaving = [0] * UDP_BATCH
        self.packets: Sequence[bytes] = ()
        self.waiting: list[int] = []
        self.packed: dict[int, bytes] = {}
        self.sent: list[tuple[int, bytes]] = []
        self.singles = 0  # that were taken one by one
        self._slots: list[int] = []  # what stands in them

    def bring(self, packets: Sequence[bytes]) -> None:
        self.packets, self.waiting = packets, list(range(len(packets)))
        self.packed, self.sent = {}, []

    def receive(self) -> int:
        self._slots, self.waiting = self.waiting, []
        for slot, packet in enumerate(self.packets[number] for number in self._slots):
            at = slot * SLOT
            self.octets[at + HOST : at + HOST + 24] = _SOURCE
            self.octets[at + PACKET : at + PACKET + len(packet)] = packet
            self.received[slot] = len(packet)
        return len(self._slots)

    def answer(self, first: int, end: int) -> int:
        for slot in range(first, end):
            start = slot * SLOT + PACKET
            self._leave(self._slots[slot], self.octets[start : start + self.leaving[slot]])
        return 0

    def _leave(self, number: int, message: bytes) -> None:
        if number in self.packed:
            raise AssertionError(f"packet {number} was answered twice")
        self.packed[number] = message

    def send(self, outbox: Sequence[tuple[bytes, Origin]]) -> int:
        self.sent += [(origin[1], message) for message, origin in outbox]
        return 0

    def origin(self, number: int) -> Origin:
        return "127.0.0.1", self._slots[number]

    def host(self, origin: Origin) -> str:
        return str(origin[0])

    def one(self, size: int) -> tuple[bytes, Origin]:
        if not self.waiting:
            raise BlockingIOError
        number = self.waiting.pop(0)
        self.singles += 1
        return self.packets[number][:size], ("127.0.0.1", number)

    def send_one(self, message: bytes, origin: Origin) -> int:
        self._leave(origin[1], message)
        return len(message)


class Line:
    """A TCP connection in memory: what was sent on it."""

    def __init__(self) -> None:
        self.sent = b""

    def send(self, octets: bytes) -> None:
        self.sent += octets

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 40000)

    def registerProducer(self, producer: object, streaming: bool) -> None: ...

    def frames(self) -> list[bytes]:
        """What was sent, message by message, and forgotten."""
        found, at = [], 0
        while at < len(self.sent):
            end = at + 2 + int.from_bytes(self.sent[at : at + 2])
            found.append(self.sent[at + 2 : end])
            at = end
        self.sent = b""
        return found


class _Octets(bytearray):
    def __getitem__(self, where: Any) -> Any:
        return bytes(super().__getitem__(where))


@attrs.define(slots=False)
class Anybody:
    """Access for the one source there is."""

    sources: set[bytes | str] = attrs.field(factory=set)
    forget_at: float = float("inf")

    def allows(self, address: str) -> bool:
        return True

    def forget(self) -> None: ...


class Difference(AssertionError):
    """The two paths disagree."""


class World:
    """An agent without sockets whose table, place, time and upstream change at random."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 1000.0
        self.questions = self.packed = self.changes = 0
        self._asked: list[bytes] = []  # packets that may come again
        self._hosts: dict[str, Entry] = {}
        self._table: Table | None = None
        self._zones: tuple[str, ...] = ("cluster.local",)
        self._ttl = 30
        lookups = Lookups(Cache(Limits()), self._upstream, lambda seconds, call: lambda: None)
        self.resolver = Resolver(self._place(), lookups, lambda name: False)
        self.ledger = Ledger(self.resolver.packs.datagrams)
        front = Front(
            self.resolver.answer, lambda source: True, self.ledger, lambda: self.now, self._bug, lambda *_: None
        )
        protocol = UdpProtocol(front, Clock(), batch := Batch())
        self.memory = Memory()
        self._door = UdpPort(
            53, protocol, "127.0.0.1", Clock(), front=front, packed=self.resolver.packs.datagrams, access=Anybody(), batch=batch,
            linger=Linger(Clock()), open_datagrams=lambda bound: self.memory, take_short=lambda *_: False,
        )  # fmt: skip
        self._door.use(self.memory)
        protocol.transport = self.memory
        self._line = Line()
        self._stream = TcpFactory(front, self.resolver.packs.streams, Clock()).buildProtocol(None)
        self._stream.makeConnection(self._line)
        self._replace_table()

    def run(self, questions: int) -> None:
        """Raises Difference."""
        while self.questions < questions:
            chance = self.random.random()
            if chance < 0.12:
                self._change()
            elif chance < 0.3:
                self.now += self.random.choice((0.01, 0.2, 0.5, 1.0, 1.0, 5.0, 40.0))
            if self.random.random() < 0.3:
                self._pipeline()
            else:
                self._batch()

    # Questions

    def _batch(self) -> None:
        memory, random = self.memory, self.random
        count = random.choice((1, 1, 2, 5, 20, UDP_BATCH))
        memory.bring([self._packet() for _ in range(count)])
        while memory.waiting:
            self._door.read()
        self.questions += count
        self.packed += len(memory.packed)
        answered = sorted([*memory.packed, *(number for number, _ in memory.sent)])
        if answered != list(range(count)):
            raise Difference(f"answered were {answered} of {count}")
        for number, message in memory.packed.items():
            self._compare(memory.packets[number], message, tcp=False)

    def _pipeline(self) -> None:
        """Many questions on one connection, cut anywhere."""
        random, known = self.random, self.resolver.packs.streams.known
        packets = [number.to_bytes(2) + self._packet()[2:] for number in range(random.choice((1, 2, 10, 60)))]
        octets = b"".join(len(packet).to_bytes(2) + packet for packet in packets)
        packed = {packet for packet in packets if packet[2:] in known and self.now < known[packet[2:]].until}
        for piece in range(0, len(octets), size := random.choice((7, 100, 65536))):
            self._stream.dataReceived(octets[piece : piece + size])
        answers = {int.from_bytes(message[:2]): message for message in self._line.frames()}
        if sorted(answers) != list(range(len(packets))):
            raise Difference(f"over TCP answered were {sorted(answers)} of {len(packets)}")
        self.questions += len(packets)
        self.packed += len(packed)
        for packet in packed:
            self._compare(packet, answers[int.from_bytes(packet[:2])], tcp=True)

    def _packet(self) -> bytes:
        """A question: new, or one that came before, under another id."""
        random = self.random
        if self._asked and random.random() < 0.7:
            packet = random.choice(self._asked)
        else:
            opt = random.choice(_OPTS)
            header = struct.pack("!5H", random.choice(_FLAGS), 1, 0, 0, bool(opt))
            packet = header + self._cased(self._name()) + struct.pack("!2H", random.choice(_TYPES), wire.IN) + opt
            self._asked.append(packet)
            del self._asked[:-300]
        return random.randbytes(2) + packet

    def _name(self) -> bytes:
        random = self.random
        if random.random() < 0.08:
            return names.reverse(random.choice(_V4))
        if self._hosts and random.random() < 0.6:
            host = random.choice(list(self._hosts)).replace("*.", "w.")
            for end in random.sample(_ENDS, 2):
                if random.random() < 0.4:
                    host = host.removesuffix("." + end) or host
            if random.random() < 0.3:
                host += "." + random.choice(_SEARCH)
            return names.parse(random.choice(("", "", "", "a.", "_http._tcp.")) + host)
        front = ".".join(random.choices(_LABELS, k=random.choice((1, 1, 2, 3))))
        return names.parse(f"{front}.{random.choice((*_ENDS, 'example.org', 'org'))}")

    def _cased(self, name: bytes) -> bytes:
        return name.replace(b"a", b"A").replace(b"svc", b"SvC") if self.random.random() < 0.1 else name

    def _compare(self, packet: bytes, message: bytes, *, tcp: bool) -> None:
        """What the ordinary path says now, in one of the orders it may be said in."""
        double = copy(self.resolver)
        double.packs = Packs()
        double._turns = dict(self.resolver._turns)
        said: list[Answered] = []
        for _ in range(len(_V4) + 1):
            double.answer(packet, tcp=tcp, now=self.now, done=said.append)
            if said and said[-1].message == message:
                return
        told = [answered.message.hex() for answered in said[:2]]
        query = wire.read_query(packet)
        raise Difference(f"to {packet.hex()} ({query}) the hot path said {message.hex()}, the ordinary one {told}")

    def _bug(self, packet: bytes, source: str) -> None:
        raise  # the exception under way

    # Changes

    def _change(self) -> None:
        self.changes += 1
        chance = self.random.random()
        if chance < 0.75:
            self._change_hosts()
        elif chance < 0.88:
            self._replace_table()
        else:
            self.resolver.move(self._place())

    def _place(self) -> Place:
        random = self.random
        search = [names.parse(each) for each in random.choice((_SEARCH, (*_SEARCH, "corp.example.com"), ()))]
        return Place(
            random.choice(("ns1", "ns2")),
            names.parse("cluster.local"),
            search,
            autopath=random.choice(("all", "mesh", "off")),
        )

    def _change_hosts(self) -> None:
        """A small delta."""
        random, hosts = self.random, dict(self._hosts)
        if random.random() < 0.1:
            self._ttl = 37 - self._ttl
        for _ in range(random.choice((1, 1, 2, 4))):
            if hosts and random.random() < 0.4:
                del hosts[random.choice(list(hosts))]
            else:
                entry = self._entry(hosts)
                hosts[entry.host] = entry
        self._adopt(hosts, delta=True)

    def _replace_table(self) -> None:
        random = self.random
        self._zones = random.choice(
            (("cluster.local",), ("cluster.local", "example.com"), ("cluster.local", "ns2.svc.cluster.local"))
        )
        self._ttl = random.choice((30, 7))
        hosts: dict[str, Entry] = {}
        for _ in range(random.randrange(12)):
            entry = self._entry(hosts)
            hosts[entry.host] = entry
        self._adopt(hosts, delta=random.random() < 0.5)

    def _adopt(self, hosts: dict[str, Entry], delta: bool) -> None:
        new = Table.of(hosts.values(), self._zones, self._ttl)
        if delta and self._table is not None:
            loader = Loader(self._table)
            for line in table.diff(self._table, new):
                loader.feed(line.encode())
            new = loader.finish()
        self._hosts, self._table = hosts, new
        self.resolver.adopt(new)

    def _entry(self, hosts: dict[str, Entry]) -> Entry:
        random = self.random
        if hosts and random.random() < 0.4:
            host = random.choice(list(hosts))  # changed
        else:
            front = ".".join(random.choices(_LABELS[:6], k=random.choice((1, 1, 1, 2))))
            host = random.choice(("", "", "", "", "*.")) + f"{front}.{random.choice(_ENDS)}"
        row: dict[str, Any] = {"host": host, "registry": random.choice(("Kubernetes", "Kubernetes", "External"))}
        if random.random() < 0.12 and not host.startswith("*"):
            row["alias"] = random.choice([*hosts, "a.example.org", "b.example.com"]).replace("*.", "w.")
        else:
            row["ips"] = random.sample(_V4, random.choice((0, 1, 1, 2, 3))) + random.choice(
                ([], ["fd00::1"], ["fd00::1", "fd00::2"])
            )
        if random.random() < 0.2:
            row["ttl"] = random.choice((0, 7, 60))
        if random.random() < 0.3:
            row["ports"] = [{"name": "http", "number": 80, "protocol": "TCP"}]
        return table.entry(row)

    # The upstream

    def _upstream(self, ask: wire.Ask, done: Any) -> None:
        """It changes its mind from one question to the next, but not about whether a name exists: that would take back what it
        said of other types before."""
        random, name = self.random, ask.question[:-4]
        qtype = int.from_bytes(ask.question[-4:-2])
        ttl = random.choice(_TTLS)
        kind = random.choice(("own", "own", "own", "alias", "inward", "nodata", "many", "fail"))
        if crc32(name) % 8 == 0:
            kind = "nxdomain"
        elif qtype in (wire.SOA, wire.SRV, wire.ANY):
            kind = "nodata"
        if kind == "fail":
            return done(Failed("timeout", 22, "no answer"), self.now)
        rdata = {wire.A: b"\xc0\x00\x02\x01", wire.AAAA: bytes(15) + b"\x07"}.get(qtype, b"\x01x")
        if qtype in (wire.CNAME, wire.PTR):
            rdata = names.parse("somebody.example.net")
        answer = [Record(name, qtype, ttl, rdata)]
        authority: list[Record] = []
        if kind == "alias" or (kind == "inward" and not self._hosts):
            target = random.choice(("a.example.com", "b.example.com", "x-1.example.com", "b.example.org"))
            answer = [Record(name, wire.CNAME, 60, names.parse(target))]
        elif kind == "inward":
            target = random.choice([*self._hosts, "a.ns1.svc.cluster.local", "b.example.com"]).replace("*.", "w.")
            answer = [Record(name, wire.CNAME, 60, names.parse(target))]
        elif kind == "many":
            answer *= 60
        elif kind in ("nodata", "nxdomain"):
            soa = messages.soa_rdata(b"\x02ns\x00", b"\x04host\x00", 1, ttl)
            answer, authority = [], [Record(names.parent(name), wire.SOA, ttl, soa)]
        query = wire.read_query(wire.upstream_query(ask, 0, ask.question, 1232))
        assert isinstance(query, wire.Query)
        rcode = wire.NXDOMAIN if kind == "nxdomain" else 0
        message = messages.render(query, Sections(answer, authority), limit=4096, rcode=rcode)
        return done(Reply(message, "192.0.2.53", 0.001), self.now)


def main(words: Sequence[str]) -> None:
    questions = int(words[0])
    seed = int(words[1]) if len(words) > 1 else 1
    total = packed = changes = 0
    while total < questions:  # a new world now and then, so that one that went dull does not stay for ever
        world = World(seed)
        try:
            world.run(min(20_000, questions - total))
        except Difference as difference:
            sys.exit(f"seed {seed}: {difference}")
        total, packed, changes = total + world.questions, packed + world.packed, changes + world.changes
        seed += 1
    print(f"{total:,} questions, {packed:,} of them answered from packs, {changes:,} changes: no difference")


if __name__ == "__main__":
    main(sys.argv[1:])
