"""Rule D19: resolv.conf is read again when its content changes; with real files and a clock of our own."""

import os
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from meshdns.agent.watch import Watch
from meshdns.host import resolvconf

ONE = "nameserver 192.0.2.1\nsearch example.com\n"
TWO = "nameserver 192.0.2.2\nsearch example.com\n"


class WatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)
        self.file, self.other = self.folder / "resolv.conf", self.folder / "other.conf"
        self.file.write_text(ONE)
        self.clock = Clock()
        self.taken: list[resolvconf.Choice] = []
        self.reads = 0
        self.watch = Watch(
            [str(self.file), str(self.other)],
            self.read(),
            self.read,
            self.taken.append,
            self.clock,
            resolvconf.is_doubtful,
        )
        self.watch.start()
        self.reads = 0

    def tearDown(self) -> None:
        self.watch.stop()
        self.assertEqual([], self.clock.getDelayedCalls())

    def read(self) -> resolvconf.Choice:
        self.reads += 1
        return resolvconf.read(str(self.file), (), [str(self.other)])

    def passes(self, seconds: float) -> None:
        self.clock.pump([0.1] * round(seconds * 10))

    def servers(self) -> list[tuple[str, ...]]:
        return [choice.conf.nameservers for choice in self.taken]

    def replace(self, text: str) -> None:
        """Written aside and renamed, as NetworkManager, systemd and the kubelet do it."""
        new = self.folder / "new"
        new.write_text(text)
        new.rename(self.file)

    def test_nothing_changes(self) -> None:
        """A look costs a stat: nothing is read."""
        self.passes(60)
        self.assertEqual((0, []), (self.reads, self.taken))

    def test_atomic_replacement(self) -> None:
        self.replace(TWO)
        self.passes(1.5)
        self.assertEqual([("192.0.2.2",)], self.servers())
        self.passes(10)
        self.assertEqual(1, len(self.taken))

    def test_edit_in_place(self) -> None:
        """Also when mtime and size are what they were."""
        before = self.file.stat()
        self.file.write_text(TWO)
        os.utime(self.file, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.passes(1.5)
        self.assertEqual([("192.0.2.2",)], self.servers())

    def test_touched(self) -> None:
        """Content counts, not time: the same text, and another comment, change nothing."""
        os.utime(self.file, (1, 1))
        self.passes(2)
        self.replace("# a comment\n" + ONE)
        self.passes(2)
        self.assertEqual([], self.taken)

    def test_search_alone(self) -> None:
        self.replace(ONE.replace("example.com", "example.org"))
        self.passes(1.5)
        self.assertEqual([(b"\x07example\x03org\x00",)], [choice.conf.search for choice in self.taken])

    def test_half_written(self) -> None:
        """Emptied, then filled: the old servers stay until the new are there."""
        self.file.write_text("")
        self.passes(3)
        self.file.write_text(TWO)
        self.passes(1.5)
        self.assertEqual([("192.0.2.2",)], self.servers())

    def test_being_written(self) -> None:
        """Line by line: what has not settled is not taken."""
        self.passes(0.9)
        self.file.write_text("nameserver 192.0.2.3\n")
        self.passes(0.2)
        self.file.write_text("nameserver 192.0.2.3\nnameserver 192.0.2.4\n")
        self.passes(2)
        self.assertEqual([("192.0.2.3", "192.0.2.4")], self.servers())

    def test_left_empty(self) -> None:
        """What stays empty is believed in the end."""
        self.file.write_text("")
        self.passes(5)
        self.assertEqual([], self.taken)
        self.passes(3)
        self.assertEqual([()], self.servers())

    def test_removed_and_back(self) -> None:
        """A file that is gone for a moment changes nothing."""
        self.file.unlink()
        self.passes(3)
        self.file.write_text(ONE)
        self.passes(10)
        self.assertEqual([], self.taken)

    def test_fallback_steps_in(self) -> None:
        """D19: emptied, with another file that names servers: doubted as well, then taken."""
        self.other.write_text(TWO)
        self.passes(2)
        self.assertEqual([], self.taken)
        self.file.write_text("")
        self.passes(4)
        self.assertEqual([], self.taken)
        self.passes(4)
        self.assertEqual([("192.0.2.2",)], self.servers())

    def test_fallback_changes(self) -> None:
        """systemd-resolved's own file is watched, too."""
        self.other.write_text(ONE)
        self.replace("nameserver 127.0.0.53\n")
        self.passes(8)
        self.other.write_text(TWO)
        self.passes(1.5)
        self.assertEqual([("192.0.2.1",), ("192.0.2.2",)], self.servers())

    def test_symbolic_link(self) -> None:
        """A link that comes to point elsewhere, as a ConfigMap's `..data` does."""
        target = self.folder / "target"
        target.write_text(TWO)
        link = self.folder / "link"
        link.symlink_to(target.resolve())
        link.rename(self.file)
        self.passes(1.5)
        self.assertEqual([("192.0.2.2",)], self.servers())

    def test_changed_before_the_start(self) -> None:
        self.watch.stop()
        self.replace(TWO)
        self.watch.start()
        self.passes(1.5)
        self.assertEqual([("192.0.2.2",)], self.servers())

    def test_a_bug_does_not_end_it(self) -> None:
        def fail(choice: Any) -> None:
            self.taken.append(choice)
            raise RuntimeError("a bug")

        self.watch._take = fail
        self.replace(TWO)
        self.passes(5)
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))
        self.replace(ONE)
        self.passes(5)
        self.flushLoggedErrors(RuntimeError)
        self.assertEqual([("192.0.2.2",), ("192.0.2.1",)], self.servers())
