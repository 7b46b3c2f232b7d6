"""Root: a worker: a process that answers, on sockets and with tables that the main process gives it.

What it is told enters on standard input, what it says leaves on standard output (`frames`); when the first ends, it ends, too. It
reads no file of configuration, follows no control plane, and is asked by nobody but clients and the main process.
"""

import gc
import json
import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogBeginner
from twisted.python.failure import Failure

from meshdns.agent import counts
from meshdns.agent.answering import Answering, prepare
from meshdns.agent.child import FIRST, WITH_COUNTS
from meshdns.agent.frames import Frames, Word, frame
from meshdns.defaults import WORKER_ALONE
from meshdns.net.supervisor import Passed
from meshdns.table import Loader, Table

_TWISTED = "log_legacy"  # where its older parts log
_KINDS = (socket.SOCK_DGRAM, socket.SOCK_STREAM)


class Worker(Protocol):
    """What is told, carried out."""

    transport: Any

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._frames = Frames()
        self._answering: Answering | None = None
        self._passed: dict[tuple[int, str, int], socket.socket] = {}
        self._loader = Loader()
        self._held: Table | None = None
        self._alone: IDelayedCall | None = None
        self._full = False
        self._stopping = False
        self._told: dict[Word, Callable[[bytes], None]] = {
            Word.SETTINGS: self._use,
            Word.BEGIN: self._begin,
            Word.LINES: self._load,
            Word.END: self._end,
            Word.OPEN: self._open,
            Word.BEAT: self._beat,
            Word.STOP: self._stop,
        }

    # from the pipe

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        try:
            for word, content in self._frames.feed(data):
                self._told[word](content)
        except Exception:
            self._die()

    def _again(self, word: Word, content: bytes) -> None:
        """What could not be done yet."""
        try:
            self._told[word](content)
        except Exception:
            self._die()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The main process is no more, or has no more use for us."""
        if self._reactor.running:
            self._reactor.stop()

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False

    def stopProducing(self) -> None:
        self._full = True

    # from the log

    def log(self, event: LogEvent) -> None:
        """Events go where the main process's go; not more than it takes, and not that Twisted opened a socket."""
        failure, level = event.get("log_failure"), event.get("log_level")
        if self._full or self.transport is None or (event.get("log_namespace") == _TWISTED and level is LogLevel.info):
            return
        message = formatEvent(event) + (f"\n{failure.getTraceback()}" if failure else "")
        said = {"level": level.name if level else "info", "source": event.get("log_namespace", ""), "message": message}
        self._say(Word.SAID, json.dumps(said).encode())

    # What is told

    def _use(self, content: bytes) -> None:
        config, conf = pickle.loads(content)  # by our own parent, and by nobody else
        if self._answering is None:
            self._answering = Answering(config, conf, self._reactor, self._take_passed)
            self._answering.start()
        else:
            self._answering.use(config, conf)

    def _begin(self, content: bytes) -> None:
        gc.disable()  # nothing read from now on is garbage
        self._loader = Loader(self._held)

    def _load(self, content: bytes) -> None:
        for line in content.split(b"\n"):
            self._loader.feed(line)

    def _end(self, content: bytes) -> None:
        self._held = self._loader.finish()
        self._loader = Loader()
        gc.enable()
        self._mine.adoption.take(self._held)

    def _open(self, content: bytes) -> None:
        """Answer, once the table is in force."""
        if self._mine.adoption.busy:
            self._reactor.callLater(0, self._again, Word.OPEN, content)
            return
        if self._stopping:
            return
        addresses = [(host, port) for host, port in json.loads(content)]
        for place, address in enumerate(addresses):
            for kind in _KINDS:
                self._passed[kind, *address] = Passed(fileno=FIRST + 2 * place + _KINDS.index(kind))
        self._mine.doors.listen(addresses)
        self._say(Word.READY)

    def _beat(self, content: bytes) -> None:
        if self._alone is None:
            self._alone = self._reactor.callLater(WORKER_ALONE, self._left_alone)
        else:
            self._alone.reset(WORKER_ALONE)
        self._say(Word.COUNTS, content[:4] + (self._counts() if content[4:] == WITH_COUNTS else b""))

    def _stop(self, content: bytes) -> None:
        self._stopping = True
        Deferred.fromCoroutine(self._stopped())

    async def _stopped(self) -> None:
        await self._mine.stop()
        self._say(Word.COUNTS, bytes(4) + self._counts())
        self.transport.loseConnection()

    def _die(self) -> None:
        """A bug, here or in who told us: the main process hears of it as last words, and another worker begins anew."""
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)

    def _left_alone(self) -> None:
        """The main process hangs. What asks us whether the agent lives must not hear that all is well."""
        self._reactor.stop()

    # What is said

    @property
    def _mine(self) -> Answering:
        assert self._answering is not None  # the settings are told first
        return self._answering

    def _take_passed(self, kind: int, host: str, port: int) -> socket.socket | None:
        return self._passed.pop((kind, host, port), None)

    def _counts(self) -> bytes:
        mine = self._mine
        return counts.pack(counts.Counts.of(mine.resolver, mine.ledger, mine.routes))

    def _say(self, word: Word, content: bytes = b"") -> None:
        self.transport.write(frame(word, content))


def run(reactor: Any) -> None:
    """One worker, for as long as it is told to."""
    prepare(reactor)
    for ignored in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # they are for the main process, which passes them on
        signal.signal(ignored, signal.SIG_IGN)
    worker = Worker(reactor)
    StandardIO(worker, reactor=reactor)
    log = cast(ILogObserver, worker.log)
    globalLogBeginner.beginLoggingTo([log], redirectStandardIO=False, discardBuffer=True)
    reactor.run(installSignalHandlers=False)
