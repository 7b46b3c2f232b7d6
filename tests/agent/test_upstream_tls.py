"""DNS over TLS on loopback (rule D23, RFC 7858): who is trusted, who is not, and a connection that is kept."""

import os
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import gatherResults
from twisted.logger import LogEvent, globalLogPublisher

from meshdns.agent import upstream as module
from meshdns.agent.flights import Failed, Reply
from meshdns.agent.secure import Secure
from meshdns.agent.upstream import Upstream
from meshdns.values import Server
from tests.agent.certificates import CertificateAuthority
from tests.agent.liars import Case, TcpConnection, TcpServer
from tests.agent.scene import reply

NAME = "dns.example.com"


class TlsCase(Case):
    """An authority that the agent trusts, as SSL_CERT_FILE says, and servers with its certificates."""

    async def setUp(self) -> None:
        await super().setUp()
        self.authority = CertificateAuthority()
        self.trust(self.authority)
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self._hear)
        self.addCleanup(globalLogPublisher.removeObserver, self._hear)

    async def tearDown(self) -> None:
        await super().tearDown()
        self.assertEqual([], self.flushLoggedErrors())

    def _hear(self, event: LogEvent) -> None:
        if "upstream" in event.get("log_namespace", "") and event.get("log_format"):
            self.lines.append(event["log_format"].format(**event))

    def trust(self, authority: CertificateAuthority) -> None:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        before = os.environ.get("SSL_CERT_FILE")
        os.environ["SSL_CERT_FILE"] = str(authority.write(folder / "ca.pem"))
        self.addCleanup(lambda: os.environ.pop("SSL_CERT_FILE") and before and os.environ.update(SSL_CERT_FILE=before))

    def tls(
        self, *subjects: str, answer: Any = None, name: str | None = NAME, secured: Any = None
    ) -> tuple[TcpServer, Server]:
        """A server with these names in its certificate, and how the configuration names it."""
        server = TcpServer(answer)
        port = server.listen(secured=secured or self.authority.certify(*subjects))
        self.ports.append(server.port)
        return server, Server("127.0.0.1", port, "tls", name)

    def start_tls(self, *servers: Server, **options: Any) -> Upstream:
        secure = Secure()
        return self.start(*servers, secure=lambda: secure, **options)


class TrustTests(TlsCase):
    async def test_right_name(self) -> None:
        """D23: the name of the configuration stands in the certificate."""
        _, place = self.tls(NAME)
        self.start_tls(place)
        result = await self.ask()
        assert isinstance(result, Reply)
        self.assertEqual(f"tls://127.0.0.1:{place.port}?name={NAME}", result.server)
        self.assertEqual([], self.lines)

    async def test_address(self) -> None:
        """D23: without a name, the address must stand there."""
        _, place = self.tls("127.0.0.1", name=None)
        self.start_tls(place)
        self.assertIsInstance(await self.ask(), Reply)

    async def _refused(self, liar: TcpServer, place: Server, why: str) -> None:
        """The next server is asked at once; the one not trusted never sees a question, and one line tells why."""
        _, good = self.tcp()
        upstream = self.start_tls(place, good, policy="ordered")
        for number in range(4):
            result, seconds = await self.timed(f"host{number}.example.com")
            assert isinstance(result, Reply)
            self.assertEqual(str(good), result.server)
            self.assertLess(seconds, 1)
        await self.turn(0.05)
        self.assertEqual([], liar.queries)
        requests = upstream.status()[0]["requests"]
        self.assertGreaterEqual(requests["untrusted"], 1)
        self.assertEqual((0, 0), (requests["ok"], requests["error"]))
        self.assertEqual(1, len(self.lines), self.lines)
        self.assertIn(str(place), self.lines[0])
        self.assertIn(why, self.lines[0])

    async def test_wrong_name(self) -> None:
        await self._refused(*self.tls("other.example.com"), f"another name than {NAME}")

    async def test_wrong_address(self) -> None:
        await self._refused(*self.tls("192.0.2.1", NAME, name=None), "another name than 127.0.0.1")

    async def test_name_is_no_suffix(self) -> None:
        await self._refused(*self.tls("example.com", "com", f"x.{NAME}"), "another name")

    async def test_unknown_authority(self) -> None:
        secured = CertificateAuthority("Somebody Else").certify(NAME)
        await self._refused(*self.tls(secured=secured), "unable to get local issuer certificate")

    async def test_expired(self) -> None:
        await self._refused(*self.tls(secured=self.authority.certify(NAME, expired=True)), "has expired")

    async def test_nobody_else(self) -> None:
        """The client's extended error tells it, too."""
        _, place = self.tls("other.example.com")
        self.start_tls(place)
        result = await self.ask()
        assert isinstance(result, Failed)
        self.assertIn("is not trusted: its certificate is for another name", result.text)

    async def test_trusted_again(self) -> None:
        """The server gets a right certificate: it is back within two seconds, and the log says so."""
        _, place = self.tls("other.example.com")
        self.start_tls(place, attempts=1)
        self.assertIsInstance(await self.ask(), Failed)
        await self.ports.pop().stopListening()
        server = TcpServer()
        server.listen(place.port, self.authority.certify(NAME))
        self.ports.append(server.port)
        await self.turn(1.2)
        self.assertIsInstance(await self.ask(), Reply)
        self.assertIn("trusted again", self.lines[-1])

    async def test_old_tls(self) -> None:
        """TLS 1.1 is refused."""
        secured = self.authority.certify(NAME)
        context = secured.getContext()
        context.set_options(SSL.OP_NO_TLSv1_3 | SSL.OP_NO_TLSv1_2)
        context.set_min_proto_version(SSL.TLS1_VERSION)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        server, place = self.tls(secured=secured)
        self.start_tls(place, attempts=1)
        self.assertIsInstance(await self.ask(), Failed)
        self.assertEqual([], server.queries)

    async def test_speaks_no_tls(self) -> None:
        """A server that answers in clear is an error like any other, and is told nothing."""
        server, place = self.tcp(transport="tls")
        server.protocol = _Clear
        self.start_tls(place, attempts=1)
        result = await self.ask()
        assert isinstance(result, Failed)
        self.assertIn("TLS", result.text)
        self.assertEqual([], server.queries)

    async def test_no_possible_name(self) -> None:
        """A name that no certificate can have: an error, and no traceback."""
        _, place = self.tls(NAME, name="no_such-.example.com")
        self.start_tls(place, attempts=1)
        result = await self.ask()
        assert isinstance(result, Failed)
        self.assertIn("cannot be asked over TLS", result.text)


