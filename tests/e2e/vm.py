"""A made-up virtual machine: applications, a real agent that is a user of its own, and the old servers over a cable.

The old server is an unbound that knows `example.com` and denies the mesh. Who answered a query shows in the answer to
`version.bind`, and in whether a host of the mesh exists.
"""

import os
import pwd
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from time import monotonic
from typing import Any
from unittest import SkipTest

import attrs
import dns.exception
import dns.message
import dns.rcode

from tests.e2e.agent import SEARCH, SERVICE, Agent, command
from tests.e2e.hosts import Host, Wired
from tests.e2e.stage import PATIENCE, WAIT, Command, Place, Stage, framed, read_frame, until
from tests.e2e.upstreams import Unbound

AGENT_UID = 4321  # nobody's on the machine that runs the tests
SERVER, SERVER6 = "10.9.0.53", "fd00:9::53"
LINK_LOCAL_SERVER = "fe80::53"  # the same, as a router may announce itself
OTHER_SERVER = "10.9.0.54"  # the same server, under an address that resolv.conf does not name
RESOLV_CONF = f"nameserver {SERVER}\nnameserver {SERVER6}\nsearch {' '.join(SEARCH)}\noptions ndots:5\n"
PUBLIC, PUBLIC_ADDRESS = "www.example.com", "192.0.2.80"
ZONE = f"@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 192.0.2.53\nwww A {PUBLIC_ADDRESS}\nwww AAAA 2001:db8::80\n"
_LISTEN = "\n".join(
    f"    interface: {each}@53" for each in (SERVER, SERVER6, OTHER_SERVER, f"{LINK_LOCAL_SERVER}%cable")
)
_MORE = (
    f"server:\n{_LISTEN}\n    log-queries: yes\n    access-control: 0.0.0.0/0 allow\n    access-control: ::/0 allow\n"
)
MESHDNS = "import sys; from meshdns.cli import main; sys.exit(main())"
# It reads the checkout wherever that lies, and takes port 53; nothing else of root's is left to it.
_RIGHTS = "-all,+dac_read_search,+net_bind_service"
_AS_AGENT = ["setpriv", f"--reuid={AGENT_UID}", "--regid=65534", "--clear-groups", f"--inh-caps={_RIGHTS}",
             f"--ambient-caps={_RIGHTS}", "--"]  # fmt: skip
FEW = 1.0  # seconds for one answer that is sure to come, on a busy machine


def plug_in(far: Host, near: Wired, *addresses: str) -> None:
    """A cable from the host of the old server to a machine that has these addresses."""
    far.join(near, [f"{SERVER}/24", f"{OTHER_SERVER}/24", f"{SERVER6}/64", f"{LINK_LOCAL_SERVER}/64"], addresses)


def start_old_server(stage: Stage, far: Host) -> Unbound:
    """On a host whose cable is plugged in; its log has each question."""
    return Unbound.start(stage, "example.com", ZONE, place=far.place, more=_MORE)


