"""An agent of several processes (`workers`): all answer, from the same tables; none is missed for long; none is left behind."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from time import monotonic
from typing import Any
from urllib.request import urlopen

import dns.message
import dns.rrset

from meshdns.defaults import WORKER_STEADY
from tests.e2e.agent import (
    EXAMPLE_HOSTS,
    EXAMPLE_TABLE,
    SERVICE,
    SERVICE_ADDRESS,
    Agent,
    command,
    replace,
    settings,
    table,
)
from tests.e2e.control import Control, Grounds
from tests.e2e.control import agent as following
from tests.e2e.hosts import Host
from tests.e2e.manager import Manager
from tests.e2e.stage import WAIT, DnsServer, Stage, end, framed, free_port, read_frame, until
from tests.e2e.upstreams import Scripted

OTHER_ADDRESS = "10.4.7.7"
OTHER_TABLE = table([{"host": SERVICE, "ips": [OTHER_ADDRESS], "registry": "Kubernetes"}])
PORTS = 48  # clients: that one of three workers has none of them happens once in 94 million times
MANY = 5000  # hosts, which take a worker some turns
MENDED = 1.0  # seconds (issue 5)
RETRY = 0.3  # seconds after which an impatient client asks again
QUERY = dns.message.make_query(SERVICE, "A").to_wire()


class Clients:
    """Sockets on ports of their own: the kernel decides by the port which worker gets a packet."""

    def __init__(self, stage: Stage, port: int, count: int = PORTS) -> None:
        stack = contextlib.ExitStack()
        stage.addCleanup(stack.close)
        self.sockets = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(count)]
        for each in self.sockets:
            each.settimeout(WAIT)
            each.connect(("127.0.0.1", port))

    def ask(self, query: bytes = QUERY) -> Counter[str]:
        """Ask once from every port; the addresses in the answers."""
        for each in self.sockets:
            each.send(query)
        return Counter(_address(each.recv(4096)) for each in self.sockets)


class Load(threading.Thread):
    """Asks from every port, one query behind the other's answer, again if there is none after `retry` seconds. `waits` are how long
    each took, `lost` those that were asked again, or had no answer in the end; `wrong` are answers without the address."""

    def __init__(self, stage: Stage, port: int, retry: float) -> None:
        super().__init__()
        self.waits: list[float] = []
        self.wrong: list[bytes] = []
        self.lost = 0
        self._retry = retry
        self._clients = Clients(stage, port)
        self._over = threading.Event()
        self._asked: dict[socket.socket, float] = {}  # first
        self._sent: dict[socket.socket, float] = {}  # last
        self.start()

    def run(self) -> None:
        for each in self._clients.sockets:
            each.setblocking(False)
            self._ask(each)
        pause = threading.Event()
        while not self._over.is_set():
            pause.wait(0.002)
            for each in self._hear():
                self._ask(each)
            for each, sent in self._sent.items():
                if monotonic() - sent >= self._retry:
                    self.lost += 1
                    self._send(each)
        deadline = monotonic() + self._retry
        while self._asked and monotonic() < deadline:
            pause.wait(0.002)
            self._hear()
        self.lost += len(self._asked)

    def _ask(self, each: socket.socket) -> None:
        self._asked[each] = monotonic()
        self._send(each)

    def _send(self, each: socket.socket) -> None:
        self._sent[each] = monotonic()
        with contextlib.suppress(ConnectionRefusedError):
            each.send(QUERY)

    def _hear(self) -> list[socket.socket]:
        """Who was answered."""
        heard = []
        for each in [*self._asked]:
            with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                answer = each.recv(4096)
                if socket.inet_aton(SERVICE_ADDRESS) not in answer:
                    self.wrong.append(answer)
                self.waits.append(monotonic() - self._asked.pop(each))
                heard.append(each)
        return heard

    def end(self) -> None:
        self._over.set()
        self.join()

    @property
    def longest(self) -> float:
        return max(self.waits)


def _address(answer: bytes) -> str:
    message = dns.message.from_wire(answer)
    return next((record.address for rrset in message.answer for record in rrset), "nothing")


class WorkersTests(Stage):
    """Three processes, unless the test says otherwise."""

    def begin(self, workers: Any = 3, **more: Any) -> Agent:
        self.status_port = free_port()
        status = f"127.0.0.1:{self.status_port}"
        self.agent = Agent.start(self, workers=workers, status=status, **more)
        self.keys = {"workers": workers, "status": status, **more}
        if isinstance(workers, int):
            self.await_up(workers)
        return self.agent

    def look(self, page: str = "v1/status") -> Any:
        with urlopen(f"http://127.0.0.1:{self.status_port}/{page}", timeout=WAIT) as said:
            text = said.read().decode()
        return json.loads(text) if page.startswith("v1") else text

    def await_up(self, count: int) -> None:
        def look() -> bool:
            return [each["state"] for each in self.look()["workers"]] == ["up"] * count

        self.agent.await_true(f"{count} workers", look)

    def pids(self) -> list[int]:
        return [each["pid"] for each in self.look()["workers"][1:]]

    def counted(self) -> int:
        """The queries that the metrics tell of."""
        lines = re.findall(r"^meshdns_queries_total\{.*\} (\d+)", self.look("metrics"), re.MULTILINE)
        return sum(map(int, lines))

    def hang_up(self, **changes: Any) -> None:
        self.keys |= changes
        servers = self.keys.pop("servers", ["127.0.0.1:9"])
        self.agent.hang_up(settings(self.agent.port, servers, **self.keys))

    def test_all_answer(self) -> None:
        """Each has its part of the packets, over UDP and TCP; the metrics tell of all of them, and of no more."""
        agent = self.begin()
        before = self.counted()
        self.assertEqual({SERVICE_ADDRESS: PORTS}, Clients(self, agent.port).ask())
        for _ in range(PORTS):
            self.assertEqual([SERVICE_ADDRESS], agent.addresses(SERVICE, tcp=True))
        self.assertEqual(before + 2 * PORTS, self.counted())
        told = self.look()
        self.assertEqual(before + 2 * PORTS, told["queries"]["total"])
        self.assertEqual([1, 2, 3], [each["number"] for each in told["workers"]])
        self.assertEqual([], [each for each in told["workers"] if not each["queries"]])
        self.assertEqual(before + 2 * PORTS, sum(each["queries"] for each in told["workers"]))
        self.assertEqual([], agent.complaints())

    def test_durations(self) -> None:
        """The histogram of durations is summed, too: what was relayed is timed one by one."""
        upstream = Scripted(self, lambda query: dns.message.make_response(query))
        agent = self.begin(servers=[upstream.address])
        query = dns.message.make_query("www.example.org", "A").to_wire()
        self.assertEqual({"nothing": PORTS}, Clients(self, agent.port).ask(query))
        found = re.findall(r'duration_seconds_count\{source="(\w+)"\} (\d+)', self.look("metrics"))
        self.assertEqual(PORTS, sum(int(count) for source, count in found if source in ("cache", "upstream")))

    def test_auto(self) -> None:
        """`auto`: as many as this process may use."""
        self.begin("auto")
        self.await_up(len(os.sched_getaffinity(0)))

    def test_one(self) -> None:
        """The default: one process."""
        self.begin(None)
        self.assertEqual([], self.pids())
        self.assertEqual("1.0", re.findall(r"^meshdns_workers (.*)", self.look("metrics"), re.MULTILINE)[0])

    def test_table(self) -> None:
        """D28: a new table is every worker's."""
        agent = self.begin()
        clients = Clients(self, agent.port)
        self.assertEqual({SERVICE_ADDRESS: PORTS}, clients.ask())
        for content, address in (
            (OTHER_TABLE, OTHER_ADDRESS),
            (table([]), "nothing"),
            (EXAMPLE_TABLE, SERVICE_ADDRESS),
        ):
            replace(agent.table, content)
            agent.await_true(f"{address} from all", lambda address=address: clients.ask() == {address: PORTS}, WAIT)
        self.assertEqual([], agent.complaints())

    def test_no_table(self) -> None:
        """D17: before the first table mesh names are SERVFAIL from all; it reaches all when it comes."""
        agent = self.begin(table=b"")
        clients = Clients(self, agent.port)
        self.assertEqual({"nothing": PORTS}, clients.ask())
        replace(agent.table, EXAMPLE_TABLE)
        agent.await_true("the table", lambda: clients.ask() == {SERVICE_ADDRESS: PORTS}, WAIT)

    def test_killed(self) -> None:
        """SIGKILL under load: whoever asks again has an answer within a second, and so has what waited in the socket; the next
        one answers nothing before it has the whole table."""
        more = [{"host": f"s{each}.ns9.svc.cluster.local", "ips": ["10.9.0.1"]} for each in range(MANY)]
        agent = self.begin(table=table([*EXAMPLE_HOSTS, *more]))
        load = Load(self, agent.port, RETRY)
        try:
            for restarts in range(1, 4):
                victim = self.pids()[restarts % 2]
                os.kill(victim, signal.SIGKILL)
                agent.await_line("has died: signal 9", restarts)
                self.agent.await_true("its successor", lambda victim=victim: victim not in self.pids(), WAIT)
                self.await_up(3)
        finally:
            load.end()
        self.assertGreater(len(load.waits), 1000)
        self.assertLess(load.longest, MENDED)
        self.assertEqual([], load.wrong)
        self.assertIn("meshdns_worker_restarts_total 3.0", self.look("metrics"))

    def test_sums_never_fall(self) -> None:
        """What a worker has counted stays counted when it is killed."""
        agent = self.begin()
        Clients(self, agent.port).ask()
        before = self.counted()
        self.assertGreaterEqual(before, PORTS)
        for each in self.pids():
            os.kill(each, signal.SIGKILL)
        agent.await_line("has died", 2)
        self.assertEqual(before, self.counted())
        self.await_up(3)
        self.assertEqual(before, self.counted())

    def test_hangs(self) -> None:
        """A worker that hangs is ended and replaced: its clients are answered again within about a second."""
        agent = self.begin()
        load = Load(self, agent.port, RETRY)
        try:
            hung = self.pids()[0]
            os.kill(hung, signal.SIGSTOP)
            agent.await_line("has not answered")
            self.await_up(3)
        finally:
            load.end()
            with contextlib.suppress(ProcessLookupError):
                os.kill(hung, signal.SIGKILL)
        self.assertLess(load.longest, MENDED + RETRY)
        self.assertNotIn(hung, self.pids())

    def test_dies_again_and_again(self) -> None:
        """Each next one starts later, and the main process does the work meanwhile."""
        agent = self.begin(2)
        clients = Clients(self, agent.port)
        began = monotonic()
        for deaths in range(1, 4):
            os.kill(self.pids()[0], signal.SIGKILL)
            agent.await_line("has died", deaths)
            self.assertEqual({SERVICE_ADDRESS: PORTS}, clients.ask())
            self.await_up(2)
        self.assertLess(monotonic() - began, WORKER_STEADY, "too slow to be a test")
        starts = [re.findall("the next one starts (.*?),", line)[0] for line in agent.lines("has died")]
        self.assertEqual("in 1 s", starts[-1])
        self.assertEqual("in 0.5 s", starts[-2])

    def test_signals(self) -> None:
        """What a terminal or a service manager sends to all processes is for the main process alone."""
        self.begin()
        pids = self.pids()
        for each in pids:
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                os.kill(each, number)
        self.assertEqual({SERVICE_ADDRESS: PORTS}, Clients(self, self.agent.port).ask())
        self.assertEqual(pids, self.pids())
        self.assertTrue(all(map(_lives, pids)))

    def test_main_process_killed(self) -> None:
        """No worker outlives it."""
        agent = self.begin()
        pids = self.pids()
        agent.process.kill()
        agent.process.wait(WAIT)
        self._await_ended(pids, 1.0)

    def test_main_process_hangs(self) -> None:
        """Nor answers for it: a redirect holds as long as answers leave, whoever gets them."""
        agent = self.begin()
        pids = self.pids()
        agent.process.send_signal(signal.SIGSTOP)
        try:
            self._await_ended(pids, 3.0)
        finally:
            agent.process.send_signal(signal.SIGCONT)
        self.await_up(3)
        self.assertEqual({SERVICE_ADDRESS: PORTS}, Clients(self, agent.port).ask())

    def _await_ended(self, pids: Sequence[int], patience: float) -> None:
        deadline = monotonic() + patience
        waiting = threading.Event()
        while any(_lives(pid) for pid in pids):
            self.assertLess(monotonic(), deadline, "a worker is still there")
            waiting.wait(0.01)

    def test_settings(self) -> None:
        """SIGHUP: what has changed holds in all of them, and they stay who they are."""
        agent = self.begin()
        pids = self.pids()
        clients = Clients(self, agent.port)
        clients.ask()
        self.hang_up(mesh={"ttl": 7})
        agent.await_line("has read")

        def ttls() -> set[int]:
            for each in clients.sockets:
                each.send(QUERY)
            return {dns.message.from_wire(each.recv(4096)).answer[0].ttl for each in clients.sockets}

        agent.await_true("the TTL from all", lambda: ttls() == {7}, WAIT)
        self.assertEqual(pids, self.pids())

    def test_more_and_fewer(self) -> None:
        """SIGHUP: another number of them, under load: no query is lost."""
        agent = self.begin(1)
        load = Load(self, agent.port, WAIT)
        try:
            for count in (3, 2, 1, 3):
                self.hang_up(workers=count)
                self.await_up(count)
        finally:
            load.end()
        self.assertEqual(0, load.lost, f"of {len(load.waits)}")
        self.assertEqual([], agent.complaints())
        self.assertEqual([], agent.lines("has died"))

    def test_addresses(self) -> None:
        """SIGHUP: other addresses: all workers answer at them, and nobody at the old one."""
        agent = self.begin()
        other = free_port()
        self.hang_up(listen=[f"127.0.0.1:{other}"])
        agent.await_line("has read")
        old, agent.port = agent.port, other
        self.await_up(3)
        self.assertEqual({SERVICE_ADDRESS: PORTS}, Clients(self, other).ask())
        agent.port = old
        self.assertRaises(ConnectionRefusedError, agent.ask, SERVICE)
        agent.port = other
        self.assertGreater(min(each["queries"] for each in self.look()["workers"]), 0)

    def test_port_taken(self) -> None:
        """A second agent is refused the port, though the first one shares it among its own."""
        agent = self.begin()
        other = self.folder / "other.yaml"
        other.write_text(settings(agent.port, ["127.0.0.1:9"], workers=2))
        done = self.run_to_end(command(other))
        self.assertEqual(1, done.returncode)
        self.assertIn("Is another agent", done.stdout + done.stderr)
        self.assertEqual({SERVICE_ADDRESS: PORTS}, Clients(self, agent.port).ask())

    def test_drain(self) -> None:
        """SIGTERM: who waits for an upstream gets the answer, whichever worker asked it; all end well."""

        def late(query: dns.message.Message) -> dns.message.Message:
            answer = dns.message.make_response(query)
            answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "192.0.2.1"))
            if len(upstream.asked) >= 3 and not agent.lines("Received SIGTERM"):
                agent.process.terminate()
                agent.await_line("Received SIGTERM")
            return answer

        upstream = Scripted(self, late)
        agent = self.begin(servers=[upstream.address])
        clients = Clients(self, agent.port)
        query = dns.message.make_query("late.example.org", "A").to_wire()
        self.assertEqual({"192.0.2.1": PORTS}, clients.ask(query))
        self.assertTrue(agent.ended_well())

    def test_log(self) -> None:
        """What a worker logs stands in the agent's log, with its number."""
        agent = self.begin(log={"queries": True})
        Clients(self, agent.port).ask()
        agent.await_line(rf"worker 2: 127\.0\.0\.1 asked {SERVICE}")
        agent.await_line(rf"worker 3: 127\.0\.0\.1 asked {SERVICE}")

    def test_privileges(self) -> None:
        """Port 53 is taken as root; the workers are nobody, and answer at it."""
        host = Host(self)
        words = ["--uid", "nobody", "--gid", "nogroup"]
        agent = Agent.start(self, port=53, place=host.place, words=words, workers=2)
        if self.may_run("nobody"):
            agent.await_line("TCP Port 53 Closed")  # the main process steps back
            self.assertEqual([], agent.complaints())
        else:
            agent.await_line("worker 2 cannot be started")  # and the main process answers all
        agent.hang_up(settings(53, ["127.0.0.1:9"], workers=3))
        agent.await_line("the configuration stays as it was")  # it is not root any more, who alone could open more
        for _ in range(PORTS):
            self.assertEqual([SERVICE_ADDRESS], agent.addresses(SERVICE))

    def may_run(self, user: str) -> bool:
        """Whether a user has access to the interpreter of these tests."""
        try:
            subprocess.run([sys.executable, "-c", ""], cwd="/", user=user, group="nogroup", extra_groups=[], check=True)
        except (PermissionError, subprocess.CalledProcessError):
            return False
        return True


