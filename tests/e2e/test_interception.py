"""`meshdns intercept` on a made-up machine with a real kernel, a real agent and a real old server (contract section 4, issue 6):
what is redirected and what never is, the machine's bad days, and that nothing is left behind."""

import json
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic

import dns.message

from meshdns.defaults import HOLD_TURN, INTERCEPT_ALIVE, INTERCEPT_DRAIN
from tests.e2e.agent import SERVICE, SERVICE_ADDRESS
from tests.e2e.stage import ROOT, Command, framed, read_frame, until
from tests.e2e.test_clients import CLIENTS, needs, read
from tests.e2e.vm import (
    AGENT_UID,
    LINK_LOCAL_SERVER,
    MESHDNS,
    OTHER_SERVER,
    PUBLIC,
    PUBLIC_ADDRESS,
    RESOLV_CONF,
    SERVER,
    SERVER6,
    Vm,
)

GUIDE = (ROOT / "docs/vm.md").read_text()
BACK = 2.0  # seconds within which applications have their old servers again, whatever has happened


class RedirectTests(Vm):
    """What is redirected."""

    def test_both_transports_and_families(self) -> None:
        """UDP and TCP, IPv4 and IPv6: every query to a server of resolv.conf is the agent's."""
        self.start_agent()
        for server in (SERVER, SERVER6):
            for tcp in (False, True):
                self.assertEqual("unbound", self.who(server=server, tcp=tcp))
        self.up()
        for server in (SERVER, SERVER6):
            for tcp in (False, True):
                self.assertEqual("meshdns", self.who(server=server, tcp=tcp))
                self.assertTrue(self.finds_mesh(server=server, tcp=tcp))
                self.assertEqual([PUBLIC_ADDRESS], self.addresses(PUBLIC, server=server, tcp=tcp))
        self.assertEqual([], self.agent.complaints())

    def test_link_local_server(self) -> None:
        """A socket to a server with a link-local address is bound to its interface, so it is left alone, and the user is told."""
        address = f"{LINK_LOCAL_SERVER}%cable"
        (self.vm.etc / "resolv.conf").write_text(f"nameserver {address}\nnameserver {SERVER}\n")
        agent = self.start_agent()
        ask = ["dig", "+short", "+time=2", "+tries=1", f"@{address}", PUBLIC]
        # The kernel gives link-local addresses, and a route to them, up to a second after the cable is plugged in.
        before = ["sh", "-c", f"{' '.join(ask)} || true"]
        agent.await_true("an old answer", lambda: self.vm.said_by(*before).strip() == PUBLIC_ADDRESS)
        for words in ([], ["--all"]):
            self.assertIn(f"queries to {address} are not redirected", self.up(*words, servers=[SERVER]))
            self.assertEqual(PUBLIC_ADDRESS, self.vm.said_by(*ask).strip())
            self.assertTrue(self.finds_mesh())

    def test_only_servers_of_resolv_conf(self) -> None:
        self.start_agent()
        self.up()
        self.assertEqual("unbound", self.who(server=OTHER_SERVER))
        self.assertEqual("unbound", self.who(server=OTHER_SERVER, tcp=True))

    def test_wildcard_address(self) -> None:
        """An agent that listens everywhere."""
        self.start_agent(listen=["0.0.0.0:15053", "[::]:15053"])
        self.up()
        for server in (SERVER, SERVER6):
            for tcp in (False, True):
                self.assertTrue(self.finds_mesh(server=server, tcp=tcp))

    def test_every_server(self) -> None:
        """--all"""
        self.start_agent()
        self.up("--all")
        self.assertEqual("meshdns", self.who(server=OTHER_SERVER))
        self.assertEqual("meshdns", self.who(server=OTHER_SERVER, tcp=True))
        self.assertEqual([PUBLIC_ADDRESS], self.addresses(PUBLIC, server=OTHER_SERVER))

    def test_never_the_agents_own(self) -> None:
        """By its user: what the agent asks arrives at the old server, and what others ask does not."""
        self.start_agent()
        self.up("--all")
        version = ["dig", "+short", "+time=1", "+tries=1", f"@{SERVER}", "version.bind", "TXT", "CH"]
        self.assertIn("meshdns", self.vm.said_by(*version))
        for transport in ("+notcp", "+tcp"):
            said = self.said_by([*self.place.prefix, *version, transport])
            self.assertIn("unbound", said)

    def test_spared_user(self) -> None:
        """--spare: a further user whose queries go where they are sent."""
        self.start_agent()
        self.up("--spare", "daemon")
        ask = ["dig", "+short", "+time=1", "+tries=1", f"@{SERVER}", "version.bind", "TXT", "CH"]
        self.assertIn("unbound", self.vm.said_by("setpriv", "--reuid=daemon", "--clear-groups", *ask))
        self.assertIn("meshdns", self.vm.said_by("setpriv", "--reuid=nobody", "--clear-groups", *ask))

    def test_not_twice(self) -> None:
        """The old server hears of each public name once, and of a mesh name never."""
        self.start_agent(status="127.0.0.1:15054")
        self.up()
        log = self.old.log
        self.assertEqual([PUBLIC_ADDRESS], self.addresses(PUBLIC))
        self.assertTrue(self.finds_mesh())
        status = json.loads(self.meshdns("status", "--json").stdout)
        self.assertEqual(1, sum(server["requests"].get("ok", 0) for server in status["upstreams"]), log.read_text())

    def test_heartbeats_are_not_counted(self) -> None:
        """The agent asks itself each half second; nobody asked, so no figure says that somebody did."""
        self.start_agent(status="127.0.0.1:15054", log={"queries": True})
        self.up()
        self.assertEqual("meshdns", self.who())
        counted = json.loads(self.meshdns("status", "--json").stdout)["queries"]["total"]
        self.wait(1.2)
        self.assertEqual(counted, json.loads(self.meshdns("status", "--json").stdout)["queries"]["total"])
        self.assertEqual(counted, len(self.agent.lines("asked version.bind TXT over")))

    def test_idle(self) -> None:
        """On a machine where nobody asks for long, the first query is the agent's, too."""
        self.start_agent()
        self.up()
        self.wait(2 * INTERCEPT_ALIVE)
        self.assertEqual("meshdns", self.who())

    def wait(self, seconds: float) -> None:
        """Nothing is asked for so long."""
        started = monotonic()
        until("the time", lambda: monotonic() > started + seconds, self.agent.process, self.agent.log)


