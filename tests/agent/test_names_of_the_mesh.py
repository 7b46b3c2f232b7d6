"""Whose name it is, and what it answers: D6 to D17, each rule through whole packets."""

import dns.flags
import dns.message
import dns.rrset
from twisted.trial.unittest import SynchronousTestCase

from meshdns import __version__, names
from meshdns.agent.flights import Failed
from tests.agent.mesh import HOSTS, SEARCH, Mesh

PRODUCTPAGE = "productpage.ns1.svc.cluster.local. 30 IN A 10.4.0.5"
NOTHING = ("NXDOMAIN", [], ["SOA"])
NODATA = ("NOERROR", [], ["SOA"])


class ExactTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.mesh = Mesh()

    def test_host(self) -> None:
        """D6: a host of the table, whatever its case; the owner shows the case asked (D4)."""
        self.assertEqual(self.mesh.say("productpage.ns1.svc.cluster.local."), ("NOERROR", [PRODUCTPAGE], []))
        self.assertEqual(
            self.mesh.say("ProductPage.NS1.svc.Cluster.local."),
            ("NOERROR", ["ProductPage.NS1.svc.Cluster.local. 30 IN A 10.4.0.5"], []),
        )

    def test_alias_forms(self) -> None:
        """D6, D12: SVC, SVC.NS and SVC.NS.svc mean what they mean in a pod: a CNAME to the full name, then its records."""
        for name in ["productpage.", "productpage.ns1.", "productpage.ns1.svc."]:
            self.assertEqual(
                self.mesh.say(name),
                ("NOERROR", [f"{name} 30 IN CNAME productpage.ns1.svc.cluster.local.", PRODUCTPAGE], []),
            )
        self.assertEqual(self.mesh.say("reviews.ns2.")[1][0], "reviews.ns2. 30 IN CNAME reviews.ns2.svc.cluster.local.")

    def test_no_alias_for_other_namespaces_or_registries(self) -> None:
        """D6: `reviews` lives in ns2, and an External host has no short form; both go upstream."""
        for name in ["reviews.", "db1.example.com.ns1.", "productpage.ns1.svc.cluster."]:
            self.assertTrue(self.mesh.is_relayed(name, "A"))
        self.assertEqual(len(self.mesh.asked), 3)

    def test_alias_tries_the_namespace_first(self) -> None:
        """D6: + NS.svc.DOMAIN, then svc.DOMAIN, then DOMAIN: Istio's order bug (a service named as a namespace) cannot be."""
        hosts = [
            {"host": "x.ns2.svc.cluster.local", "ips": ["10.0.0.1"], "registry": "Kubernetes"},
            {"host": "x.ns2.ns1.svc.cluster.local", "ips": ["10.0.0.2"], "registry": "Kubernetes"},
        ]
        for order in (hosts, hosts[::-1]):
            self.mesh.adopt(order)
            self.assertEqual(self.mesh.say("x.ns2.")[1][-1], "x.ns2.ns1.svc.cluster.local. 30 IN A 10.0.0.2")

    def test_host_before_alias_before_wildcard(self) -> None:
        """D6: a host wins over an alias, an alias over a wildcard."""
        wildcard = {"host": "*.ns1", "ips": ["10.0.0.3"], "registry": "External"}
        alias = {"host": "web.ns1.svc.cluster.local", "ips": ["10.0.0.2"], "registry": "Kubernetes"}
        host = {"host": "web.ns1", "ips": ["10.0.0.1"], "registry": "External"}
        for hosts, address in [
            ([wildcard], "10.0.0.3"),
            ([wildcard, alias], "10.0.0.2"),
            ([wildcard, alias, host], "10.0.0.1"),
        ]:
            self.mesh.adopt(hosts)
            self.assertEqual(self.mesh.say("web.ns1.")[1][-1].rpartition(" ")[2], address)

    def test_not_by_string_suffix(self) -> None:
        """D6: svc.myns1 does not end in the namespace ns1."""
        self.mesh.adopt([{"host": "svc.myns1.svc.cluster.local", "ips": ["10.0.0.1"], "registry": "Kubernetes"}])
        self.assertEqual(
            self.mesh.say("svc.myns1.svc.cluster.local.ns1.svc.cluster.local.")[1],
            [
                "svc.myns1.svc.cluster.local.ns1.svc.cluster.local. 30 IN CNAME svc.myns1.svc.cluster.local.",
                "svc.myns1.svc.cluster.local. 30 IN A 10.0.0.1",
            ],
        )


class WildcardTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.mesh = Mesh()

    def test_most_specific(self) -> None:
        """D7: one or more labels, the closest wildcard, the owner is the name asked."""
        for name, address in [
            ("a.wild.example.com.", "240.240.0.2"),
            ("a.b.wild.example.com.", "240.240.0.2"),
            ("deep.wild.example.com.", "240.240.0.2"),
            ("x.y.deep.wild.example.com.", "240.240.0.3"),
        ]:
            self.assertEqual(self.mesh.say(name), ("NOERROR", [f"{name} 30 IN A {address}"], []))

    def test_not_the_rest_itself(self) -> None:
        """D7: `*.rest` does not cover `rest`."""
        self.assertTrue(self.mesh.is_relayed("wild.example.com.", "A"))

    def test_no_cname_to_a_wildcard(self) -> None:
        """D7, D8: under a search domain the CNAME points at the name, never at `*.rest` (Istio's open bug 61732)."""
        self.assertEqual(
            self.mesh.say("a.wild.example.com.ns1.svc.cluster.local.")[1],
            [
                "a.wild.example.com.ns1.svc.cluster.local. 30 IN CNAME a.wild.example.com.",
                "a.wild.example.com. 30 IN A 240.240.0.2",
            ],
        )


class ExpandedTests(SynchronousTestCase):
    """D8 as far as the table alone decides."""

    def setUp(self) -> None:
        self.mesh = Mesh()

    def test_every_search_domain(self) -> None:
        """D8, D12: any Si, not only the first; one message with the canonical CNAME."""
        for domain in SEARCH:
            name = f"productpage.ns1.svc.cluster.local.{domain}."
            cname = f"{name} 30 IN CNAME productpage.ns1.svc.cluster.local."
            self.assertEqual(self.mesh.say(name), ("NOERROR", [cname, PRODUCTPAGE], []))
            self.assertEqual(self.mesh.say(name, "AAAA"), ("NOERROR", [cname], ["SOA"]))
        self.assertEqual(self.mesh.resolver.autopath_answers, 6)

    def test_later_steps(self) -> None:
        """D8: `kubernetes.default` from ns1 is found two steps on."""
        self.assertEqual(
            self.mesh.say("kubernetes.default.ns1.svc.cluster.local."),
            (
                "NOERROR",
                [
                    "kubernetes.default.ns1.svc.cluster.local. 30 IN CNAME kubernetes.default.svc.cluster.local.",
                    "kubernetes.default.svc.cluster.local. 30 IN A 10.4.0.1",
                ],
                [],
            ),
        )

    def test_external_host(self) -> None:
        """D8: the bare name is the last step; the host with the search domain in its name comes first where it exists."""
        self.assertEqual(
            self.mesh.say("db1.example.com.svc.cluster.local.")[1][1], "db1.example.com. 30 IN A 240.240.0.1"
        )
        self.assertEqual(
            self.mesh.say("db1.example.com.ns1.svc.cluster.local.")[1],
            ["db1.example.com.ns1.svc.cluster.local. 30 IN A 10.4.9.9"],
        )

    def test_the_longest_domain_that_fits(self) -> None:
        """D8: `x.ns1.svc.cluster.local` has lost `ns1.svc.cluster.local`, not `cluster.local`, whatever the list's order."""
        for search in (SEARCH, SEARCH[::-1]):
            mesh = Mesh(search)
            walk = mesh.resolver.decide(names.parse("no.such.ns1.svc.cluster.local"), 1).walk
            assert walk
            self.assertEqual((names.text(walk.bare), names.text(walk.domain)), ("no.such", "ns1.svc.cluster.local"))

    def test_whole_mesh_name_under_a_foreign_domain(self) -> None:
        """D8: nobody owns "….cluster.local.corp.example.com": the mesh host wins at once."""
        mesh = Mesh(("corp.example.com", *SEARCH))
        self.assertEqual(mesh.say("productpage.ns1.svc.cluster.local.corp.example.com.")[1][1], PRODUCTPAGE)
        self.assertEqual(mesh.asked, [])

    def test_an_upstream_step_comes_first(self) -> None:
        """D8: order is never violated: a mesh service `wiki` does not shadow `wiki.corp.example.com`."""
        mesh = Mesh(("corp.example.com", *SEARCH))
        mesh.reply = None
        mesh.adopt([{"host": "wiki.ns1.svc.cluster.local", "ips": ["10.0.0.1"], "registry": "Kubernetes"}])
        self.assertTrue(mesh.is_relayed("wiki.corp.example.com.", "A"))
        self.assertEqual(mesh.asked[0].question, names.parse("wiki.corp.example.com") + b"\x00\x01\x00\x01")

    def test_autopath_mesh(self) -> None:
        """D8, D9: `mesh` walks only where the table decides; a mesh name never leaves."""
        mesh = Mesh(("ns1.svc.cluster.local", "corp.example.com", "svc.cluster.local"), autopath="mesh")
        self.assertEqual(mesh.say("kubernetes.default.ns1.svc.cluster.local."), NOTHING)
        self.assertEqual(mesh.asked, [])

    def test_service_without_namespace_does_not_exist(self) -> None:
        """D9: `SERVICE.svc.ZONE` is NXDOMAIN as the Kubernetes specification has it, though `SERVICE` alone is an alias."""
        for name in ["productpage.svc.cluster.local.", "productpage.cluster.local.", "productpage.ns1.cluster.local."]:
            self.assertEqual(self.mesh.say(name), NOTHING, name)

    def test_alias_as_the_last_step(self) -> None:
        """D8: on a VM whose first domain is mesh, a short name behind it is still found."""
        mesh = Mesh(("svc.cluster.local",))
        self.assertEqual(mesh.say("productpage.svc.cluster.local.")[1][1], PRODUCTPAGE)

    def test_autopath_off(self) -> None:
        """D8: `off` walks nothing; the name is then unknown in its zone (D9)."""
        mesh = Mesh(autopath="off")
        self.assertEqual(mesh.say("productpage.ns1.svc.cluster.local.ns1.svc.cluster.local."), NOTHING)

    def test_a_and_aaaa_agree(self) -> None:
        """D8: the choice is made per name, not per type."""
        for name in ["dual", "six", "productpage", "nosuch", "front", "kubernetes.default"]:
            full = f"{name}.ns1.svc.cluster.local."
            self.assertEqual(self.mesh.say(full)[0], self.mesh.say(full, "AAAA")[0])

    def test_the_root_is_no_domain(self) -> None:
        """D8: `search .` appends nothing, so nothing is expanded by it."""
        mesh = Mesh((".", *SEARCH))
        self.assertEqual(mesh.say("kubernetes.default.ns1.svc.cluster.local.")[1][-1].rpartition(" ")[2], "10.4.0.1")
        self.assertIsNone(mesh.resolver.decide(names.parse("www.example.org"), 1).walk)

    def test_too_long_for_a_name(self) -> None:
        """D8: a step longer than a name can be is no step."""
        long = ".".join(["a" * 60] * 3)
        self.assertEqual(self.mesh.say(f"{long}.svc.cluster.local."), NOTHING)


class InsideTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.mesh = Mesh()

    def test_unknown(self) -> None:
        """D9: NXDOMAIN with the zone's SOA, AA set, never forwarded, for every type."""
        for rdtype in ["A", "AAAA", "MX", "SRV", "TYPE65280", "SOA"]:
            message = self.mesh.ask("nosuch.ns1.svc.cluster.local.", rdtype)
            self.assertEqual(message.authority[0].to_text().split()[:4], ["cluster.local.", "5", "IN", "SOA"])
            self.assertEqual((message.rcode(), bool(message.flags & dns.flags.AA)), (3, True))
        self.assertEqual({names.text(ask.question[:-4]) for ask in self.mesh.asked}, {"nosuch"})

    def test_empty_nonterminals(self) -> None:
        """D9: svc.cluster.local and a namespace with services exist; a namespace without does not."""
        for name in ["svc", "ns1.svc", "db.svc", "dns", "_tcp.productpage.ns1.svc"]:
            self.assertEqual(self.mesh.say(f"{name}.cluster.local."), NODATA, name)
        for name in ["ns9.svc", "pod", "_udp.productpage.ns1.svc"]:
            self.assertEqual(self.mesh.say(f"{name}.cluster.local."), NOTHING, name)

    def test_the_most_specific_zone(self) -> None:
        """D9: the SOA is that of the closest zone."""
        mesh = Mesh(zones=("local", "cluster.local"))
        self.assertEqual(str(mesh.ask("x.cluster.local.").authority[0].name), "cluster.local.")
        self.assertEqual(str(mesh.ask("x.local.").authority[0].name), "local.")

    def test_zone_by_labels(self) -> None:
        """D9, D10: mycluster.local is not in cluster.local."""
        self.assertTrue(self.mesh.is_relayed("x.mycluster.local.", "A"))


class AddressTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.mesh = Mesh()

    def first(self, **options: object) -> str:
        return self.mesh.say("reviews.ns2.svc.cluster.local.", **options)[1][0].rpartition(" ")[2]

    def test_rotation(self) -> None:
        """D11: every address in each answer, the first place rotates evenly, with cookies and without, over TCP too."""
        firsts = [self.first(tcp=True) for _ in range(9)]
        self.assertEqual(sorted(firsts), [f"10.4.0.{n}" for n in (6, 6, 6, 7, 7, 7, 8, 8, 8)])
        self.assertEqual(len(self.mesh.say("reviews.ns2.svc.cluster.local.")[1]), 3)

    def test_rotation_is_each_types_own(self) -> None:
        """D11: a client that asks A and AAAA in turns still sees every address first."""
        firsts = set()
        for _ in range(6):
            firsts.add(self.first(tcp=True))
            self.mesh.say("reviews.ns2.svc.cluster.local.", "AAAA", tcp=True)
        self.assertEqual(len(firsts), 3)

    def test_packed_rotation(self) -> None:
        """D11: the packed answers hold every order once, and follow the one just given."""
        packet = dns.message.make_query("reviews.ns2.svc.cluster.local.", "A", id=7).to_wire()
        (answered,) = self.mesh.packet(packet)
        packed = self.mesh.resolver.packs.datagrams.known[packet[2:]]
        tails = [answered.message[2:], *(packed.next_tail() for _ in range(5))]
        self.assertEqual(tails[:3], tails[3:])
        self.assertEqual(len(set(tails)), 3)

    def test_ttl(self) -> None:
        """D11: the entry's own TTL, else the table's."""
        self.assertEqual(
            self.mesh.say("dual.ns1.svc.cluster.local.")[1], ["dual.ns1.svc.cluster.local. 7 IN A 10.4.0.9"]
        )
        self.mesh.adopt(HOSTS, ttl=11)
        self.assertIn(" 11 IN A ", self.mesh.say("productpage.ns1.svc.cluster.local.")[1][0])

    def test_family_absent(self) -> None:
        """D11: NODATA with SOA, never NXDOMAIN; an external host's SOA is its own."""
        self.assertEqual(self.mesh.say("productpage.ns1.svc.cluster.local.", "AAAA"), NODATA)
        self.assertEqual(self.mesh.say("six.ns1.svc.cluster.local.", "A"), NODATA)
        message = self.mesh.ask("a.wild.example.com.", "AAAA")
        self.assertEqual(str(message.authority[0].name), "a.wild.example.com.")

    def test_dual_stack(self) -> None:
        self.assertEqual(
            self.mesh.say("dual.ns1.svc.cluster.local.", "AAAA")[1], ["dual.ns1.svc.cluster.local. 7 IN AAAA fd00::9"]
        )


class ServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.mesh = Mesh()

    def test_srv(self) -> None:
        """D13: one SRV for a named port, the canonical host as target, its addresses in additional."""
        message = self.mesh.ask("_http._tcp.reviews.ns2.svc.cluster.local.", "SRV")
        self.assertEqual(
            message.answer[0].to_text(),
            "_http._tcp.reviews.ns2.svc.cluster.local. 30 IN SRV 0 100 80 reviews.ns2.svc.cluster.local.",
        )
        self.assertEqual(sorted(map(str, message.additional[0])), ["10.4.0.6", "10.4.0.7", "10.4.0.8"])

    def test_srv_of_a_headless_service(self) -> None:
        """D13: one SRV per pod name, the pods' addresses in additional."""
        message = self.mesh.ask("_mysql._tcp.mysql.db.svc.cluster.local.", "SRV")
        self.assertEqual(
            sorted(map(str, message.answer[0])),
            ["0 50 3306 mysql-0.mysql.db.svc.cluster.local.", "0 50 3306 mysql-1.mysql.db.svc.cluster.local."],
        )
        self.assertEqual(sorted(str(rrset[0]) for rrset in message.additional), ["10.1.9.1", "10.1.9.2"])

    def test_srv_by_alias_and_search(self) -> None:
        """D12, D13: a short or expanded service name has a CNAME to the full one."""
        for name in ["_http._tcp.productpage.", "_http._tcp.productpage.ns1.svc.cluster.local.svc.cluster.local."]:
            self.assertEqual(
                self.mesh.say(name, "SRV")[1],
                [
                    f"{name} 30 IN CNAME _http._tcp.productpage.ns1.svc.cluster.local.",
                    "_http._tcp.productpage.ns1.svc.cluster.local. 30 IN SRV 0 100 9080 productpage.ns1.svc.cluster.local.",
                ],
            )

    def test_no_srv(self) -> None:
        """D13: no port of that name or protocol: NXDOMAIN; another type of a service name: NODATA."""
        for name in ["_https._tcp", "_http._udp", "_._tcp"]:
            self.assertEqual(self.mesh.say(f"{name}.reviews.ns2.svc.cluster.local.", "SRV"), NOTHING)
        self.assertEqual(self.mesh.say("_http._tcp.reviews.ns2.svc.cluster.local.", "A"), NODATA)

    def test_ptr(self) -> None:
        """D13: an address's host, a VIP's too; the Kubernetes service wins, a pod before its headless service, then the name."""
        for address, host in [
            ("10.4.0.5", "productpage.ns1.svc.cluster.local."),
            ("240.240.0.1", "db1.example.com."),
            ("2001:2::1", "db1.example.com."),
            ("10.4.0.6", "reviews.ns2.svc.cluster.local."),
            ("10.1.9.1", "mysql-0.mysql.db.svc.cluster.local."),
            ("198.51.100.7", "twin-a.example.com."),
        ]:
            name = names.text(names.reverse(address)) + "."
            self.assertEqual(self.mesh.say(name, "PTR"), ("NOERROR", [f"{name} 30 IN PTR {host}"], []))

    def test_ptr_of_a_stranger(self) -> None:
        """D10, D13: an address that no host carries is an upstream's, as is another type of a reverse name."""
        for name, rdtype in [("1.2.0.192.in-addr.arpa.", "PTR"), ("5.0.4.10.in-addr.arpa.", "NS")]:
            self.assertTrue(self.mesh.is_relayed(name, rdtype))


