"""Doors over real sockets: D1 to D3. The clients are plain sockets in threads, the resolver is real."""

import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import dns.flags
import dns.message
import dns.query
import dns.rcode
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from meshdns import wire
from meshdns.agent import answering, streams
from meshdns.agent.access import Access, is_own_address
from meshdns.agent.answering import open_doors
from meshdns.agent.batch import Batch
from meshdns.agent.datagrams import Single
from meshdns.agent.flights import Reply
from meshdns.agent.ledger import Ledger
from meshdns.agent.linger import Linger
from meshdns.agent.packed import Packed
from meshdns.agent.resolver import Answered
from tests.agent.mesh import HOSTS, Mesh

NAME = "productpage.ns1.svc.cluster.local."
WAIT = 5.0


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free for UDP and TCP."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        with socket.socket(family, socket.SOCK_DGRAM) as datagrams, socket.socket(family) as streams:
            datagrams.bind((host, 0))
            try:
                streams.bind(datagrams.getsockname()[:2])
            except OSError:
                continue
            return int(datagrams.getsockname()[1])


def framed(message: bytes) -> bytes:
    return struct.pack("!H", len(message)) + message


def read_frame(connection: socket.socket) -> bytes:
    """One framed message; b"" when the other side has closed."""
    raw = connection.makefile("rb", buffering=0)
    head = raw.read(2)
    if not head or len(head) < 2:
        return b""
    body = b""
    while len(body) < struct.unpack("!H", head)[0]:
        body += raw.read(struct.unpack("!H", head)[0] - len(body)) or b""
    return body


def query(name: str = NAME, rdtype: str = "A", **options: Any) -> bytes:
    return dns.message.make_query(name, rdtype, **options).to_wire()


class DoorsTests(TestCase):
    allow: tuple[str, ...] = ("loopback",)
    hosts = ("127.0.0.1", "::1")

    def setUp(self) -> None:
        self.later: list[tuple[wire.Ask, Callable[..., None]]] = []
        self.mesh = Mesh()
        self.ledger = Ledger(self.mesh.resolver.packs.datagrams, self.mesh.resolver.packs.streams)
        self.mesh.lookups._ask_upstream = lambda ask, done: self.later.append((ask, done))
        self.access = Access(self.allow, time.monotonic)
        self.doors = open_doors(
            self.mesh.resolver,
            self.access,
            self.ledger,
            reactor,
            clock=time.monotonic,
            batch=Batch(),
            linger=Linger(reactor),
        )
        self.ports = {host: free_port(host) for host in self.hosts}
        self.doors.listen(self.ports.items())
        self.addCleanup(lambda: Deferred.fromCoroutine(self.doors.close()))
        self.logged: list[Any] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def connect(self, host: str = "127.0.0.1", source: str | None = None) -> socket.socket:
        connection = socket.create_connection((host, self.ports[host]), WAIT, (source, 0) if source else None)
        self.addCleanup(connection.close)
        return connection

    def udp(self, packet: bytes, source: str = "127.0.0.1", wait: float = WAIT) -> bytes | None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(wait)
            client.bind((source, 0))
            client.sendto(packet, ("127.0.0.1", self.ports["127.0.0.1"]))
            try:
                return client.recv(65535)
            except TimeoutError:
                return None

    def turn(self) -> Deferred[None]:
        turned: Deferred[None] = Deferred()
        reactor.callLater(0.001, turned.callback, None)  # type: ignore[attr-defined]
        return turned