class ClientTests(Vm):
    """Real clients: mesh names, VIPs of external services and public names, in every form that they are written."""

    def setUp(self) -> None:
        super().setUp()
        self.start_agent()

    def test_getent(self) -> None:
        self.assertFalse(self.finds("getent", "ahostsv4", "productpage"))
        self.assertTrue(self.finds("getent", "ahostsv4", PUBLIC))
        self.up()
        for name, address in (("productpage", SERVICE_ADDRESS), ("productpage.ns1", SERVICE_ADDRESS), (PUBLIC, PUBLIC_ADDRESS),
                              ("db1.example.com", "240.240.0.1")):  # fmt: skip
            self.assertIn(address, self.vm.said_by("getent", "ahostsv4", name))
        self.intercept("down")
        self.assertFalse(self.finds("getent", "ahostsv4", "productpage"))
        self.assertTrue(self.finds("getent", "ahostsv4", PUBLIC))

    def test_dig(self) -> None:
        self.up()
        for more in (["+notcp"], ["+tcp"], ["+notcp", "-6", f"@{SERVER6}"], ["+tcp", "-6", f"@{SERVER6}"]):
            for name, address in ((SERVICE, SERVICE_ADDRESS), (PUBLIC, PUBLIC_ADDRESS)):
                self.assertEqual(address, self.vm.said_by("dig", "+short", *more, name).strip())

    def test_python(self) -> None:
        self.up()
        found = read(self.vm.said_by(sys.executable, CLIENTS / "lookup.py", "productpage"))
        self.assertEqual((SERVICE, [SERVICE_ADDRESS]), found)

    def test_static_musl_program_in_a_chroot(self) -> None:
        """As in a container of the machine's network: no library and no file of it but its own resolv.conf."""
        needs("musl-gcc", "chroot")
        self.up()
        root = self.folder / "root"
        (root / "etc").mkdir(parents=True)
        (root / "etc" / "resolv.conf").write_text(RESOLV_CONF)
        self.said_by(["musl-gcc", "-static", "-O1", "-o", root / "lookup", CLIENTS / "lookup.c"])
        for name, found in {
            "productpage": (SERVICE, [SERVICE_ADDRESS]),
            PUBLIC: (PUBLIC, [PUBLIC_ADDRESS, "2001:db8::80"]),
        }.items():
            self.assertEqual(found, read(self.vm.said_by("chroot", root, "/lookup", name)))

    def test_node(self) -> None:
        needs("node")
        self.up()
        self.assertIn(SERVICE_ADDRESS, self.vm.said_by("node", CLIENTS / "lookup.js", "resolve", "productpage"))

    def test_curl(self) -> None:
        """A page of a service of the mesh, by its short name."""
        needs("curl")
        self.up()
        self.vm.said_by("ip", "address", "add", f"{SERVICE_ADDRESS}/32", "dev", "lo")
        (self.folder / "page").write_text("the product page")
        log = self.folder / "http.log"
        serve = [
            *self.vm.place.prefix,
            sys.executable,
            "-u",
            "-m",
            "http.server",
            "--directory",
            self.folder,
            "--bind",
            SERVICE_ADDRESS,
            "9080",
        ]
        server = self.start(serve, log)
        until("the server", lambda: "Serving" in log.read_text(), server, log)
        page = ["curl", "--silent", "--show-error", "--max-time", "5", "--noproxy", "*", "http://productpage:9080/page"]
        self.assertEqual("the product page", self.vm.said_by(*page))

    def finds(self, *command: str) -> bool:
        return not self.vm.run(*command).returncode


