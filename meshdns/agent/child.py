"""Outside: a worker's process as the main process has it: started with its sockets, told what it must know, asked how it does.

Messages to it enter, and tables; what it says leaves: that it answers, its counts, its log, its end. A process that does not
answer is ended. It must never know what a worker does with packets.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from meshdns.agent.counts import Counts, unpack
from meshdns.agent.feed import Feed
from meshdns.agent.frames import Frames, Nonsense, Word, frame
from meshdns.defaults import DRAIN, WORKER_BEAT, WORKER_COUNTS, WORKER_LINE, WORKER_MISSED, WORKER_START, WORKER_STOP
from meshdns.table import Table

WITH_COUNTS = b"+"  # behind a beat's number: they are wanted, too
FIRST = 3  # the descriptor of the first socket in the process
_log = Logger()


class Post(Protocol):
    """Whose process it is."""

    def ready(self, child: "Child", /) -> None: ...
    def gone(self, child: "Child", why: str, /) -> None: ...


class Child(ProcessProtocol):
    """One process. `counts` are those that it told last."""

    transport: Any

    def __init__(self, number: int, post: Post, reactor: Any) -> None:
        self.number = number
        self.counts = Counts()
        self.pid = 0
        self.started = reactor.seconds()
        self._post = post
        self._reactor = reactor
        self._frames = Frames()
        self._feed = Feed()
        self._then: list[bytes] = []  # said when the table is told
        self._full = False
        self._beat = 0  # the last one, and the last that was answered
        self._answered = 0
        self._looks: list[tuple[int, Deferred[None]]] = []
        self._call: IDelayedCall | None = None
        self._over = False  # we ended it, or it has ended
        self._last_words = ""

    # from the workers

    def start(self, module: str, sockets: Sequence[Any]) -> None:
        words = [sys.executable, "-P", "-m", module, str(self.number)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        descriptors: dict[int, Any] = {0: "w", 1: "r", 2: "r"}
        descriptors |= {FIRST + place: each.fileno() for place, each in enumerate(sockets)}
        self._reactor.spawnProcess(self, sys.executable, words, environment, childFDs=descriptors)
        self._call = self._reactor.callLater(WORKER_BEAT, self._look_after)

    def tell(self, word: Word, content: bytes = b"") -> None:
        self.transport.write(frame(word, content))

    def tell_table(self, table: Table) -> None:
        self._feed.take(table)
        self._pump()

    def open(self, addresses: Sequence[tuple[str, int]]) -> None:
        """Once it has the table: answer at these addresses, whose sockets it has."""
        self._then.append(frame(Word.OPEN, json.dumps(addresses).encode()))
        self._pump()

    def look(self) -> Deferred[None]:
        """Once its counts are those of now."""
        done: Deferred[None] = Deferred()
        self._ask(counts=True)
        self._looks.append((self._beat, done))
        return done

    def stop(self) -> None:
        """Answer what has been asked, and end; soon, or it is ended."""
        if not self._over:
            self.tell(Word.STOP)
            self._later(DRAIN + WORKER_STOP, "it did not end")

    def kill(self, why: str) -> None:
        """End it now."""
        if self._over:
            return
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")
        self._end(why)

    # How it does

    def _look_after(self) -> None:
        self._call = self._reactor.callLater(WORKER_BEAT, self._look_after)
        missed = self._beat - self._answered
        # Beats are counted, and not seconds: when it is we who stood still, the answers have come and are only not read yet.
        if missed >= (WORKER_MISSED if self._answered else WORKER_START / WORKER_BEAT):
            self.kill(
                f"it has not answered for {missed * WORKER_BEAT:.1f} s" if self._answered else "it does not start"
            )
        else:
            self._ask(counts=self._beat % WORKER_COUNTS == 0)

    def _ask(self, *, counts: bool) -> None:
        self._beat += 1
        self.tell(Word.BEAT, self._beat.to_bytes(4) + (WITH_COUNTS if counts else b""))

    def _later(self, seconds: float, why: str) -> None:
        if self._call is not None:
            self._call.cancel()
        self._call = self._reactor.callLater(seconds, self.kill, why)

    # Tables

    def _pump(self) -> None:
        """Tell as much as the pipe takes now."""
        while not self._full and not self._over:
            message = self._feed.next() or (self._then.pop(0) if self._then else None)
            if message is None:
                return
            self.transport.write(message)

    # from the pipe to it

    def connectionMade(self) -> None:
        self.pid = self.transport.pid
        self.transport.registerProducer(self, True)

    def resumeProducing(self) -> None:
        self._full = False
        self._pump()

    def pauseProducing(self) -> None:
        self._full = True

    def stopProducing(self) -> None:
        self._full = True

    # from it

    def outReceived(self, data: bytes) -> None:
        try:
            for word, content in self._frames.feed(data):
                self._heard(word, content)
        except (Nonsense, ValueError, KeyError, TypeError) as error:
            self.kill(f"it said nonsense: {error}")

    def errReceived(self, data: bytes) -> None:
        """What Python says when there is no log yet, or none any more."""
        self._last_words = (self._last_words + data.decode("utf-8", "replace"))[-WORKER_LINE:]

    def processEnded(self, reason: Failure) -> None:
        last = f"; its last words: {self._last_words.strip()}" if self._last_words else ""
        self._end(_told(reason) + last)

    def _heard(self, word: Word, content: bytes) -> None:
        if word is Word.COUNTS:
            self._answered = max(self._answered, int.from_bytes(content[:4]))
            if content[4:]:
                self.counts = unpack(content[4:])
            self._seen()
        elif word is Word.READY:
            self._post.ready(self)
        elif word is Word.SAID:
            self._say(json.loads(content))
        else:
            raise Nonsense(f"{word.name} is not for it to say")

    def _seen(self) -> None:
        while self._looks and self._looks[0][0] <= self._answered:
            _, done = self._looks.pop(0)
            if not done.called:
                done.callback(None)

    def _say(self, said: Mapping[str, str]) -> None:
        level = LogLevel.lookupByName(said["level"])
        Logger(said["source"]).emit(level, "worker {number}: {said}", number=self.number, said=said["message"])

    def _end(self, why: str) -> None:
        if self._over:
            return
        self._over = True
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._answered = self._beat
        self._seen()
        self._post.gone(self, why)


def _told(reason: Failure) -> str:
    signal, status = getattr(reason.value, "signal", None), getattr(reason.value, "exitCode", None)
    return f"signal {signal}" if signal else f"status {status}"