class AliasEntryTests(SynchronousTestCase):
    def upstream(self, query: dns.message.Message) -> dns.message.Message:
        reply = dns.message.make_response(query)
        reply.answer = [
            dns.rrset.from_text("Docs.example.org.", 60, "IN", "CNAME", "host.example.org."),
            dns.rrset.from_text("host.example.org.", 60, "IN", "A", "192.0.2.80"),
        ]
        return reply

    def test_target_in_the_mesh(self) -> None:
        """D14: HOST CNAME target, and the target from the table."""
        self.assertEqual(
            Mesh().say("front.ns1.svc.cluster.local."),
            (
                "NOERROR",
                ["front.ns1.svc.cluster.local. 30 IN CNAME productpage.ns1.svc.cluster.local.", PRODUCTPAGE],
                [],
            ),
        )

    def test_target_upstream(self) -> None:
        """D14: the target's records come from upstream, behind ours, with any search domain in front."""
        mesh = Mesh(reply=self.upstream)
        expected = ["docs.ns1.svc.cluster.local. 30 IN CNAME docs.example.org.", "docs.example.org. 60 IN CNAME host.example.org.",
                    "host.example.org. 60 IN A 192.0.2.80"]  # fmt: skip
        self.assertEqual(mesh.say("docs.ns1.svc.cluster.local."), ("NOERROR", expected, []))
        self.assertEqual(mesh.asked[0].question, names.parse("docs.example.org") + b"\x00\x01\x00\x01")
        self.assertEqual(
            mesh.say("docs."), ("NOERROR", ["docs. 30 IN CNAME docs.ns1.svc.cluster.local.", *expected], [])
        )

    def test_target_upstream_does_not_exist(self) -> None:
        """D14: the upstream's NXDOMAIN and SOA come along."""

        def nothing(query: dns.message.Message) -> dns.message.Message:
            reply = dns.message.make_response(query)
            reply.set_rcode(3)
            reply.authority.append(dns.rrset.from_text("example.org.", 60, "IN", "SOA", "a. b. 1 2 3 4 5"))
            return reply

        self.assertEqual(
            Mesh(reply=nothing).say("docs.ns1.svc.cluster.local."),
            ("NXDOMAIN", ["docs.ns1.svc.cluster.local. 30 IN CNAME docs.example.org."], ["SOA"]),
        )

    def test_upstream_fails(self) -> None:
        """D14, D21: SERVFAIL with an extended error, never half an answer."""
        mesh = Mesh(reply=lambda query: Failed("timeout", 22, "no server answered"))
        message = mesh.ask("docs.ns1.svc.cluster.local.", use_edns=0)
        self.assertEqual((message.rcode(), message.answer, message.options[0].code), (2, [], 22))

    def test_cname_question(self) -> None:
        """D14: asked for the CNAME itself, nobody else is asked."""
        mesh = Mesh()
        self.assertEqual(
            mesh.say("docs.ns1.svc.cluster.local.", "CNAME")[1],
            ["docs.ns1.svc.cluster.local. 30 IN CNAME docs.example.org."],
        )
        self.assertEqual(mesh.say("docs.", "CNAME")[1], ["docs. 30 IN CNAME docs.ns1.svc.cluster.local."])
        self.assertEqual(mesh.asked, [])

    def test_lost_and_circular(self) -> None:
        """D9, D14: a target that the mesh lacks is NXDOMAIN here; aliases in a circle are SERVFAIL."""
        self.assertEqual(
            Mesh().say("lost.ns1.svc.cluster.local."),
            ("NXDOMAIN", ["lost.ns1.svc.cluster.local. 30 IN CNAME gone.ns1.svc.cluster.local."], ["SOA"]),
        )
        self.assertEqual(Mesh().say("ring-a.ns1.svc.cluster.local."), ("SERVFAIL", [], []))


