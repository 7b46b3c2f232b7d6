"""The table file: read at the start and when it changes, a broken one leaves the old table in force (X4, issue 2 item 4).

Real files, real renames and symbolic links; only the clock is made.
"""

import gc
import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from meshdns import table
from meshdns.agent import tablefile
from meshdns.agent.tablefile import TableFile
from meshdns.defaults import TABLE_FILE_POLL, TABLE_STEP
from meshdns.table import Table

ONE = Table.of([table.entry({"host": "one.example", "ips": ["10.0.0.1"]})], ["cluster.local"])
TWO = Table.of([table.entry({"host": f"{word}.example", "ips": ["10.0.0.2"]}) for word in ("one", "two")])


def text(held: Table) -> str:
    return "\n".join(table.dump(held)) + "\n"


class FileCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)
        self.path = self.folder / "table.jsonl"
        self.clock = Clock()
        self.adopted: list[Table] = []
        self.collecting = False
        self.log: list[str] = []
        globalLogPublisher.addObserver(self.hear)
        self.addCleanup(globalLogPublisher.removeObserver, self.hear)
        self.file = TableFile(str(self.path), self.adopt, self.clock)
        self.addCleanup(self.leave)

    def leave(self) -> None:
        self.file.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(gc.isenabled())

    def adopt(self, held: Table) -> None:
        self.adopted.append(held)
        self.collecting |= gc.isenabled()

    def hear(self, event: LogEvent) -> None:
        if event.get("log_namespace") == tablefile.__name__:
            self.log.append(formatEvent(event).replace(str(self.path), "FILE"))

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.clock.advance(TABLE_FILE_POLL)

    def replace(self, content: str) -> None:
        """As a careful editor does."""
        new = self.folder / "new"
        new.write_text(content, encoding="utf-8")
        new.rename(self.path)

    def told(self) -> list[str]:
        """What the log has heard since the last time."""
        said, self.log = self.log, []
        return said

    def begin(self, held: Table = ONE) -> None:
        self.path.write_text(text(held), encoding="utf-8")
        self.file.start()
        self.told()

    def force(self, held: Table) -> str:
        return f"the table of {len(held.entries)} hosts, generation {held.generation}, stays in force"