class EveryClientTests(Vm):
    """Every client before, during and after bad days: the world is always found, the mesh whenever the agent is there."""

    def build_clients(self) -> None:
        """Commands, with the name to come last."""
        needs("musl-gcc", "chroot", "node", "curl", "dig")
        root = self.folder / "root"
        (root / "etc").mkdir(parents=True)
        (root / "etc" / "resolv.conf").write_text(RESOLV_CONF)
        self.said_by(["musl-gcc", "-static", "-O1", "-o", root / "lookup", CLIENTS / "lookup.c"])
        curl = "curl --silent --verbose --ipv4 --connect-timeout 1 --noproxy * --output /dev/null"
        self.clients: dict[str, Command] = {
            "getent": ("getent", "ahostsv4"),
            "curl": curl.split(),
            "Python": (sys.executable, CLIENTS / "lookup.py"),
            "Node": ("node", CLIENTS / "lookup.js", "resolve"),
            "dig": ("dig", "+short", f"@{SERVER}"),
            "dig over TCP": ("dig", "+short", "+tcp", f"@{SERVER}"),
            "dig over TCP and IPv6": ("dig", "+short", "+tcp", f"@{SERVER6}"),
            "static program of musl's in a chroot": ("chroot", root, "/lookup"),
        }

    def found(self, name: str, address: str) -> list[str]:
        """The clients that find it."""
        said = {client: self.vm.run(*command, name) for client, command in self.clients.items()}
        return [client for client, done in said.items() if address in done.stdout + done.stderr]

    def check(self, *, mesh: bool) -> None:
        self.assertEqual(list(self.clients), self.found(PUBLIC, PUBLIC_ADDRESS))
        self.assertEqual(list(self.clients) if mesh else [], self.found(SERVICE, SERVICE_ADDRESS))

    def test_days(self) -> None:
        self.build_clients()
        self.start_agent()
        self.check(mesh=False)
        self.up()
        self.check(mesh=True)
        self.agent.process.kill()
        self.agent.process.wait()
        self.check(mesh=False)
        self.restart_agent()
        self.await_agent()
        self.await_agent(server=SERVER6)
        self.check(mesh=True)
        self.agent.process.send_signal(signal.SIGSTOP)
        self.await_who("unbound", BACK, wait=0.1)
        self.await_who("unbound", BACK, wait=0.1, server=SERVER6)
        self.check(mesh=False)
        self.agent.process.send_signal(signal.SIGCONT)
        self.await_agent()
        self.await_agent(server=SERVER6)
        (self.vm.etc / "resolv.conf").write_text(RESOLV_CONF.replace("ndots:5", "ndots:1"))
        self.up()
        self.check(mesh=True)
        self.intercept("down")
        self.check(mesh=False)


