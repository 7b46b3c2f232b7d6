"""What `explain` says of every rule that decides on a name, and that it changes nothing by looking."""

import json
from typing import Any

import dns.message
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshdns import messages, names, wire
from meshdns.agent.explain import explain
from meshdns.agent.nearby import nearby
from meshdns.presentation import record_text
from tests.agent.mesh import HOSTS, SEARCH, Mesh

CORP = (*SEARCH, "corp.example.com")
UP = [{"server": "10.0.0.53:53", "state": "up"}]
# Name and type -> rule, source and rcode (None: an upstream's), and what the verdict must say of the name.
VERDICTS = {
    "productpage.ns1.svc.cluster.local A": (
        "D6 mesh NOERROR: Answered from the mesh (rule D6): {} is a host of the table."
    ),
    "productpage A": "D6 mesh NOERROR: {} is short for productpage.ns1.svc.cluster.local (+ ns1.svc.cluster.local).",
    "reviews.ns2 A": "D6 mesh NOERROR: {} is short for reviews.ns2.svc.cluster.local (+ svc.cluster.local).",
    "x.wild.example.com A": "D7 mesh NOERROR: {} is covered by *.wild.example.com, the closest wildcard.",
    "productpage.ns1.svc.cluster.local.corp.example.com A": (
        "D8 mesh NOERROR: your resolver appended the search domain corp.example.com to "
        "productpage.ns1.svc.cluster.local, which is a host of the table."
    ),
    "reviews.ns2.ns1.svc.cluster.local A": (
        "D8 mesh NOERROR: appended the search domain ns1.svc.cluster.local to reviews.ns2, and "
        "reviews.ns2.svc.cluster.local is a host of the table."
    ),
    "gone.ns1.svc.cluster.local A": (
        "D8 upstream None: Decided by upstream servers (rule D8): your resolver appended the search domain "
        "ns1.svc.cluster.local to gone, and which of the names to be tried exists is to be asked."
    ),
    "ns1.svc.cluster.local A": "D9 mesh NOERROR: without records (rule D9): {} is an empty non-terminal",
    "www.example.org A": (
        "D10 upstream None: Relayed to an upstream server (rule D10): {} is in no mesh zone, and not in the table."
    ),
    "six A": (
        "D6 mesh NOERROR: without records (rule D6): six is short for six.ns1.svc.cluster.local (+ "
        "ns1.svc.cluster.local), but has no A record."
    ),
    "dual TXT": "D6 mesh NOERROR: but has no TXT record.",
    "_http._tcp.productpage SRV": "D13 mesh NOERROR: {} is a named port of productpage.ns1.svc.cluster.local.",
    "5.0.4.10.in-addr.arpa PTR": (
        "D13 mesh NOERROR: {} is the reverse name of an address of productpage.ns1.svc.cluster.local."
    ),
    "docs A": "D6 mesh+upstream None: Answered from the mesh, completed by an upstream server (rule D6)",
    "front A": "D6 mesh NOERROR: {} is short for front.ns1.svc.cluster.local",
    "lost A": "D6 mesh NXDOMAIN: but the name that it stands for is not in the table.",
    "ring-a A": "D6 mesh SERVFAIL: but its aliases lead in a circle.",
    "db1.example.com MX": (
        "D6 upstream None: {} is a host of the table, but of MX the mesh says nothing outside its zones."
    ),
    "db1.example.com HTTPS": "D6 mesh NOERROR: {} is a host of the table, but has no HTTPS record.",
    "dns-version.cluster.local TXT": "D15 mesh NOERROR: {} is the version record of the Kubernetes DNS specification.",
    "cluster.local SOA": "D16 mesh NOERROR: {} is the mesh zone cluster.local itself.",
    "db.localhost A": "D29 local NOERROR: Answered on the spot (rule D29): {} is a name of special use.",
    "www.onion AAAA": "D29 local NXDOMAIN: Answered on the spot with NXDOMAIN (rule D29): {} is a name of special use.",
    "cluster.local AXFR": "D2 local REFUSED: Refused (rule D2): AXFR asks for a whole zone, which is not transferred.",
}
# Labels that lead to every corner of the test mesh.
LABELS = (
    "productpage", "reviews", "dual", "six", "docs", "lost", "ring-a", "ns1", "ns2", "svc", "cluster",
    "local", "example", "com", "wild", "deep", "corp", "db1", "mysql-0", "mysql", "db", "_http",
    "_tcp", "x", "dns-version", "ns", "dns", "in-addr", "arpa", "10", "4", "0", "5",
)  # fmt: skip
TYPES = ("A", "AAAA", "SRV", "PTR", "MX", "ANY", "TXT", "CNAME", "SOA", "NS", "HTTPS", "TYPE65280")


