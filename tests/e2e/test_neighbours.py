"""Interception on a machine where another program answers DNS, too: dnsmasq, systemd-resolved. Nobody asks in a circle, and
everybody finds everything (issue 6; Istio's users met such circles in its #30309 and #45923)."""

import json
import shutil
import sys
from itertools import count
from pathlib import Path
from time import sleep
from unittest import SkipTest

from meshdns.defaults import HOLD_LOOK
from tests.e2e.agent import SEARCH, SERVICE, SERVICE_ADDRESS
from tests.e2e.hosts import Host
from tests.e2e.machine import UNPACKED
from tests.e2e.stage import WAIT, end, until
from tests.e2e.vm import PUBLIC, PUBLIC_ADDRESS, SERVER, SERVER6, Vm

RESOLVED = ("/lib/systemd/systemd-resolved", f"{UNPACKED}/systemd-resolved/lib/systemd/systemd-resolved")
STUB = "127.0.0.53"
_VARLINK = """\
import json, socket, sys
asking = socket.socket(socket.AF_UNIX)
asking.settimeout(10)
asking.connect("/run/systemd/resolve/io.systemd.Resolve")
call = {"method": "io.systemd.Resolve.ResolveHostname", "parameters": {"name": sys.argv[1], "family": 2, "flags": 0}}
asking.sendall(json.dumps(call).encode() + b"\\0")
said = b""
while not said.endswith(b"\\0"):
    said += asking.recv(65536)
for each in json.loads(said[:-1]).get("parameters", {}).get("addresses", ()):
    print(".".join(map(str, each["address"])))
"""


class DnsmasqTests(Vm):
    """dnsmasq on 127.0.0.1, which asks the old server; the agent asks dnsmasq. `told` is what `up` says of its user, and
    `elsewhere` who answers root at another server that is redirected."""

    user = told = "daemon"
    elsewhere = "meshdns"
    passes: tuple[int, ...] = (1,)  # how often dnsmasq may hear a question
    resolv_conf = f"nameserver 127.0.0.1\nsearch {' '.join(SEARCH)}\n"

    def setUp(self) -> None:
        super().setUp()
        if not shutil.which("dnsmasq") and not shutil.which("dnsmasq", path="/usr/sbin"):
            raise SkipTest("not installed: dnsmasq")
        self.log = self.folder / "dnsmasq.log"
        self.start_dnsmasq()
        until("dnsmasq", lambda: self.who(server="127.0.0.1").startswith("dnsmasq"), self.dnsmasq, self.log)
        self.start_agent(status="127.0.0.1:15054")
        self.names = (f"x{number}.example.com" for number in count())

    def start_dnsmasq(self) -> None:
        words = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--cache-size=0",
                 f"--server={SERVER}", "--listen-address=127.0.0.1", "--bind-interfaces", f"--user={self.user}",
                 "--log-queries", "--log-facility=-"]  # fmt: skip
        self.dnsmasq = self.start([*self.vm.place.prefix, "dnsmasq", *words], self.log)

    def finds_all(self) -> None:
        """A mesh name is the agent's, a public one passes dnsmasq once, and nothing is asked again and again."""
        for tcp in (False, True):
            self.assertTrue(self.finds_mesh(server="127.0.0.1", tcp=tcp))
            self.assertEqual([PUBLIC_ADDRESS], self.addresses(PUBLIC, server="127.0.0.1", tcp=tcp, wait=WAIT))
        name = next(self.names)
        answer = self.ask(name, server="127.0.0.1", wait=WAIT)
        self.assertEqual(3, answer and answer.rcode())
        self.assertIn(self.log.read_text().lower().count(f"query[a] {name} "), self.passes)
        self.assertEqual(1, self.old.log.read_text().lower().count(f" {name}. a in"))
        self.assertEqual([], self.agent.lines("loop"))
        self.assertIn(SERVICE_ADDRESS, self.vm.said_by("getent", "ahostsv4", "productpage"))

    def test_default(self) -> None:
        self.up_and_asked("127.0.0.1")
        self.assertEqual("unbound", self.who())
        self.finds_all()

    def test_every_server(self) -> None:
        """--all: what dnsmasq asks the old server is not redirected, for the agent asks dnsmasq."""
        self.up_and_asked("127.0.0.1", "--all")
        self.assertEqual(self.elsewhere, self.who())
        self.finds_all()
        self.assertIn("It works.", self.intercept("verify", "--all").stdout)

    def test_starts_later(self) -> None:
        """--all, and dnsmasq starts after `hold`; later it is away for longer than between two looks, and starts again."""
        end(self.dnsmasq)
        log = self.hold("--all")
        self.start_dnsmasq()
        until("its user", lambda: self.told in log.read_text(), self.holding, log)
        self.await_agent(server="127.0.0.1")
        self.finds_all()
        end(self.dnsmasq)
        sleep(HOLD_LOOK + 1)
        self.start_dnsmasq()
        until("dnsmasq", lambda: PUBLIC_ADDRESS in self.addresses(PUBLIC, server="127.0.0.1"), self.dnsmasq, self.log)
        self.finds_all()
        self.assertEqual(2, log.read_text().count("every server over IPv4"))

    def test_both_in_resolv_conf(self) -> None:
        """dnsmasq first, and the server that it asks second: the agent asks the faster."""
        self.passes = (0, 1)
        (self.vm.etc / "resolv.conf").write_text(
            f"nameserver 127.0.0.1\nnameserver {SERVER}\nsearch {' '.join(SEARCH)}\n"
        )
        self.up_and_asked("127.0.0.1")
        self.assertEqual(self.elsewhere, self.who())
        self.finds_all()
        said = self.intercept("verify").stdout
        self.assertIn(f"found, asked at {SERVER}:53", said)
        self.assertIn("It works.", said)

    def test_runs_as_root(self) -> None:
        """One whose queries cannot be told from others': said, with what to do."""
        process = self.start([*self.vm.place.prefix, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv",
                              "--listen-address=127.0.0.9", "--bind-interfaces", "--user=root"], self.log)  # fmt: skip
        until("dnsmasq", lambda: self.who(server="127.0.0.9").startswith("dnsmasq"), process, self.log)
        (self.vm.etc / "resolv.conf").write_text("nameserver 127.0.0.9\n")
        done = self.intercept("print")
        self.assertEqual(0, done.returncode)
        self.assertIn("the resolver at 127.0.0.9:53 runs as root", done.stderr)

    def test_agent_dies(self) -> None:
        """dnsmasq is asked again, within two seconds."""
        self.up_and_asked("127.0.0.1")
        self.agent.process.kill()
        self.assertLess(self.await_who("dnsmasq", server="127.0.0.1", wait=0.1), 2)
        self.assertEqual([PUBLIC_ADDRESS], self.addresses(PUBLIC, server="127.0.0.1", wait=WAIT))

    def up_and_asked(self, server: str, *more: str) -> None:
        done = self.intercept("up", *more)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn(self.told, done.stdout + done.stderr)
        self.await_agent(server=server)