class BadDayTests(Vm):
    """Whatever becomes of the agent, applications reach their old servers within two seconds, and the agent when it is back:
    over new sockets, and over those they have kept."""

    def setUp(self) -> None:
        super().setUp()
        self.start_agent()
        self.up()

    def test_killed(self) -> None:
        """SIGKILL, which leaves nobody to take the rules down."""
        seconds = self.outage(self.agent.process.kill)
        self.assertLess(seconds, BACK)
        self.assertEqual("unbound", self.who())
        self.assertFalse(self.finds_mesh())
        self.agent.process.wait()
        self.restart_agent()
        self.await_agent()
        self.assertTrue(self.finds_mesh())

    def test_first_query_after_death(self) -> None:
        """The very query that finds the agent's port empty fails at once, and its repetition reaches the old server: clients of
        glibc notice nothing."""
        self.agent.process.kill()
        self.agent.process.wait()
        started = monotonic()
        self.assertIn(PUBLIC_ADDRESS, self.vm.said_by("getent", "ahostsv4", PUBLIC))
        self.assertLess(monotonic() - started, 1.0)

    def test_first_connection_after_death(self) -> None:
        """The same over TCP."""
        self.agent.process.kill()
        self.agent.process.wait()
        said = self.vm.said_by("dig", "+tcp", "+short", "+time=1", PUBLIC)
        self.assertEqual(PUBLIC_ADDRESS, said.splitlines()[-1])

    def test_stopped(self) -> None:
        """SIGSTOP: its sockets still take what comes, and nobody reads it."""
        seconds = self.outage(lambda: self.agent.process.send_signal(signal.SIGSTOP))
        self.assertLess(seconds, BACK)
        self.assertEqual("unbound", self.who())
        self.agent.process.send_signal(signal.SIGCONT)
        self.await_agent()
        self.assertTrue(self.finds_mesh())

    def test_connection_to_a_stopped_agent(self) -> None:
        """A client's connection over TCP does not hang on the agent: the old server refuses what comes next."""
        kept = self.connected(socket.SOCK_STREAM)
        self.assertTrue(self.finds_mesh(over=kept, tcp=True))
        self.outage(lambda: self.agent.process.send_signal(signal.SIGSTOP))
        self.assertIsNone(self.ask(PUBLIC, over=kept, tcp=True, wait=1))
        self.assertRaises(OSError, self.send_more, kept)
        self.assertEqual([PUBLIC_ADDRESS], self.addresses(PUBLIC, tcp=True))
        self.agent.process.send_signal(signal.SIGCONT)

    def send_more(self, connection: socket.socket) -> None:
        for _ in range(20):
            connection.sendall(b"\0")
            connection.recv(1)

    def test_connection_to_the_old_server_outlives_the_return(self) -> None:
        """What was connected to the old server while the agent was away ends there, in order."""
        self.agent.process.kill()
        self.agent.process.wait()
        self.await_who("unbound")
        kept = self.connected(socket.SOCK_STREAM)
        self.assertEqual("unbound", self.who(over=kept, tcp=True))
        self.restart_agent()
        self.await_agent()
        self.assertEqual("unbound", self.who(over=kept, tcp=True))
        self.assertEqual("meshdns", self.who(tcp=True))

    def test_crash_loop(self) -> None:
        """An agent that dies again and again as soon as it answers: never two seconds without an answer."""
        kept = self.connected()
        answered = worst = 0.0
        for _ in range(5):
            self.agent.process.kill()
            self.agent.process.wait()
            self.restart_agent()
            answered, ended = monotonic(), monotonic() + 1.5
            while monotonic() < ended:
                for over in (kept, None):
                    if self.addresses(PUBLIC, over=over, wait=0.1):
                        worst, answered = max(worst, monotonic() - answered), monotonic()
        self.assertLess(worst, BACK)
        self.assertLess(monotonic() - answered, BACK)

    def test_restart(self) -> None:
        """SIGTERM and another process, as an upgrade does it."""

        def restart() -> None:
            self.agent.stop()
            self.restart_agent()

        self.assertLess(self.outage(restart), BACK)
        self.await_agent()
        self.assertTrue(self.finds_mesh())

    def test_down_while_a_query_is_under_way(self) -> None:
        """`down` sends nothing new to the agent, and the rules stay until what came before has its answer: none is lost."""
        asking, connection = self.connected(), self.connected(socket.SOCK_STREAM)
        self.assertTrue(self.finds_mesh(over=connection, tcp=True))
        self.agent.process.send_signal(signal.SIGSTOP)
        query = dns.message.make_query(SERVICE, "A").to_wire()
        asking.send(query)
        connection.sendall(framed(query))
        self.assertNotEqual("", self.beginnings())
        downing = self.begin("down")
        until("its first step", lambda: not self.beginnings(), downing, self.agent.log)
        self.assertRaises(subprocess.TimeoutExpired, downing.wait, INTERCEPT_DRAIN / 3)  # an answer may take so long
        self.agent.process.send_signal(signal.SIGCONT)
        asking.settimeout(BACK)
        connection.settimeout(BACK)
        for answer in (asking.recv(4096), read_frame(connection)):
            self.assertIn(socket.inet_aton(SERVICE_ADDRESS), answer)
        self.assertEqual("unbound", self.who())
        self.assertEqual(0, downing.wait(BACK))

    def beginnings(self) -> str:
        """The rules that send something new to the agent."""
        if "nftables" in self.words:
            chain = self.vm.run("nft", "list", "chain", "inet", "meshdns", "begin").stdout
            return "\n".join(line for line in chain.splitlines() if "zone set" in line)
        rules = self.vm.said_by("iptables-save", "-t", "raw")
        return "\n".join(line for line in rules.splitlines() if line.startswith("-A MESHDNS-BEGIN"))

    def begin(self, action: str, *words: str) -> subprocess.Popen[bytes]:
        """`meshdns intercept` with this action runs from now on."""
        python = [*self.vm.place.prefix, sys.executable, "-c", MESHDNS]
        return self.start([*python, "intercept", action, *words, "--config", self.agent.config], self.folder / "log")

    def test_upgrade_of_the_rules(self) -> None:
        """`up` over what is up: no query goes astray meanwhile."""
        kept = self.connected()
        upping = self.begin("up", *map(str, self.words), "--uid", str(AGENT_UID))
        asked = 0
        while upping.poll() is None:
            self.assertEqual(("meshdns", "meshdns"), (self.who(over=kept), self.who()))
            asked += 1
        self.assertEqual(0, upping.returncode)
        self.assertGreater(asked, 5)

    def test_impostor(self) -> None:
        """Whoever takes the agent's port after its death is asked nothing, since it is another user."""
        self.agent.process.kill()
        self.agent.process.wait()
        script = (
            "import socket\n"
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 15053)); print('there', flush=True)\n"
            "while True:\n"
            "    packet, client = s.recvfrom(4096); print('asked', flush=True); s.sendto(packet, client)\n"
        )
        log = self.folder / "impostor.log"
        words = ["setpriv", "--reuid=4322", "--clear-groups", sys.executable, "-c", script]
        impostor = self.start([*self.vm.place.prefix, *words], log)
        until("the impostor", lambda: "there" in log.read_text(), impostor, log)
        self.await_who("unbound", BACK, wait=0.1)
        asked = log.read_text().count("asked")
        for _ in range(20):
            self.assertEqual("unbound", self.who())
        self.assertEqual(asked, log.read_text().count("asked"))

    def test_reused_port(self) -> None:
        """A UDP source port that the agent has used towards the server is an application's next: its query is redirected all the
        same, for conntrack knows both apart."""
        script = (
            "import socket, sys\n"
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.9.0.2', 40123)); s.connect(('10.9.0.53', 53))\n"
            "s.settimeout(2); s.send(bytes.fromhex(sys.argv[1])); print(s.recv(512))\n"
        )
        query = "123401000001000000000000" + "0776657273696f6e0462696e6400" + "00100003"
        ask = [sys.executable, "-c", script, query]
        for _ in range(2):
            self.assertIn("unbound", self.said_by([*self.place.prefix, *ask]))
            self.assertIn("meshdns", self.vm.said_by(*ask))


