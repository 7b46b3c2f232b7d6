"""Upstream servers on their bad days, and a real agent before them: bounded time, the right rcode, soon well again when they
are, and nothing leaked (rules D20, D21, D22, D24, D26, D27)."""

import re
import shutil
import socket
import statistics
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from unittest import SkipTest

import attrs
import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset

from tests.e2e.agent import SERVICE, Agent
from tests.e2e.days import (
    ADDRESS,
    BAD,
    GOOD,
    RECOVERY,
    SILENT,
    SLACK,
    BadDay,
    Day,
    Server,
    true_answer,
    with_ttl,
)
from tests.e2e.stage import WAIT, Place, free_port
from tests.e2e.upstreams import Scripted

LIE = "198.51.100.66"
FLOOD = 50_000
PACE = 4_000  # names a second: a flood of 12 s
GROWTH = 20 << 20  # octets that it may cost
MESH_P99 = 0.005
DESCRIPTORS = 320  # given to an agent whose sockets are counted: enough for 64 upstream sockets, which fill soon
_FAKETIME = "/usr/lib/*/faketime/libfaketime.so.1"
HOUR = 3600


class FailingServerTests(BadDay):
    """D21, D24: the only server has a bad day, then a good one."""

    def bad_day(self, day: Day, timeout: str = "500ms") -> None:
        server = Server(self)
        agent = self.start_agent(upstream={"servers": [server.address], "timeout": timeout})
        self.assertTrue(self.knows(agent, next(self.unasked)))
        server.day = day
        self.fails(agent)
        server.day = GOOD
        self.recovers(agent, self.unasked)

    def test_blackholed(self) -> None:
        """D21: nothing comes back."""
        self.bad_day(BAD["blackholed"], timeout="2s")

    def test_garbage(self) -> None:
        """D24: it answers with octets that are no message."""
        self.bad_day(BAD["garbage"])
        self.assertLess(0, sum(self.dropped().values()))

    def test_half_over_tcp(self) -> None:
        """D21: the answer over TCP stops in the middle."""
        self.bad_day(BAD["half over TCP"])

    def test_closed_mid_answer(self) -> None:
        """D21: the connection is closed in the middle of the answer."""
        self.bad_day(BAD["closed mid-answer"])

    def test_all_dead(self) -> None:
        """D21: of three servers one is silent, one sends garbage, and nobody listens on the third's port."""
        servers = [Server(self, BAD["blackholed"]), Server(self, BAD["garbage"])]
        agent = self.start_agent(*(server.address for server in servers), f"127.0.0.1:{free_port()}")
        self.fails(agent)
        servers[0].day = GOOD
        self.recovers(agent, self.unasked)

    def test_no_server(self) -> None:
        """D19, D21: without any server configured a failure costs no time, and the mesh is answered."""
        (self.folder / "resolv.conf").write_text("")
        agent = self.start_agent(upstream={"resolv_conf": "resolv.conf"})
        self.fails(agent, within=0.0)

    def test_the_same_name_recovers(self) -> None:
        """D21, D25: the failure that is remembered for 5 s is forgotten when the server is back."""
        server = Server(self, SILENT)
        agent = self.start_agent(server.address, upstream={"servers": [server.address], "timeout": "300ms"})
        name = next(self.unasked)
        self.assertFalse(self.knows(agent, name))
        server.day = GOOD
        began = monotonic()
        agent.await_true("an answer", lambda: self.knows(agent, name), patience=RECOVERY + SLACK)
        self.assertLess(monotonic() - began, RECOVERY + SLACK)


class StaleTests(BadDay):
    def test_stale(self) -> None:
        """D26: an expired answer stands in for a server that is silent: within 1.8 s, marked by EDE 3, TTL 30 or less."""
        server = Server(self, Day(lambda packet: [with_ttl(packet, 1)]))
        agent = self.start_agent(server.address)
        name = next(self.unasked)
        self.assertTrue(self.knows(agent, name))
        server.day = SILENT
        waits: list[float] = []

        def expired() -> dns.message.Message | None:
            began = monotonic()
            answer = agent.ask(name, use_edns=0)
            waits.append(monotonic() - began)
            self.assertEqual([ADDRESS], [str(record) for rrset in answer.answer for record in rrset])
            return answer if answer.options else None

        stale = agent.await_true("a stale answer", expired, patience=WAIT)
        self.assertEqual([3], [option.code for option in stale.options])
        self.assertLessEqual(stale.answer[0].ttl, 30)
        self.assertLess(max(waits), 1.8 + SLACK)
        server.day = GOOD
        self.recovers(agent, self.unasked)


