"""Control planes on their bad days, and real agents behind them (rules X8 to X11, C5).

In each: no wrong answer, no lost lease, the last good table served, one clear message."""

import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import monotonic
from unittest import SkipTest

from tests.e2e.agent import Agent, replace, settings
from tests.e2e.control import Control, Grounds, agent, run_agent
from tests.e2e.stage import PATIENCE, Stage, end, free_port, until
from tests.pki import Authority

SERVICE = "productpage.ns1.svc.cluster.local"
DATABASES = ("db1.example.com", "db2.example.com")
ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %s, namespace: ns1}
spec: {hosts: [%s.example.com], resolution: DNS, ports: [{number: 3306, name: mysql, protocol: TCP}]}
"""


class Case(Stage):
    def setUp(self) -> None:
        super().setUp()
        self.grounds = Grounds.lay(self)

    def addresses(self, one: Agent, name: str) -> list[str]:
        answer = one.ask(name)
        found = [each.address for rrset in answer.answer for each in rrset if hasattr(each, "address")]
        return [] if answer.rcode() else sorted(found)

    def await_address(self, one: Agent, address: str, name: str = SERVICE) -> None:
        one.await_true(f"{name} at {address}", lambda: self.addresses(one, name) == [address])

    def vips(self, one: Agent) -> list[list[str]]:
        return [self.addresses(one, name) for name in DATABASES]


class Disk:
    """A tiny disk, mounted on a folder in a namespace of its own, which is gone with the process that holds it."""

    def __init__(self, stage: Stage, folder: Path, size: str = "96k") -> None:
        if missing := [name for name in ("unshare", "nsenter", "mount") if not shutil.which(name)]:
            raise SkipTest(f"not installed: {', '.join(missing)} (packages util-linux, mount)")
        folder.mkdir()
        tried = f"mount -t tmpfs -o size={size} none {folder}"
        if subprocess.run(["unshare", "--mount", "sh", "-c", tried], capture_output=True).returncode:
            raise SkipTest("nobody lets us mount a disk in a namespace: run the tests as root")
        log = stage.folder / "disk.log"
        script = f"{tried} && echo ready && exec cat"
        self._holder = stage.start(["unshare", "--mount", "sh", "-c", script], log, stdin=subprocess.PIPE)
        stage.addCleanup(self._end)
        until("a disk", lambda: log.read_text().endswith("ready\n"), self._holder, log)
        self.prefix = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--"]
        self.seen = Path(f"/proc/{self._holder.pid}/root{folder}")  # from outside

    def fill(self) -> None:
        with (self.seen / "fill").open("wb", buffering=0) as opened:
            try:
                while opened.write(b"x" * 512):
                    pass
            except OSError:
                pass

    def make_room(self) -> None:
        (self.seen / "fill").unlink()

    def _end(self) -> None:
        assert self._holder.stdin
        self._holder.stdin.close()
        end(self._holder)


class FullDiskTests(Case):
    def test_full(self) -> None:
        """C5: the disk under the lease store is full: what has a VIP keeps it, also over a restart; what is new waits; all else
        goes on; one message; and all is well when there is room."""
        folder = self.grounds.folder / "leases"
        disk = Disk(self, folder)
        control = Control.start(self.grounds, prefix=disk.prefix, vips={"store": f"sqlite:{folder}/vips.sqlite"})
        one = agent(self.grounds, control)
        self.await_address(one, "10.4.0.5")
        vips = self.vips(one)
        self.assertEqual([1, 1], [len(each) for each in vips])
        disk.fill()
        external = self.grounds.folder / "east" / "more.yaml"
        external.write_text("---".join(ENTRY % (f"db{number}", f"db{number}") for number in range(3, 300)))
        one.await_true("a problem", lambda: self.problems(control))
        self.assertRegex(self.problems(control)[0], r"\Alease store: the lease store \S+ cannot be used: .*(full|I/O)")
        self.grounds.edit("10.4.0.5", "10.4.0.6")
        self.await_address(one, "10.4.0.6")
        self.assertEqual((vips, []), (self.vips(one), self.addresses(one, "db3.example.com")))
        self.assertEqual(1, len(re.findall("no VIP is given to new hosts", control.log.read_text())))
        control.kill()
        control = control.again(vips={"store": f"sqlite:{folder}/vips.sqlite"})
        self.grounds.edit("10.4.0.6", "10.4.0.7")
        self.await_address(one, "10.4.0.7")
        self.assertEqual((vips, []), (self.vips(one), self.addresses(one, "db3.example.com")))
        disk.make_room()
        external.write_text(ENTRY % ("db3", "db3"))
        one.await_true("a VIP for the new one", lambda: self.addresses(one, "db3.example.com"))
        self.assertEqual((vips, []), (self.vips(one), self.problems(control)))
        self.assertIn("the lease store can be used again", control.log.read_text())
        self.assertEqual([], control.complaints() + one.complaints())

    def problems(self, control: Control) -> list[str]:
        return [f"{each['subject']}: {each['reason']}" for each in control.json("/v1/problems")["problems"]]


class DamagedStoreTests(Case):
    def test_damaged(self) -> None:
        """C5, X11: a damaged store is refused with one sentence, a copy is kept, and agents go on with what they have; a good
        copy put in its place, and all is as it was."""
        control = Control.start(self.grounds)
        one = agent(self.grounds, control)
        self.await_address(one, "10.4.0.5")
        vips = self.vips(one)
        control.kill()
        store = self.grounds.folder / "vips.sqlite"
        good = store.read_bytes()
        damaged = good[:200] + b"\xff" * (len(good) - 200)
        store.write_bytes(damaged)
        done = self.run_to_end([str(each) for each in control.process.args])  # type: ignore[union-attr]
        self.assertEqual(1, done.returncode)
        (told,) = [line for line in done.stderr.splitlines() if "lease store" in line]
        self.assertRegex(
            told,
            r"\Ameshdns-control cannot start: the lease store \S+ is damaged .*a copy is kept in \S+vips\.sqlite\.damaged;",
        )
        self.assertNotIn("Traceback", done.stdout + done.stderr)
        self.assertEqual((damaged, damaged), (store.read_bytes(), store.with_name("vips.sqlite.damaged").read_bytes()))
        self.assertEqual((["10.4.0.5"], vips), (self.addresses(one, SERVICE), self.vips(one)))
        store.write_bytes(good)
        self.grounds.edit("10.4.0.5", "10.4.0.6")
        control.again()
        self.await_address(one, "10.4.0.6")
        self.assertEqual(vips, self.vips(one))


class Flow:
    """Two threads, while it is entered: one changes manifests all the time, one asks an agent and notes every answer that is wrong.
    The service's addresses go up with each edit, so that an old answer shows."""

    def __init__(self, case: Case, one: Agent) -> None:
        self.wrong: list[str] = []
        self.vips: dict[str, list[str]] = {}
        self.written = 0
        self._case = case
        self._one = one
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._until_stopped, args=each) for each in ((self.edit, 0.03), (self.ask, 0.005))
        ]
        case.grounds.edit("10.4.0.5\n", f"{self.address(0)}\n")
        self._seen = -1

    @staticmethod
    def address(number: int) -> str:
        return f"10.5.{number // 250}.{number % 250 + 1}"

    def edit(self) -> None:
        self.written += 1  # true from the moment at which it may be read
        self._case.grounds.edit(f"{self.address(self.written - 1)}\n", f"{self.address(self.written)}\n")
        name = f"more{self.written % 40}"
        replace(self._case.grounds.folder / "east" / f"{name}.yaml", (ENTRY % (name, name)).encode())

    def ask(self) -> None:
        answers = self._case.addresses(self._one, SERVICE)
        found = next((n for n in range(max(0, self._seen), self.written + 1) if answers == [self.address(n)]), None)
        if found is None and (answers != ["10.4.0.5"] or self._seen >= 0):
            self.wrong.append(f"{answers} after {self.address(self._seen)}")
        self._seen = self._seen if found is None else found
        for name in (*DATABASES, *(f"more{(self._seen - back) % 40}.example.com" for back in range(5))):
            vip = self._case.addresses(self._one, name)
            if vip and self.vips.setdefault(name, vip) != vip:
                self.wrong.append(f"{name}: {vip} after {self.vips[name]}")
            elif not vip and name in self.vips:
                self.wrong.append(f"{name} has gone")

    def _until_stopped(self, work: Callable[[], None], pause: float) -> None:
        try:
            while not self._stop.wait(pause):
                work()
        except Exception as error:
            self.wrong.append(f"{work}: {error!r}")

    def __enter__(self) -> "Flow":
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join(PATIENCE)


