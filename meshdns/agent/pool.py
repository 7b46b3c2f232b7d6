"""Outside: the connected UDP sockets towards upstream servers, all behind one descriptor.

The reactor's way to each of hundreds is longer than reading it. What arrives leaves by a callable, with the socket that it came
through. It must never look into a message.
"""

import select
import socket
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from meshdns.agent.batch import Batch
from meshdns.defaults import UPSTREAM_READS
from meshdns.values import Server

_DATAGRAM = 65535


class Linger(Protocol):
    """The short way round the reactor."""

    def add(self, descriptor: int, read: Callable[[], object], /) -> None: ...
    def remove(self, descriptor: int, /) -> None: ...
    def read(self, read: Callable[[], object], /) -> None: ...


class Socket:
    """A connected UDP socket: the kernel lets pass only what comes from the server's address and port (rule D20)."""

    def __init__(self, server: Server, index: int, slot: int) -> None:
        self.server = index
        self.slot = slot
        self.place = index << 32 | slot << 16  # as `flights` has it
        family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect((server.host, server.port))
        except OSError:
            self._socket.close()
            raise
        self.number = self._socket.fileno()
        self.receive = self._socket.recv_into
        self.send = self._socket.send
        self.close = self._socket.close


@implementer(IReadDescriptor)
class Pool:
    """From each socket that is readable one datagram is read at a time, so that a flood on one leaves the others their turn."""

    _log = Logger()

    def __init__(self, reactor: Any, batch: Batch, linger: Linger) -> None:
        self._reactor = reactor
        self._seconds: Callable[[], float] = reactor.seconds
        self._batch = batch
        self._linger = linger
        # One buffer for all: to have 64 KiB allocated for each datagram costs more than to read it.
        self._buffer = bytearray(_DATAGRAM)
        self._view = memoryview(self._buffer)
        self._epoll = select.epoll()
        self._number = self._epoll.fileno()
        self._sockets: dict[int, Socket] = {}

    # from Upstream

    def start(self, arrived: Callable[[Socket, bytes, float], None], failed: Callable[[Socket, OSError], None]) -> None:
        """Begin to read; both are called for what comes through a socket."""
        self._arrived, self._failed = arrived, failed
        self._reactor.addReader(self)
        self._linger.add(self._number, self.read)

    def open(self, server: Server, index: int, slot: int) -> Socket:
        """A new socket, and so another port. Raises OSError."""
        one = Socket(server, index, slot)
        try:
            self._epoll.register(one.number, select.EPOLLIN)
        except OSError:
            one.close()
            raise
        self._sockets[one.number] = one
        return one

    def close(self, one: Socket) -> None:
        del self._sockets[one.number]
        self._epoll.unregister(one.number)
        one.close()

    def stop(self) -> None:
        """Read no more. The sockets are closed before."""
        self._reactor.removeReader(self)
        self._linger.remove(self._number)
        self._number = -1
        self._epoll.close()

    # from the reactor

    def fileno(self) -> int:
        return self._number

    def logPrefix(self) -> str:
        return "upstream"

    def doRead(self) -> None:
        self._linger.read(self.read)

    def read(self) -> None:
        """Hand on what has arrived."""
        sockets, arrived, buffer, view = self._sockets, self._arrived, self._buffer, self._view
        now = self._seconds()  # for the whole batch, which takes a few milliseconds at most
        self._batch.begin()
        for number, _ in self._epoll.poll(0, UPSTREAM_READS):
            one = sockets.get(number)
            if one is None:  # closed by what an earlier one led to
                continue
            try:
                arrived(one, view[: one.receive(buffer)].tobytes(), now)
            except BlockingIOError:
                pass
            except OSError as error:  # such as an ICMP error: the server's host says that nothing listens
                self._failed(one, error)
            except Exception:  # a bug of ours must not end the reading
                self._log.failure("please report this bug: a message from an upstream server")
        self._batch.end()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended."""
