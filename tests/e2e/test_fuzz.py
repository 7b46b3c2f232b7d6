"""Hundreds of thousands of broken packets at the open agent: it does not mind (rules D1, D2; "Bad input").

Mutations of good queries go out in bursts. After each burst a good query is asked: the answer proves that all before it was
read, for a socket is a queue, and that the mesh is answered meanwhile.
"""

import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import dns.message

from tests.e2e.agent import SERVICE, SERVICE_ADDRESS, Agent
from tests.e2e.stage import WAIT, DnsServer, Stage, framed, read_frame
from tests.e2e.upstreams import Unbound

SEED = 20_261_123
PHASE = 100_000  # packets after which the agent's memory is looked at
PHASES = 8  # at most; in one of them it must stand still, for its bounded stores and its peaks have an end
BURST = 100
GROWTH = 2 << 20  # octets that still count as noise; a single object kept per packet would be four times that
STREAMS = 1_500
_ESTABLISHED, _CLOSE_WAIT = "01", "08"
_QUESTIONS = [
    (SERVICE, "A"), (f"{SERVICE}.ns1.svc.cluster.local", "AAAA"), ("productpage", "A"), ("reviews.ns1", "ANY"),
    ("_mysql._tcp.mysql.db.svc.cluster.local", "SRV"), ("5.0.4.10.in-addr.arpa", "PTR"), ("nosuch.ns1.svc.cluster.local", "A"),
    ("anything.wild.example.com", "HTTPS"), ("orders-db", "A"), ("www.relay.example", "A"), ("no.relay.example", "TXT"),
    ("cluster.local", "SOA"), ("dns-version.cluster.local", "TXT"), ("a." * 120 + "relay.example", "A"), (".", "NS"),
]  # fmt: skip


def good_queries() -> list[bytes]:
    """Each without EDNS, with it, and with options."""
    ways: list[dict[str, Any]] = [{}, {"use_edns": 0, "payload": 1232}, {"want_dnssec": True, "pad": 128}]
    asked = [dns.message.make_query(name, rdtype, **way) for name, rdtype in _QUESTIONS for way in ways]
    return [query.to_wire() for query in (*asked, dns.message.make_query("version.bind", "TXT", "CH"))]


class Mutations:
    """Packets made worse, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._queries = good_queries()
        self._ways: list[Callable[[bytearray], None]] = [
            self._flip, self._flip, self._header, self._cut, self._append, self._insert, self._point, self._label,
            self._repeat, self._splice, self._case, self._case, self._name, self._name,
        ]  # fmt: skip

    def next(self) -> bytes:
        random = self._random
        packet = bytearray(random.choice(self._queries))
        for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
            random.choice(self._ways)(packet)
        packet[:2] = random.randbytes(2)
        return bytes(packet[:4000])

    def _at(self, packet: bytearray, first: int = 0) -> int:
        return self._random.randrange(first, max(first, len(packet)) + 1)

    def _flip(self, packet: bytearray) -> None:
        for _ in range(self._random.randint(1, 4)):
            at = self._at(packet)
            packet[at : at + 1] = self._random.randbytes(1)

    def _header(self, packet: bytearray) -> None:
        """Flags, opcode, or one of the four counts."""
        at = self._random.randrange(2, 12, 2)
        packet[at : at + 2] = struct.pack("!H", self._random.choice((0, 1, 2, 3, 255, 0x2800, 0x8000, 0xFFFF)))

    def _cut(self, packet: bytearray) -> None:
        del packet[self._at(packet) :]

    def _append(self, packet: bytearray) -> None:
        packet += self._random.randbytes(self._random.choice((1, 2, 11, 40, 500, 3000)))

    def _insert(self, packet: bytearray) -> None:
        at = self._at(packet, 12)
        packet[at:at] = self._random.randbytes(self._random.randint(1, 20))

    def _point(self, packet: bytearray) -> None:
        """A compression pointer, often to itself."""
        at = self._at(packet, 12)
        packet[at : at + 2] = struct.pack("!H", 0xC000 | self._random.choice((0, 12, at & 0x3FFF, at + 2, 0x3FFF)))

    def _label(self, packet: bytearray) -> None:
        packet[12:13] = bytes([self._random.choice((0, 1, 63, 64, 127, 128, 191, 192, 255))])

    def _repeat(self, packet: bytearray) -> None:
        start = self._at(packet, 12)
        packet += packet[start:] * self._random.randint(1, 5)

    def _splice(self, packet: bytearray) -> None:
        other = self._random.choice(self._queries)
        packet[self._at(packet) :] = other[self._random.randrange(len(other)) :]

    def _case(self, packet: bytearray) -> None:
        """Still a good query, but one that nobody has asked in these letters."""
        for at in range(12, len(packet)):
            if 0x61 <= packet[at] <= 0x7A and self._random.random() < 0.5:
                packet[at] -= 0x20

    def _name(self, packet: bytearray) -> None:
        """A good query again, for a name that nobody has ever asked."""
        label = b"%08x" % self._random.getrandbits(32)
        packet[12:12] = bytes([len(label)]) + label


def memory(agent: DnsServer) -> int:
    """The agent's resident memory, in octets."""
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) << 10


