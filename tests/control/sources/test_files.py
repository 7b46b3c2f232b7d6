"""Directory trees that change (rule C1): every way in which files come, change and go."""

import os
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from meshdns.control.model import Service, Update
from meshdns.control.sources.files import Files
from meshdns.defaults import FILES_POLL

TEXT = "apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: ns1}\nspec: {clusterIP: %s}\n"


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(mkdtemp(prefix="meshdns-files-"))
        self.addCleanup(rmtree, self.folder, ignore_errors=True)
        self.tree = self.folder / "tree"
        self.tree.mkdir()
        self.clock = Clock()
        self.held: dict[str, str] = {}
        self.files = self.open(self.tree)

    def open(self, *paths: Path) -> Files:
        files = Files("east", [str(path) for path in paths], self.changed, self.clock)
        self.addCleanup(files.stop)
        return files

    def changed(self, update: Update) -> None:
        for each in update.changed:
            assert isinstance(each, Service)
            self.held[each.ref.name] = each.ips[0]
        for ref in update.gone:
            del self.held[ref.name]

    def write(self, name: str, ip: str = "10.0.0.1", file: str = "") -> Path:
        path = self.tree / (file or f"{name}.yaml")
        path.parent.mkdir(exist_ok=True, parents=True)
        new = path.with_name(f".{path.name}.new")
        new.write_text(TEXT % (name, ip))
        new.replace(path)
        return path

    def look(self, times: int = 1) -> dict[str, str]:
        """So many looks, with all their breaths."""
        for _ in range(times):
            self.clock.advance(FILES_POLL)
            while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
                self.clock.advance(0)
        return self.held

    def start(self) -> dict[str, str]:
        self.files.start()
        return self.look()


class ChangeTests(Case):
    def test_first_look(self) -> None:
        """C1: everything below, in folders, too; synced when all has been read."""
        self.write("a")
        self.write("b", file="deep/er/b.yml")
        self.write("c", file="c.json").write_text(
            '{"apiVersion": "v1", "kind": "Service",\n "metadata": {"name": "c"}, "spec": {"clusterIP": "10.0.0.3"}}\n'
        )
        self.assertFalse(self.files.synced)
        self.assertEqual({"a": "10.0.0.1", "b": "10.0.0.1", "c": "10.0.0.3"}, self.start())
        self.assertTrue(self.files.synced)

    def test_replaced(self) -> None:
        """A new file under an old name is taken at the next look."""
        self.write("a")
        self.start()
        self.write("a", "10.0.0.2")
        self.assertEqual({"a": "10.0.0.2"}, self.look())

    def test_written_in_place(self) -> None:
        """A file that is being written is read when it stands still: half of it would be half a mesh."""
        path = self.write("a")
        self.start()
        with path.open("w") as opened:
            self.assertEqual({"a": "10.0.0.1"}, self.look())
            opened.write(TEXT % ("a", "10.0.0.2"))
        self.assertEqual({"a": "10.0.0.1"}, self.look())
        self.assertEqual({"a": "10.0.0.2"}, self.look())

    def test_gone(self) -> None:
        path = self.write("a")
        self.write("b", file="sub/b.yaml")
        self.start()
        path.unlink()
        rmtree(self.tree / "sub")
        self.assertEqual({}, self.look())

    def test_config_map(self) -> None:
        """A ConfigMap's mount: links through `..data`, which is swapped."""
        for number, ip in enumerate(("10.0.0.1", "10.0.0.2")):
            version = self.tree / f"..version-{number}"
            version.mkdir()
            (version / "a.yaml").write_text(TEXT % ("a", ip))
        (self.tree / "..data").symlink_to("..version-0")
        (self.tree / "a.yaml").symlink_to("..data/a.yaml")
        self.assertEqual({"a": "10.0.0.1"}, self.start())
        (self.tree / "..new").symlink_to("..version-1")
        (self.tree / "..new").replace(self.tree / "..data")
        self.assertEqual({"a": "10.0.0.2"}, self.look())

    def test_editors_leavings(self) -> None:
        self.write("a")
        for name in (".a.yaml.swp", "a.yaml~", "#a.yaml#", ".#a.yaml", "a.yaml.orig", "README.md", ".hidden.yaml"):
            (self.tree / name).write_text(TEXT % ("other", "10.0.0.9"))
        self.assertEqual({"a": "10.0.0.1"}, self.start())

    def test_single_file(self) -> None:
        self.files = self.open(self.write("a"), self.write("b"))
        self.assertEqual({"a": "10.0.0.1", "b": "10.0.0.1"}, self.start())


class BadDayTests(Case):
    def test_not_there_yet(self) -> None:
        """C1, X6: a directory that is missing at the start is no empty one: not synced, and a problem says so."""
        self.tree.rmdir()
        self.start()
        self.assertFalse(self.files.synced)
        self.assertIn("cannot be read: No such file or directory", str(self.files.problems[0]))
        self.write("a")
        self.look()
        self.assertEqual(({"a": "10.0.0.1"}, True, []), (self.held, self.files.synced, self.files.problems))

    def test_vanishes_and_returns(self) -> None:
        """A directory that vanishes takes nothing with it."""
        self.write("a")
        self.start()
        self.tree.rename(self.folder / "away")
        self.assertEqual({"a": "10.0.0.1"}, self.look())
        self.assertEqual(1, len(self.files.problems))
        (self.folder / "away").rename(self.tree)
        self.write("b")
        self.assertEqual({"a": "10.0.0.1", "b": "10.0.0.1"}, self.look())
        self.assertEqual([], self.files.problems)

    def test_circles_and_fifos(self) -> None:
        """Links in circles, links to nothing, pipes: passed over."""
        self.write("a")
        (self.tree / "loop").symlink_to(self.tree)
        (self.tree / "lost.yaml").symlink_to("nowhere")
        os.mkfifo(self.tree / "pipe.yaml")
        self.assertEqual({"a": "10.0.0.1"}, self.start())

    def test_broken_blocks_nobody(self) -> None:
        """C1: reported with file and line; the last good version stays; the others go on."""
        self.write("a")
        path = self.write("b")
        self.start()
        self.write("b", "nonsense")
        self.write("a", "10.0.0.2")
        self.assertEqual({"a": "10.0.0.2", "b": "10.0.0.1"}, self.look())
        self.assertEqual([f"{path}:4"], [f"{each.file}:{each.line}" for each in self.files.problems])
        self.write("b", "10.0.0.3")
        self.assertEqual({"a": "10.0.0.2", "b": "10.0.0.3"}, self.look())

    def test_too_many(self) -> None:
        self.patch(__import__("meshdns.control.sources.files", fromlist=["x"]), "FILES_MOST", 3)
        for number in range(5):
            self.write(f"s{number}")
        self.start()
        self.assertIn("there are more than 3 files", str(self.files.problems[0]))

    def test_stopped(self) -> None:
        self.write("a")
        self.start()
        self.files.stop()
        self.assertEqual([], self.clock.getDelayedCalls())