class DyingServerTests(BadDay):
    """D21: the faster of two servers dies in the middle of a run of questions, one after the other."""

    def dies(self, die: Callable[[Server], None]) -> None:
        first, second = Server(self), Server(self)
        agent = self.start_agent(first.address, second.address)
        waits = []
        for number in range(300):
            if number == 100:
                die(max((first, second), key=lambda server: server.asked))
            began = monotonic()
            self.assertTrue(self.knows(agent, next(self.unasked)))
            waits.append(monotonic() - began)
        self.assertLess(max(waits), 0.3)
        self.assertEqual([], agent.complaints())

    def test_falls_silent(self) -> None:
        """None lost, the worst answer below 300 ms: it is silent from one moment to the next."""
        self.dies(lambda server: setattr(server, "day", SILENT))

    def test_port_closes(self) -> None:
        """None lost, the worst answer below 300 ms: its port is closed."""
        self.dies(lambda server: server.end())

    def test_fails(self) -> None:
        """None lost, the worst answer below 300 ms: it says SERVFAIL to everything."""
        self.dies(lambda server: setattr(server, "day", BAD["SERVFAIL"]))


@attrs.frozen
class Use:
    """What a process has in use."""

    descriptors: int
    connections: int
    threads: int
    octets: int


def in_use(agent: Agent, server: Server) -> Use:
    """`connections`: of TCP to this server."""
    process = Path(f"/proc/{agent.process.pid}")
    remote = f"0100007F:{server.port:04X}"
    tcp = [line.split() for line in (process / "net/tcp").read_text().splitlines()[1:]]
    ours = {f"socket:[{line[9]}]" for line in tcp if line[2] == remote}
    open_now = [str(link.readlink()) for link in _links(process / "fd")]
    return Use(len(open_now), len(ours & set(open_now)), len(list((process / "task").iterdir())), resident(agent))


def _links(folder: Path) -> list[Path]:
    return [link for link in folder.iterdir() if link.is_symlink()]


