"""A search list of six domains, three of the mesh and three of a company, and `ndots:5`: what each stub resolver's look-up
costs at the agent and at the upstream, without autopath and with it, and that both find the same (rules D8, D25).

`example.com` and what is below it, `python.org` and the root belong to one real unbound. Gates count, in front of the agent
and in front of unbound.
"""

import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from unittest import SkipTest

from tests.e2e.agent import Agent
from tests.e2e.gate import Gate, Question
from tests.e2e.hosts import Host
from tests.e2e.stage import Command, Stage, free_port
from tests.e2e.test_clients import CLIENTS, needs, read, read_getent
from tests.e2e.upstreams import Unbound

DOMAINS = (
    "ns1.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example.com", "eu.example.com", "example.com",
)  # fmt: skip
RESOLV_CONF = f"search {' '.join(DOMAINS)}\nnameserver 127.0.0.1\noptions ndots:5\n"
LATENCY = 0.01  # seconds per answer of the upstream: so that no client's AAAA finds the answer to its A in the cache
_ROOT = """\
. 300 SOA ns.example. hostmaster.example. 7 3600 600 86400 300
. 300 NS ns.example.
ns.example. 300 A 192.0.2.53
www.python.org. 300 A 192.0.2.1
www.python.org. 300 AAAA 2001:db8::1
wiki.corp.example.com. 300 A 192.0.2.2
only-eu.eu.example.com. 300 A 192.0.2.3
both.corp.example.com. 300 A 192.0.2.4
both.example.com. 300 A 192.0.2.204
both. 300 A 192.0.2.205
shop.python.org. 300 A 192.0.2.206
shop.python.org.corp.example.com. 300 A 192.0.2.5
details.corp.example.com. 300 A 192.0.2.207
six.example.com. 300 AAAA 2001:db8::6
"""
_CONFIG = """\
server:
    directory: "{folder}"
    chroot: ""
    username: ""
    pidfile: ""
    do-daemonize: no
    use-syslog: no
    logfile: ""
    interface: 127.0.0.1
    port: {port}
    num-threads: 1
    module-config: "iterator"
auth-zone:
    name: "."
    zonefile: "{folder}/zone"
    for-downstream: yes
    for-upstream: no
    fallback-enabled: no
remote-control:
    control-enable: no
"""
# A name an application writes -> its addresses.
FINDS = {
    "www.python.org": ["192.0.2.1", "2001:db8::1"],
    "wiki": ["192.0.2.2"],
    "only-eu": ["192.0.2.3"],
    "six": ["2001:db8::6"],  # A and AAAA agree that the search ends where there is AAAA only
    "both": ["192.0.2.4"],  # the company's, before the company's other and the world's
    "shop.python.org": ["192.0.2.5"],  # likewise, against all likelihood
    "details": ["10.4.0.6"],  # the mesh's, before the company's
    "productpage.ns1": ["10.4.0.5"],
    "reviews.ns1.svc.cluster.local": ["10.4.0.7", "fd00:4::7"],
}
AGAIN = ("www.python.org", "both")
Costs = dict[str, tuple[int, int]]  # packets at the agent, packets at the upstream; of an empty cache
# Each domain and the name in both families: the mesh's three cost the agent's word only.
BEFORE: Costs = {
    "www.python.org": (14, 8),
    "wiki": (8, 2),
    "only-eu": (10, 4),
    "six": (12, 6),
    "both": (8, 2),
    "shop.python.org": (8, 2),
    "details": (2, 0),
    "productpage.ns1": (4, 0),
    "reviews.ns1.svc.cluster.local": (14, 6),
}
# One packet for each family. Upstream hears of the three steps outside the mesh and of the name as it was written, all at
# once and for A; of AAAA for that name, where most searches end, and where this one ends.
AFTER: Costs = {
    **dict.fromkeys(FINDS, (2, 6)),
    "www.python.org": (2, 5),
    "details": (2, 0),
    "productpage.ns1": (2, 0),
    "reviews.ns1.svc.cluster.local": (2, 0),
}
Read = Callable[[str], tuple[str | None, list[str]]]


class SlowGate(Gate):
    """One that lets every answer wait."""

    def _outward(self, passage: socket.socket, client: tuple[str, int]) -> None:
        threading.Event().wait(LATENCY)
        super()._outward(passage, client)