class Vm(Stage):
    """A test on such a machine. `words` are those of `meshdns intercept`; none of them put anything up yet."""

    resolv_conf = RESOLV_CONF
    uid = AGENT_UID
    path = os.environ["PATH"]
    words: Command = ("--mode", "nftables")
    programs: tuple[str, ...] = ("nft", "setpriv", "ip", "unshare", "nsenter")

    def setUp(self) -> None:
        super().setUp()
        if missing := [
            name for name in self.programs if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
        ]:
            raise SkipTest(f"not installed: {', '.join(missing)}")
        self.vm = Host(self, self.resolv_conf, "vm")
        self.far = Host(self, "", "far")
        plug_in(self.far, self.vm, "10.9.0.2/24", "fd00:9::2/64")
        self.vm.said_by("sh", "-ec", "mount -t tmpfs tmpfs /var/lib; mkdir /var/lib/meshdns")
        self.old = start_old_server(self, self.far)
        for server in (SERVER, SERVER6):  # IPv6 takes a moment until both ends of the cable know their addresses
            self.await_who("unbound", server=server)
        self.place = Place([*self.vm.place.prefix, *_AS_AGENT], self.vm.place.make_socket)

    def start_agent(self, port: int = 15053, **sections: Any) -> Agent:
        """The machine's agent, which asks whom resolv.conf says."""
        sections = {"listen": [f"127.0.0.1:{port}", f"[::1]:{port}"], "upstream": {}, "search": None, **sections}
        self.agent = Agent.start(self, port=port, place=self.place, **sections)
        return self.agent

    def restart_agent(self) -> None:
        """Another process in the place of the agent that has ended."""
        process = self.start([*self.place.prefix, *command(self.agent.config)], self.agent.log)
        self.agent = attrs.evolve(self.agent, process=process)

    def start_agent_as_root(self) -> None:
        """Another process in the place of the agent that has ended: root opens its sockets, as for port 53 or for a socket unit."""
        self.uid = pwd.getpwnam("daemon").pw_uid  # twistd wants one that has a name
        words = ["--uid", str(self.uid), "--gid", "65534"]
        process = self.start([*self.vm.place.prefix, *command(self.agent.config, *words)], self.agent.log)
        self.agent = attrs.evolve(self.agent, process=process)

    def meshdns(self, *words: str, config: Path | None = None) -> CompletedProcess[str]:
        """`meshdns` on the machine, by root."""
        more = ["--config", config or self.agent.config]
        return self.vm.run("env", f"PATH={self.path}", sys.executable, "-c", MESHDNS, *words, *more)

    def intercept(self, action: str, *more: str) -> CompletedProcess[str]:
        words = [] if action == "down" else [*map(str, self.words), "--uid", str(self.uid)]
        return self.meshdns("intercept", action, *words, *more)

    def up(self, *more: str, servers: Sequence[str] = (SERVER, SERVER6)) -> str:
        """The redirect is up, and has seen the agent in the families of these servers."""
        done = self.intercept("up", *more)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        for server in servers:
            self.await_agent(server=server)
        return done.stdout + done.stderr

    def hold(self, *more: str) -> Path:
        """`meshdns intercept hold` runs from now on -> its log."""
        log = self.folder / "hold.log"
        words = ["intercept", "hold", *self.words, "--uid", str(self.uid), "--config", self.agent.config, *more]
        python = ["env", "-u", "PYTHONUNBUFFERED", sys.executable]  # as it runs under systemd
        self.holding = self.start([*self.vm.place.prefix, *python, "-c", MESHDNS, *words], log)
        until(
            "the redirect",
            lambda: "the agent first" in log.read_text() or "port 53 of" in log.read_text(),
            self.holding,
            log,
        )
        return log

    # Asking as applications do

    def connected(self, kind: int = socket.SOCK_DGRAM, server: str = SERVER) -> socket.socket:
        """One of an application's, connected to a server."""
        made = self.vm.place.make_socket(socket.AF_INET6 if ":" in server else socket.AF_INET, kind)
        self.addCleanup(made.close)
        made.connect((server, 53))
        return made

    def ask(
        self,
        name: str,
        rdtype: str = "A",
        rdclass: str = "IN",
        *,
        server: str = SERVER,
        tcp: bool = False,
        wait: float = FEW,
        over: socket.socket | None = None,
    ) -> dns.message.Message | None:
        """What a server says as an application hears it; None: nothing in time. `over` is a socket that is kept."""
        query = dns.message.make_query(name, rdtype, rdclass)
        try:
            asking = over or self.connected(socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM, server)
            asking.settimeout(wait)
            asking.sendall(framed(query.to_wire()) if tcp else query.to_wire())
            until_then = monotonic() + wait
            while monotonic() < until_then:
                answer = dns.message.from_wire(read_frame(asking) if tcp else asking.recv(65535))
                if query.is_response(answer):
                    return answer
        except OSError:
            pass
        finally:
            if over is None and "asking" in locals():
                asking.close()
        return None

    def addresses(self, name: str, **options: Any) -> list[str]:
        answer = self.ask(name, **options)
        return (
            [record.address for rrset in answer.answer for record in rrset if hasattr(record, "address")]
            if answer
            else []
        )

    def who(self, **options: Any) -> str:
        """Who answers: `meshdns` or `unbound`, "" for nobody."""
        answer = self.ask("version.bind", "TXT", "CH", **options)
        return answer.answer[0][0].strings[0].decode().replace("-", " ").split()[0] if answer and answer.answer else ""

    def await_who(self, wanted: str, patience: float = PATIENCE, **options: Any) -> float:
        """Seconds until this one answers."""
        started = monotonic()
        while (seen := self.who(**options)) != wanted:
            if monotonic() > started + patience:
                self.fail(f"waiting for {wanted} to answer, {seen or 'nobody'} does")
        return monotonic() - started

    def await_agent(self, **options: Any) -> None:
        self.await_who("meshdns", **options)

    def outage(self, act: Callable[[], object]) -> float:
        """Seconds from what is done until public names are found again, over a kept socket and over new ones."""
        kept = self.connected()
        self.assertEqual([PUBLIC_ADDRESS], self.addresses(PUBLIC, over=kept, wait=WAIT))
        act()
        started = monotonic()
        while not (self.addresses(PUBLIC, over=kept, wait=0.1) and self.addresses(PUBLIC, wait=0.1)):
            self.assertLess(monotonic(), started + PATIENCE)
        return monotonic() - started

    def finds_mesh(self, **options: Any) -> bool:
        return self.addresses(SERVICE, **options) == ["10.4.0.5"]

    def rules(self) -> str:
        """Every rule of the machine's kernel."""
        return self.vm.said_by("nft", "list", "ruleset")