def connections(agent: DnsServer) -> int:
    """The TCP connections to the agent's door that it has not closed yet, be the client still there or not."""
    lines = Path(f"/proc/{agent.process.pid}/net/tcp").read_text().splitlines()[1:]
    states = (line.split()[3] for line in lines if line.split()[1].endswith(f":{agent.port:04X}"))
    return sum(state in (_ESTABLISHED, _CLOSE_WAIT) for state in states)


class FuzzTests(Stage):
    def setUp(self) -> None:
        super().setUp()
        self.unbound = Unbound.start(
            self, "relay.example", "@ SOA ns h 1 3600 600 86400 60\n@ NS ns\nwww A 192.0.2.80\n"
        )
        self.agent = Agent.start(self, servers=[self.unbound.address])
        self.answers_rightly()
        self.said = self.agent.lines()

    def answers_rightly(self) -> None:
        for tcp in (False, True):
            self.assertEqual([SERVICE_ADDRESS], self.agent.addresses(SERVICE, tcp=tcp))
            self.assertEqual(["192.0.2.80"], self.agent.addresses("www.relay.example", tcp=tcp))
            self.assertEqual(3, self.agent.ask("nosuch.ns1.svc.cluster.local", tcp=tcp).rcode())

    def nothing_said(self) -> None:
        self.assertEqual([], self.agent.complaints())
        self.assertEqual(self.said, self.agent.lines(), "the log must not grow by what arrives on a socket")

    def test_datagrams(self) -> None:
        """D2: hundreds of thousands of datagrams: no word in the log, no memory kept, right answers all the time and after."""
        mutations = Mutations(SEED)
        slowest, grown = 0.0, []
        with self.agent.place.make_socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            asking.settimeout(WAIT)
            asking.connect(("127.0.0.1", self.agent.port))
            while len(grown) < PHASES and not any(each < GROWTH for each in grown):
                before = memory(self.agent)
                for number in range(PHASE // BURST):
                    for _ in range(BURST):
                        asking.send(mutations.next())
                    slowest = max(slowest, self.mesh_answer(asking, number))
                grown.append(memory(self.agent) - before)
        self.answers_rightly()
        self.nothing_said()
        self.assertLess(min(grown), GROWTH, f"grown by {grown} octets, in each {PHASE} packets")
        self.assertLess(slowest, 1.0, "seconds for a mesh answer behind a burst")

    def mesh_answer(self, asking: socket.socket, number: int) -> float:
        """The seconds until the mesh answered; replies to what was sent before are passed over."""
        query = dns.message.make_query(SERVICE, "A", id=number & 0xFFFF).to_wire()
        started = monotonic()
        asking.send(query)
        while True:
            answer = asking.recv(65535)
            if answer[:2] == query[:2] and answer[12 : len(query)] == query[12:] and len(answer) == len(query) + 16:
                self.assertEqual(socket.inet_aton(SERVICE_ADDRESS), answer[-4:])
                return monotonic() - started

    def streams(self) -> Iterator[bytes]:
        """What a hostile TCP client writes before it goes away."""
        random = Random(SEED)
        mutations = Mutations(SEED)
        good = framed(good_queries()[0])
        for _ in range(STREAMS // 5):
            yield b"\0\0" * random.randint(1, 50)  # frames without content
            yield good[: random.randrange(len(good))]  # a frame that never ends
            yield b"\xff\xff" + random.randbytes(random.randrange(2000))  # one that claims much
            yield random.randbytes(random.randrange(5000))
            yield b"".join(framed(mutations.next()) for _ in range(random.randint(1, 20)))

    def test_streams(self) -> None:
        """D1, D2: partial, empty and broken frames: no word in the log, nothing kept open, right answers after."""
        with self.agent.place.make_socket() as steady:
            steady.settimeout(WAIT)
            steady.connect(("127.0.0.1", self.agent.port))
            warm = 0
            for number, hostile in enumerate(self.streams()):
                self.write(hostile, patient=number % 3 == 0)
                if number % 50 == 0:
                    self.steady_answer(steady)
                if number == STREAMS // 3:
                    warm = memory(self.agent)
            self.agent.await_true("all closed but one", lambda: connections(self.agent) == 1)
            self.steady_answer(steady)
        self.answers_rightly()
        self.nothing_said()
        self.assertLess(memory(self.agent) - warm, GROWTH)

    def write(self, hostile: bytes, *, patient: bool) -> None:
        """Write it all on a new connection, and close; a patient client first reads until nothing more comes."""
        with self.agent.place.make_socket() as client:
            client.settimeout(WAIT)
            client.connect(("127.0.0.1", self.agent.port))
            client.sendall(hostile)
            if patient:
                client.shutdown(socket.SHUT_WR)
                while client.recv(65535):
                    pass

    def steady_answer(self, steady: socket.socket) -> None:
        """A connection of somebody else goes on."""
        query = dns.message.make_query(SERVICE, "A")
        steady.sendall(framed(query.to_wire()))
        self.assertTrue(query.is_response(dns.message.from_wire(read_frame(steady))))

    def test_byte_by_byte(self) -> None:
        """D1: a frame that arrives in single octets is a frame."""
        query = dns.message.make_query(SERVICE, "A")
        with self.agent.place.make_socket() as client:
            client.settimeout(WAIT)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.connect(("127.0.0.1", self.agent.port))
            for octet in framed(query.to_wire()):
                client.send(bytes([octet]))
            self.assertTrue(query.is_response(dns.message.from_wire(read_frame(client))))
        self.nothing_said()