def told(mesh: Mesh, name: str, qtype: str = "A", **more: Any) -> dict[str, Any]:
    given = {"now": mesh.now, "upstreams": UP, **more}
    return explain(mesh.resolver, names.parse(name), wire.parse_type(qtype), **given)


def steps(said: dict[str, Any], check: str) -> list[str]:
    return [step["text"] for step in said["steps"] if step["check"] == check]


class VerdictTests(SynchronousTestCase):
    def test_every_rule(self) -> None:
        """D2, D6 to D10, D13 to D16: the rule, the source, the rcode and the sentence."""
        mesh = Mesh(search=CORP)
        for question, expected in VERDICTS.items():
            name, qtype = question.split()
            decided, sentence = expected.split(": ", 1)
            said = told(mesh, name, qtype)
            self.assertEqual(decided, f"{said['rule']} {said['source']} {said['rcode']}", question)
            self.assertIn(sentence.format(name), said["verdict"])

    def test_classic(self) -> None:
        """D8, D12: the name that every resolver with ndots:5 tries first, told from end to end."""
        name = "productpage.ns1.svc.cluster.local.ns1.svc.cluster.local"
        said = told(Mesh(), name, table={"generation": "9f2c", "hosts": 20, "age": 12.0})
        host = "productpage.ns1.svc.cluster.local"
        self.assertEqual(
            said["verdict"],
            "Answered from the mesh (rule D8): your resolver appended the search domain ns1.svc.cluster.local to "
            f"{host}, which is a host of the table.",
        )
        self.assertEqual(
            [step["check"] for step in said["steps"]],
            ["zone", "host", "short name", "wildcard", "search", "step", "answer"],
        )
        self.assertEqual([step["name"] for step in said["steps"] if step["decides"]], [host])
        self.assertEqual(
            said["search"],
            {
                "list": list(SEARCH),
                "autopath": "all",
                "domain": "ns1.svc.cluster.local",
                "bare": host,
                "walk": [{"name": host, "verdict": "host", "cache": None}],
            },
        )
        self.assertEqual(
            [record["text"] for record in said["answer"]],
            [f"{name}. 30 IN CNAME {host}.", f"{host}. 30 IN A 10.4.0.5"],
        )
        self.assertEqual(said["entry"]["ports"], [{"name": "http", "number": 9080, "protocol": "TCP"}])
        self.assertEqual((said["answer_rule"], said["zone"], said["hints"]), ("D11", "cluster.local", []))
        self.assertEqual(said["table"], {"generation": "9f2c", "hosts": 20, "age": 12.0})

    def test_unknown_in_the_zone(self) -> None:
        """D9: where the search list leads to no other zone, the table alone decides."""
        said = told(Mesh(), "gone.cluster.local.svc.cluster.local")
        self.assertEqual((said["rule"], said["source"], said["rcode"]), ("D9", "mesh", "NXDOMAIN"))
        self.assertIn("is in the mesh zone cluster.local, and not in the table.", said["verdict"])
        self.assertEqual(len(steps(said, "step")), 3)
        self.assertIn("Your resolver goes on with its own search", steps(said, "search")[-1])

    def test_autopath_off(self) -> None:
        said = told(Mesh(autopath="off"), "productpage.ns1.svc.cluster.local.ns1.svc.cluster.local")
        self.assertEqual((said["rule"], said["rcode"]), ("D9", "NXDOMAIN"))
        self.assertIn("told not to walk the search list (autopath: off)", steps(said, "search")[0])

    def test_autopath_mesh(self) -> None:
        """D8: then no upstream is asked about a step, and the search ends before the first that would need one."""
        said = told(Mesh(search=CORP, autopath="mesh"), "wiki.ns1.svc.cluster.local")
        self.assertEqual((said["rule"], said["rcode"], said["cache"]), ("D9", "NXDOMAIN", []))
        self.assertEqual(len(steps(said, "step")), 4)
        self.assertIn("The search ends here: autopath is mesh.", steps(said, "step")[-1])

    def test_no_table(self) -> None:
        """D17: before the first table."""
        mesh = Mesh(hosts=None)
        said = told(mesh, "productpage.ns1.svc.cluster.local")
        self.assertEqual((said["rule"], said["rcode"], said["source"]), ("D17", "SERVFAIL", "local"))
        self.assertIn("no name table has arrived yet", said["verdict"])
        self.assertEqual((said["answer"], said["upstream"], said["hints"]), ([], None, []))
        self.assertEqual(told(mesh, "www.example.org")["rule"], "D10")

    def test_rotation_and_virtual_address(self) -> None:
        """D11: what a user of three addresses or of a 240.240.0.1 wonders about."""
        self.assertIn("It has 3 addresses: each answer has them all", steps(told(Mesh(), "reviews.ns2"), "answer")[-1])
        self.assertIn("a virtual one", steps(told(Mesh(), "db1.example.com"), "answer")[0])

    def test_other_family(self) -> None:
        """D11: a family that the host has not."""
        said = told(Mesh(), "productpage.ns1.svc.cluster.local", "AAAA")
        self.assertIn("has only 10.4.0.5. NOERROR without records", steps(said, "answer")[0])
        self.assertEqual(len(said["authority"]), 1)

    def test_alias(self) -> None:
        """D14: where an ExternalName leads, and who is asked then."""
        said = told(Mesh(), "docs")
        self.assertIn("docs.ns1.svc.cluster.local stands for docs.example.org", steps(said, "answer")[1])
        upstream = {"name": "docs.example.org", "questions": ["docs.example.org A"], "servers": UP}
        self.assertEqual(said["upstream"], upstream)
        self.assertEqual(steps(said, "upstream"), ["docs.example.org A is asked of 10.0.0.53:53 (up)."])

    def test_upstreams(self) -> None:
        """D10: nobody to ask, and nobody who answers."""
        (none,) = steps(told(Mesh(), "www.example.org", upstreams=[]), "upstream")
        self.assertIn("There is no upstream server, so this ends in SERVFAIL", none)
        (dead,) = steps(
            told(Mesh(), "www.example.org", upstreams=[{"server": "10.0.0.53:53", "state": "dead"}]), "upstream"
        )
        self.assertIn("None of them answers at the moment, so expect SERVFAIL.", dead)

    def test_order_of_upstreams(self) -> None:
        """D21: in which turn each server is asked; the one with a loop never is."""
        servers = [
            {"server": "a", "state": "loop", "turn": None},
            {"server": "b", "state": "slow", "turn": 2},
            {"server": "c", "state": "up", "turn": 1, "latency": 0.25},
        ]
        (text,) = steps(told(Mesh(), "www.example.org", upstreams=servers), "upstream")
        self.assertEqual(text, "www.example.org A is asked of c (up, 250 ms), then b (slow), then a (loop).")
        race = [{**server, "turn": 1} for server in servers[1:]]
        (text,) = steps(told(Mesh(), "www.example.org", upstreams=race), "upstream")
        self.assertEqual(text, "www.example.org A is asked of b (slow) and c (up, 250 ms).")

    def test_domains_with_servers_of_their_own(self) -> None:
        """D23: each step of a walk is asked of the servers that its name belongs to."""
        servers = [
            {"server": "a", "state": "up", "domains": []},
            {"server": "b", "state": "up", "domains": ["example.com"]},
        ]
        said = told(Mesh(search=CORP), "wiki.ns1.svc.cluster.local", upstreams=servers)
        self.assertEqual(
            steps(said, "upstream"),
            [
                "wiki.corp.example.com A is asked of b (up), by upstream.domains for example.com.",
                "wiki A is asked of a (up).",
            ],
        )