class KeptConnectionTests(TlsCase):
    async def test_pipelined(self) -> None:
        """RFC 7858 section 3.3: one connection, several questions at once, answers in any order."""
        waiting: list[tuple[TcpConnection, bytes]] = []

        def answer(connection: TcpConnection, query: bytes) -> None:
            waiting.append((connection, query))
            if len(waiting) == 3:
                for one, asked in reversed(waiting):
                    one.sendString(reply(asked))

        server, place = self.tls(NAME, answer=answer)
        self.start_tls(place)
        names = [f"host{number}.example.com" for number in range(3)]
        results = await gatherResults([self.ask(name) for name in names])
        for name, result in zip(names, results, strict=True):
            assert isinstance(result, Reply)
            self.assertIn(name.partition(".")[0].encode(), result.message)
        self.assertEqual(1, len(server.connections))

    async def test_kept(self) -> None:
        """D23: the connection is kept and used again."""
        server, place = self.tls(NAME)
        self.start_tls(place)
        for number in range(5):
            self.assertIsInstance(await self.ask(f"host{number}.example.com"), Reply)
        self.assertEqual(1, len(server.connections))

    async def test_idle_close_and_again(self) -> None:
        self.patch(module, "UPSTREAM_TLS_IDLE", 0.1)
        server, place = self.tls(NAME)
        self.start_tls(place)
        await self.ask()
        await self.turn(0.3)
        self.assertEqual([True], [one.closed for one in server.connections])
        self.assertIsInstance(await self.ask("again.example.com"), Reply)
        self.assertEqual(2, len(server.connections))

    async def test_server_closed_an_idle_connection(self) -> None:
        """RFC 7766 section 6.2.4: nobody notices."""
        server, place = self.tls(NAME)
        self.start_tls(place, attempts=1)
        await self.ask()
        server.connections[0].transport.loseConnection()
        self.assertIsInstance(await self.ask("again.example.com"), Reply)
        self.assertEqual(2, len(server.connections))

    async def test_half_an_answer(self) -> None:
        """D21: the server closes in the middle of an answer: the next one, at once."""
        _, broken = self.tls(NAME, answer=lambda connection, query: connection.half(reply(query)))
        _, good = self.tls(NAME)
        self.start_tls(broken, good, policy="ordered")
        result, seconds = await self.timed("www.example.com")
        assert isinstance(result, Reply)
        self.assertEqual(str(good), result.server)
        self.assertLess(seconds, 1)

    async def test_aborted_answer(self) -> None:
        """The same when the connection breaks without TLS's own goodbye."""

        def answer(connection: TcpConnection, query: bytes) -> None:
            connection.transport.write(b"\x01\x00half")
            connection.transport.abortConnection()

        _, broken = self.tls(NAME, answer=answer)
        _, good = self.tls(NAME)
        self.start_tls(broken, good, policy="ordered")
        result = await self.ask()
        assert isinstance(result, Reply)
        self.assertEqual(str(good), result.server)

    async def test_stop_in_the_handshake(self) -> None:
        """Nothing is left of a connection that a silent server keeps in its handshake."""
        server, place = self.tcp(transport="tls")
        server.protocol = _Mute
        self.start_tls(place, timeout=0.3, attempts=1)
        self.assertIsInstance(await self.ask(), Failed)


class _Clear(TcpConnection):
    def dataReceived(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


class _Mute(TcpConnection):
    def dataReceived(self, data: bytes) -> None:
        """Takes everything and says nothing."""