def start_root(stage: Stage, host: Host) -> Unbound:
    """An unbound that has the whole world in one zone: what is not in it does not exist."""
    program = shutil.which("unbound") or shutil.which("/usr/sbin/unbound")
    if program is None:
        raise SkipTest("not installed: unbound")
    port = free_port(host.place)
    folder = stage.folder / "root"
    folder.mkdir()
    (folder / "zone").write_text(_ROOT)
    (folder / "config").write_text(_CONFIG.format(folder=folder, port=port))
    process = stage.start([*host.place.prefix, program, "-d", "-c", folder / "config"], folder / "log")
    server = Unbound(port, process, folder / "log", host.place)
    server.await_answer(".", "SOA")
    return server


class SixDomainTests(Stage):
    def setUp(self) -> None:
        super().setUp()
        self.host = Host(self, RESOLV_CONF)
        self.unbound = start_root(self, self.host)
        self.upstream_port, self.agent_port = free_port(self.host.place), free_port(self.host.place)
        self.upstream = SlowGate(self, self.upstream_port, self.unbound.port, self.host.place)
        self.door = Gate(self, 53, self.agent_port, self.host.place)

    def start_agent(self, autopath: str) -> Agent:
        return Agent.start(
            self,
            servers=[f"127.0.0.1:{self.upstream_port}"],
            port=self.agent_port,
            place=self.host.place,
            autopath=autopath,
            search=DOMAINS,
        )

    def heard(self) -> list[Question]:
        """What the upstream was asked since the last call, without the agent's own probes."""
        return [each for each in self.upstream.passed() if not each[0].lower().endswith("loop.meshdns.example")]

    def costs(self, command: Command, read_found: Read, names: Iterable[str]) -> Costs:
        """What each name costs; all must be found as they are."""
        costs: Costs = {}
        for name in names:
            self.assertEqual(FINDS[name], read_found(self.host.said_by(*command, name))[1], name)
            costs[name] = len(self.door.passed()), len(self.heard())
        return costs

    def counted(self, command: Command, read_found: Read = read) -> None:
        """The whole bill: without autopath and with it, cold and, of some, warm."""
        for autopath, bill in (("off", BEFORE), ("all", AFTER)):
            agent = self.start_agent(autopath)
            self.heard()
            self.assertEqual(bill, self.costs(command, read_found, FINDS), autopath)
            warm = {name: (bill[name][0], 0) for name in AGAIN}
            self.assertEqual(warm, self.costs(command, read_found, AGAIN), autopath)
            self.assertEqual([], agent.complaints())
            agent.stop()

    def test_getent(self) -> None:
        """D8: glibc's getaddrinfo, by `getent ahosts`."""
        self.counted(["getent", "ahosts"], read_getent)

    def test_musl(self) -> None:
        """D8: musl's getaddrinfo."""
        needs("musl-gcc")
        program = self.folder / "lookup"
        self.said_by(["musl-gcc", "-static", "-O1", "-Wall", "-Werror", "-o", program, CLIENTS / "lookup.c"])
        self.counted([program])

    def test_c_ares(self) -> None:
        """D8: c-ares, which walks the search list itself."""
        self.counted([sys.executable, CLIENTS / "cares.py"])

    def test_node(self) -> None:
        """D8: Node's dns.lookup."""
        needs("node")
        self.counted(["node", CLIENTS / "lookup.js", "lookup"])

    def test_java(self) -> None:
        """D8: Java's InetAddress."""
        needs("java", "javac")
        self.said_by(["javac", "-d", self.folder, CLIENTS / "Lookup.java"])
        self.counted(["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", self.folder, "Lookup"])

    def test_go(self) -> None:
        """D8: Go's own resolver."""
        go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
        if go is None:
            raise SkipTest("not installed: go")
        program = self.folder / "lookup"
        places = {name: str(self.folder / name.lower()) for name in ("GOCACHE", "GOPATH", "GOTMPDIR")}
        os.mkdir(places["GOTMPDIR"])
        offline = {"CGO_ENABLED": "0", "GO111MODULE": "off", "GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": ""}
        self.said_by([go, "build", "-o", program, CLIENTS / "lookup.go"], **places, **offline)
        self.counted([program])

    def test_unknown_name(self) -> None:
        """D8, D25: what nobody knows costs the client its whole walk, but upstream hears of each name once."""
        self.start_agent("all")
        self.heard()
        done = self.host.run("getent", "ahosts", "no.such.name")
        self.assertTrue(done.returncode)
        self.assertEqual(14, len(self.door.passed()))
        name = "no.such.name"
        asked = [(name, "A"), (name, "AAAA"), *((f"{name}.{domain}", "A") for domain in DOMAINS[3:])]
        self.assertEqual(sorted(asked), sorted((heard.lower(), rdtype) for heard, rdtype in self.heard()))
