"""The last good table on disk (rule X11), and where a control plane is found without asking ourselves."""

import gc
import itertools
import json
import os
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor as twisted_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from meshdns import table
from meshdns.agent.addresses import Addresses
from meshdns.agent.snapshot import Snapshot, write, write_in_steps
from meshdns.defaults import TABLE_STEP
from meshdns.table import Table

reactor: Any = twisted_reactor
ONE = Table.of([table.entry({"host": "a.example.com", "ips": ["192.0.2.1"]})], ["a.local"], 30)
TWO = Table.of([table.entry({"host": "b.example.com", "ips": ["192.0.2.2"]})], ["a.local"], 30)


class Case(TestCase):
    def setUp(self) -> None:
        self.folder = Path(mkdtemp(prefix="meshdns-snapshot-"))
        self.addCleanup(rmtree, self.folder)
        self.path = self.folder / "table.jsonl"
        self.snapshot = Snapshot(str(self.path), reactor)


class SnapshotTests(Case):
    """X11."""

    async def test_there_and_back(self) -> None:
        self.assertIsNone(self.snapshot.load())
        self.snapshot.keep(ONE)
        self.snapshot.keep(TWO)
        await self.snapshot.close()
        self.assertEqual(TWO, self.snapshot.load())
        self.assertEqual(0o600, self.path.stat().st_mode & 0o777)
        self.assertEqual(["table.jsonl"], [each.name for each in self.folder.iterdir()])

    def test_damaged(self) -> None:
        """X11: whatever octet is wrong or missing, it is set aside with a word, never half used."""
        write(str(self.path), ONE)
        whole = self.path.read_bytes()
        for damaged in (
            whole[:-5],
            whole[: len(whole) // 2],
            b"",
            whole.replace(b"192.0.2.1", b"192.0.2.9"),
            b"\xff" * 100,
        ):
            self.path.write_bytes(damaged)
            found = self.snapshot.load()
            self.assertIsNone(found, damaged)
            self.assertEqual(damaged, (self.folder / "table.jsonl.damaged").read_bytes())
            self.assertFalse(self.path.exists())

    def test_goes_as_it_is_written(self) -> None:
        """X8: a table that nobody else has any more is freed in steps, too; and what a disk may be slow at is left to others."""

        def alive() -> int:
            return sum(type(each) is table.Entry for each in gc.get_objects())

        gc.collect()
        before, hosts = alive(), TABLE_STEP * 5
        many = Table.of(table.entry({"host": f"h{number}"}) for number in range(hosts))
        steps = write_in_steps(str(self.path), many)
        del many
        counts, there = [alive()], []
        for slow in steps:
            counts.append(alive())
            if slow is not None:
                there.append(self.path.exists())
                slow()
        self.assertEqual((before + hosts, before), (counts[0], counts[-1]))
        self.assertLess(max(one - two for one, two in itertools.pairwise(counts)), TABLE_STEP * 2)
        self.assertEqual([False, False, True], there)  # the file is forced out, put in its place, and its folder, too

    async def test_old_one_stays(self) -> None:
        """X11: what cannot be written whole changes nothing, and is told once."""
        write(str(self.path), ONE)
        (self.folder / "table.jsonl.new").mkdir()
        for _ in range(2):
            self.snapshot.keep(TWO)
            await self.snapshot.close()
        self.assertEqual(ONE, self.snapshot.load())
        os.rmdir(self.folder / "table.jsonl.new")

    def test_not_ours_to_read(self) -> None:
        self.path.mkdir()
        self.assertIsNone(self.snapshot.load())


class AddressTests(Case):
    """X8: an agent never needs itself to find its control plane."""

    def addresses(self, *asked: str, silent: bool = False) -> Addresses:
        hosts = self.folder / "hosts"
        hosts.write_text("# comment\n192.0.2.7 listed.example other.example # more\nnonsense listed.example\n")
        answers: Any = (lambda name: Deferred()) if silent else (lambda name: succeed(list(asked)))
        self.clock = Clock()
        return Addresses(answers, self.clock, str(self.folder / "memory"), str(hosts))

    async def test_found(self) -> None:
        found = self.addresses("192.0.2.1", "2001:db8::1")
        self.assertEqual(["192.0.2.9"], await found.find("192.0.2.9"))
        self.assertEqual(["192.0.2.7"], await found.find("Listed.example"))
        self.assertEqual(["192.0.2.1", "2001:db8::1"], await found.find("asked.example"))

    async def test_remembered(self) -> None:
        """What served last comes first, and is there at the next start though nobody can be asked."""
        found = self.addresses("192.0.2.1", "192.0.2.2")
        found.served("asked.example", "192.0.2.2")
        self.assertEqual(["192.0.2.2", "192.0.2.1"], await found.find("asked.example"))
        self.assertEqual(["192.0.2.2"], await self.addresses().find("asked.example"))
        moved = self.addresses("192.0.2.5")
        self.assertEqual(["192.0.2.5"], await moved.find("asked.example"))

    def test_deadline(self) -> None:
        silent = self.addresses(silent=True)
        waiting = Deferred.fromCoroutine(silent.find("asked.example"))
        self.assertNoResult(waiting)
        self.clock.advance(5.0)
        self.assertEqual([], self.successResultOf(waiting))

    async def test_spoilt_memory(self) -> None:
        for spoilt in ("{", "[]", json.dumps({"asked.example": ["nonsense", 7]}), json.dumps({"a": 1})):
            (self.folder / "memory").write_text(spoilt)
            self.assertEqual(["192.0.2.1"], await self.addresses("192.0.2.1").find("asked.example"))
