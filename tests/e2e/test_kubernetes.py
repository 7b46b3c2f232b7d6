"""The Kubernetes DNS specification 1.1.0 as facts, asked with dig; each has its number (K) and the rule of ours (D)."""

import re
from collections.abc import Sequence
from functools import partial

import attrs

from tests.e2e.agent import Agent, replace, table
from tests.e2e.dig import Shown, needs_tools, read
from tests.e2e.hosts import Host
from tests.e2e.stage import HERE, Place, Stage
from tests.e2e.upstreams import Unbound


def kubernetes(name: str, namespace: str, ips: Sequence[str] = (), **more: object) -> dict[str, object]:
    """A service's entry of the table."""
    return {"host": f"{name}.{namespace}.svc.cluster.local", "ips": list(ips), "registry": "Kubernetes",
            "shortname": name, "namespace": namespace, **more}  # fmt: skip


def port(name: str, number: int, protocol: str = "TCP") -> dict[str, object]:
    return {"name": name, "number": number, "protocol": protocol}


ZONE = "cluster.local."
SVC = f"svc.{ZONE}"
HTTP = [port("http", 80), port("", 81)]
# The objects of the specification's examples, as the table has them.
HOSTS = [
    kubernetes("kubernetes", "default", ["10.3.0.1"], ports=[port("https", 443)]),
    kubernetes("web", "ns1", ["10.3.0.100"], ports=[port("http", 80), port("dns", 53, "UDP"), port("", 81)]),
    kubernetes("six", "ns1", ["2001:db8::100"], ports=HTTP),
    kubernetes("dual", "ns1", ["10.3.0.101", "2001:db8::101"], ports=HTTP),
    kubernetes("headless", "ns1", ["10.3.0.1", "10.3.0.2", "2001:db8::1"], ports=[port("http", 80), port("admin", 81)],
               pods=[f"{pod}.headless.ns1.svc.cluster.local" for pod in ("my-pet", "my-pet-2", "2001-db8--1")]),
    kubernetes("my-pet.headless", "ns1", ["10.3.0.1"]),
    kubernetes("my-pet-2.headless", "ns1", ["10.3.0.2", "10.3.0.3"]),
    kubernetes("2001-db8--1.headless", "ns1", ["2001:db8::1"]),
    kubernetes("foo", "ns1", alias="foo.example.com"),
    kubernetes("other", "ns2", ["10.3.0.200"]),
]  # fmt: skip
FOO = "@ SOA ns h 1 3600 600 86400 60\n@ NS ns\nfoo A 192.0.2.7\nfoo AAAA 2001:db8:7::7\nbar A 192.0.2.8\n"


@attrs.frozen
class Fact:
    """A question, and what must come: the status and the answer's records. `extra` must stand in additional."""

    fact: str
    words: str
    answer: Sequence[str] = ()
    status: str = "NOERROR"
    extra: Sequence[str] = ()

    def wrong(self, shown: Shown) -> str | None:
        answer = sorted(" ".join(record) for record in shown.answer)
        additional = {" ".join(record) for record in shown.additional}
        if (shown.status, answer) != (self.status, sorted(self.answer)) or not set(self.extra) <= additional:
            return f"{self.fact}: {self.words}: {self}\nbut was\n{shown.text}"
        if not self.answer and [rtype for _, rtype, _ in shown.authority] != ["SOA"]:
            return f"{self.fact}: {self.words}: no SOA in authority\n{shown.text}"
        return None


def _pets(service: str, number: int) -> list[str]:
    pods = ("my-pet", "my-pet-2", "2001-db8--1")
    return [f"_{service}._tcp.headless.ns1.{SVC} SRV 0 33 {number} {pod}.headless.ns1.{SVC}" for pod in pods]


