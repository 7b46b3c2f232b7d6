"""Where VIPs are remembered (rule C5): the same contract for every store, and what a SQLite file must live through."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from meshdns.control.leases import MemoryLeases, SqliteLeases, StoreProblem
from meshdns.control.vips import Lease, Plan
from tests.control.contract import A, LeasesContract
from tests.e2e.stage import ROOT

# Gives one host after the other a number of its own, and says so when it is stored.
WRITER = """\
import sys
from meshdns.control.leases import SqliteLeases, StoreProblem
from meshdns.control.vips import Lease, Plan
store = SqliteLeases(sys.argv[1], None)
number = 0
while True:
    def decide(held):
        number = len(held) + 1
        return Plan((Lease(f"{sys.argv[2]}-{number}", f"10.0.{number // 256}.{number % 256}", ""),))
    try:
        (lease,) = store._update(decide).write
    except StoreProblem as problem:
        if "locked" in str(problem):
            continue  # by the other one, for longer than we wait: nothing is written, and the mesh tries again, too
        raise
    print(lease.host, lease.ipv4, flush=True)
"""


class MemoryTests(LeasesContract, TestCase):
    def store(self) -> MemoryLeases:
        return MemoryLeases()


class SqliteTests(LeasesContract, TestCase):
    def setUp(self) -> None:
        self.folder = Path(mkdtemp(prefix="meshdns-leases-"))
        self.addCleanup(self._tidy)
        self.path = self.folder / "vips.sqlite"

    def _tidy(self) -> None:
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()

    def store(self) -> SqliteLeases:
        store = SqliteLeases(str(self.path), reactor.callFromThread)  # type: ignore[attr-defined]
        self.addCleanup(store.close)
        return store

    def refusal(self) -> str:
        return str(self.assertRaises(StoreProblem, SqliteLeases, str(self.path), None))

    async def test_outlives(self) -> None:
        """C5: a restart finds what was there, in a file that nobody else reads."""
        await self.store().update(lambda held: Plan((A,)))
        self.assertEqual({"a": A}, await self.held(self.store()))
        self.assertEqual(0o600, self.path.stat().st_mode & 0o777)

    async def test_two_at_once(self) -> None:
        """C5, C8: two processes with one store never give one address twice."""
        writers = [self.writer(name) for name in ("left", "right")]
        said = [[writer.stdout.readline().split() for _ in range(40)] for writer in writers if writer.stdout]
        for writer in writers:
            writer.kill()
            writer.wait()
        given = [address for lines in said for _, address in lines]
        self.assertEqual(80, len(set(given)))

    def writer(self, name: str) -> "subprocess.Popen[str]":
        found = subprocess.Popen(
            [sys.executable, "-c", WRITER, self.path, name], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert found.stdout
        self.addCleanup(found.stdout.close)
        return found

    async def test_killed(self) -> None:
        """C5: whatever the moment at which it is killed, what was published is stored."""
        published = {}
        for _ in range(5):
            writer = self.writer("one")
            assert writer.stdout
            for _ in range(7):
                host, address = writer.stdout.readline().split()
                published[host] = address
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout:  # what was said before it died
                host, address = line.split()
                published[host] = address
            writer.wait()
        held = await self.held(self.store())
        self.assertEqual(published, {host: held[host].ipv4 for host in published})

    async def test_damaged(self) -> None:
        """C5: a damaged store is refused with a clear word, and kept as it is with a copy beside it."""
        await self.store().update(lambda held: Plan(tuple(Lease(f"h{n}", f"10.0.0.{n}", "") for n in range(200))))
        whole = self.path.read_bytes()
        for damaged in (b"nonsense" * 2000, whole[: len(whole) // 2], whole[:4096] + b"\xff" * (len(whole) - 4096)):
            self.path.write_bytes(damaged)
            (self.folder / "vips.sqlite.damaged").unlink(missing_ok=True)
            self.assertRegex(self.refusal(), "is damaged .* a copy is kept in .*To begin with none, move it away")
            self.assertEqual(damaged, self.path.read_bytes())
            self.assertEqual(damaged, (self.folder / "vips.sqlite.damaged").read_bytes())

    def test_somebody_elses(self) -> None:
        for statement in ("CREATE TABLE other (x)", "PRAGMA user_version = 9"):
            self.path.unlink(missing_ok=True)
            with sqlite3.connect(self.path) as other:
                other.execute(statement)
            other.close()
            self.assertIn("is no lease store of this version", self.refusal())

    def test_no_folder(self) -> None:
        self.path = self.folder / "nowhere" / "vips.sqlite"
        self.assertIn("is not there; make it, or name another store", self.refusal())

    async def test_full_disk(self) -> None:
        """C5: what cannot be stored is not published; what was stored stays."""
        await self.store().update(lambda held: Plan((A,)))
        script = WRITER.replace("number = 0\n", "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))\n"
                                "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n")  # fmt: skip
        script = script.replace('f"{sys.argv[2]}-{number}"', '"x" * 900 + str(number)')
        done = subprocess.run(
            [sys.executable, "-c", script, self.path, "x"], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        self.assertIn("StoreProblem: the lease store", done.stderr)
        published = {line.split()[0] for line in done.stdout.splitlines()}
        held = await self.held(self.store())
        self.assertLessEqual(published | {"a"}, held.keys())

    def test_not_writable(self) -> None:
        """C5: also said at once, not at the first host."""
        if os.geteuid() == 0:
            self.path.mkdir()
            self.addCleanup(lambda: None)
            self.assertIn("cannot be opened: Is a directory", self.refusal())
            self.path.rmdir()
        else:
            self.path.touch(0o400)
            self.assertIn("cannot be opened: Permission denied", self.refusal())
