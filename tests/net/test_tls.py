"""Who is trusted (rule X9): authorities, pins and names together, over real connections."""

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, cast

from twisted.internet import reactor as twisted_reactor
from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase

from meshdns.net.tls import ClientTls, ServerTls, uris
from meshdns.net.trust import TrustProblem
from tests.pki import Authority, Issued

reactor: Any = twisted_reactor
SPIFFE = "spiffe://cluster.local/ns/ns1/sa/default"


class Hello(Protocol):
    """Says who is there, and is done."""

    def connectionMade(self) -> None:
        cast(Any, self.transport).write(b"hello")

    def dataReceived(self, data: bytes) -> None:
        named = uris(cast(Any, self.transport).getPeerCertificate())
        cast(Any, self.transport).write(b"you are " + repr(named).encode())
        cast(Any, self.transport).loseConnection()


class Listen(Protocol):
    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred()
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        if not self.data:
            cast(Any, self.transport).write(b"who am I?")
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.done.callback(self.data)


class Case(TestCase):
    def setUp(self) -> None:
        self.folder = Path(mkdtemp(prefix="meshdns-tls-"))
        self.addCleanup(rmtree, self.folder)
        self.root = Authority(self.folder, "root")
        self.other = Authority(self.folder, "other")

    def serve(self, issued: Issued, client_ca: Path | None = None) -> tuple[int, ServerTls]:
        tls = ServerTls(str(issued.pem), str(issued.key), str(client_ca) if client_ca else None)
        factory = TLSMemoryBIOFactory(tls, False, Factory.forProtocol(Hello))
        port = tcp.Port(0, cast(Any, factory), interface="127.0.0.1", reactor=reactor)
        port.startListening()
        self.addCleanup(port.stopListening)
        return port.getHost().port, tls

    def trust(self, ca: Authority | None = None, *pins: str, own: Issued | None = None) -> ClientTls:
        certificate, key = (str(own.pem), str(own.key)) if own else (None, None)
        return ClientTls(ca=str(ca.pem) if ca else None, pins=pins, certificate=certificate, key=key)

    async def said(self, tls: ClientTls, port: int, host: str = "localhost") -> str:
        """What the server says; "" when no connection came about."""
        endpoint = wrapClientTLS(tls.creator(host), TCP4ClientEndpoint(reactor, "127.0.0.1", port))
        listen = await endpoint.connect(Factory.forProtocol(Listen))
        return cast(str, (await listen.done).decode())


class ServerTrustTests(Case):
    """X9: an agent's view of its control plane."""

    async def refused(self, tls: ClientTls, issued: Issued, why: str, host: str = "localhost") -> None:
        self.assertEqual("", await self.said(tls, self.serve(issued)[0], host))
        self.assertIn(why, tls.refused)

    async def accepted(self, tls: ClientTls, issued: Issued, host: str = "localhost") -> None:
        self.assertIn("hello", await self.said(tls, self.serve(issued)[0], host))
        self.assertEqual("", tls.refused)

    async def test_right(self) -> None:
        """By authority, by pin of the leaf, by pin of the authority, by both; by name and by address."""
        good = self.root.issue("good", "localhost", "127.0.0.1")
        for tls in (
            self.trust(self.root), self.trust(self.root, good.pin), self.trust(self.root, self.root.pin),
            self.trust(None, good.pin), self.trust(None, "sha256/" + "A" * 43 + "=", good.pin),
        ):  # fmt: skip
            await self.accepted(tls, good)
            await self.accepted(tls, good, "127.0.0.1")

    async def test_right_pin_wrong_name(self) -> None:
        """X9: a pin does not undo the check of the name."""
        bad = self.root.issue("bad", "elsewhere.example")
        for tls in (self.trust(self.root), self.trust(self.root, bad.pin), self.trust(None, bad.pin)):
            await self.refused(tls, bad, "its certificate is not for localhost")
        await self.refused(self.trust(None, bad.pin), bad, "not for 127.0.0.1", "127.0.0.1")

    async def test_right_name_wrong_pin(self) -> None:
        """X9: nor the name that of the pin; the pin that was seen is told. So ends a man in the middle whom a public authority has
        given a certificate for our name."""
        good = self.root.issue("good", "localhost")
        for tls in (self.trust(self.root, self.other.pin), self.trust(None, self.other.pin)):
            await self.refused(tls, good, f"none of its pins is ours; its own certificate has {good.pin}")

    async def test_wrong_authority(self) -> None:
        fake = self.other.issue("fake", "localhost")
        await self.refused(self.trust(self.root), fake, "its certificate was not accepted")
        await self.refused(self.trust(self.root, fake.pin), fake, "its certificate was not accepted")

    async def test_expired(self) -> None:
        """X9: dates count, with an authority and with a pin alone."""
        for days in ((-9, -2), (2, 9)):
            late = self.root.issue("late", "localhost", days=days)
            await self.refused(self.trust(self.root), late, "its certificate was not accepted")
            await self.refused(self.trust(None, late.pin), late, "")

    async def test_pin_of_an_issuer(self) -> None:
        """X9: with pins alone a presented issuer may match, but only one that has signed what stands before it."""
        middle = Authority(self.folder, "middle", self.root)
        good = middle.issue("chained", "localhost", chain=True)
        await self.accepted(self.trust(None, middle.pin), good)
        await self.accepted(self.trust(self.root, middle.pin), good)
        await self.accepted(self.trust(self.root, self.root.pin), good)
        forged = self.other.issue("forged", "localhost")
        forged.pem.write_bytes(forged.pem.read_bytes() + middle.pem.read_bytes())
        await self.refused(self.trust(None, middle.pin), forged, "none of its pins is ours")

    async def test_trusted_again(self) -> None:
        tls = self.trust(self.root)
        await self.refused(tls, self.other.issue("fake", "localhost"), "not accepted")
        await self.accepted(tls, self.root.issue("good", "localhost"))


