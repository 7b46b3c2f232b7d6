"""Every source does what the mesh asks of one (rules C1, X6): files, and the double that tests use in their place."""

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from meshdns.control.sources.files import Files
from meshdns.defaults import FILES_POLL
from tests.control.contract import TEXT, SourceContract
from tests.control.double import MemorySource


class FilesTests(SourceContract, SynchronousTestCase):
    source: Files

    def setUp(self) -> None:
        self.tree = Path(mkdtemp(prefix="meshdns-source-"))
        self.addCleanup(rmtree, self.tree)
        self.clock = Clock()

    def begin(self) -> None:
        self.source = Files("east", [str(self.tree)], self.changed, self.clock)
        self.source.start()
        self.look()
        self.addCleanup(self.end)

    def put(self, name: str, ip: str, place: str) -> None:
        new = self.tree / f".{place}"
        new.write_text(TEXT % (name, ip))
        new.replace(self.tree / place)

    def remove(self, place: str) -> None:
        (self.tree / place).unlink()

    def look(self) -> None:
        self.clock.advance(FILES_POLL)
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)

    def end(self) -> None:
        self.source.stop()
        self.assertEqual([], self.clock.getDelayedCalls())


class MemoryTests(SourceContract, SynchronousTestCase):
    source: MemorySource

    def setUp(self) -> None:
        self.documents: dict[str, str] = {}
        self.begun = False

    def begin(self) -> None:
        self.source = MemorySource("east", self.changed)
        self.begun = True
        for place, text in self.documents.items():
            self.source.write(place, text)
        self.source.sync()

    def put(self, name: str, ip: str, place: str) -> None:
        self.documents[place] = TEXT % (name, ip)
        if self.begun:
            self.source.write(place, self.documents[place])

    def remove(self, place: str) -> None:
        self.source.erase(place)

    def look(self) -> None:
        """It has seen it already."""

    def end(self) -> None:
        self.source.stop()