# K1 to K16 number the specification's facts; D-rules of the contract that say the same stand behind.
FACTS = [
    Fact("K0: names in any case; the owner is the name as asked (D4)", f"WEB.ns1.{SVC}", [f"WEB.ns1.{SVC} A 10.3.0.100"]),
    Fact("K1: the version record (D15)", f"dns-version.{ZONE} TXT", [f'dns-version.{ZONE} TXT "1.1.0"']),
    Fact("K2: A of a ClusterIP (D11)", f"web.ns1.{SVC}", [f"web.ns1.{SVC} A 10.3.0.100"]),
    Fact("K2: the wrong family: no data (D11)", f"six.ns1.{SVC} A"),
    Fact("K3: AAAA of a ClusterIP (D11)", f"six.ns1.{SVC} AAAA", [f"six.ns1.{SVC} AAAA 2001:db8::100"]),
    Fact("K3: the wrong family: no data (D11)", f"web.ns1.{SVC} AAAA"),
    Fact("K2, K3: dual stack, v4", f"dual.ns1.{SVC} A", [f"dual.ns1.{SVC} A 10.3.0.101"]),
    Fact("K2, K3: dual stack, v6", f"dual.ns1.{SVC} AAAA", [f"dual.ns1.{SVC} AAAA 2001:db8::101"]),
    Fact("K4: SRV of a named port (D13); K6: its address", f"_http._tcp.web.ns1.{SVC} SRV",
         [f"_http._tcp.web.ns1.{SVC} SRV 0 100 80 web.ns1.{SVC}"], extra=[f"web.ns1.{SVC} A 10.3.0.100"]),
    Fact("K4: over UDP too", f"_dns._udp.web.ns1.{SVC} SRV", [f"_dns._udp.web.ns1.{SVC} SRV 0 100 53 web.ns1.{SVC}"]),
    Fact("K4: not under the other protocol", f"_dns._tcp.web.ns1.{SVC} SRV", status="NXDOMAIN"),
    Fact("K5: an unnamed port has none", f"_._tcp.web.ns1.{SVC} SRV", status="NXDOMAIN"),
    Fact("K5: nor by its number", f"_81._tcp.web.ns1.{SVC} SRV", status="NXDOMAIN"),
    Fact("K4, K6: dual stack: both addresses", f"_http._tcp.dual.ns1.{SVC} SRV",
         [f"_http._tcp.dual.ns1.{SVC} SRV 0 100 80 dual.ns1.{SVC}"],
         extra=[f"dual.ns1.{SVC} A 10.3.0.101", f"dual.ns1.{SVC} AAAA 2001:db8::101"]),
    Fact("K7: PTR of a ClusterIP (D13)", "-x 10.3.0.100", [f"100.0.3.10.in-addr.arpa. PTR web.ns1.{SVC}"]),
    Fact("K8: PTR of a v6 ClusterIP (D13)", "-x 2001:db8::100",
         ["0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR six.ns1." + SVC]),
    Fact("K9: every ready endpoint", f"headless.ns1.{SVC}",
         [f"headless.ns1.{SVC} A 10.3.0.1", f"headless.ns1.{SVC} A 10.3.0.2"]),
    Fact("K9: of that family", f"headless.ns1.{SVC} AAAA", [f"headless.ns1.{SVC} AAAA 2001:db8::1"]),
    Fact("K10: no ready endpoint, so no entry (D9)", f"empty.ns1.{SVC}", status="NXDOMAIN"),
    Fact("K11: an endpoint's host name", f"my-pet.headless.ns1.{SVC}", [f"my-pet.headless.ns1.{SVC} A 10.3.0.1"]),
    Fact("K11: all of its addresses", f"my-pet-2.headless.ns1.{SVC}",
         [f"my-pet-2.headless.ns1.{SVC} A 10.3.0.2", f"my-pet-2.headless.ns1.{SVC} A 10.3.0.3"]),
    Fact("K11: no other endpoint", f"your-pet.headless.ns1.{SVC}", status="NXDOMAIN"),
    Fact("K12: an endpoint without a host name, by its address", f"2001-db8--1.headless.ns1.{SVC} AAAA",
         [f"2001-db8--1.headless.ns1.{SVC} AAAA 2001:db8::1"]),
    Fact("K13: SRV of a headless service: endpoints times ports", f"_http._tcp.headless.ns1.{SVC} SRV", _pets("http", 80),
         extra=[f"my-pet.headless.ns1.{SVC} A 10.3.0.1", f"2001-db8--1.headless.ns1.{SVC} AAAA 2001:db8::1"]),
    Fact("K13: the other port", f"_admin._tcp.headless.ns1.{SVC} SRV", _pets("admin", 81)),
    Fact("K14: PTR of an endpoint", "-x 10.3.0.2", [f"2.0.3.10.in-addr.arpa. PTR my-pet-2.headless.ns1.{SVC}"]),
    Fact("K15: ExternalName, resolved (D14)", f"foo.ns1.{SVC}",
         [f"foo.ns1.{SVC} CNAME foo.example.com.", "foo.example.com. A 192.0.2.7"]),
    Fact("K15: AAAA", f"foo.ns1.{SVC} AAAA",
         [f"foo.ns1.{SVC} CNAME foo.example.com.", "foo.example.com. AAAA 2001:db8:7::7"]),
    Fact("K15: the CNAME itself", f"foo.ns1.{SVC} CNAME", [f"foo.ns1.{SVC} CNAME foo.example.com."]),
    # What every cluster's DNS does beyond the text; the numbers of CoreDNS' facts are those of the evidence, in words here.
    Fact("the zone itself: SOA (D16)", f"{ZONE} NS", [f"{ZONE} NS ns.dns.{ZONE}"]),
    Fact("the zone itself: no address (D16)", f"{ZONE} A"),
    Fact("empty non-terminals (D9)", f"{SVC} A"),
    Fact("a namespace with services (D9)", f"ns1.{SVC} A"),
    Fact("a namespace without (D9)", f"ns3.{SVC} A", status="NXDOMAIN"),
    Fact("an unknown service (D9)", f"nosuch.ns1.{SVC} A", status="NXDOMAIN"),
    Fact("an unknown service, any type (D9)", f"nosuch.ns1.{SVC} TXT", status="NXDOMAIN"),
    Fact("a service of another namespace only there", f"other.ns1.{SVC} A", status="NXDOMAIN"),
    Fact("another type of a name that is (D15)", f"web.ns1.{SVC} TXT"),
    Fact("nothing below a service", f"bogus.web.ns1.{SVC} A", status="NXDOMAIN"),
    Fact("nothing below an ExternalName", f"bogus.foo.ns1.{SVC} A", status="NXDOMAIN"),
    Fact("`*` is no question", f"*.ns1.{SVC} A", status="NXDOMAIN"),
    Fact("pods by address are not in a mesh's table", f"10-3-0-1.ns1.pod.{ZONE} A", status="NXDOMAIN"),
]  # fmt: skip