class ChangeTests(FileCase):
    def test_read_at_the_start(self) -> None:
        self.path.write_text(text(ONE), encoding="utf-8")
        self.clock.advance(7)
        self.file.start()
        self.assertEqual(self.adopted, [ONE])
        self.assertEqual((self.file.updates, self.file.failures, self.file.last_change), (1, 0, 7))
        self.assertEqual(self.told(), [f"table file FILE: 1 hosts, generation {ONE.generation}"])

    def test_istio(self) -> None:
        """X4: Istio's JSON, wherever a table file is."""
        self.path.write_text(json.dumps(table.to_istio(ONE)), encoding="utf-8")
        self.file.start()
        self.assertEqual(self.adopted[0].entries, ONE.entries)

    def test_unchanged(self) -> None:
        """One line per change, none per look."""
        self.begin()
        self.look(10)
        os.utime(self.path)
        self.look(2)
        self.replace(text(ONE))
        self.look(2)
        self.assertEqual((self.adopted, self.told(), self.file.updates), ([ONE], [], 1))

    def test_rename(self) -> None:
        self.begin()
        self.replace(text(TWO))
        self.assertEqual(self.adopted, [ONE])
        self.look()
        self.assertEqual(self.adopted, [ONE, TWO])
        self.assertEqual((self.file.updates, self.file.last_change), (2, TABLE_FILE_POLL))
        self.assertEqual(self.told(), [f"table file FILE: 2 hosts, generation {TWO.generation}"])

    def test_edited_in_place(self) -> None:
        """The same inode, the same size, and even the same mtime."""
        self.begin()
        stamp = os.stat(self.path)
        changed = (
            text(ONE)
            .replace("10.0.0.1", "10.0.0.9")
            .replace(f'"generation":"{ONE.generation}",', '"hand":1,' + " " * 39)
        )
        while os.stat(self.path).st_ctime_ns == stamp.st_ctime_ns:  # it moves on every 4 ms or so
            self.path.write_text(changed, encoding="utf-8")
            os.utime(self.path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        self.assertEqual((os.stat(self.path).st_ino, os.stat(self.path).st_size), (stamp.st_ino, stamp.st_size))
        self.look()
        self.assertEqual(self.adopted[1].entries["one.example"].ips, ["10.0.0.9"])

    def test_configmap(self) -> None:
        """A mounted ConfigMap: the file is a link into `..data`, and that link is swapped."""
        for number, held in enumerate((ONE, TWO)):
            (self.folder / f"..{number}").mkdir()
            (self.folder / f"..{number}" / "table.jsonl").write_text(text(held), encoding="utf-8")
        data = self.folder / "..data"
        data.symlink_to("..0")
        self.path.symlink_to("..data/table.jsonl")
        self.file.start()
        (self.folder / "..tmp").symlink_to("..1")
        (self.folder / "..tmp").rename(data)
        self.look()
        self.assertEqual(self.adopted, [ONE, TWO])

    def test_stopped(self) -> None:
        self.begin()
        self.file.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.replace(text(TWO))
        self.look(2)
        self.assertEqual(self.adopted, [ONE])

    def test_never_started(self) -> None:
        """`leave` stops it."""


class TroubleTests(FileCase):
    def test_broken(self) -> None:
        """One clear line with path, line and reason; the old table stays; one line when all is good again."""
        self.begin()
        self.replace(text(TWO).replace('"10.0.0.2"', '"10.0.0"', 1))
        self.look(10)
        self.assertEqual((self.adopted, self.file.updates, self.file.failures), ([ONE], 1, 1))
        reason = 'line 2: one.example has "10.0.0" in "ips": write an IPv4 or IPv6 address, without "/" or "%"'
        self.assertEqual(self.told(), [f"table file FILE: {reason}; {self.force(ONE)}"])
        self.replace(text(TWO))
        self.look(10)
        self.assertEqual(self.adopted, [ONE, TWO])
        self.assertEqual(self.told(), [f"table file FILE is good again: 2 hosts, generation {TWO.generation}"])

    def test_broken_and_back(self) -> None:
        """The table that is in force anyway is not adopted again."""
        self.begin()
        self.replace("{")
        self.look(2)
        self.replace(text(ONE))
        self.look(2)
        self.assertEqual((self.adopted, self.file.updates), ([ONE], 1))
        self.assertEqual(self.told()[1:], [f"table file FILE is good again: 1 hosts, generation {ONE.generation}"])

    def test_broken_in_two_ways(self) -> None:
        """Another reason is another line; the same one in a file saved again is not."""
        self.begin()
        for content in ("", "\n", '{"nametable":2}', '{"nametable":2} '):
            self.replace(content)
            self.look(3)
        self.assertEqual(self.file.failures, 2)
        reasons = [
            'the table is empty: let its first line be {"nametable": 1}',
            "line 1: the table has format 2, only 1 is understood: upgrade meshdns",
        ]
        self.assertEqual(self.told(), [f"table file FILE: {reason}; {self.force(ONE)}" for reason in reasons])

    def test_gone_and_back(self) -> None:
        self.begin()
        self.path.unlink()
        self.look(10)
        self.assertEqual(self.told(), [f"table file FILE: No such file or directory; {self.force(ONE)}"])
        self.assertEqual((self.file.updates, self.file.failures), (1, 1))
        self.path.write_text(text(TWO), encoding="utf-8")
        self.look()
        self.assertEqual(self.adopted, [ONE, TWO])
        self.assertEqual(self.told(), [f"table file FILE is good again: 2 hosts, generation {TWO.generation}"])

    def test_missing_at_the_start(self) -> None:
        """Not fatal: one line that says what happens meanwhile (D17)."""
        self.file.start()
        self.look(10)
        meanwhile = "until it is there, names in mesh zones get SERVFAIL and all other names are forwarded"
        self.assertEqual(self.told(), [f"table file FILE: No such file or directory; {meanwhile}"])
        self.assertEqual((self.adopted, self.file.last_change), ([], None))
        self.replace(text(ONE))
        self.look()
        self.assertEqual(self.adopted, [ONE])

    def test_being_written(self) -> None:
        """Half a file is not worth a line: it is read again when the rest is there."""
        self.begin()
        whole = text(TWO)
        with self.path.open("w", encoding="utf-8") as file:
            for part in (whole[:50], whole[50:150], whole[150:-3], whole[-3:]):
                file.write(part)
                file.flush()
                self.look()
        self.assertEqual(self.adopted, [ONE, TWO])
        self.assertEqual(self.told(), [f"table file FILE: 2 hosts, generation {TWO.generation}"])

    def test_no_regular_file(self) -> None:
        """A folder, and a FIFO that nobody writes to, on which an open would wait for ever."""
        self.begin()
        for make, reason in [
            (os.mkdir, "Is a directory"),
            (os.mkfifo, "is no regular file: name a file with a table"),
        ]:
            self.path.unlink()
            make(self.path)
            self.look(3)
            self.assertIn(reason, self.told()[0])
            os.rmdir(self.path) if self.path.is_dir() else self.path.unlink()
            self.path.write_text(text(ONE), encoding="utf-8")
            self.look(2)
            self.told()
        self.assertEqual(self.adopted, [ONE])

    def test_too_large(self) -> None:
        """A sparse file of a terabyte is not read."""
        self.begin()
        with self.path.open("wb") as file:
            file.truncate(1 << 40)
        with patch.object(tablefile, "TABLE_FILE_BYTES", 1 << 20):
            self.look(2)
        [line] = self.told()
        self.assertIn("has more than 1 MiB: no mesh has so many hosts, is it the right file?", line)

    def test_unreadable_for_a_while(self) -> None:
        """Out of descriptors, say: the next looks try again although the file is the same."""
        self.begin()
        self.replace(text(TWO))
        with patch.object(tablefile.os, "open", side_effect=OSError(24, "Too many open files")):
            self.look(5)
        self.assertEqual(self.told(), [f"table file FILE: Too many open files; {self.force(ONE)}"])
        self.assertEqual(self.file.failures, 1)
        self.look()
        self.assertEqual(self.adopted, [ONE, TWO])

    def test_adoption_fails(self) -> None:
        """A bug behind `adopt` is logged, and the file is looked at all the same."""
        broken: list[Any] = []

        def adopt(held: Table) -> None:
            broken.append(held)
            raise RuntimeError("a bug")

        self.path.write_text(text(ONE), encoding="utf-8")
        file = TableFile(str(self.path), adopt, self.clock)
        self.addCleanup(file.stop)
        file.start()
        self.replace(text(TWO))
        self.look()
        self.assertEqual(broken, [ONE, TWO])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)