class BootTests(Vm):
    """The rules do not depend on the agent, and do nothing without it."""

    def test_agent_disabled(self) -> None:
        """A machine whose rules are up and whose agent is not started."""
        self.start_agent()
        self.agent.stop()
        done = self.intercept("up")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("the agent does not answer yet", done.stderr)
        self.assertEqual([PUBLIC_ADDRESS], self.addresses(PUBLIC))
        self.assertEqual([PUBLIC_ADDRESS], self.addresses(PUBLIC, tcp=True))
        self.assertIn(PUBLIC_ADDRESS, self.vm.said_by("getent", "ahostsv4", PUBLIC))

    def test_first_boot(self) -> None:
        """Rules first, then an agent: applications have an answer at every moment, and the agent's from its first one on."""
        self.start_agent()
        self.agent.stop()
        self.assertEqual(0, self.intercept("up").returncode)
        self.restart_agent()
        while self.who() != "meshdns":
            self.assertEqual([PUBLIC_ADDRESS], self.addresses(PUBLIC))
        self.assertTrue(self.finds_mesh())

    def test_sockets_of_root(self) -> None:
        """An agent whose sockets root has opened (port 53, or a socket unit) keeps the redirect, too."""
        self.start_agent()
        self.agent.stop()
        self.start_agent_as_root()
        self.assertEqual(0, self.intercept("up").returncode)
        self.await_agent()
        self.assertTrue(self.finds_mesh())