class OtherTypeTests(SynchronousTestCase):
    def test_in_the_zone(self) -> None:
        """D15: for a host in a mesh zone every other type is NODATA."""
        mesh = Mesh()
        for rdtype in ["MX", "TXT", "HTTPS", "SVCB", "NS", "CNAME", "SRV", "TYPE65280"]:
            self.assertEqual(mesh.say("productpage.ns1.svc.cluster.local.", rdtype), NODATA, rdtype)

    def test_external(self) -> None:
        """D15: HTTPS and SVCB would go round the VIP: NODATA. The mesh says nothing about the rest: forwarded."""
        mesh = Mesh(reply=None)
        for rdtype in ["HTTPS", "SVCB"]:
            self.assertEqual(mesh.say("db1.example.com.", rdtype), NODATA)
        for rdtype in ["MX", "TXT", "NS", "SOA", "CNAME", "TYPE65280"]:
            self.assertTrue(mesh.is_relayed("db1.example.com.", rdtype))
        self.assertEqual(len(mesh.asked), 6)

    def test_external_under_a_search_domain(self) -> None:
        """D8, D15: all types: the CNAME from here, the MX from upstream."""

        def mail(query: dns.message.Message) -> dns.message.Message:
            reply = dns.message.make_response(query)
            reply.answer = [dns.rrset.from_text("db1.example.com.", 60, "IN", "MX", "10 mail.example.com.")]
            return reply

        self.assertEqual(
            Mesh(reply=mail).say("db1.example.com.svc.cluster.local.", "MX")[1],
            [
                "db1.example.com.svc.cluster.local. 30 IN CNAME db1.example.com.",
                "db1.example.com. 60 IN MX 10 mail.example.com.",
            ],
        )

    def test_any(self) -> None:
        """D15: ANY gets the answer of RFC 8482."""
        self.assertEqual(
            Mesh().say("productpage.ns1.svc.cluster.local.", "ANY")[1],
            ['productpage.ns1.svc.cluster.local. 30 IN HINFO "RFC8482" ""'],
        )

    def test_dns_version(self) -> None:
        """D15: dns-version.DOMAIN TXT, as the Kubernetes specification wants."""
        self.assertEqual(
            Mesh().say("dns-version.cluster.local.", "TXT")[1], ['dns-version.cluster.local. 30 IN TXT "1.1.0"']
        )
        self.assertEqual(Mesh().say("dns-version.cluster.local.", "A"), NODATA)

    def test_soa_and_ns(self) -> None:
        """D16: the zone's SOA and NS; the serial counts the tables."""
        mesh = Mesh()
        self.assertEqual(mesh.say("cluster.local.", "NS")[1], ["cluster.local. 30 IN NS ns.dns.cluster.local."])
        self.assertEqual(mesh.ask("cluster.local.", "SOA").answer[0][0].serial, 1)
        mesh.adopt(HOSTS)
        self.assertEqual(mesh.ask("cluster.local.", "SOA").answer[0][0].serial, 2)
        self.assertEqual(mesh.say("cluster.local.", "A"), NODATA)
        self.assertEqual(mesh.say("ns.dns.cluster.local.", "A"), NODATA)


class BeforeTheTableTests(SynchronousTestCase):
    def test_not_known_yet(self) -> None:
        """D17: mesh names SERVFAIL with EDE 14, never NXDOMAIN; all others are forwarded."""
        mesh = Mesh(hosts=None)
        for name in ["productpage.ns1.svc.cluster.local.", "cluster.local.", "www.example.org.svc.cluster.local."]:
            message = mesh.ask(name, use_edns=0)
            self.assertEqual((message.rcode(), message.options[0].code), (2, 14))
        for name in ["productpage.", "www.example.org.", "db1.example.com."]:
            self.assertTrue(mesh.is_relayed(name, "A"))
        self.assertEqual(len(mesh.asked), 3)

    def test_the_very_next_packet(self) -> None:
        """D28: a new table counts at once, also for what was packed."""
        mesh = Mesh()
        packet = dns.message.make_query("productpage.ns1.svc.cluster.local.", "A").to_wire()
        mesh.packet(packet)
        self.assertIn(packet[2:], mesh.resolver.packs.datagrams.known)
        mesh.adopt([{"host": "productpage.ns1.svc.cluster.local", "ips": ["10.9.9.9"], "registry": "Kubernetes"}])
        self.assertNotIn(packet[2:], mesh.resolver.packs.datagrams.known)
        self.assertIn("10.9.9.9", mesh.say("productpage.ns1.svc.cluster.local.")[1][0])


