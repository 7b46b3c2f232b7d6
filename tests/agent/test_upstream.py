"""Upstream over real loopback sockets, against servers that lie, die and come back."""

import contextlib
import os
import resource
import socket
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from meshdns import names
from meshdns.agent import upstream as module
from meshdns.agent.flights import Failed, Reply, Result
from meshdns.agent.servers import Options
from meshdns.agent.upstream import Upstream
from meshdns.values import Server
from meshdns.wire import NXDOMAIN
from tests.agent.liars import Answer, TcpConnection, TcpServer, UdpServer, honest, reactor, silent
from tests.agent.scene import ADDRESS, TC, ask, name, question, reply


def descriptors() -> int:
    """Sockets and the like that are open; Twisted's own reserves do not count."""
    links = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one by which the directory is read
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    return len([link for link in links if "socket:" in link or "eventpoll" in link])


class Case(TestCase):
    """Servers, one Upstream, and the proof that nothing of it stays."""

    timeout = 20

    async def setUp(self) -> None:
        await self.turn()  # the reactor has opened what it needs
        self.before = descriptors()
        self.ports: list[Any] = []
        self.upstream: Upstream | None = None

    async def tearDown(self) -> None:
        if self.upstream is not None:
            await self.upstream.stop()
        for port in self.ports:
            await port.stopListening()
        for connection in [one for port in self.ports for one in getattr(port.factory, "connections", ())]:
            connection.transport.abortConnection()
        for _ in range(100):
            if descriptors() == self.before:
                break
            await self.turn(0.002)
        self.assertEqual(self.before, descriptors(), "a socket was left open")
        left = [call for call in map(str, reactor.getDelayedCalls()) if "TestCase._run" not in call]
        self.assertEqual([], left)

    def turn(self, seconds: float = 0.0) -> Deferred[None]:
        return deferLater(reactor, seconds, lambda: None)

    def udp(self, script: Any = honest, port: int = 0, interface: str = "127.0.0.1") -> tuple[UdpServer, Server]:
        server = UdpServer(script)
        number = server.listen(port, interface)
        server.port.factory = None
        self.ports.append(server.port)
        return server, Server(interface, number)

    def tcp(self, answer: Any = None, port: int = 0, transport: str = "tcp") -> tuple[TcpServer, Server]:
        server = TcpServer(answer)
        number = server.listen(port)
        self.ports.append(server.port)
        return server, Server("127.0.0.1", number, transport)

    def start(self, *servers: Server, sockets: int | None = None, **options: Any) -> Upstream:
        self.upstream = Upstream(reactor, servers, Options(**options), sockets=sockets)
        self.upstream.start()
        return self.upstream

    def ask(self, name: str = "www.example.com") -> Deferred[Result]:
        done: Deferred[Result] = Deferred()
        assert self.upstream is not None
        self.upstream.ask(ask(name), done.callback)
        return done

    async def timed(self, name: str) -> tuple[Result, float]:
        began = reactor.seconds()
        result = await self.ask(name)
        return result, reactor.seconds() - began

    def free_port(self) -> Server:
        """A port where nobody listens."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.bind(("127.0.0.1", 0))
            return Server("127.0.0.1", one.getsockname()[1])


class UdpTests(Case):
    """What is asked over UDP, and how."""

    async def test_answer(self) -> None:
        """D18: the server's message, byte for byte."""
        server, place = self.udp()
        self.start(place)
        result = await self.ask()
        assert isinstance(result, Reply)
        self.assertEqual((reply(server.queries[0]), str(place)), (result.message, result.server))
        self.assertLess(result.seconds, 1)

    async def test_ipv6(self) -> None:
        _, place = self.udp(interface="::1")
        self.start(place)
        self.assertIsInstance(await self.ask(), Reply)

    async def test_large_answer(self) -> None:
        """D18: whatever size the datagram has."""
        self.start(self.udp(lambda query: [(0.0, reply(query, records=ADDRESS * 3000))])[1])
        result = await self.ask()
        assert isinstance(result, Reply)
        self.assertGreater(len(result.message), 48000)

    async def test_ids_and_ports(self) -> None:
        """D20: 200 questions at once: as many ids, and ports as a draw from 512 sockets gives (166 on average)."""
        server, place = self.udp(lambda query: [(0.3, reply(query))])
        self.start(place)
        await gatherResults([self.ask(f"host{number}.example.com") for number in range(200)])
        self.assertGreater(len({query[:2] for query in server.queries}), 195)
        self.assertGreater(len({port for _, port in server.sources}), 140)
        self.assertGreater(len({question(query) for query in server.queries}), 195)

    async def test_ports_change(self) -> None:
        """D20: a socket is given up after some hundred questions, so its port is worth no watching."""
        server, place = self.udp()
        self.start(place, sockets=0)  # four sockets
        for number in range(3000):
            await self.ask(f"host{number}.example.com")
        self.assertGreater(len({port for _, port in server.sources}), 3000 // 256)
        self.assertEqual(4, self.upstream.status()[0]["sockets"])

    async def test_same_question_once(self) -> None:
        """D22: twenty clients, one question upstream."""
        server, place = self.udp(lambda query: [(0.1, reply(query))])
        upstream = self.start(place)
        results = await gatherResults([self.ask() for _ in range(20)])
        self.assertEqual((1, 20, 19), (len(server.queries), len(results), upstream.joined))
        self.assertEqual(1, len({id(result) for result in results}))

    async def test_raising_waiter(self) -> None:
        """D22: what one client does with its answer does not cost the others theirs."""
        self.start(self.udp()[1])
        self.upstream.ask(ask(), lambda result: 1 / 0)
        self.assertIsInstance(await self.ask(), Reply)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    async def test_waiter_that_asks(self) -> None:
        """A client may ask on from within its answer, even for the same."""
        self.start(self.udp()[1])
        done: Deferred[Result] = Deferred()
        self.upstream.ask(ask(), lambda _: self.upstream.ask(ask(), done.callback))
        self.assertIsInstance(await done, Reply)


class LiarTests(Case):
    """D24: one bad datagram before the good one, on every attempt: the answer is the good one."""

    async def lied_to(self, lie: Any, reason: str) -> None:
        def script(query: bytes) -> list[Answer]:
            return [(0.0, lie(query)), (0.05, reply(query))]

        server, place = self.udp(script)
        upstream = self.start(place)
        result = await self.ask()
        assert isinstance(result, Reply)
        self.assertEqual(reply(server.queries[0]), result.message)
        self.assertEqual({reason: 1}, upstream.dropped)
        self.assertEqual(1, len(server.queries))

    async def test_one_byte_of_header(self) -> None:
        await self.lied_to(lambda query: query[:2] + b"\x81", "short")

    async def test_garbage_header(self) -> None:
        await self.lied_to(lambda query: query[:2] + b"\xff" * 7, "short")

    async def test_empty(self) -> None:
        await self.lied_to(lambda query: b"", "short")

    async def test_other_question(self) -> None:
        evil = names.parse("evil.example") + b"\x00\x01\x00\x01"
        await self.lied_to(lambda query: reply(query, asked=evil), "question")

    async def test_wrong_id(self) -> None:
        await self.lied_to(lambda query: bytes([query[0] ^ 0xFF]) + reply(query)[1:], "unexpected")

    async def test_compression_loop(self) -> None:
        def loop(query: bytes) -> bytes:
            return reply(query, records=b"\xc0" + bytes([len(reply(query)) - len(ADDRESS)]) + ADDRESS[2:])

        await self.lied_to(loop, "malformed")

    async def test_a_query(self) -> None:
        await self.lied_to(lambda query: query, "not-a-reply")

    async def test_record_cut_short(self) -> None:
        await self.lied_to(lambda query: reply(query)[:-2], "malformed")

    async def test_no_question(self) -> None:
        def without(query: bytes) -> bytes:
            good = reply(query)
            return good[:4] + bytes(2) + good[6:12] + ADDRESS

        await self.lied_to(without, "question")

    async def test_other_case(self) -> None:
        await self.lied_to(lambda query: reply(query, asked=_swapped(question(query))), "case")

    async def test_other_port(self) -> None:
        """D20: a perfect forgery from the server's address, but another port, does not even reach us."""
        forger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(forger.close)
        self.before += 1

        def script(query: bytes) -> list[Answer]:
            forger.sendto(reply(query, records=ADDRESS[:-4] + b"\x06\x06\x06\x06"), server.sources[-1])
            return [(0.05, reply(query))]

        server, place = self.udp(script)
        upstream = self.start(place)
        result = await self.ask()
        assert isinstance(result, Reply)
        self.assertEqual((reply(server.queries[0]), {}), (result.message, upstream.dropped))
        forger.close()
        self.before -= 1

    async def test_flood(self) -> None:
        """Hundreds of lies, then the truth, while others are answered."""

        def script(query: bytes) -> list[Answer]:
            if name(query) != "www.example.com":
                return honest(query)
            return [(0.0, query)] * 200 + [(0.1, reply(query))]

        self.start(self.udp(script)[1])
        results = await gatherResults([self.ask(), self.ask("other.example.com")])
        self.assertEqual([Reply, Reply], [type(result) for result in results])


def _swapped(asked: bytes) -> bytes:
    """The question with the case of one letter changed."""
    return asked[:1] + asked[1:2].swapcase() + asked[2:]


class DeadServerTests(Case):
    """D21: servers that are silent, refuse, and return."""

    async def test_silent_server(self) -> None:
        """Nothing is lost, nobody waits for long, soon nobody waits at all."""
        mute, first = self.udp(silent)
        mute.probes = False
        _, second = self.udp()
        upstream = self.start(first, second)
        took = []
        for number in range(20):
            result, seconds = await self.timed(f"host{number}.example.com")
            self.assertIsInstance(result, Reply)
            took.append(seconds)
        self.assertLess(max(took), 0.5)
        self.assertLess(max(took[4:]), 0.1)
        self.assertEqual("slow", upstream.status()[0]["state"])

    async def test_refused(self) -> None:
        """D21: an ICMP error is a failure at once, not a timeout."""
        self.start(self.free_port())
        result, seconds = await self.timed("www.example.com")
        assert isinstance(result, Failed)
        self.assertEqual(("network", 23), (result.reason, result.ede))
        self.assertIn("nothing listens there", result.text)
        self.assertLess(seconds, 1)

    async def test_refused_then_next(self) -> None:
        self.start(self.free_port(), self.udp()[1], policy="ordered")
        result, seconds = await self.timed("www.example.com")
        self.assertIsInstance(result, Reply)
        self.assertLess(seconds, 1)

    async def test_return(self) -> None:
        """A dead server is in use again within two seconds of its return, by probes alone."""
        place = self.free_port()
        upstream = self.start(place, timeout=0.2)
        self.assertIsInstance(await self.ask("a.example"), Failed)
        self.assertIsInstance(await self.ask("b.example"), Failed)
        self.assertEqual("dead", upstream.status()[0]["state"])
        self.udp(port=place.port)
        await self.turn(2.0)
        self.assertEqual("up", upstream.status()[0]["state"])

    async def test_no_route(self) -> None:
        """A server that cannot even be connected to fails with a sentence."""
        self.start(Server("255.255.255.255"))
        result = await self.ask()
        assert isinstance(result, Failed)
        self.assertIn("cannot be reached", result.text)

    async def test_nobody(self) -> None:
        """D19: no servers, an answer nevertheless, at once."""
        results: list[Result] = []
        self.start().ask(ask(), results.append)
        self.assertEqual(["none"], [result.reason for result in results if isinstance(result, Failed)])


class DescriptorTests(Case):
    """File descriptors are scarce."""

    async def test_exhausted(self) -> None:
        """D20: without descriptors, sockets that are open serve all; nothing raises, nothing is lost."""
        _, place = self.udp()
        self.start(place)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 4, hard))
        try:
            results = await gatherResults([self.ask(f"host{number}.example.com") for number in range(300)])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertEqual({Reply}, {type(result) for result in results})

    async def test_budget(self) -> None:
        """The limit less a reserve is shared among the servers."""
        places = [self.udp()[1] for _ in range(3)]
        upstream = self.start(*places, sockets=300)
        self.assertEqual([100, 100, 100], [server["max_sockets"] for server in upstream.status()])
        upstream.replace(places[:1], Options())
        self.assertEqual([300], [server["max_sockets"] for server in upstream.status()])


