"""Real stub resolvers in a pod's place: what a look-up costs, and what it finds (rules D6, D7, D8, D11, D12).

Each runs on a host of its own whose resolv.conf has three search domains and `ndots:5`, with the agent on 127.0.0.1:53. A
gate in front of the agent counts the packets.
"""

import os
import shutil
import sys
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from unittest import SkipTest

import dns.message
import dns.rcode
import dns.rrset

from tests.e2e.agent import Agent
from tests.e2e.gate import Gate
from tests.e2e.hosts import Host
from tests.e2e.stage import Command, Stage
from tests.e2e.upstreams import Scripted

CLIENTS = Path(__file__).with_name("clients")
PRODUCTPAGE = ("productpage.ns1.svc.cluster.local", ["10.4.0.5"])
DUAL = ("reviews.ns1.svc.cluster.local", ["10.4.0.7", "fd00:4::7"])
VIP = ("db1.example.com", ["2001:2::1", "240.240.0.1"])
# What an application may write, of the example table, and what it must get: the canonical name and the addresses.
FORMS = {
    "productpage": PRODUCTPAGE,
    "productpage.ns1": PRODUCTPAGE,
    "productpage.ns1.svc": PRODUCTPAGE,
    "productpage.ns1.svc.cluster.local": PRODUCTPAGE,
    "productpage.ns1.svc.cluster.local.": PRODUCTPAGE,
    "PRODUCTPAGE.Ns1": PRODUCTPAGE,
    "reviews": DUAL,
    "reviews.ns1.svc.cluster.local": DUAL,
    "kubernetes.default": ("kubernetes.default.svc.cluster.local", ["10.4.0.1"]),
    "mysql-0.mysql.db": ("mysql-0.mysql.db.svc.cluster.local", ["10.1.9.10"]),
    "db1.example.com": VIP,
    "orders-db": VIP,  # an ExternalName
    "anything.wild.example.com": ("anything.wild.example.com", ["198.51.100.20", "2001:db8:20::20"]),
    "status.wild.example.com": ("status.wild.example.com", ["198.51.100.30"]),
}
BOTH_FAMILIES = dict.fromkeys(FORMS, 2)  # one packet for A, one for AAAA, and no third


def no_such_name(query: dns.message.Message) -> dns.message.Message:
    answer = dns.message.make_response(query)
    answer.set_rcode(dns.rcode.NXDOMAIN)
    answer.authority.append(dns.rrset.from_text(".", 300, "IN", "SOA", "a. b. 1 2 3 4 300"))
    return answer


def needs(*programs: str) -> None:
    """Skips the test where one of the programs is missing."""
    if missing := [name for name in programs if not shutil.which(name)]:
        raise SkipTest(f"not installed: {', '.join(missing)}")


def read(output: str) -> tuple[str | None, list[str]]:
    """A client's lines `canonical NAME` and `address ADDRESS` -> the name, and the addresses sorted."""
    words = [line.split() for line in output.splitlines()]
    canonical = next((rest for word, rest in words if word == "canonical"), None)
    return canonical, sorted(str(ip_address(rest)) for word, rest in words if word == "address")


def read_getent(output: str) -> tuple[str | None, list[str]]:
    """The same of `getent ahosts`, which writes the name behind the first address only."""
    words = [line.split() for line in output.splitlines()]
    return words[0][2], sorted({line[0] for line in words})


class Pod(Stage):
    """A host with a gate, an agent, and an upstream that knows no name."""

    autopath = "all"

    def setUp(self) -> None:
        super().setUp()
        self.host = Host(self)
        self.upstream = Scripted(self, no_such_name, place=self.host.place)
        self.agent = Agent.start(self, servers=[self.upstream.address], place=self.host.place, autopath=self.autopath)
        self.gate = Gate(self, 53, self.agent.port, self.host.place)

    def packets(self, command: Command, names: Iterable[str], *, finds: bool = True) -> dict[str, int]:
        """What a client costs: packets by name; `finds` whether it must find it."""
        counts = {}
        for name in names:
            done = self.host.run(*command, name)
            self.assertEqual(finds, not done.returncode, f"{name}: {done.stdout}{done.stderr}")
            counts[name] = len(self.gate.passed())
        return counts