class BothTransportsTests(DoorsTests):
    async def test_udp_and_tcp_on_both_families(self) -> None:
        """D1: each address serves UDP and TCP."""
        message = dns.message.make_query(NAME, "A")
        for host, port in self.ports.items():
            for ask in (dns.query.udp, dns.query.tcp):
                answer = await deferToThread(ask, message, host, WAIT, port)
                self.assertEqual(str(answer.answer[0][0]), "10.4.0.5")

    async def test_packed_answers_are_the_ordinary_ones(self) -> None:
        """D4, D11: the second time and ever after, the id is the asker's and the bytes are the same."""
        first = await deferToThread(self.udp, query(id=1))
        for number in range(2, 200):
            again = await deferToThread(self.udp, query(id=number))
            assert first and again
            self.assertEqual(again, struct.pack("!H", number) + first[2:])
        self.assertEqual(self.ledger.queries(), {("udp", "A", "NOERROR", "mesh"): 199})
        self.assertEqual(sum(self.ledger.durations["mesh"].buckets), 1 + 3 * 64)

    async def test_packed_over_tcp(self) -> None:
        """D1, D4, D5: also on a stream the second answer is the first one's bytes; it is whole where a datagram was cut."""
        many = {
            "host": "many.ns1.svc.cluster.local",
            "ips": [f"10.6.0.{n}" for n in range(16)],
            "registry": "Kubernetes",
        }
        self.mesh.adopt([*HOSTS, {**many, "ips": [*many["ips"], *(f"fd00::{n}" for n in range(1, 17))]}])
        for name, rdtype, size in ((NAME, "A", 1), ("many.ns1.svc.cluster.local.svc.cluster.local.", "AAAA", 16)):
            cut = dns.message.from_wire(await deferToThread(self.udp, query(name, rdtype)) or b"")
            self.assertEqual(bool(cut.flags & dns.flags.TC), size > 1)

            def ask(name: str = name, rdtype: str = rdtype) -> list[bytes]:
                connection = self.connect()
                connection.sendall(b"".join(framed(query(name, rdtype, id=number)) for number in range(1, 101)))
                return [read_frame(connection) for _ in range(100)]

            answers = await deferToThread(ask)
            self.assertEqual([answer[:2] for answer in answers], [struct.pack("!H", n) for n in range(1, 101)])
            self.assertEqual(len({answer[2:] for answer in answers}), size)
            self.assertEqual(len(dns.message.from_wire(answers[-1]).answer[-1]), size)
            self.assertEqual(self.ledger.queries()["tcp", rdtype, "NOERROR", "mesh"], 100)
        self.assertEqual(sum(self.ledger.durations["mesh"].buckets), 202)

    async def test_over_is_over(self) -> None:
        """D25: a packed answer whose time has come is not given any more, neither in a datagram nor on a stream."""

        def ask() -> tuple[bytes | None, bytes]:
            connection = self.connect()
            connection.sendall(framed(query(id=7)))
            return self.udp(query(id=7)), read_frame(connection)

        answers = await deferToThread(ask)
        for packs in (self.mesh.resolver.packs.datagrams, self.mesh.resolver.packs.streams):
            (question,) = packs.known
            packs.keep(question, Packed([b"over"], 1, 0, alone=True, until=time.monotonic()))
        self.assertEqual(answers, await deferToThread(ask))

    async def test_tcp_queries_in_one_segment_and_in_crumbs(self) -> None:
        """D1: several queries per connection, however the stream is cut."""
        packets = b"".join(framed(query(id=number)) for number in range(1, 6))

        def ask(pieces: list[bytes]) -> list[int]:
            connection = self.connect()
            for piece in pieces:
                connection.sendall(piece)
            return [dns.message.from_wire(read_frame(connection)).id for _ in range(5)]

        self.assertEqual(await deferToThread(ask, [packets]), [1, 2, 3, 4, 5])
        self.assertEqual(await deferToThread(ask, [packets[n : n + 1] for n in range(len(packets))]), [1, 2, 3, 4, 5])

    async def test_out_of_order(self) -> None:
        """D1: a mesh answer does not wait behind an upstream's (RFC 7766 section 6.2.1.1)."""

        def ask() -> int:
            connection = self.connect()
            connection.sendall(framed(query("www.example.org.", id=1)) + framed(query(id=2)))
            return dns.message.from_wire(read_frame(connection)).id

        self.assertEqual(await deferToThread(ask), 2)
        self.assertEqual(len(self.later), 1)