class TcpTests(Case):
    """Truncated answers, and servers asked over TCP."""

    async def test_truncated(self) -> None:
        """D21: TC over UDP: the same server over TCP."""
        _, place = self.udp(lambda query: [(0.0, reply(query, flags=TC, records=b""))])
        stream, _ = self.tcp(
            lambda connection, query: connection.sendString(reply(query, records=ADDRESS * 400)), place.port
        )
        upstream = self.start(place)
        result = await self.ask()
        assert isinstance(result, Reply)
        self.assertEqual(reply(stream.queries[0], records=ADDRESS * 400), result.message)
        requests = upstream.status()[0]["requests"]
        self.assertEqual((1, 1), (requests["truncated"], requests["ok"]))

    async def test_truncated_without_tcp(self) -> None:
        """The truncated message is there for who can use it."""
        self.start(self.udp(lambda query: [(0.0, reply(query, flags=TC, records=b""))])[1])
        result = await self.ask()
        assert isinstance(result, Failed) and result.reply
        self.assertEqual("truncated", result.reason)
        self.assertIn("over TCP", result.text)

    async def test_connection_is_kept(self) -> None:
        """RFC 7766: one connection, several questions at once, answers in any order."""
        waiting: list[tuple[TcpConnection, bytes]] = []

        def answer(connection: TcpConnection, query: bytes) -> None:
            waiting.append((connection, query))
            if len(waiting) == 3:
                for one, asked in reversed(waiting):
                    one.sendString(reply(asked))

        server, place = self.tcp(answer)
        self.start(place)
        results = await gatherResults([self.ask(f"host{number}.example.com") for number in range(3)])
        self.assertEqual([Reply] * 3, [type(result) for result in results])
        self.assertEqual(1, len(server.connections))

    async def test_answer_in_pieces(self) -> None:
        """A frame octet by octet."""

        def answer(connection: TcpConnection, query: bytes) -> None:
            message = reply(query)
            for octet in len(message).to_bytes(2) + message:
                connection.transport.write(bytes([octet]))

        self.start(self.tcp(answer)[1])
        self.assertIsInstance(await self.ask(), Reply)

    async def test_half_an_answer(self) -> None:
        """D21: the next server, at once."""
        _, broken = self.tcp(lambda connection, query: connection.half(reply(query)))
        _, good = self.tcp()
        self.start(broken, good, policy="ordered")
        result, seconds = await self.timed("www.example.com")
        assert isinstance(result, Reply)
        self.assertEqual(str(good), result.server)
        self.assertLess(seconds, 1)

    async def test_half_an_answer_then_silence(self) -> None:
        """The connection is given up when nothing comes any more, and the next question has a new one."""

        def answer(connection: TcpConnection, query: bytes) -> None:
            if len(server.connections) > 1:
                connection.sendString(reply(query))
            else:
                connection.transport.write(b"\x01\x00half")

        server, place = self.tcp(answer)
        self.start(place, timeout=0.3)
        self.assertIsInstance(await self.ask(), Reply)
        self.assertEqual(2, len(server.connections))

    async def test_nonsense(self) -> None:
        """D24: empty frames and unknown ids are dropped, the wait goes on."""

        def answer(connection: TcpConnection, query: bytes) -> None:
            connection.sendString(b"")
            connection.sendString(bytes([query[0] ^ 1]) + reply(query)[1:])
            connection.sendString(reply(query))

        upstream = self.start(self.tcp(answer)[1])
        self.assertIsInstance(await self.ask(), Reply)
        self.assertEqual({"short": 1, "unexpected": 1}, upstream.dropped)

    async def test_refused(self) -> None:
        place = self.free_port()
        self.start(Server(place.host, place.port, "tcp"))
        result, seconds = await self.timed("www.example.com")
        assert isinstance(result, Failed)
        self.assertEqual(23, result.ede)
        self.assertIn("cannot be reached over TCP", result.text)
        self.assertLess(seconds, 1)

    async def test_connect_timeout(self) -> None:
        """A handshake that nobody answers ends by the attempt's timeout."""
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fill = [socket.socket() for _ in range(3)]
        for one in fill:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        self.start(Server("127.0.0.1", listener.getsockname()[1], "tcp"), timeout=0.2, attempts=1)
        result, seconds = await self.timed("www.example.com")
        for one in [listener, *fill]:
            one.close()
        assert isinstance(result, Failed)
        self.assertLess(seconds, 1)

    async def test_idle_connection_is_closed(self) -> None:
        self.patch(module, "UPSTREAM_STREAM_IDLE", 0.1)
        server, place = self.tcp()
        self.start(place)
        await self.ask()
        await self.turn(0.3)
        self.assertEqual([False], [bool(one.transport.connected) for one in server.connections])
        self.assertIsInstance(await self.ask(), Reply)
        self.assertEqual(2, len(server.connections))

    async def test_server_closed_an_idle_connection(self) -> None:
        """RFC 7766 section 6.2.4: nobody notices."""
        server, place = self.tcp()
        self.start(place, attempts=1)
        await self.ask()
        server.connections[0].transport.loseConnection()
        self.assertIsInstance(await self.ask("again.example.com"), Reply)

    async def test_tls_is_never_asked_in_clear(self) -> None:
        server, place = self.tcp(transport="tls")
        self.start(place)
        result = await self.ask()
        assert isinstance(result, Failed)
        self.assertIn("TLS", result.text)
        await self.turn(0.05)
        self.assertEqual([], server.connections)