class FollowTests(Stage):
    """The main process follows a control plane."""

    def test_changes_arrive(self) -> None:
        """X3, X8: a delta is every worker's; a worker that starts after it has it, too; and the snapshot is kept once."""
        grounds = Grounds.lay(self)
        control = Control.start(grounds)
        one = following(grounds, control)
        one.hang_up(f"{one.config.read_text()}workers: 3\n")
        clients = Clients(self, one.port)
        for number in (5, 6, 7):
            address = f"10.4.0.{number}"
            one.await_true(f"{address} from all", lambda address=address: clients.ask() == {address: PORTS}, WAIT)
            grounds.edit(f"{address}\n", f"10.4.0.{number + 1}\n")
        one.await_line("a delta from the control plane", 3)
        one.await_true("the last one", lambda: clients.ask() == {"10.4.0.8": PORTS}, WAIT)
        self.await_up(one)
        os.kill(self.workers(one)[1]["pid"], signal.SIGKILL)
        one.await_line(r"worker 2 \(process \d+\) has died: signal 9")
        self.assertEqual({"10.4.0.8": PORTS}, clients.ask())
        self.await_up(one)
        self.assertEqual({"10.4.0.8": PORTS}, clients.ask())
        self.assertEqual([], one.complaints() + control.complaints())

    def workers(self, one: Agent) -> list[dict[str, Any]]:
        status = re.findall(r'^status: "(.*)"', one.config.read_text(), re.MULTILINE)[0]
        with urlopen(f"http://{status}/v1/status", timeout=WAIT) as said:
            rows: list[dict[str, Any]] = json.load(said)["workers"]
        return rows

    def await_up(self, one: Agent) -> None:
        one.await_true("three workers", lambda: [each["state"] for each in self.workers(one)] == ["up"] * 3)


