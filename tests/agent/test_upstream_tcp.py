"""Upstream servers over TCP on loopback: truncated answers, kept connections, broken ones."""

import socket

from twisted.internet.defer import gatherResults

from meshdns.agent import upstream as module
from meshdns.agent.flights import Failed, Reply
from meshdns.values import Server
from tests.agent.liars import Case, TcpConnection
from tests.agent.scene import ADDRESS, TC, reply


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