class HoldTests(Vm):
    """`meshdns intercept hold`."""

    def setUp(self) -> None:
        super().setUp()
        self.start_agent()
        self.log = self.hold()
        self.await_agent()

    def test_resolv_conf_changes(self) -> None:
        """DHCP writes another server into resolv.conf: queries to it are redirected, those to the old one are not any more."""
        (self.vm.etc / "resolv.conf").write_text(f"nameserver {OTHER_SERVER}\n")
        self.await_agent(server=OTHER_SERVER)
        self.assertEqual("unbound", self.who())
        self.assertTrue(self.finds_mesh(server=OTHER_SERVER))
        self.agent.await_true("its new server", lambda: self.addresses(PUBLIC, server=OTHER_SERVER))

    def test_resolv_conf_half_written(self) -> None:
        """One that names nobody for a moment changes nothing."""
        file = self.vm.etc / "resolv.conf"
        file.write_text("# being written\n")
        started = monotonic()
        while monotonic() < started + 3 * HOLD_TURN:
            self.assertEqual("meshdns", self.who(wait=1))
        file.write_text(RESOLV_CONF)
        self.assertEqual("meshdns", self.who(wait=1))

    def test_rules_flushed(self) -> None:
        """Somebody reloads the machine's firewall, and ours is gone with it: it comes back."""
        self.vm.said_by("nft", "flush", "ruleset")
        self.assertEqual("unbound", self.who())
        self.await_agent()

    def test_killed(self) -> None:
        """Without it the redirect holds, and fails open as before."""
        self.holding.kill()
        self.holding.wait()
        self.assertEqual("meshdns", self.who())
        self.assertLess(self.outage(self.agent.process.kill), BACK)

    def test_ends(self) -> None:
        """Told to end it does, and what it put up stays."""
        self.holding.terminate()
        self.assertEqual(0, self.holding.wait(timeout=5))
        self.assertEqual("meshdns", self.who())

    def test_broken_configuration(self) -> None:
        """It says so once, and everything stays."""
        good = self.agent.config.read_text()
        self.agent.config.write_text("listen: nonsense\n")
        until("a sentence", lambda: "the redirect stays as it is" in self.log.read_text(), self.holding, self.log)
        self.assertEqual("meshdns", self.who())
        self.agent.config.write_text(good)
        (self.vm.etc / "resolv.conf").write_text(f"nameserver {OTHER_SERVER}\n")
        self.await_agent(server=OTHER_SERVER)
        self.assertEqual(1, self.log.read_text().count("the redirect stays as it is"))


class CommandTests(Vm):
    """`print`, `up`, `down` and `verify`."""

    def setUp(self) -> None:
        super().setUp()
        self.start_agent(status="127.0.0.1:15054")

    def test_down_leaves_nothing(self) -> None:
        before = self.rules()
        self.up()
        self.assertNotEqual(before, self.rules())
        for _ in range(2):
            done = self.intercept("down")
            self.assertEqual(0, done.returncode, done.stderr)
            self.assertEqual(before, self.rules())
        self.assertEqual("unbound", self.who())
        self.assertEqual("nothing was up\n", done.stdout)

    def test_down_without_configuration(self) -> None:
        """What is wrong with the configuration must not keep the redirect up."""
        self.up()
        done = self.meshdns("intercept", "down", config=Path("/nonexistent.yaml"))
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual("unbound", self.who())

    def test_others_rules_stay(self) -> None:
        self.vm.said_by("nft", "add table ip others; add chain ip others c { type filter hook output priority 0; }")
        before = self.rules()
        self.up()
        self.intercept("down")
        self.assertEqual(before, self.rules())

    def test_twice(self) -> None:
        """The second run changes nothing."""
        self.up()
        once = self.handles()
        self.up()
        self.assertEqual(once, self.handles())

    def handles(self) -> str:
        """The rules, without what changes by itself."""
        return "\n".join(line for line in self.rules().splitlines() if "expires" not in line)

    def test_print(self) -> None:
        """It changes nothing, and what it prints is what `up` does."""
        before = self.rules()
        printed = self.intercept("print")
        self.assertEqual((0, ""), (printed.returncode, printed.stderr))
        self.assertEqual(before, self.rules())
        file = self.folder / "rules"
        file.write_text(printed.stdout)
        self.vm.said_by("nft", "--file", file)
        self.await_agent()
        by_hand = self.handles()
        self.up()
        self.assertEqual(by_hand, self.handles())
        said = json.loads(self.intercept("print", "--json").stdout)
        self.assertEqual("nftables", said["mode"])
        self.assertIn(said["rules"], printed.stdout)

    def verified(self, code: int) -> dict[str, str]:
        """The worst outcome of each step that `verify` tells."""
        done = self.intercept("verify", "--json")
        self.assertEqual(code, done.returncode, done.stdout + done.stderr)
        order = ["ok", "unsure", "FAILED"]
        found: dict[str, str] = {}
        for step in json.loads(done.stdout)["steps"]:
            found[step["name"]] = max(found.get(step["name"], "ok"), step["outcome"], key=order.index)
        return found

    def test_verify(self) -> None:
        self.up()
        steps = ("agent", "rules", "redirect", "way out", "mesh")
        self.assertEqual(dict.fromkeys(steps, "ok"), self.verified(0))
        text = self.intercept("verify")
        self.assertEqual(0, text.returncode)
        self.assertIn(f"a query to [{SERVER6}]:53 over TCP is answered by the agent", text.stdout)
        self.assertTrue(text.stdout.endswith("It works.\n"), text.stdout)

    def test_verify_as_shown(self) -> None:
        """docs/vm.md shows what `verify` says on this very machine."""
        self.up()
        shown = GUIDE.partition("    $ sudo meshdns intercept verify\n")[2].partition("\n\n")[0]
        self.assertEqual([line[4:] for line in shown.splitlines()], self.intercept("verify").stdout.splitlines())
        shown = GUIDE.partition("    $ sudo meshdns intercept up\n")[2].partition("\n")[0]
        self.assertEqual(shown.strip().replace("for meshdns", f"for user {AGENT_UID}"), self.up().strip())

    def test_verify_agent_down(self) -> None:
        self.up()
        self.agent.stop()
        found = self.verified(3)
        self.assertEqual(("FAILED", "ok", "FAILED"), (found["agent"], found["rules"], found["redirect"]))

    def test_verify_no_rules(self) -> None:
        found = self.verified(1)
        self.assertEqual(("ok", "FAILED", "FAILED"), (found["agent"], found["rules"], found["redirect"]))

    def test_verify_firewall(self) -> None:
        """A firewall on the machine stops what is redirected; #43276 of Istio's users."""
        self.up()
        self.vm.said_by("nft", "add table ip wall; add chain ip wall c { type filter hook input priority 0; };"
                        "add rule ip wall c tcp dport 15053 ip saddr 10.9.0.2 drop")  # fmt: skip
        found = self.verified(1)
        self.assertEqual(("ok", "ok", "FAILED"), (found["agent"], found["rules"], found["redirect"]))

    def test_verify_way_out(self) -> None:
        """The agent is another user than `up` was told: its own queries come back to it."""
        self.agent.stop()
        self.start_agent_as_root()
        self.assertEqual(0, self.meshdns("intercept", "up", "--uid", "4999").returncode)
        self.await_agent()
        self.assertEqual("FAILED", self.verified(1)["way out"])

    def test_no_rights(self) -> None:
        """Not root: one sentence, and nothing changed; `print` needs none."""
        printed = self.as_agent("print")
        self.assertEqual((0, self.intercept("print").stdout), (printed.returncode, printed.stdout))
        done = self.as_agent("up")
        self.assertEqual(1, done.returncode)
        self.assertIn("Only root can change them", done.stderr)
        self.assertEqual(1, len(done.stderr.splitlines()))

    def as_agent(self, action: str) -> subprocess.CompletedProcess[str]:
        words = ["intercept", action, "--mode", "nftables", "--uid", str(AGENT_UID), "--config", self.agent.config]
        return self.run_to_end([*self.place.prefix, sys.executable, "-c", MESHDNS, *words])

    def test_no_user(self) -> None:
        done = self.meshdns("intercept", "up", "--user", "nosuchuser")
        self.assertEqual(2, done.returncode)
        self.assertIn('there is no user "nosuchuser"', done.stderr)
        self.assertIn("--uid NUMBER", done.stderr)

    def test_latency(self) -> None:
        """The redirect costs microseconds: less than half a millisecond even here."""
        self.up()
        kept, direct = self.connected(), self.vm.place.make_socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(direct.close)
        direct.connect(("127.0.0.1", 15053))
        redirected, straight = (sorted(self.times(each))[100] for each in (kept, direct))
        self.assertLess(redirected - straight, 0.0005)

    def times(self, over: socket.socket) -> list[float]:
        found = []
        for _ in range(200):
            started = monotonic()
            self.assertTrue(self.finds_mesh(over=over))
            found.append(monotonic() - started)
        return found