class KilledTests(Case):
    KILLS = 20

    def serves(self, control: Control) -> bool:
        """Whether an agent has had a table or a delta of it."""
        try:
            return bool(re.search(r'table_responses_total\{kind="(table|delta)"\} [1-9]', control.page("/metrics")))
        except OSError:
            return False

    def test_killed_again_and_again(self) -> None:
        """X8, X11, C5: killed at whatever moment while updates flow, twenty times: each answer was true and none is older than the
        one before it, every VIP stays, and of the hosts that come meanwhile no two share one."""
        control = Control.start(self.grounds)
        words = [str(each) for each in control.process.args]  # type: ignore[union-attr]
        one = agent(self.grounds, control)
        self.await_address(one, "10.4.0.5")
        random = Random(4)
        with Flow(self, one) as flow:
            for number in range(self.KILLS):
                if number % 4 == 3:  # an agent that found nobody waits longer each time
                    until("a table taken", lambda: self.serves(control), control.process, control.log, 2 * PATIENCE)
                moment = monotonic() + random.uniform(0.0, 0.6)  # while it starts and reads, or while it serves
                until("a moment", lambda at=moment: monotonic() > at, control.process, control.log)  # type: ignore[misc]
                control.kill()
                control.process = self.start(words, control.log)
            until("a table taken", lambda: self.serves(control), control.process, control.log, 2 * PATIENCE)
        self.assertEqual([], flow.wrong)
        last = flow.address(flow.written)
        self.await_address(one, last)
        self.assertGreater(len(flow.vips), 5)
        self.assertEqual(len(flow.vips), len({tuple(each) for each in flow.vips.values()}))
        control.kill()
        one.stop()
        again = run_agent(self, one.port, one.config, one.log)
        held = {name: self.addresses(again, name) for name in flow.vips}
        self.assertEqual(([last], flow.vips), (self.addresses(again, SERVICE), held))
        self.assertEqual([], again.complaints() + control.complaints())


