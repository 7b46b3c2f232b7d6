"""Rule D29: special-use names are answered here, as RFC 6761 section 6 and RFC 7686 say."""

import dns.flags
import dns.message
import dns.rcode
from twisted.trial.unittest import SynchronousTestCase

from meshdns import names, wire
from meshdns.agent.special import Special
from meshdns.wire import Ask
from tests.agent.mesh import HOSTS, Mesh


def said(mesh: Mesh, name: str, rdtype: str = "A") -> tuple[str, list[str], bool]:
    """The rcode, the answer's records, and whether there is an SOA."""
    message = mesh.ask(name, rdtype)
    records = [record.to_text() for rrset in message.answer for record in rrset]
    return dns.rcode.to_text(message.rcode()), records, bool(message.authority)


class LocalTests(SynchronousTestCase):
    """Nobody is asked."""

    def setUp(self) -> None:
        self.mesh = Mesh()

    def tearDown(self) -> None:
        self.assertEqual([], self.mesh.asked)

    def test_localhost(self) -> None:
        """RFC 6761 section 6.3: the loopback addresses, and below it as well."""
        for name in ("localhost", "LocalHost", "a.b.localhost"):
            self.assertEqual(("NOERROR", ["127.0.0.1"], False), said(self.mesh, name))
            self.assertEqual(("NOERROR", ["::1"], False), said(self.mesh, name, "AAAA"))

    def test_localhost_any(self) -> None:
        self.assertEqual(("NOERROR", ["127.0.0.1", "::1"], False), said(self.mesh, "localhost", "ANY"))

    def test_localhost_has_nothing_else(self) -> None:
        for rdtype in ("MX", "TXT", "SOA", "HTTPS"):
            self.assertEqual(("NOERROR", [], True), said(self.mesh, "localhost", rdtype))

    def test_invalid(self) -> None:
        """RFC 6761 section 6.4."""
        for name in ("invalid", "x.invalid"):
            self.assertEqual(("NXDOMAIN", [], True), said(self.mesh, name))

    def test_onion(self) -> None:
        """RFC 7686 section 2: never looked up."""
        for name in ("onion", "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.ONION"):
            self.assertEqual(("NXDOMAIN", [], True), said(self.mesh, name, "AAAA"))

    def test_source(self) -> None:
        """The metrics count them as local; AA is the mesh's alone (D4)."""
        (answer,) = self.mesh.packet(dns.message.make_query("localhost", "A").to_wire())
        self.assertEqual("local", answer.source)
        self.assertFalse(dns.message.from_wire(answer.message).flags & dns.flags.AA)


class TheirsTests(SynchronousTestCase):
    """Names that only look special."""

    def test_forwarded(self) -> None:
        """`test` and `local` are forwarded like any other; so are names that a special one is only a suffix of."""
        mesh = Mesh()
        for name in ("printer.local", "a.test", "mylocalhost", "x.notonion", "onion.example.com", "invalid.org"):
            self.assertEqual("NXDOMAIN", said(mesh, name)[0])
            self.assertEqual(name, names.text(mesh.asked[-1].question[:-4]))

    def test_label_with_a_suffix_inside(self) -> None:
        """Label by label: octets in the middle of a label do not count."""
        self.assertIsNone(Special().say(b"\x0bx\x09localhost\x00", wire.A))

    def test_mesh_host_wins(self) -> None:
        """A table host has the name."""
        mesh = Mesh(hosts=[*HOSTS, {"host": "hidden.onion", "ips": ["10.4.7.7"], "registry": "External"}])
        self.assertEqual(["10.4.7.7"], said(mesh, "hidden.onion")[1])
        self.assertEqual("NXDOMAIN", said(mesh, "other.onion")[0])

    def test_mesh_zone_wins(self) -> None:
        mesh = Mesh(zones=("cluster.local", "mesh.invalid"))
        self.assertIn("mesh.invalid.", mesh.ask("x.mesh.invalid", "A").authority[0].to_text())

    def test_domains_of_their_own(self) -> None:
        """D29: unless configured otherwise."""
        special = Special([names.parse("corp.localhost"), names.parse("onion")])
        for name in ("corp.localhost", "x.corp.localhost", "x.onion"):
            self.assertIsNone(special.say(names.parse(name), wire.A), name)
        self.assertIsNotNone(special.say(names.parse("localhost"), wire.A))
        special.use(())
        self.assertIsNotNone(special.say(names.parse("x.onion"), wire.A))


class StepTests(SynchronousTestCase):
    """What a walk of the search list gets where it comes to such a name."""

    def test_reply(self) -> None:
        reply = Special().reply(Ask(names.parse("localhost") + b"\x00\x01\x00\x01", wire.RD, b""))
        assert reply is not None
        message = dns.message.from_wire(reply.message)
        self.assertEqual("127.0.0.1", message.answer[0][0].to_text())
        self.assertEqual("localhost.", message.question[0].name.to_text())

    def test_nothing_special(self) -> None:
        self.assertIsNone(Special().reply(Ask(names.parse("www.example.com") + b"\x00\x01\x00\x01", wire.RD, b"")))
