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

    def close(self) -> None:
        reactor.removeReader(self)  # type: ignore[attr-defined]
        self._linger.remove(self.ours.fileno())
        self.ours.close()
        self.theirs.close()


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
            reader.theirs.send(word)
            end = time.monotonic() + WAIT
            while word not in reader.got and time.monotonic() < end:
                pass

    async def test_it_stays(self) -> None:
        """Packets one by one, at whichever of the sockets, are read in one round of the reactor."""
        if not hasattr(reactor, "_poller"):
            return
        words = [(self.one if n % 3 else self.two, b"%d" % n) for n in range(100)]
        await deferToThread(self.say, *words)
        self.assertEqual(100, len(self.one.got) + len(self.two.got))
        self.assertLess(self.one.rounds + self.two.rounds, 20)

    async def test_timers(self) -> None:
        """A timer is not late, whether it was set before or by what was read, and however many packets come."""
        fired: list[float] = []
        began = time.monotonic()
        self.one.on_read = lambda: (
            reactor.callLater(0.02, lambda: fired.append(time.monotonic()))  # type: ignore[attr-defined]
            if len(self.one.got) == 1
            else None
        )
        reactor.callLater(0.05, lambda: fired.append(time.monotonic()))  # type: ignore[attr-defined]

        def flood() -> None:
            number = 0
            while time.monotonic() < began + 0.3:
                self.say((self.one, b"%d" % (number := number + 1)))

        await deferToThread(flood)
        self.assertEqual(2, len(fired))
        self.assertLess(fired[0] - began, 0.045)
        self.assertLess(fired[1] - began, 0.1)

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
            self.say((self.one, b"c"))
            end = time.monotonic() + WAIT
            while not woken.called and time.monotonic() < end:
                pass
            return woken.called

        self.assertTrue(await deferToThread(talk))
        self.assertEqual(b"stranger", await woken)

    async def test_who_is_gone(self) -> None:
        """What is read may close a socket that is ready, too."""
        self.one.on_read = lambda: self.two.close()
        self.one.theirs.send(b"a")
        self.two.theirs.send(b"b")
        await deferToThread(self.say, (self.one, b"c"))
        self.assertEqual(b"c", self.one.got[-1])

    def test_other_reactors(self) -> None:
        """Without an epoll of the reactor's there is one read, and nobody waits."""
        other = Clock()
        other.running, other._poller = True, select.poll()  # type: ignore[attr-defined]  # as Twisted's poll reactor has it
        read: list[int] = []
        for each in (Clock(), other):
            Linger(each).read(lambda: read.append(1))
        self.assertEqual([1, 1], read)