class OneByOneTests(BothTransportsTests):
    """The same where the platform has no recvmmsg."""

    def setUp(self) -> None:
        self.patch(answering, "open_datagrams", Single)
        super().setUp()


class WrongPacketsTests(DoorsTests):
    async def test_no_answer_to_responses_and_scraps(self) -> None:
        """D2: dropped and counted, over both transports; the next query on the stream is answered."""

        def ask() -> tuple[list[bytes | None], int]:
            scraps = [b"", b"x" * 11, query()[:2] + b"\x80" + query()[3:]]
            udp = [self.udp(scrap, wait=0.2) for scrap in scraps]
            connection = self.connect()
            connection.sendall(b"".join(map(framed, scraps)) + framed(query(id=9)))
            return udp, dns.message.from_wire(read_frame(connection)).id

        self.assertEqual(await deferToThread(ask), ([None, None, None], 9))
        self.assertEqual(self.ledger.dropped, {"not-a-query": 6})

    async def test_long_datagram(self) -> None:
        """D2: a datagram longer than any query is refused as malformed, not read past its end."""
        packet = dns.message.make_query(NAME, "A", use_edns=0, pad=8192).to_wire(max_size=65535)
        answer = await deferToThread(self.udp, packet)
        assert answer
        self.assertEqual(dns.message.from_wire(answer).rcode(), dns.rcode.FORMERR)

    async def test_a_bug_stops_nothing(self) -> None:
        """D2: an exception of ours is logged with its packet, counted, and the next packet is answered."""

        def broken(*_: object, **__: object) -> bool:
            raise ZeroDivisionError("a bug")

        self.doors._front._answer = broken
        self.assertIsNone(await deferToThread(self.udp, query(), wait=0.2))
        self.assertEqual((len(self.flushLoggedErrors(ZeroDivisionError)), self.ledger.dropped["bug"]), (1, 1))
        self.doors._front._answer = self.mesh.resolver.answer
        self.assertTrue(await deferToThread(self.udp, query()))


class AccessTests(DoorsTests):
    allow = ("127.0.0.1/32",)

    async def test_strangers_are_refused(self) -> None:
        """D3: REFUSED over UDP and TCP, before and after the answer is packed for those who may ask."""

        def ask(source: str) -> list[str]:
            udp = self.udp(query(), source)
            connection = self.connect(source=source)
            connection.sendall(framed(query()))
            return [
                dns.rcode.to_text(dns.message.from_wire(raw or b"").rcode()) for raw in (udp, read_frame(connection))
            ]

        for source, rcode in [("127.0.0.2", "REFUSED"), ("127.0.0.1", "NOERROR"), ("127.0.0.2", "REFUSED")]:
            self.assertEqual(await deferToThread(ask, source), [rcode, rcode])

    def test_words(self) -> None:
        """D3: loopback means this host's own addresses too; the kernel knows them."""
        access = Access(("loopback",), time.monotonic)
        self.assertTrue(access.allows("127.1.2.3"))
        self.assertTrue(access.allows("::1"))
        self.assertFalse(access.allows("192.0.2.1"))
        self.assertFalse(access.allows("2001:db8::1"))
        self.assertFalse(access.allows("fe80::1%lo"))
        self.assertTrue(Access(("any",), time.monotonic).allows("192.0.2.1"))
        self.assertTrue(Access(("2001:db8::/32",), time.monotonic).allows("2001:db8::9"))
        self.assertTrue(Access(("192.0.2.0/24",), time.monotonic).allows("::ffff:192.0.2.1"))
        self.assertFalse(is_own_address("192.0.2.1"))
        self.assertTrue(is_own_address("127.0.0.1"))

    def test_what_is_remembered_is_bounded(self) -> None:
        """D3: a flood of source addresses does not grow memory, and what was found is found anew after a minute."""
        now = [0.0]
        access = Access(("192.0.0.0/8",), lambda: now[0])
        for number in range(10_000):
            access.allows(f"192.0.{number >> 8}.{number & 255}")
        self.assertLessEqual(len(access.known), 4096)
        now[0] = 61.0
        access.allows("192.0.2.1")
        self.assertEqual(list(access.known), ["192.0.2.1"])