class ClientTests(Pod):
    def finds_all(self, command: Command, *, canonical: bool = True) -> None:
        """Every form: two packets, all addresses and, where the client tells it, the canonical name. No upstream hears."""
        counts, found = {}, {}
        for name in FORMS:
            found[name] = read(self.host.said_by(*command, name))
            counts[name] = len(self.gate.passed())
        self.assertEqual(BOTH_FAMILIES, counts)
        self.assertEqual({name: (host if canonical else None, ips) for name, (host, ips) in FORMS.items()}, found)
        self.assertEqual([], self.upstream.names())
        self.assertEqual([], self.agent.complaints())

    # glibc

    def test_getent(self) -> None:
        """D6, D8, D12: glibc's getaddrinfo, by `getent ahosts`: two packets for each form, and the canonical name."""
        counts, found = {}, {}
        for name in FORMS:
            found[name] = read_getent(self.host.said_by("getent", "ahosts", name))
            counts[name] = len(self.gate.passed())
        self.assertEqual(BOTH_FAMILIES, counts)
        self.assertEqual(FORMS, found)
        self.assertEqual([], self.upstream.names())

    def test_getent_one_family(self) -> None:
        """D11: asked for one family glibc sends one packet."""
        self.assertEqual(dict.fromkeys(FORMS, 1), self.packets(["getent", "ahostsv4"], FORMS))
        dual = [name for name, (_, ips) in FORMS.items() if len(ips) == 2]
        self.assertEqual(dict.fromkeys(dual, 1), self.packets(["getent", "ahostsv6"], dual))

    def test_getaddrinfo(self) -> None:
        """D12: glibc's getaddrinfo with AI_CANONNAME, as Python calls it."""
        self.finds_all([sys.executable, CLIENTS / "lookup.py"])

    def test_unknown_name(self) -> None:
        """D8, D9, D25: what nobody knows costs the client the search list and the name, in both families; the upstream hears
        of it at most once for each family, and after that the cache knows: of the second one, too, if the first came back first."""
        self.assertEqual({"nosuch": 8}, self.packets(["getent", "ahosts"], ["nosuch"], finds=False))
        asked = self.upstream.names()
        self.assertIn(asked, (["nosuch"], ["nosuch", "nosuch"]))
        self.assertEqual({"nosuch": 8}, self.packets(["getent", "ahosts"], ["nosuch"], finds=False))
        self.assertEqual(asked, self.upstream.names())

    # Others

    def test_musl(self) -> None:
        """D6, D8, D12: musl's getaddrinfo, which asks A and AAAA at once and takes each first reply."""
        needs("musl-gcc")
        program = self.folder / "lookup"
        self.said_by(["musl-gcc", "-static", "-O1", "-Wall", "-Werror", "-o", program, CLIENTS / "lookup.c"])
        self.finds_all([program])

    def test_c_ares(self) -> None:
        """D6, D8, D12: c-ares, which walks the search list itself and tells of CNAMEs only."""
        counts, found = {}, {}
        for name in FORMS:
            found[name] = read(self.host.said_by(sys.executable, CLIENTS / "cares.py", name))
            counts[name] = len(self.gate.passed())
        self.assertEqual(BOTH_FAMILIES, counts)
        self.assertEqual(
            {name: ips for name, (_, ips) in FORMS.items()}, {name: ips for name, (_, ips) in found.items()}
        )
        # What it asked first was no canonical name: then a CNAME leads there.
        cnames = {name: host for name, (host, _) in found.items() if host is not None}
        self.assertEqual({name: host for name, (host, _) in FORMS.items() if name in cnames}, cnames)
        self.assertEqual({"productpage", "productpage.ns1.svc.cluster.local.", "reviews"}, FORMS.keys() - cnames.keys())
        self.assertEqual([], self.upstream.names())

    def test_node_lookup(self) -> None:
        """D6, D8: Node's dns.lookup, which is getaddrinfo in a thread."""
        needs("node")
        self.finds_all(["node", CLIENTS / "lookup.js", "lookup"], canonical=False)

    def test_node_resolve(self) -> None:
        """D6: Node's dns.resolve4 and dns.resolve6 put the name as it stands, one packet each: short names work, too."""
        needs("node")
        self.finds_all(["node", CLIENTS / "lookup.js", "resolve"], canonical=False)

    def test_java(self) -> None:
        """D6, D8: Java's InetAddress, which is getaddrinfo of the C library."""
        needs("java", "javac")
        self.said_by(["javac", "-d", self.folder, CLIENTS / "Lookup.java"])
        self.finds_all(
            ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", self.folder, "Lookup"], canonical=False
        )

    def test_go(self) -> None:
        """D6, D8: Go's own resolver, which drops replies whose question differs, and asks with EDNS."""
        go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
        if go is None:
            raise SkipTest("not installed: go")
        program = self.folder / "lookup"
        # Nothing of the tester's is used or filled, and nothing is downloaded.
        places = {name: str(self.folder / name.lower()) for name in ("GOCACHE", "GOPATH", "GOTMPDIR")}
        os.mkdir(places["GOTMPDIR"])
        offline = {"CGO_ENABLED": "0", "GO111MODULE": "off", "GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": ""}
        self.said_by([go, "build", "-o", program, CLIENTS / "lookup.go"], **places, **offline)
        self.finds_all([program], canonical=False)


class WithoutAutopathTests(Pod):
    """What the two packets save; it also shows that the gate counts."""

    autopath = "off"

    def test_glibc(self) -> None:
        """D8: `autopath: off` walks no step, so glibc does: each search domain and the name, in both families."""
        names = ["productpage", "productpage.ns1", "productpage.ns1.svc", "productpage.ns1.svc.cluster.local"]
        counts = self.packets(["getent", "ahosts"], names)
        self.assertEqual(dict(zip(names, [2, 4, 6, 8], strict=True)), counts)
        self.assertEqual([], self.upstream.names())