class IptablesTests(RedirectTests):
    """The same by iptables."""

    words = ("--mode", "iptables")
    programs = (*Vm.programs, "iptables", "ip6tables")


class IptablesBadDayTests(BadDayTests):
    """And on bad days."""

    words = ("--mode", "iptables")
    programs = (*Vm.programs, "iptables", "ip6tables")


class LegacyVm(Vm):
    """A machine without nft, with the iptables of old."""

    words = ()
    programs = (*Vm.programs, "iptables-legacy", "ip6tables-legacy")

    def setUp(self) -> None:
        super().setUp()
        tools = self.folder / "bin"
        tools.mkdir()
        for family in ("iptables", "ip6tables"):
            for tool in ("", "-restore", "-save"):
                found = shutil.which(f"{family}-legacy{tool}", path="/usr/sbin:/sbin")
                assert found
                (tools / f"{family}{tool}").symlink_to(found)
        self.path = f"{tools}:{self.path}"
        nft = shutil.which("nft", path=f"{self.path}:/usr/sbin")
        assert nft
        self.vm.said_by("mount", "--bind", "/dev/null", nft)


class LegacyEveryClientTests(LegacyVm, EveryClientTests):
    """Every client there."""


class LegacyTests(LegacyVm):
    def test_up_and_down(self) -> None:
        self.start_agent(status="127.0.0.1:15054")
        before = self.rules()
        self.assertIn("iptables is used, since nft is not installed", self.up())
        for server in (SERVER, SERVER6):
            self.assertTrue(self.finds_mesh(server=server))
            self.assertTrue(self.finds_mesh(server=server, tcp=True))
        self.assertEqual(0, self.intercept("verify").returncode)
        self.assertLess(self.outage(lambda: self.agent.process.send_signal(signal.SIGSTOP)), BACK)
        self.agent.process.send_signal(signal.SIGCONT)
        self.assertEqual(0, self.intercept("down").returncode)
        self.assertEqual("unbound", self.who())
        self.assertEqual(before, self.rules())

    def rules(self) -> str:
        """Every rule of these; their tables stay, empty."""
        saved = "".join(self.vm.said_by(f"{family}-legacy-save") for family in ("iptables", "ip6tables"))
        return "\n".join(line for line in saved.splitlines() if line.startswith("-A") or "MESHDNS" in line)