class StreamLimitTests(DoorsTests):
    hosts = ("127.0.0.1",)

    async def test_idle_is_closed(self) -> None:
        """D1: a connection without a whole query is closed, also one that trickles a partial one."""
        self.patch(streams, "TCP_IDLE", 0.3)

        def trickle() -> float:
            connection = self.connect()
            started = time.monotonic()
            try:
                while time.monotonic() < started + WAIT:
                    connection.sendall(framed(b"") + framed(query()[:2] + b"\x80" + query()[3:]))
                    connection.settimeout(0.05)
                    try:
                        if not connection.recv(1):
                            break
                    except TimeoutError:
                        pass
            except OSError:
                pass
            return time.monotonic() - started

        self.assertTrue(0.2 < await deferToThread(trickle) < 2.0)

    async def test_the_one_idle_longest_makes_room(self) -> None:
        """D1: at the limit the oldest idle connection goes, and the new one is answered."""
        self.patch(streams, "TCP_CONNECTIONS", 3)

        def ask() -> tuple[bytes, list[int]]:
            streams = [self.connect() for _ in range(3)]
            for stream in streams[::-1]:  # the last one has asked longest ago
                stream.sendall(framed(query(id=1)))
                read_frame(stream)
            streams.append(self.connect())
            streams[3].sendall(framed(query(id=4)))
            last = dns.message.from_wire(read_frame(streams[3])).id
            try:
                gone = streams[2].recv(1)
            except ConnectionResetError:
                gone = b""
            for stream in streams[:2]:
                stream.sendall(framed(query(id=5)))
            return gone, [last, *(dns.message.from_wire(read_frame(stream)).id for stream in streams[:2])]

        self.assertEqual(await deferToThread(ask), (b"", [4, 5, 5]))

    async def test_a_burst_of_connections(self) -> None:
        """D1: the limit holds within one turn of the reactor, too."""
        self.patch(streams, "TCP_CONNECTIONS", 5)
        factory = next(iter(self.doors._open.values()))[1].factory
        clients = await deferToThread(lambda: [self.connect() for _ in range(30)])
        await self.until(lambda: clients and len(factory.connections) == 5)
        alive = []
        for client in clients:
            client.settimeout(0.1)
            try:
                alive.append(await deferToThread(client.recv, 1))
            except TimeoutError:
                alive.append(b"alive")
            except ConnectionResetError:
                pass
        self.assertEqual(alive.count(b"alive"), 5)

    async def test_pending_is_bounded(self) -> None:
        """D1: a client with many unanswered queries waits; none of them is lost."""
        self.patch(streams, "TCP_PENDING", 5)
        connection = self.connect()
        await deferToThread(
            connection.sendall, b"".join(framed(query(f"n{n}.example.org.", id=n)) for n in range(1, 21))
        )
        ids = []
        while len(ids) < 20:
            await self.until(lambda: self.later)
            self.assertLessEqual(len(self.later), 5)
            ask, done = self.later.pop()
            reply = dns.message.make_response(dns.message.from_wire(wire.upstream_query(ask, 1, ask.question, None)))
            done(Reply(reply.to_wire(), "192.0.2.53", 0.0), time.monotonic())
            ids.append(dns.message.from_wire(await deferToThread(read_frame, connection)).id)
        self.assertEqual(sorted(ids), list(range(1, 21)))

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the reactor run until something holds."""
        end = time.monotonic() + WAIT
        while not condition():
            self.assertLess(time.monotonic(), end)
            await self.turn()

    async def test_a_client_that_does_not_read(self) -> None:
        """D1: answers that nobody reads hold no more than the kernel's and one write buffer; then its queries wait."""
        big = {
            "host": "big.ns1.svc.cluster.local",
            "ips": [f"10.5.{n >> 8}.{n & 255}" for n in range(3000)],
            "registry": "Kubernetes",
        }
        self.mesh.adopt([big])
        connection = self.connect()
        connection.settimeout(0.5)
        packet = framed(query("big.ns1.svc.cluster.local."))

        def flood() -> int:
            sent = 0
            try:
                for _ in range(20_000):
                    sent += connection.send(packet * 50)
            except TimeoutError:
                pass
            return sent // len(packet)

        sent = await deferToThread(flood)
        (stream,) = next(iter(self.doors._open.values()))[1].factory.connections
        answered = sum(self.ledger.queries().values())
        self.assertTrue(answered < 1000 < sent, (answered, sent))
        self.assertTrue(stream.paused)