class DnsmasqOfRootTests(DnsmasqTests):
    """The same of root's: what root asks the old server goes there, and what it asks dnsmasq goes to the agent."""

    user, told = "root", "runs as root"
    elsewhere = "unbound"


class DnsmasqOfRootIptablesTests(DnsmasqOfRootTests):
    words = ("--mode", "iptables")
    programs = (*Vm.programs, "iptables", "ip6tables")


class EngineTests(Vm):
    """A container engine's DNS on the bridge, as LXD and libvirt have it, asked by a container, and asking whom resolv.conf names;
    Docker itself is in `test_docker`."""

    def test_container(self) -> None:
        """The engine is an application like others, so its containers find the mesh; what a container itself sends to a server
        passes through the machine as it is."""
        container = Host(self, "nameserver 172.30.0.1\n", "container")
        self.vm.said_by("ip", "link", "add", "bridge0", "type", "bridge")
        self.vm.join(container, [], ["172.30.0.2/24"], "port")
        for words in ("link set port master bridge0", "address add 172.30.0.1/24 dev bridge0", "link set bridge0 up"):
            self.vm.said_by("ip", *words.split())
        container.said_by("ip", "route", "add", "default", "via", "172.30.0.1")
        self.vm.said_by("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.vm.said_by("nft", "add table ip engine; add chain ip engine nat { type nat hook postrouting priority srcnat; };"
                        "add rule ip engine nat ip saddr 172.30.0.0/24 oifname cable masquerade")  # fmt: skip
        log = self.folder / "engine.log"
        words = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--cache-size=0", "--listen-address=172.30.0.1",
                 "--bind-interfaces", "--user=root", "--log-queries", "--log-facility=-"]  # fmt: skip
        engine = self.start([*self.vm.place.prefix, "dnsmasq", *words], log)
        version = ["dig", "+short", "+time=2", "+tries=1", "version.bind", "TXT", "CH"]
        until("the engine", lambda: not container.run(*version).returncode, engine, log)
        self.start_agent()
        self.up()
        self.assertIn(SERVICE_ADDRESS, container.said_by("dig", "+short", "productpage.ns1.svc.cluster.local"))
        self.assertEqual(PUBLIC_ADDRESS, container.said_by("dig", "+short", PUBLIC).strip())
        self.assertEqual(1, log.read_text().lower().count(f"query[a] {PUBLIC}"))
        self.assertIn("unbound", container.said_by(*version, f"@{SERVER}"))