class LocalTests(SynchronousTestCase):
    def test_version(self) -> None:
        """D2: class CH."""
        for name in ["version.bind.", "Version.Server."]:
            query = dns.message.make_query(name, "TXT", "CH")
            message = dns.message.from_wire(Mesh().packet(query.to_wire())[0].message)
            self.assertEqual(str(message.answer[0][0]), f'"meshdns {__version__}"')

    def test_refused(self) -> None:
        """D2: other classes, and zone transfers."""
        for query in [dns.message.make_query("hostname.bind.", "TXT", "CH"), dns.message.make_query("a.", "A", "HS"),
                      dns.message.make_query("cluster.local.", "AXFR"), dns.message.make_query("a.", "TYPE251")]:  # fmt: skip
            message = dns.message.from_wire(Mesh().packet(query.to_wire(), tcp=True)[0].message)
            self.assertEqual((message.rcode(), message.question), (5, query.question))

    def test_class_any(self) -> None:
        """D2: class ANY is answered like IN."""
        query = dns.message.make_query("productpage.ns1.svc.cluster.local.", "A", "ANY")
        self.assertEqual(
            dns.message.from_wire(Mesh().packet(query.to_wire())[0].message).answer[0].to_text(), PRODUCTPAGE
        )

    def test_wrong_packets(self) -> None:
        """D2: dropped, or the rcode, and nothing else."""
        good = dns.message.make_query("a.", "A").to_wire()
        self.assertEqual(Mesh().packet(good[:11]), [])
        self.assertEqual(Mesh().packet(good[:2] + b"\x80" + good[3:]), [])
        self.assertEqual([answered.rcode for answered in Mesh().packet(good[:2] + b"\x10" + good[3:])], [4])

    def test_own_probe(self) -> None:
        """D19: a question of ours that comes back is a loop, and goes no further."""
        mesh = Mesh()
        name = names.parse("0123456789abcdef.loop.meshdns.example")
        mesh.probes.add(name)
        self.assertEqual(mesh.say(names.text(name) + ".", "TXT"), ("REFUSED", [], []))
        self.assertTrue(mesh.is_relayed("other.loop.meshdns.example.", "TXT"))


class AnswerFormTests(SynchronousTestCase):
    def test_flags(self) -> None:
        """D4: AA on mesh answers, RA always, RD and CD as asked."""
        for flags in (0, dns.flags.RD, dns.flags.CD, dns.flags.RD | dns.flags.CD):
            message = Mesh().ask("productpage.ns1.svc.cluster.local.", flags=flags)
            self.assertEqual(message.flags, flags | dns.flags.QR | dns.flags.AA | dns.flags.RA)

    def test_size(self) -> None:
        """D5: a large service over UDP is cut with TC; over TCP it is whole; more than sixteen addresses are not packed."""
        big = {
            "host": "big.ns1.svc.cluster.local",
            "ips": [f"10.5.0.{n}" for n in range(1, 101)],
            "registry": "Kubernetes",
        }
        mesh = Mesh(hosts=[big])
        for options, most in [({}, 512), ({"payload": 800}, 800), ({"payload": 4096}, 1232)]:
            message = mesh.ask("big.ns1.svc.cluster.local.", **options)
            self.assertTrue(message.flags & dns.flags.TC)
            self.assertTrue(most - 16 < len(message.to_wire()) <= most)
        self.assertEqual(len(mesh.ask("big.ns1.svc.cluster.local.", tcp=True).answer[0]), 100)
        self.assertEqual(mesh.resolver.packs.datagrams.known, {})