class SupervisedTests(Stage):
    """Under a service manager that holds the sockets of all workers."""

    def setUp(self) -> None:
        super().setUp()
        self.manager = Manager(self)
        self.log = self.folder / "agent.log"
        self.config = self.folder / "agent.yaml"
        (self.folder / "table.jsonl").write_bytes(EXAMPLE_TABLE)
        self.port = free_port()

    def begin(self, workers: int) -> Any:
        self.config.write_text(settings(self.port, ["127.0.0.1:9"], workers=workers))
        process = self.manager.start(command(self.config), self.log)
        self.manager.await_word("READY=1", self.log)
        return process

    def test_restart(self) -> None:
        """With as many workers, more, or fewer: no query is lost, and none waits in a socket that nobody reads."""
        process = self.begin(2)
        load = Load(self, self.port, WAIT)
        try:
            for workers in (2, 3, 1, 3):
                end(process)
                process = self.begin(workers)
                server = DnsServer(self.port, process, self.log)
                self.assertEqual([SERVICE_ADDRESS], server.addresses(SERVICE, tcp=True))
                until("its sockets", lambda workers=workers: len(self.manager.store) == 2 * workers, process, self.log)
                enough = len(load.waits) + 10 * PORTS
                until("answers", lambda enough=enough: len(load.waits) > enough, process, self.log)
        finally:
            load.end()
        self.assertEqual(0, load.lost, f"of {len(load.waits)}")
        with socket.create_connection(("127.0.0.1", self.port), WAIT) as client:
            client.sendall(framed(QUERY))
            self.assertEqual(SERVICE_ADDRESS, _address(read_frame(client)))


def _lives(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for its parent to notice."""
    try:
        with open(f"/proc/{pid}/stat") as told:
            return told.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
