"""Where an upstream's chain of CNAMEs enters the mesh, the table answers, however the chain is told (rule D24)."""

import dns.message
import dns.rrset
from twisted.trial.unittest import SynchronousTestCase

from tests.agent.mesh import Mesh

HOST = "productpage.ns1.svc.cluster.local."


def says(*lines: str) -> Mesh:
    """A mesh whose upstream says these records, in this order, to everything."""

    def reply(query: dns.message.Message) -> dns.message.Message:
        message = dns.message.make_response(query)
        for line in lines:
            owner, ttl, rdclass, rest = line.split(None, 3)
            message.answer.append(dns.rrset.from_text(owner, int(ttl), rdclass, *rest.split(None, 1)))
        return message

    return Mesh(reply=reply)


SIGNATURE = "CNAME 8 3 60 20300101000000 20200101000000 1 example.org. AAAA"


class InwardTests(SynchronousTestCase):
    def test_in_order(self) -> None:
        """D24: the upstream's own word on the mesh name is not heard."""
        mesh = says(f"www.example.org. 60 IN CNAME {HOST}", f"{HOST} 60 IN A 192.0.2.66")
        expected = [f"www.example.org. 60 IN CNAME {HOST}", f"{HOST} 30 IN A 10.4.0.5"]
        self.assertEqual(mesh.say("www.example.org."), ("NOERROR", expected, []))
        self.assertEqual(mesh.say("www.example.org."), ("NOERROR", expected, []))

    def test_out_of_order(self) -> None:
        """D24: nor where the chain's end is told first."""
        mesh = says(
            f"{HOST} 60 IN A 192.0.2.66",
            f"b.example.org. 60 IN CNAME {HOST}",
            "www.example.org. 60 IN CNAME b.example.org.",
        )
        found = mesh.say("www.example.org.")[1]
        self.assertNotIn(f"{HOST} 60 IN A 192.0.2.66", found)
        self.assertIn(f"{HOST} 30 IN A 10.4.0.5", found)
        self.assertEqual(len(found), 3)

    def test_signed(self) -> None:
        """D24: nor behind a signature."""
        mesh = says(
            f"www.example.org. 60 IN RRSIG {SIGNATURE}",
            f"www.example.org. 60 IN CNAME {HOST}",
            f"{HOST} 60 IN A 192.0.2.66",
        )
        found = mesh.say("www.example.org.", want_dnssec=True)[1]
        self.assertNotIn(f"{HOST} 60 IN A 192.0.2.66", found)
        self.assertIn(f"{HOST} 30 IN A 10.4.0.5", found)

    def test_question_for_the_alias(self) -> None:
        """D18: who asks for the CNAME itself gets it as it came."""
        mesh = says(f"www.example.org. 60 IN CNAME {HOST}")
        self.assertEqual(
            mesh.say("www.example.org.", "CNAME"), ("NOERROR", [f"www.example.org. 60 IN CNAME {HOST}"], [])
        )