class TrustTests(Case):
    def test_man_in_the_middle(self) -> None:
        """X9: somebody with a certificate for the right name, of an authority that everybody trusts, in the place of the control
        plane: refused, told once with the pin that was seen, and the last good table serves, also over a restart."""
        control = Control.start(self.grounds)
        public = Authority(self.grounds.folder, "public")
        system = self.grounds.folder / "system.pem"
        system.write_bytes(self.grounds.root.pem.read_bytes() + public.pem.read_bytes())
        pin = self.said_by(
            [shutil.which("meshdns") or "meshdns", "pin", self.grounds.folder / "server-one.pem"]
        ).split()[0]
        one = agent(self.grounds, control, ca=str(system), pins=[pin])
        self.await_address(one, "10.4.0.5")
        vips = self.vips(one)
        control.kill()
        self.grounds.edit("10.4.0.5", "10.66.66.66")  # what it would have us believe
        got = public.issue("middle", "localhost", "127.0.0.1")
        middle = control.again(
            "middle", tls={"certificate": got.pem.name, "key": got.key.name, "client_ca": "root.pem"}
        )
        told = rf"is not trusted, .*: none of its pins is ours; its own certificate has {re.escape(got.pin)}"
        one.await_line(told)
        self.assertEqual((["10.4.0.5"], vips), (self.addresses(one, SERVICE), self.vips(one)))
        one.stop()
        again = run_agent(self, one.port, one.config, one.log)
        again.await_line(told, count=2)
        self.assertEqual((["10.4.0.5"], vips), (self.addresses(again, SERVICE), self.vips(again)))
        self.assertEqual(2, len(again.lines("is not trusted")))
        middle.kill()
        self.grounds.edit("10.66.66.66", "10.4.0.6")
        control.process = self.start([str(each) for each in control.process.args], control.log)  # type: ignore[union-attr]
        self.await_address(again, "10.4.0.6")
        self.assertEqual([], again.complaints())


class EmbeddedTests(Case):
    def test_manifests(self) -> None:
        """C1, C5, X8: `table.manifests`: an edit is a changed answer; a broken manifest changes nothing and is told; a directory
        that vanishes takes nothing with it; a restart moves no VIP."""
        clusters = [
            {"name": name, "network": f"{name}-net", "manifests": str(self.grounds.folder / name)}
            for name in ("east", "west")
        ]
        port, config = free_port(), self.folder / "agent.yaml"
        sections = {
            "table": {"manifests": clusters, "snapshot": "snapshot.jsonl"},
            "workload": {"namespace": "ns1", "cluster": "east"},
        }
        config.write_text(settings(port, ["127.0.0.1:9"], **sections))
        one = run_agent(self, port, config, self.folder / "agent.log")
        self.await_address(one, "10.4.0.5")
        self.assertEqual(["10.8.0.7"], self.addresses(one, "loyalty.ns2"))
        vips = self.vips(one)
        self.assertEqual([1, 1], [len(each) for each in vips])
        self.assertEqual([], self.addresses(one, "payroll.example.com"))
        self.grounds.edit("10.4.0.5", "10.4.0.6")
        self.await_address(one, "10.4.0.6")
        self.grounds.edit("10.4.0.6", "nonsense")
        one.await_line(r'bookinfo\.yaml:\d+: Service ns1/productpage: spec\.clusterIP: "nonsense" is not an IP address')
        self.assertEqual(["10.4.0.6"], self.addresses(one, SERVICE))
        self.grounds.edit("nonsense", "10.4.0.7")
        self.await_address(one, "10.4.0.7")
        (self.grounds.folder / "west").rename(self.grounds.folder / "away")
        one.await_line(r"west:1: cannot be read: No such file or directory; what it gave last stays")
        self.assertEqual(["10.8.0.7"], self.addresses(one, "loyalty.ns2"))
        one.stop()
        (self.grounds.folder / "away").rename(self.grounds.folder / "west")
        again = run_agent(self, one.port, one.config, one.log)
        self.await_address(again, "10.4.0.7")
        self.assertEqual(vips, self.vips(again))
        self.assertEqual([], again.complaints())
