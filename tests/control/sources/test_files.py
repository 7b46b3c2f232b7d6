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

    def test_neither_file_nor_directory(self) -> None:
        """C1, X6: a pipe or a device in the place of a tree: nobody waits for it, and it is no empty one."""
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        for path in (pipe, Path("/dev/zero")):
            self.files = self.open(path)
            self.start()
            self.assertFalse(self.files.synced)
            self.assertEqual(
                f"{path}:1: is neither a file nor a directory; what it gave last stays", str(self.files.problems[0])
            )

    def test_becomes_a_pipe(self) -> None:
        """C1: what a tree gave stays when something else stands in its place."""
        self.write("a")
        self.start()
        self.tree.rename(self.folder / "away")
        os.mkfifo(self.tree)
        self.assertEqual(({"a": "10.0.0.1"}, 1), (self.look(), len(self.files.problems)))
        self.tree.unlink()
        (self.folder / "away").rename(self.tree)
        self.assertEqual(({"a": "10.0.0.1"}, 0), (self.look(), len(self.files.problems)))

    def test_swapped_again_and_again(self) -> None:
        """C1: a ConfigMap's `..data` swapped at every look, with objects that come and go and old versions removed at once."""
        self.write("other")
        for number in range(6):
            version = self.tree / f"..version-{number}"
            version.mkdir()
            names = ["a", "b"] if number % 2 else ["a"]
            for name in names:
                (version / f"{name}.yaml").write_text(TEXT % (name, f"10.0.0.{number}"))
            (self.tree / "..new").symlink_to(version.name)
            (self.tree / "..new").replace(self.tree / "..data")
            for name in ("a", "b"):
                link = self.tree / f"{name}.yaml"
                if name in names and not link.is_symlink():
                    link.symlink_to(f"..data/{name}.yaml")
                elif name not in names and link.is_symlink():
                    link.unlink()
            rmtree(self.tree / f"..version-{number - 1}", ignore_errors=True)
            self.start() if number == 0 else self.look()
            self.assertEqual({"other": "10.0.0.1"} | dict.fromkeys(names, f"10.0.0.{number}"), self.held)
            self.assertEqual([], self.files.problems)

    def test_large_document(self) -> None:
        """C1: one document of ten MiB is read as it stands there, and so is what changes in it."""
        rows = "".join(f"- {{kind: ConfigMap, data: {'x' * 1000}, number: {number}}}\n" for number in range(10_100))
        one = "- {apiVersion: v1, kind: Service, metadata: {name: a, namespace: ns1}, spec: {clusterIP: %s}}\n"
        path = self.tree / "large.yaml"
        for ip in ("10.0.0.1", "10.0.0.2"):
            new = path.with_name(".new")
            new.write_text(f"kind: List\napiVersion: v1\nitems:\n{rows}{one % ip}")
            self.assertGreater(new.stat().st_size, 10 << 20)
            new.replace(path)
            self.start() if ip == "10.0.0.1" else self.look()
            self.assertEqual({"a": ip}, self.held)

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
