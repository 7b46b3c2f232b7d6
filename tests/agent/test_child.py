"""A worker's process as the main process sees it: asked how it does, told what it must know, ended when it hangs. No process."""

import json
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from meshdns.agent.child import WITH_COUNTS, Child
from meshdns.agent.counts import Counts, pack
from meshdns.agent.frames import Frames, Word, frame
from meshdns.defaults import DRAIN, WORKER_BEAT, WORKER_MISSED, WORKER_START, WORKER_STOP
from tests.agent.test_adoption import many

COUNTS = Counts(queries={("udp", "A", "NOERROR", "mesh"): 7}, upstreams=[])


class Pipe:
    """The transport of a process."""

    pid: int | None = 77  # until it has ended

    def __init__(self) -> None:
        self.octets = b""
        self.signals: list[str] = []
        self.gone = False

    def write(self, octets: bytes) -> None:
        self.octets += octets

    def signalProcess(self, signal: str) -> None:
        if self.gone:
            raise ProcessExitedAlready
        self.signals.append(signal)

    def registerProducer(self, producer: Any, streaming: bool) -> None: ...


class Reactor(Clock):
    """Starts nothing."""

    def spawnProcess(self, child: Child, *words: Any, **more: Any) -> None:
        self.words, self.more = words, more
        child.makeConnection(Pipe())


class ChildTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.reactor = Reactor()
        self.heard: list[str] = []
        self.child = Child(2, self, self.reactor)
        self.child.start("a.module", [])
        self.pipe: Pipe = self.child.transport
        self._frames = Frames()
        self._read = 0

    # from the child

    def ready(self, child: Child) -> None:
        self.heard.append("ready")

    def gone(self, child: Child, why: str) -> None:
        self.heard.append(why)

    # from the test

    def told(self) -> list[tuple[Word, bytes]]:
        """What it was told since this was asked."""
        octets, self.pipe.octets = self.pipe.octets, b""
        return [*self._frames.feed(octets)]

    def beats(self, answered: bool = True) -> list[int]:
        """The beats that it was told, answered at once."""
        found = [content for word, content in self.told() if word is Word.BEAT]
        for each in found if answered else ():
            counts = pack(COUNTS) if each[4:] == WITH_COUNTS else b""
            self.child.outReceived(frame(Word.COUNTS, each[:4] + counts))
        return [int.from_bytes(each[:4]) for each in found]

    def pass_beats(self, count: int) -> None:
        for _ in range(count):
            self.reactor.advance(WORKER_BEAT)

    def end(self, failure: Exception | None = None) -> None:
        self.pipe.pid = None
        self.child.processEnded(Failure(failure or ProcessDone(0)))
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_start(self) -> None:
        """It imports from where this process does, and from nowhere else."""
        _, words, environment = self.reactor.words
        self.assertEqual(["-P", "-m", "a.module", "2"], words[1:])
        self.assertIn("PYTHONPATH", environment)
        self.assertEqual({0: "w", 1: "r", 2: "r"}, self.reactor.more["childFDs"])
        self.end()

    def test_beats(self) -> None:
        """One that answers is asked for ever, and its counts are known, from time to time."""
        for number in range(1, 20):
            self.pass_beats(1)
            self.assertEqual([number], self.beats())
        self.assertEqual(COUNTS, self.child.counts)
        self.assertEqual([], self.heard)
        self.end()

    def test_hangs(self) -> None:
        """It is ended when it has missed so many beats, at once and once."""
        self.pass_beats(1)
        self.beats()
        self.pass_beats(WORKER_MISSED)
        self.assertEqual([], self.pipe.signals)
        self.pass_beats(1)
        self.assertEqual(["KILL"], self.pipe.signals)
        self.assertEqual(["it has not answered for 0.6 s"], self.heard)
        self.end(ProcessTerminated(signal=9))
        self.assertEqual(1, len(self.heard))

    def test_we_hang(self) -> None:
        """When it is we who stood still, it is given the time to be heard."""
        self.pass_beats(1)
        self.beats()
        self.reactor.advance(100 * WORKER_BEAT)
        self.assertEqual([], self.pipe.signals)
        self.beats()
        self.pass_beats(1)
        self.beats()
        self.assertEqual([], self.heard)
        self.end()

    def test_slow_start(self) -> None:
        """Before its first word it has longer, but not for ever."""
        self.pass_beats(int(WORKER_START / WORKER_BEAT))
        self.assertEqual([], self.pipe.signals)
        self.pass_beats(2)
        self.assertEqual((["KILL"], ["it does not start"]), (self.pipe.signals, self.heard))
        self.end()

    def test_look(self) -> None:
        """A look is over when a beat that was sent after it was asked for is answered, or the process has ended."""
        self.pass_beats(1)
        first = self.told()[0][1][:4]
        looking = self.child.look()
        self.child.outReceived(frame(Word.COUNTS, first))
        self.assertNoResult(looking)
        self.beats()
        self.successResultOf(looking)
        self.assertEqual(COUNTS, self.child.counts)
        given_up = self.child.look()
        given_up.addErrback(lambda _: None)
        given_up.cancel()
        last = self.child.look()
        self.end()
        self.successResultOf(last)

    def test_table(self) -> None:
        """Tables are told as fast as the pipe takes them; the addresses come behind the table, beats in between."""
        self.child.pauseProducing()
        self.child.tell_table(many(1000))
        self.child.open([("127.0.0.1", 53)])
        self.assertEqual([], self.told())
        self.child.resumeProducing()
        words = [word for word, _ in self.told()]
        self.assertEqual([Word.BEGIN, Word.END, Word.OPEN], [word for word in words if word is not Word.LINES])
        self.assertIs(Word.OPEN, words[-1])
        self.child.pauseProducing()
        self.child.tell_table(many(10))
        self.pass_beats(1)
        self.assertEqual([Word.BEAT], [word for word, _ in self.told()])
        self.child.stopProducing()
        self.end()

    def test_pipe_fills(self) -> None:
        """No more is said at once than the pipe takes."""

        def full(octets: bytes, write: Any = self.pipe.write) -> None:
            write(octets)
            self.child.pauseProducing()

        self.patch(self.pipe, "write", full)
        self.child.tell_table(many(1000))
        self.assertEqual([Word.BEGIN], [word for word, _ in self.told()])
        self.child.resumeProducing()
        self.assertEqual([Word.LINES], [word for word, _ in self.told()])
        self.end()

    def test_ready(self) -> None:
        self.child.outReceived(frame(Word.READY))
        self.assertEqual(["ready"], self.heard)
        self.end()

    def test_log(self) -> None:
        """Its log is part of ours, with level and source."""
        said = {"level": "warn", "source": "meshdns.agent.doors", "message": "a {curious} thing"}
        self.child.outReceived(frame(Word.SAID, json.dumps(said).encode()))
        (event,) = self.events
        self.assertEqual("worker 2: a {curious} thing", formatEvent(event))
        self.assertEqual((LogLevel.warn, "meshdns.agent.doors"), (event["log_level"], event["log_namespace"]))
        self.end()

    def test_nonsense(self) -> None:
        """One that says what makes no sense is ended."""
        cases = [b"\0\0\0\0\0", frame(Word.STOP), frame(Word.COUNTS, b"1234{"), frame(Word.SAID, b'{"level": "?"}')]
        for octets in [*cases, frame(Word.COUNTS, b"1234[]")]:
            child = Child(2, self, self.reactor)
            child.start("a.module", [])
            child.outReceived(octets)
            self.assertEqual(["KILL"], child.transport.signals, octets)
            self.assertIn("it said nonsense", self.heard[-1])
        self.end()

    def test_dies(self) -> None:
        """Why is told, with its last words, but not with all of them."""
        self.child.errReceived(b"x" * 100_000 + b"ImportError: no such module\n")
        self.end(ProcessTerminated(exitCode=1))
        self.assertEqual(77, self.child.pid)
        self.assertRegex(self.heard[0], "^status 1; its last words: x{,5000}ImportError: no such module$")

    def test_stop(self) -> None:
        """It is told to end, and has the time to answer what it was asked."""
        self.child.stop()
        self.assertEqual([Word.STOP], [word for word, _ in self.told()])
        self.reactor.advance(DRAIN + WORKER_STOP - 0.1)
        self.assertEqual([], self.heard)
        self.reactor.advance(0.2)
        self.assertEqual((["KILL"], ["it did not end"]), (self.pipe.signals, self.heard))
        self.end()

    def test_already_gone(self) -> None:
        self.pipe.gone = True
        self.child.kill("for a reason")
        self.assertEqual(["for a reason"], self.heard)
        self.end()