class LargeTests(FileCase):
    def setUp(self) -> None:
        super().setUp()
        self.large = Table.of(table.entry({"host": f"h{number}"}) for number in range(3 * TABLE_STEP))

    def test_read_whole_at_the_start(self) -> None:
        self.begin(self.large)
        self.assertEqual(self.adopted, [self.large])

    def test_others_get_a_turn(self) -> None:
        """A large file that changed is read in parts: whatever else is due runs in between."""
        self.begin()
        self.replace(text(self.large))
        turns: list[int] = []

        def count() -> None:
            turns.append(len(self.adopted))
            if len(self.adopted) < 2:
                self.clock.callLater(0, count)

        self.clock.callLater(TABLE_FILE_POLL, count)
        self.look()
        self.assertEqual(self.adopted, [ONE, self.large])
        self.assertFalse(
            self.collecting, "all that was read is searched for garbage before anybody has said that it is none"
        )
        self.assertEqual(turns, [1, 1, 1, 1, 2])

    def test_stopped_in_between(self) -> None:
        """Nothing is adopted any more, and garbage is collected again."""
        self.begin()
        self.replace(text(self.large))
        self.clock.callLater(TABLE_FILE_POLL, self.file.stop)
        self.look(3)
        self.assertEqual(self.adopted, [ONE])
        self.assertTrue(gc.isenabled())