class ResolvConfModeTests(Vm):
    """Without nft and iptables: the agent on port 53, and first in resolv.conf. The file is mounted there, as in a container."""

    words = ("--mode", "resolv-conf")

    def setUp(self) -> None:
        super().setUp()
        self.file = self.vm.etc / "resolv.conf"
        self.start_agent(port=53, listen=["127.0.0.1:53"], status="127.0.0.1:15054")

    def test_up_and_down(self) -> None:
        self.assertFalse(self.finds("productpage"))
        for _ in range(2):
            done = self.intercept("up")
            self.assertEqual((0, ""), (done.returncode, done.stderr))
            self.assertEqual(["127.0.0.1", SERVER, SERVER6], self.nameservers())
        self.assertTrue(self.finds("productpage"))
        self.assertTrue(self.finds(PUBLIC))
        verified = self.intercept("verify")
        self.assertEqual(0, verified.returncode, verified.stdout)
        self.assertEqual(0, self.intercept("down").returncode)
        self.assertEqual(RESOLV_CONF, self.file.read_text())
        self.assertEqual("", self.vm.said_by("ls", "-A", "/var/lib/meshdns"))
        self.assertFalse(self.finds("productpage"))

    def test_agent_dies(self) -> None:
        """The old servers are asked, at once; nobody has to be alive for that, and none need have been started."""
        self.intercept("up")
        self.agent.process.kill()
        self.agent.process.wait()
        started = monotonic()
        self.assertTrue(self.finds(PUBLIC))
        self.assertLess(monotonic() - started, 1)

    def test_agent_stops(self) -> None:
        """Each query is put to the old servers a second later."""
        self.intercept("up")
        self.agent.process.send_signal(signal.SIGSTOP)
        started = monotonic()
        self.assertTrue(self.finds(f"{PUBLIC}."))
        self.assertLess(monotonic() - started, BACK)
        self.agent.process.send_signal(signal.SIGCONT)

    def test_held(self) -> None:
        """And resolv.conf is given back within two seconds, for as long as the agent does not answer."""
        log = self.hold()
        self.agent.process.send_signal(signal.SIGSTOP)
        started = monotonic()
        until("the old file", lambda: self.file.read_text() == RESOLV_CONF, self.holding, log)
        self.assertLess(monotonic() - started, BACK)
        self.assertTrue(self.finds(PUBLIC))
        self.agent.process.send_signal(signal.SIGCONT)
        until("ours", lambda: self.nameservers()[:1] == ["127.0.0.1"], self.holding, log)
        self.assertTrue(self.finds("productpage"))

    def test_resolv_conf_changes(self) -> None:
        """DHCP writes its own: what it says is kept, and the agent is first again."""
        self.hold()
        until("ours", lambda: self.nameservers()[:1] == ["127.0.0.1"], self.agent.process, self.agent.log)
        self.file.write_text(f"nameserver {OTHER_SERVER}\n")
        until("ours", lambda: self.nameservers() == ["127.0.0.1", OTHER_SERVER], self.agent.process, self.agent.log)
        self.holding.terminate()
        self.holding.wait()
        self.assertEqual(0, self.intercept("down").returncode)
        self.assertEqual(f"nameserver {OTHER_SERVER}\n", self.file.read_text())

    def test_not_on_port_53(self) -> None:
        done = self.intercept("up")
        self.assertEqual(0, done.returncode)
        self.intercept("down")
        self.agent.config.write_text(self.agent.config.read_text().replace("127.0.0.1:53", "127.0.0.1:15053"))
        done = self.intercept("up")
        self.assertEqual(1, done.returncode)
        self.assertIn('add "127.0.0.1:53" to listen', done.stderr)

    def nameservers(self) -> list[str]:
        return [line.split()[1] for line in self.file.read_text().splitlines() if line.startswith("nameserver")]

    def finds(self, name: str) -> bool:
        return not self.vm.run("getent", "ahostsv4", name).returncode