class ListenTests(DoorsTests):
    async def test_changed_addresses(self) -> None:
        """D1: a new address opens, one no longer named closes, the others stay untouched."""
        kept, added = self.ports["127.0.0.1"], free_port()
        before = self.doors._open["127.0.0.1", kept]
        self.doors.listen([("127.0.0.1", kept), ("127.0.0.1", added)])
        self.assertIs(self.doors._open["127.0.0.1", kept], before)
        message = dns.message.make_query(NAME, "A")
        for port in (kept, added):
            await deferToThread(dns.query.udp, message, "127.0.0.1", WAIT, port)

    async def test_every_address(self) -> None:
        """D1: at a wildcard address each answer leaves from the one asked, be it packed, made now, or an upstream's."""
        port = free_port("0.0.0.0")
        self.doors.listen([("0.0.0.0", port)])

        def ask(name: str, number: int) -> int:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(WAIT)
                client.connect(("127.0.0.9", port))
                client.send(query(name, id=number))
                return dns.message.from_wire(client.recv(4096)).id

        for number in (1, 2):
            self.assertEqual(await deferToThread(ask, NAME, number), number)
        asking = deferToThread(ask, "www.example.org.", 3)
        while not self.later:
            await self.turn()
        ((asked, done),) = self.later
        reply = dns.message.make_response(dns.message.from_wire(wire.upstream_query(asked, 1, asked.question, None)))
        done(Reply(reply.to_wire(), "192.0.2.53", 0.0), time.monotonic())
        self.assertEqual(await asking, 3)

    async def test_a_taken_port_changes_nothing(self) -> None:
        """D1: when one address cannot be had, the doors stay as they were."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            before = dict(self.doors._open)
            self.assertRaises(CannotListenError, self.doors.listen, [("127.0.0.1", taken.getsockname()[1])])
        self.assertEqual(self.doors._open, before)

    async def test_close_answers_what_was_asked(self) -> None:
        """D1: at the end, what waits in the socket and what an upstream still owes is answered before the doors close."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(WAIT)
            client.connect(("127.0.0.1", self.ports["127.0.0.1"]))
            client.send(query("www.example.org.", id=1))
            for number in range(2, 102):  # more than a batch
                client.send(query(id=number))
            closing = Deferred.fromCoroutine(self.doors.close())
            self.assertNoResult(closing)
            (ask, done) = self.later.pop()
            message = dns.message.make_response(dns.message.from_wire(wire.upstream_query(ask, 1, ask.question, None)))
            done(Reply(message.to_wire(), "192.0.2.53", 0.0), time.monotonic())
            await closing
            self.assertEqual({dns.message.from_wire(client.recv(4096)).id for _ in range(101)}, set(range(1, 102)))


class LedgerTests(TestCase):
    def test_few_labels(self) -> None:
        """D2: whatever types are asked, the labels stay few."""
        ledger = Ledger(Mesh().resolver.packs.datagrams)
        for qtype in range(65536):
            ledger.answered("udp", Answered(b"", "upstream", qtype, 0), 0.001)
        self.assertLess(len(ledger.queries()), 100)
        self.assertEqual(sum(ledger.queries().values()), 65536)