def resident(agent: Agent) -> int:
    """Octets of its memory that are resident."""
    text = Path(f"/proc/{agent.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found, text
    return int(found[1]) * 1024


class LeakTests(BadDay):
    def test_nothing_leaked(self) -> None:
        """D20, D21: after hundreds of failures of each kind: no more sockets, connections, threads and hardly more memory."""
        if not shutil.which("prlimit"):
            raise SkipTest("not installed: prlimit (package util-linux)")
        server = Server(self)
        place = Place(["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"])
        patience = {"servers": [server.address], "timeout": "100ms", "attempts": 1}
        agent = self.start_agent(place=place, upstream=patience)
        self.round(agent, server)  # fills what is bounded: sockets, caches, the allocator's arenas
        before = self.settled(agent, server)
        for _ in range(2):
            self.round(agent, server)
        after = self.settled(agent, server)
        self.assertLessEqual(after.descriptors, before.descriptors + 4)
        self.assertLess(before.descriptors, DESCRIPTORS - 200)
        self.assertEqual(before.threads, after.threads)
        self.assertLess(after.octets - before.octets, 3 << 20)
        self.assertEqual([], agent.complaints())

    def round(self, agent: Agent, server: Server) -> None:
        """A hundred questions at once on each kind of bad day, and the server's return."""
        for day in BAD.values():
            server.day = day
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.connect(("127.0.0.1", agent.port))
                asking.settimeout(WAIT)
                for _ in range(100):
                    asking.send(dns.message.make_query(next(self.unasked), "A").to_wire())
                rcodes = {dns.message.from_wire(asking.recv(4096)).rcode() for _ in range(100)}
            self.assertEqual({dns.rcode.SERVFAIL}, rcodes)
        server.day = GOOD
        agent.await_true("an answer", lambda: self.knows(agent, next(self.unasked)), patience=RECOVERY + SLACK)

    def settled(self, agent: Agent, server: Server) -> Use:
        """When the last idle connection is closed, which is after 5 s at most."""
        agent.await_true("no connection to the server", lambda: not in_use(agent, server).connections, patience=8)
        return in_use(agent, server)


class FloodTests(BadDay):
    def test_flood(self) -> None:
        """D22, D27: 50,000 unique names at a dead upstream: memory within 20 MiB of its start, and mesh answers at p99 below
        5 ms while it lasts."""
        server = Server(self, SILENT)
        agent = self.start_agent(server.address)
        quiet = self.mesh_waits(agent, lambda: len(quiet_enough) > 500, quiet_enough := [])
        before = resident(agent)
        flood = self.start(
            [sys.executable, Path(__file__).with_name("clients") / "flood.py", *map(str, (agent.port, FLOOD, PACE))],
            self.folder / "flood.log",
        )
        waits = self.mesh_waits(agent, lambda: flood.poll() is not None, [])
        grown = resident(agent) - before
        p99 = statistics.quantiles(waits, n=100)[98]
        usual = statistics.quantiles(quiet, n=100)[98]
        sent, answered = map(int, (self.folder / "flood.log").read_text().split())
        told = (
            f"flood of {sent} at {PACE}/s, {answered} answered; {len(waits)} mesh answers at p99 {p99 * 1000:.2f} ms (quiet "
            f"{usual * 1000:.2f} ms), worst {max(waits) * 1000:.1f} ms; {grown / 2**20:.1f} MiB more"
        )
        sys.stderr.write(f"\n    {told}\n")
        self.assertEqual(FLOOD, sent)
        self.assertGreater(answered, 0.99 * FLOOD, told)
        self.assertLess(grown, GROWTH, told)
        self.assertLess(p99, MESH_P99, told)
        self.assertEqual([], agent.complaints())

    def mesh_waits(self, agent: Agent, over: Callable[[], bool], waits: list[float]) -> list[float]:
        """How long mesh answers take, one asked every few milliseconds until it is over."""
        query = dns.message.make_query(SERVICE, "A").to_wire()
        pause = threading.Event()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect(("127.0.0.1", agent.port))
            asking.settimeout(WAIT)
            while not over():
                began = monotonic()
                asking.send(query)
                asking.recv(4096)
                waits.append(monotonic() - began)
                pause.wait(0.002)
        return waits


class ClockTests(BadDay):
    """The wall clock steps by an hour, as a VM's does: lifetimes and timers do not notice."""

    def setUp(self) -> None:
        super().setUp()
        found = sorted(Path("/").glob(_FAKETIME.lstrip("/")))
        if not found:
            raise SkipTest("not installed: libfaketime (package faketime)")
        self.step_file = self.folder / "faketime"
        self.step_file.write_text("+0")
        settings = {
            "LD_PRELOAD": found[0],
            "FAKETIME_TIMESTAMP_FILE": self.step_file,
            "FAKETIME_NO_CACHE": 1,
            "DONT_FAKE_MONOTONIC": 1,
        }
        self.server = Server(self)
        place = Place(["env", *(f"{name}={value}" for name, value in settings.items())])
        upstream = {"servers": [self.server.address], "timeout": "500ms"}
        self.agent = self.start_agent(place=place, upstream=upstream)

    def step(self, seconds: int) -> None:
        """Set the agent's wall clock so far off; its own log shows that it is."""
        self.step_file.write_text(f"{seconds:+d}")
        lines = len(self.agent.lines("has read"))
        self.agent.hang_up()
        stamp = self.agent.await_line("has read", lines + 1).split()[0]
        off = datetime.fromisoformat(stamp) - datetime.now(UTC)
        self.assertLess(abs(off.total_seconds() - seconds), 60)

    def steps(self, seconds: int) -> None:
        kept, brief = next(self.unasked), next(self.unasked)
        self.assertTrue(self.knows(self.agent, kept))
        self.server.day = Day(lambda packet: [with_ttl(packet, 2)])
        self.assertTrue(self.knows(self.agent, brief))
        self.server.day = GOOD
        asked = self.server.asked
        self.step(seconds)
        # Lifetimes: neither over at once, nor an hour longer.
        self.assertLessEqual(50, self.agent.ask(kept).answer[0].ttl)
        self.assertEqual(asked, self.server.asked)
        began = monotonic()
        self.agent.await_true("a new answer", lambda: self.agent.ask(brief).answer[0].ttl > 2, patience=2 + SLACK)
        self.assertLess(monotonic() - began, 2 + SLACK)
        # Timers: deadlines, and the probes of a dead server.
        self.server.day = SILENT
        self.fails(self.agent)
        self.step(0)
        self.server.day = GOOD
        self.recovers(self.agent, self.unasked)

    def test_forward(self) -> None:
        """D21, D25: an hour on, and back again."""
        self.steps(HOUR)

    def test_back(self) -> None:
        """D21, D25: an hour back, and on again."""
        self.steps(-HOUR)


class SpoofTests(BadDay):
    """D20, D24: forged answers come before the true one. They are dropped and counted, and the true one counts."""

    def spoofed(self, forge: Callable[[dns.message.Message], None]) -> dict[str, int]:
        """Each forgery goes out from the server's own port, so only the agent can tell -> what it counted."""

        def reply(packet: bytes) -> list[bytes]:
            true = true_answer(packet)
            if true.rcode():
                return [true.to_wire()]
            forged = true_answer(packet)
            forged.answer[0] = dns.rrset.from_text(forged.answer[0].name, 60, "IN", "A", LIE)
            forge(forged)
            return [forged.to_wire(), forged.to_wire(), true.to_wire()]

        server = Server(self, Day(reply))
        agent = self.start_agent(server.address)
        self.assertTrue(all(self.knows(agent, next(self.unasked)) for _ in range(20)))
        self.assertEqual([], agent.complaints())
        return {reason: number for reason, number in self.dropped().items() if number}

    def test_wrong_id(self) -> None:
        """D20: another id."""
        self.assertEqual({"unexpected": 40}, self.spoofed(_other_id))

    def test_wrong_question(self) -> None:
        """D24: another name."""
        self.assertEqual({"question": 40}, self.spoofed(_other_question))

    def test_wrong_case(self) -> None:
        """D20: the name in another case."""
        self.assertEqual({"case": 40}, self.spoofed(_other_case))

    def test_query_as_answer(self) -> None:
        """D24: no QR."""
        self.assertEqual({"not-a-reply": 40}, self.spoofed(_no_answer))

    def test_from_elsewhere(self) -> None:
        """D20: from another port and from another address; the kernel lets nothing through but the server's own."""
        forgers = [_bound("127.0.0.1"), _bound("127.0.0.2")]
        for forger in forgers:
            self.addCleanup(forger.close)
        clients: list[int] = []

        def reply(query: dns.message.Message) -> dns.message.Message:
            lie = dns.message.make_response(query)
            lie.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", LIE))
            clients.append(server.ports[-1])
            for forger in forgers:
                forger.sendto(lie.to_wire(), ("127.0.0.1", server.ports[-1]))
            return true_answer(query.to_wire())

        server = Scripted(self, reply)
        agent = self.start_agent(server.address)
        self.assertTrue(all(self.knows(agent, next(self.unasked)) for _ in range(20)))
        self.assertEqual(20, len(clients))
        self.assertEqual({}, {reason: number for reason, number in self.dropped().items() if number})


def _bound(address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, 0))
    return made


def _other_id(message: dns.message.Message) -> None:
    message.id ^= 0x5555


def _other_question(message: dns.message.Message) -> None:
    name = dns.name.from_text("other.example")
    message.question = [dns.rrset.RRset(name, message.question[0].rdclass, message.question[0].rdtype)]


def _other_case(message: dns.message.Message) -> None:
    name = dns.name.from_text(message.question[0].name.to_text().swapcase())
    message.question = [dns.rrset.RRset(name, message.question[0].rdclass, message.question[0].rdtype)]


def _no_answer(message: dns.message.Message) -> None:
    message.flags &= ~dns.flags.QR