class KubernetesTests(Stage):
    """The specification's facts on one agent, and the conformance tests of Kubernetes on a pod's host."""

    def start_agent(self, place: Place = HERE, port: int | None = None) -> None:
        needs_tools()
        unbound = Unbound.start(self, "example.com", FOO, place=place)
        self.agent = Agent.start(self, servers=[unbound.address], table=table(HOSTS), place=place, port=port)

    def dig(self, *words: str) -> Shown:
        (shown,) = read(self.said_by(["dig", "@127.0.0.1", "-p", str(self.agent.port), "+tries=1", *words]))
        return shown

    def test_specification(self) -> None:
        """K0 to K16, beside D9 and D11 to D16: over UDP and TCP."""
        self.start_agent()
        wrong: list[str] = []
        for fact in FACTS:
            for transport in ("+notcp", "+tcp"):
                shown = self.dig(transport, *fact.words.split())
                wrong += filter(None, [fact.wrong(shown)])
                if "aa" not in shown.flags:
                    wrong.append(f"{fact.fact}: {fact.words}: AA is missing")
        self.assertEqual([], wrong, "\n".join(wrong))
        numbered = set(re.findall(r"\bK\d+", " ".join(fact.fact for fact in FACTS)))
        self.assertEqual({f"K{number}" for number in range(16)}, numbered)  # K16 allows more, and asks for nothing

    def test_soa(self) -> None:
        """D16, RFC 2308: the SOA of the zone, and the same in authority with the negative TTL."""
        self.start_agent()
        (soa,) = self.dig(ZONE, "SOA").answer
        self.assertRegex(soa[2], r"^ns\.dns\.cluster\.local\. hostmaster\.cluster\.local\. 1 \d+ \d+ \d+ 5$")
        negative = self.dig(f"nosuch.ns1.{SVC}")
        self.assertEqual((soa,), negative.authority)
        self.assertRegex(negative.text, rf"(?m)^{re.escape(ZONE)}\s+5\s+IN\s+SOA")

    def search(self, host: Host, name: str, *words: str) -> list[str]:
        """What a pod's `dig +search` prints, as the conformance tests of Kubernetes probe."""
        return host.said_by("dig", "+noall", "+answer", "+search", *words, name).splitlines()

    def test_conformance(self) -> None:
        """C1 to C5, beside D6, D8, D13: full and partial names through the search list, over UDP and TCP; SRV; PTR."""
        host = Host(self)
        self.start_agent(host.place, 53)
        expected = {
            "kubernetes.default": "10.3.0.1",
            "kubernetes.default.svc": "10.3.0.1",
            "kubernetes.default.svc.cluster.local": "10.3.0.1",
            "web": "10.3.0.100",
            "web.ns1": "10.3.0.100",
            "web.ns1.svc": "10.3.0.100",
            "my-pet.headless": "10.3.0.1",
            "my-pet.headless.ns1.svc.cluster.local": "10.3.0.1",
        }
        wrong: list[str] = []
        for transport in ("+notcp", "+tcp"):
            for name, address in expected.items():
                lines = self.search(host, name, transport)
                if not lines or lines[-1].split()[-1] != address:
                    wrong.append(f"{transport} {name}: {lines}")
            for service in ("web.ns1.svc", "headless.ns1.svc", "web.ns1.svc.cluster.local"):
                lines = self.search(host, f"_http._tcp.{service}", "SRV", transport)
                if not lines or " 80 " not in lines[-1]:
                    wrong.append(f"{transport} _http._tcp.{service}: {lines}")
            lines = host.said_by("dig", "+short", transport, "-x", "10.3.0.100").splitlines()
            if lines != [f"web.ns1.{SVC}"]:
                wrong.append(f"{transport} PTR: {lines}")
        self.assertEqual([], wrong)

    def answers(self, name: str, rdata: list[str]) -> bool:
        return self.dig(name).rdata == rdata

    def test_changes(self) -> None:
        """C6, D28: an ExternalName, then another, then a ClusterIP: the answers follow the table."""
        self.start_agent()
        name = f"foo.ns1.{SVC}"
        self.assertEqual(["foo.example.com.", "192.0.2.7"], self.dig(name).rdata)
        others = [host for host in HOSTS if host["host"] != "foo.ns1.svc.cluster.local"]
        for changed, expected in (
            (kubernetes("foo", "ns1", alias="bar.example.com"), ["bar.example.com.", "192.0.2.8"]),
            (kubernetes("foo", "ns1", ["10.3.0.9"]), ["10.3.0.9"]),
        ):
            replace(self.agent.table, table([*others, changed]))
            self.agent.await_true(f"the answer {expected}", partial(self.answers, name, expected))