class ClientTrustTests(Case):
    """X10: a control plane's view of its agents."""

    async def test_named(self) -> None:
        port, _ = self.serve(self.root.issue("s", "localhost"), self.root.pem)
        vm = self.root.issue("vm", SPIFFE, "https://other.example")
        self.assertIn(SPIFFE, await self.said(self.trust(self.root, own=vm), port))
        self.assertIn("you are None", await self.said(self.trust(self.root), port))

    async def test_not_ours(self) -> None:
        """X10: a certificate of another authority, or one that has expired, ends the connection."""
        port, _ = self.serve(self.root.issue("s", "localhost"), self.root.pem)
        for own in (self.other.issue("vm", SPIFFE), self.root.issue("old", SPIFFE, days=(-9, -1))):
            said = await self.said(self.trust(self.root, own=own), port)
            self.assertNotIn("you are", said)


class FileTests(Case):
    """X9: certificates, keys and CA files are read again when they change, without a restart."""

    async def test_renewed(self) -> None:
        old = self.root.issue("s", "localhost")
        port, tls = self.serve(old)
        client = self.trust(self.root, old.pin)
        self.assertIn("hello", await self.said(client, port))
        new = self.root.issue("s", "localhost")
        self.assertEqual("", await self.said(client, port))
        self.assertIn("hello", await self.said(self.trust(self.root, new.pin), port))
        self.assertEqual("", tls.problem)

    async def test_broken_ones_change_nothing(self) -> None:
        """A key that does not fit, or a half-written file, leaves the old ones in force, with a word about it."""
        good = self.root.issue("s", "localhost")
        port, tls = self.serve(good)
        for content in (self.root.issue("x", "localhost").key.read_bytes(), b""):
            good.key.write_bytes(content)
            self.assertIn("hello", await self.said(self.trust(self.root), port))
            self.assertIn("is not the key of", tls.problem)

    async def test_other_authority(self) -> None:
        client = self.trust(self.root)
        port, _ = self.serve(self.other.issue("s", "localhost"))
        self.assertEqual("", await self.said(client, port))
        self.root.pem.write_bytes(self.other.pem.read_bytes())
        self.assertIn("hello", await self.said(client, port))

    def test_useless_at_the_start(self) -> None:
        good = self.root.issue("s", "localhost")
        for certificate, key, why in (
            ("/nowhere.pem", good.key, "/nowhere.pem cannot be read: No such file"),
            (good.key, good.key, "holds no certificate as PEM"),
            (good.pem, good.pem, "is not the key of"),
            (good.pem, self.root.issue("t", "localhost").key, "is not the key of"),
        ):
            problem = self.assertRaises(TrustProblem, ServerTls, str(certificate), str(key), None)
            self.assertIn(why, str(problem))
