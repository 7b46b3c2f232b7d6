"""Upstream over real loopback sockets: what is asked, dead servers, descriptors, other servers, loops."""

import os
import resource
import socket
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import globalLogPublisher

from meshdns import names
from meshdns.agent.batch import Batch
from meshdns.agent.flights import Failed, Reply, Result
from meshdns.agent.servers import Options
from meshdns.values import Server
from meshdns.wire import NXDOMAIN
from tests.agent.liars import Case, UdpServer, silent
from tests.agent.scene import ADDRESS, ask, question, reply


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


class BatchTests(Case):
    """What is asked while a batch is open is sent at its end, one datagram right behind the other."""

    async def test_batch(self) -> None:
        """Nothing leaves before the end, and never do more than 32 wait."""
        server, place = self.udp()
        batch = Batch()
        upstream = self.start(place, batch=batch)
        await self.turn(0.05)
        results: list[Result] = []
        batch.begin()
        for number in range(31):
            upstream.ask(ask(f"host{number}.example.com"), results.append)
        with self.assertRaises(BlockingIOError):
            server.port.socket.recv(1, socket.MSG_PEEK)
        upstream.ask(ask("host31.example.com"), results.append)
        server.port.socket.recv(1, socket.MSG_PEEK)
        upstream.ask(ask("host32.example.com"), results.append)
        batch.end()
        await self.turn(0.05)
        self.assertEqual((33, 33), (len(server.queries), len(results)))

    async def test_stopped_within(self) -> None:
        """An agent that stops sends nothing any more."""
        server, place = self.udp()
        batch = Batch()
        upstream = self.start(place, batch=batch)
        batch.begin()
        upstream.ask(ask(), lambda result: None)
        await upstream.stop()
        batch.end()
        await self.turn(0.02)
        self.assertEqual([], server.queries)

    async def test_a_bug_does_not_end_the_reading(self) -> None:
        """D2: nothing that arrives on a socket stops the agent; what ought not to happen is logged and over."""
        upstream = self.start(self.udp()[1], timeout=0.2)
        with mock.patch.object(upstream._flights, "answered_alone", side_effect=ZeroDivisionError):
            self.assertIsInstance(await self.ask(), Failed)
        self.assertGreater(len(self.flushLoggedErrors(ZeroDivisionError)), 0)
        self.assertIsInstance(await self.ask(), Reply)


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
        self.assertLess(max(took), 1)
        self.assertLess(sorted(took)[-5], 0.1)
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
        upstream.replace(places[:1], Options(), 2)
        self.assertEqual(
            [100], [server["max_sockets"] for server in upstream.status()], "with the servers of other groups"
        )


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