class ReplaceTests(Case):
    """Other servers, and the end."""

    async def test_question_under_way(self) -> None:
        """It finishes on the old server, whose sockets are closed then."""
        old, first = self.udp(lambda query: [(0.1, reply(query))])
        new, second = self.udp()
        upstream = self.start(first)
        waiting = self.ask()
        upstream.replace([second], Options())
        self.assertIsInstance(await self.ask("new.example.com"), Reply)
        self.assertIsInstance(await waiting, Reply)
        self.assertEqual((1, 1), (len(old.queries), len(new.queries)))
        await self.turn(2.2)
        self.assertEqual([1], list(upstream._sockets))

    async def test_stop(self) -> None:
        """Whoever waits is told; what comes later is refused; nothing is left behind (tearDown)."""
        _, place = self.udp(silent)
        stream, second = self.tcp(lambda connection, query: None)
        upstream = self.start(place, second, policy="race")
        results: list[Result] = []
        upstream.ask(ask(), results.append)
        await self.turn(0.05)
        await upstream.stop()
        upstream.ask(ask(), results.append)
        self.assertEqual(["stopped"] * 2, [result.reason for result in results if isinstance(result, Failed)])
        self.assertEqual(1, len(stream.queries))
        self.upstream = None

    async def test_stop_while_connecting(self) -> None:
        _, place = self.tcp()
        upstream = self.start(place)
        upstream.ask(ask(), lambda result: None)
        await upstream.stop()
        self.upstream = None
        await self.turn(0.01)

    async def test_stop_from_within_an_answer(self) -> None:
        self.start(self.udp()[1])
        done: Deferred[Result] = Deferred()
        upstream, self.upstream = self.upstream, None

        def stop(result: Result) -> None:
            upstream.stop().addCallback(lambda _: done.callback(result))

        upstream.ask(ask(), stop)
        self.assertIsInstance(await done, Reply)


class LoopTests(Case):
    """D19."""

    async def test_loop(self) -> None:
        """A server that forwards to us is found by its probe, told of in one line, and asked no more."""
        lines: list[str] = []

        def observe(event: Any) -> None:
            if "notice" in event:
                lines.append(event["notice"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

        class Forwarder(UdpServer):
            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                if upstream.is_own_probe(question(datagram)[:-4].lower()):
                    self.transport.write(reply(datagram, NXDOMAIN, records=b""), addr)
                self.queries.append(datagram)

        forwarder = Forwarder()
        place = Server("127.0.0.1", forwarder.listen())
        forwarder.port.factory = None
        self.ports.append(forwarder.port)
        _, good = self.udp()
        upstream = self.start(place, good)
        await self.turn(0.1)
        self.assertEqual(["loop", "up"], [server["state"] for server in upstream.status()])
        for number in range(10):
            self.assertIsInstance(await self.ask(f"host{number}.example.com"), Reply)
        self.assertEqual((1, 1), (len(forwarder.queries), len(lines)))
        self.assertIn(str(place), lines[0])
        self.assertFalse(upstream.is_own_probe(names.parse("loop.meshdns.example")))