class HintTests(SynchronousTestCase):
    """What may have been meant."""

    def test_other_namespace(self) -> None:
        for name in ("reviews", "reviews.ns1.svc.cluster.local", "reviews.svc.cluster.local"):
            self.assertEqual(told(Mesh(), name)["hints"], ["reviews exists in ns2: reviews.ns2.svc.cluster.local."])

    def test_slip_of_the_finger(self) -> None:
        for wrong, right in {
            "prodctpage": "productpage.ns1.svc.cluster.local",
            "productpgae.ns1.svc.cluster.local": "productpage.ns1.svc.cluster.local",
            "db1.exampel.com": "db1.example.com",
        }.items():
            self.assertEqual(told(Mesh(), wrong)["hints"], [f"Did you mean {right}?"])

    def test_apex_of_a_wildcard(self) -> None:
        """D7: `*.rest` does not cover `rest`."""
        self.assertIn("but not wild.example.com itself (rule D7)", told(Mesh(), "wild.example.com")["hints"][0])

    def test_registry_without_short_names(self) -> None:
        """D6: only Kubernetes services have aliases."""
        hosts = [*HOSTS, {"host": "legacy.ns1.svc.cluster.local", "ips": ["10.9.9.9"], "registry": "External"}]
        (text,) = steps(told(Mesh(hosts=hosts), "legacy"), "short name")
        self.assertIn("legacy.ns1.svc.cluster.local is in the table, but as External", text)

    def test_port(self) -> None:
        """D13: which ports there are."""
        (text,) = steps(told(Mesh(), "_htp._tcp.productpage", "SRV"), "port")
        self.assertEqual(text, "It is no named port of productpage.ns1.svc.cluster.local, which has _http._tcp.")

    def test_nothing_alike(self) -> None:
        (hint,) = told(Mesh(), "zebra.ns1.svc.cluster.local")["hints"]
        self.assertIn("headless", hint)
        (hint,) = told(Mesh(), "zebra.cluster.local")["hints"]
        self.assertEqual(hint, "Services have names like SERVICE.NAMESPACE.svc.cluster.local.")

    def test_other_peoples_names(self) -> None:
        """A name of somebody else gets no guesses, even if a service has the same first label."""
        for name in ("www.example.org", "reviews.example.org", "mysql.example.net"):
            self.assertEqual(told(Mesh(), name)["hints"], [])

    def test_at_most_three(self) -> None:
        hosts = [
            {"host": f"cart.shop{n}.svc.cluster.local", "ips": ["10.0.0.1"], "namespace": f"shop{n}"} for n in range(9)
        ]
        self.assertEqual(len(told(Mesh(hosts=hosts), "cart.ns1.svc.cluster.local")["hints"]), 3)

    def test_large_table(self) -> None:
        """However many hosts are alike, few are compared."""
        hosts = [{"host": f"cart{n:05}.shop.svc.cluster.local", "ips": ["10.0.0.1"]} for n in range(20_000)]
        mesh = Mesh(hosts=hosts)
        table = mesh.resolver.authority.table
        assert table
        self.assertEqual(len(nearby(names.parse("cart9.shop.svc.cluster.local"), table.entries)), 0)
        self.assertEqual(len(nearby(names.parse("cart0000.shop.svc.cluster.local"), table.entries)), 3)