class ResolvedTests(Vm):
    """systemd-resolved, its stub in resolv.conf; the agent asks the servers behind it."""

    resolv_conf = f"nameserver {STUB}\noptions edns0 trust-ad\nsearch {' '.join(SEARCH)}\n"

    def setUp(self) -> None:
        super().setUp()
        program = next(filter(Path.exists, map(Path, RESOLVED)), None)
        if program is None:
            raise SkipTest("not installed: systemd-resolved")
        settings = f"[Resolve]\nDNS={SERVER}\nFallbackDNS=\nDNSSEC=no\nDomains={' '.join(SEARCH)}\nCache=no\n"
        self.vm.said_by("sh", "-ec", "mount -t tmpfs tmpfs /run; mkdir -p /run/systemd/resolve /run/systemd/resolved.conf.d;"
                        f"printf %s '{settings}' >/run/systemd/resolved.conf.d/test.conf;"
                        "chown 4323 /run/systemd/resolve")  # fmt: skip
        self.program = program
        self.start_resolved()
        self.start_agent(status="127.0.0.1:15054")

    def start_resolved(self) -> None:
        log = self.folder / "resolved.log"
        user = ["setpriv", "--reuid=4323", "--clear-groups", "--inh-caps=+net_bind_service,+net_raw,+setpcap",
                "--ambient-caps=+net_bind_service,+net_raw,+setpcap", "--"]  # fmt: skip
        self.resolved = self.start([*self.vm.place.prefix, *user, self.program], log)
        until("systemd-resolved", lambda: self.addresses(PUBLIC, server=STUB), self.resolved, log)

    def finds_all(self) -> None:
        for tcp in (False, True):
            self.assertTrue(self.finds_mesh(server=STUB, tcp=tcp))
            self.assertEqual([PUBLIC_ADDRESS], self.addresses(PUBLIC, server=STUB, tcp=tcp, wait=WAIT))
        self.assertIn(SERVICE_ADDRESS, self.vm.said_by("getent", "ahostsv4", "productpage"))
        self.assertIn(PUBLIC_ADDRESS, self.vm.said_by("getent", "ahostsv4", PUBLIC))
        self.assertEqual([], self.agent.lines("loop"))

    def test_default(self) -> None:
        """Its stub is redirected, and so is what it asks itself for those who reach it otherwise: by D-Bus or by its other stub."""
        self.up_at_stub()
        self.finds_all()
        self.assertEqual([SERVICE_ADDRESS], self.by_varlink(SERVICE))
        self.assertEqual([PUBLIC_ADDRESS], self.by_varlink(PUBLIC))
        self.assertTrue(self.finds_mesh(server="127.0.0.54", wait=WAIT))
        self.assertEqual([PUBLIC_ADDRESS], self.addresses(PUBLIC, server="127.0.0.54", wait=WAIT))
        servers = [server["server"] for server in json.loads(self.meshdns("status", "--json").stdout)["upstreams"]]
        self.assertEqual([f"{SERVER}:53"], servers)

    def test_server_of_an_interface(self) -> None:
        """One that DHCP has given for an interface, which systemd-resolved asks through that."""
        index = self.vm.said_by("sh", "-c", "ip -oneline link show cable | cut -d: -f1").strip()
        link = f"ADMIN_STATE=configured\nOPER_STATE=routable\nNETWORK_FILE=/x\nDNS={SERVER}\nDOMAINS=cluster.local\n"
        script = [
            "mkdir -p /run/systemd/netif/links",
            "printf '[Resolve]\nFallbackDNS=\n' >/run/systemd/resolved.conf.d/test.conf",
            f"printf %s '{link}' >/run/systemd/netif/links/{index}",
            "echo OPER_STATE=routable >/run/systemd/netif/state",
        ]
        self.vm.said_by("sh", "-ec", "\n".join(script))
        self.resolved.terminate()
        self.resolved.wait()
        self.start_resolved()
        self.up_at_stub()
        self.assertEqual([SERVICE_ADDRESS], self.by_varlink(SERVICE))
        self.assertEqual([PUBLIC_ADDRESS], self.by_varlink(PUBLIC))
        self.finds_all()

    def test_no_search_domain(self) -> None:
        """Then systemd-resolved asks nobody for names below `.local`; who asks its stub is not concerned (docs/vm.md)."""
        self.vm.said_by(
            "sh",
            "-ec",
            f"echo '[Resolve]\nDNS={SERVER}\nFallbackDNS=\nDomains=' >/run/systemd/resolved.conf.d/test.conf",
        )
        self.resolved.terminate()
        self.resolved.wait()
        self.start_resolved()
        self.up_at_stub()
        self.assertEqual([], self.by_varlink(SERVICE))
        self.assertEqual([PUBLIC_ADDRESS], self.by_varlink(PUBLIC))
        self.finds_all()

    def by_varlink(self, name: str) -> list[str]:
        """The addresses that systemd-resolved finds as nss-resolve asks it."""
        return self.vm.said_by(sys.executable, "-c", _VARLINK, name).split()

    def test_every_server(self) -> None:
        self.up_at_stub("--all")
        self.await_agent(server=SERVER6)
        self.finds_all()

    def test_agent_dies(self) -> None:
        self.up_at_stub()
        self.agent.process.kill()
        self.agent.process.wait()
        self.assertIn(PUBLIC_ADDRESS, self.vm.said_by("getent", "ahostsv4", PUBLIC))
        self.assertEqual([PUBLIC_ADDRESS], self.addresses(PUBLIC, server=STUB, wait=WAIT))

    def up_at_stub(self, *more: str) -> None:
        self.assertEqual(0, self.intercept("up", *more).returncode)
        self.await_agent(server=STUB)
        self.await_agent()
