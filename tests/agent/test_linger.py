"""The short way round the reactor: who lingers must notice at once what else the reactor is wanted for."""

import select
import socket
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from meshdns.agent.linger import Linger

WAIT = 5.0


@implementer(IReadDescriptor)
class Reader:
    """A socket read by way of a Linger: what came, and whether the reactor brought it."""

    def __init__(self, linger: Linger) -> None:
        self.got: list[bytes] = []
        self.rounds = 0  # of the reactor
        self.on_read: Callable[[], object] = lambda: None
        self._linger = linger
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ours.setblocking(False)
        linger.add(self.ours.fileno(), self.read)
        reactor.addReader(self)  # type: ignore[attr-defined]

    def fileno(self) -> int:
        return self.ours.fileno()

    def logPrefix(self) -> str:
        return "reader"

    def connectionLost(self, reason: Any) -> None: ...

    def doRead(self) -> None:
        self.rounds += 1
        self._linger.read(self.read)

    def read(self) -> None:
        try:
            self.got.append(self.ours.recv(100))
        except BlockingIOError:
            return
        self.on_read()
        self.ours.send(b"read")

    def close(self) -> None:
        if self.ours.fileno() < 0:
            return
        reactor.removeReader(self)  # type: ignore[attr-defined]
        self._linger.remove(self.ours.fileno())
        self.ours.close()
        self.theirs.close()


class Busy:
    """A reactor that is wanted after one look."""

    running = True

    def __init__(self) -> None:
        self._waits = [0.01, 0.0]

    def timeout(self) -> float:
        return self._waits.pop(0)

    def seconds(self) -> float:
        return 0.0


class LingerTests(TestCase):
    def setUp(self) -> None:
        self.linger = Linger(reactor)
        self.one, self.two = self.reader(), self.reader()

    def reader(self) -> Reader:
        reader = Reader(self.linger)
        self.addCleanup(reader.close)
        return reader

    def say(self, *words: tuple[Reader, bytes]) -> None:
        """From a thread, one word after the other, each when the one before was read."""
        for reader, word in words:
            reader.theirs.settimeout(WAIT)
            reader.theirs.send(word)
            self.assertEqual(b"read", reader.theirs.recv(10))

    async def test_it_stays(self) -> None:
        """Packets one by one, at whichever of the sockets, are read in one round of the reactor."""
        if not hasattr(reactor, "_poller"):
            return
        words = [(self.one if n % 3 else self.two, b"%d" % n) for n in range(100)]
        await deferToThread(self.say, *words)
        self.assertEqual(100, len(self.one.got) + len(self.two.got))
        self.assertLess(self.one.rounds + self.two.rounds, 20)

    async def test_timers(self) -> None:
        """A timer has its turn, whether it was set before or by what was read, while packets go on coming."""
        fired: list[str] = []
        reactor.callLater(0.05, fired.append, "before")  # type: ignore[attr-defined]
        self.one.on_read = lambda: self.set_once(fired)

        def flood() -> float:
            began = time.monotonic()
            while len(fired) < 2 and time.monotonic() < began + WAIT:
                self.say((self.one, b"x"))
            return time.monotonic() - began

        self.assertLess(await deferToThread(flood), WAIT)
        self.assertEqual({"read", "before"}, set(fired))

    def set_once(self, fired: list[str]) -> None:
        if len(self.one.got) == 1:
            reactor.callLater(0.02, fired.append, "read")  # type: ignore[attr-defined]

    async def test_others(self) -> None:
        """A descriptor of somebody else, and a call from a thread, have their turn while packets go on coming."""
        other, woken = socket.socketpair(), Deferred[bytes]()
        self.addCleanup(other[0].close)
        self.addCleanup(other[1].close)

        @implementer(IReadDescriptor)
        class Stranger:
            def fileno(self) -> int:
                return other[0].fileno()

            def logPrefix(self) -> str:
                return "stranger"

            def connectionLost(self, reason: Any) -> None: ...

            def doRead(self) -> None:
                reactor.removeReader(self)  # type: ignore[attr-defined]
                woken.callback(other[0].recv(10))

        reactor.addReader(Stranger())  # type: ignore[attr-defined]

        def talk() -> bool:
            self.say((self.one, b"a"), (self.one, b"b"))
            other[1].send(b"stranger")
            began = time.monotonic()
            while not woken.called and time.monotonic() < began + WAIT:
                self.say((self.one, b"c"))
            return woken.called

        self.assertTrue(await deferToThread(talk))
        self.assertEqual(b"stranger", await woken)

    def test_who_is_gone(self) -> None:
        """What is read may close another socket that is ready, too."""
        read: list[Reader] = []
        for reader, other in ((self.one, self.two), (self.two, self.one)):
            self.linger.add(reader.fileno(), lambda reader=reader, other=other: read.append(reader) or other.close())
            reader.theirs.send(b"x")
        waiting = select.epoll()
        self.addCleanup(waiting.close)
        for reader in (self.one, self.two):
            waiting.register(reader.fileno(), select.EPOLLIN)
        self.linger._poll = waiting.poll
        self.linger._reactor = Busy()
        self.linger.read(lambda: None)
        self.assertEqual(1, len(read))

    def test_settled(self) -> None:
        """What says that it has set no timer is believed: until the next timer that was known the reactor is not asked again."""
        said: list[bool] = [False, True, True, False]
        busy, now = Busy(), [0.0]
        busy._waits = [0.01, 0.01, 0.0]
        busy.seconds = lambda: now[0]  # type: ignore[method-assign]
        self.one.theirs.send(b"x")
        self.linger.add(self.one.fileno(), lambda: said.pop(0))
        waiting = select.epoll()
        self.addCleanup(waiting.close)
        waiting.register(self.one.fileno(), select.EPOLLIN)
        self.linger._poll = waiting.poll
        self.linger._reactor = busy
        self.linger.read(lambda: None)
        self.assertEqual(([], []), (said, busy._waits))
        said[:], busy._waits[:] = [True, True], [0.01]
        self.linger.add(self.one.fileno(), lambda: now.append(now.pop(0) + 0.006) or said.pop(0))
        self.linger.read(lambda: None)
        self.assertEqual(([], []), (said, busy._waits))

    def test_other_reactors(self) -> None:
        """Without an epoll of the reactor's there is one read, and nobody waits."""
        other = Clock()
        other.running, other._poller = True, select.poll()  # type: ignore[attr-defined]  # as Twisted's poll reactor has it
        read: list[int] = []
        for each in (Clock(), other):
            Linger(each).read(lambda: read.append(1))
        self.assertEqual([1, 1], read)