class LookingTests(SynchronousTestCase):
    """Explaining changes nothing, and says what a client really gets."""

    def test_changes_nothing(self) -> None:
        """D11: neither the turn of addresses, nor a counter, nor a packed answer."""
        mesh, twin = Mesh(), Mesh()
        before = [mesh.say("reviews.ns2."), twin.say("reviews.ns2.")]
        self.assertEqual(before[0], before[1])
        kept = dict(mesh.resolver.packs.datagrams.known)
        for question in VERDICTS:
            told(mesh, *question.split())
        self.assertEqual(mesh.resolver.packs.datagrams.known, kept)
        self.assertEqual((mesh.resolver.autopath_answers, mesh.asked), (0, []))
        self.assertEqual([mesh.say("reviews.ns2.") for _ in range(4)], [twin.say("reviews.ns2.") for _ in range(4)])

    @given(st.lists(st.sampled_from(LABELS), min_size=1, max_size=12), st.sampled_from(TYPES))
    def test_is_what_clients_get(self, labels: list[str], qtype: str) -> None:
        """D6 to D16: the records and the rcode told are those of the answer, and at most one look decides."""
        mesh, name = Mesh(search=CORP), ".".join(labels)
        said = told(mesh, name, qtype)
        json.dumps(said)
        deciding = [step for step in said["steps"] if step["decides"]]
        found = said["rcode"] == "NOERROR" or (said["rule"] not in ("D9", "D10") and (said["rcode"] or said["entry"]))
        self.assertEqual(len(deciding), int(bool(found)))
        if said["upstream"]:
            return
        (answered,) = mesh.packet(dns.message.make_query(name, qtype).to_wire(), tcp=True)
        self.assertEqual((said["source"], said["rcode"]), (answered.source, wire.rcode_text(answered.rcode)))
        for section, records in messages.records(answered.message)._asdict().items():
            self.assertEqual([record["text"] for record in said[section]], list(map(record_text, records)))
