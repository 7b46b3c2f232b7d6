"""What clients are told of failures: extended errors (RFC 8914; rules D17, D18, D21, D22, D26)."""

import dns.edns
import dns.message
from twisted.trial.unittest import SynchronousTestCase

from meshdns.agent.steps import Failed
from tests.agent.looking import zone
from tests.agent.mesh import Mesh

SILENT = Failed("timeout", 22, "10.0.0.53:53 gave no answer in 2 s")


def errors(message: dns.message.Message) -> list[tuple[int, str | None]]:
    """Code and text of each."""
    return [(int(each.code), each.text) for each in message.options if isinstance(each, dns.edns.EDEOption)]


def bogus() -> bytes:
    """What a validating server says of a name with a broken signature."""
    reply = dns.message.make_response(dns.message.make_query("www.example.org", "A", use_edns=0))
    reply.set_rcode(dns.rcode.SERVFAIL)
    reply.use_edns(0, options=[dns.edns.EDEOption(6, "signature expired"), dns.edns.NSIDOption(b"x")])
    return reply.to_wire()


class FailureTests(SynchronousTestCase):
    def asked(self, mesh: Mesh, **options: object) -> list[tuple[int, str | None]]:
        return errors(mesh.ask("www.example.org.", **{"use_edns": 0, **options}))

    def test_failure(self) -> None:
        """D21: what became of each server."""
        self.assertEqual(self.asked(Mesh(reply=lambda _: SILENT)), [(22, SILENT.text)])

    def test_again(self) -> None:
        """RFC 9520, RFC 8914 section 4.14: a failure of a moment ago is told as one, and counts as the cache's."""
        mesh = Mesh(reply=lambda _: SILENT)
        self.asked(mesh)
        self.assertEqual(self.asked(mesh), [(22, SILENT.text), (13, None)])
        (answered,) = mesh.packet(dns.message.make_query("www.example.org.", "A").to_wire())
        self.assertEqual((answered.source, answered.rcode, len(mesh.asked)), ("cache", 2, 1))

    def test_what_the_server_said(self) -> None:
        """D18: the codes of upstream servers survive, and nothing else of their OPT."""
        mesh = Mesh(reply=lambda _: Failed("rcode", 22, "10.0.0.53:53 said SERVFAIL", bogus()))
        self.assertEqual(self.asked(mesh), [(22, "10.0.0.53:53 said SERVFAIL"), (6, "signature expired")])
        self.assertEqual(len(mesh.ask("www.example.org.", use_edns=0).options), 3)

    def test_limit(self) -> None:
        """D5: however much there is to tell, it fits."""
        long = Failed("rcode", 22, "é" * 4000, bogus())
        mesh = Mesh(reply=lambda _: long)
        name = ".".join(["a" * 60] * 4)
        for _ in range(2):
            query = dns.message.make_query(name, "A", use_edns=0, payload=512)
            (answered,) = mesh.packet(query.to_wire())
            self.assertLessEqual(len(answered.message), 512)
            self.assertEqual(errors(dns.message.from_wire(answered.message))[0][0], 22)

    def test_without_edns(self) -> None:
        self.assertEqual(self.asked(Mesh(reply=lambda _: SILENT), use_edns=False), [])

    def test_stale(self) -> None:
        """D26: an answer that goes out though it expired."""
        mesh = Mesh(reply=zone("www.example.org. A 192.0.2.1"))
        self.assertEqual(self.asked(mesh), [])
        mesh.clock.advance(90)
        mesh.reply = lambda _: SILENT
        self.assertEqual(self.asked(mesh), [(3, None)])

    def test_not_ready(self) -> None:
        """D17: no table yet."""
        message = Mesh(hosts=None).ask("productpage.ns1.svc.cluster.local.", use_edns=0)
        self.assertEqual(errors(message), [(14, "no name table has arrived yet")])
