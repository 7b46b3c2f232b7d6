"""Outside: the TCP door (rule D1).

Queries enter one behind the other; answers leave in the order in which they are ready (RFC 7766). The frame is twisted.names'
server, whose protocol is overridden where it reads: it answers responses and knows no EDNS. It must never know what an answer
says.
"""

import socket
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.names import dns, server
from twisted.python.failure import Failure

from meshdns.agent.front import Front
from meshdns.defaults import TCP_CONNECTIONS, TCP_IDLE, TCP_PENDING


class TcpStream(dns.DNSProtocol):
    """One client's TCP connection: queries one behind the other, answers in the order they are ready (RFC 7766)."""

    transport: Any

    def __init__(self, factory: "TcpFactory") -> None:
        super().__init__(factory, factory.reactor)
        self.pending = 0
        self._writes_blocked = False
        self._idle: IDelayedCall | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        # The transport tells us when the client does not read its answers: then we stop reading its queries.
        self.transport.registerProducer(self, True)
        self._source = self.transport.getPeer().host
        self._idle = self._reactor.callLater(TCP_IDLE, self._expire)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self._idle and self._idle.active():
            self._idle.cancel()

    def stringReceived(self, data: bytes) -> None:
        self.pending += 1
        if not self.controller.front.take(data, self._source, "tcp", self._send):
            self.pending -= 1
        elif self._idle and self._idle.active():  # scraps and empty frames do not keep a connection open
            self._idle.reset(TCP_IDLE)
            self.controller.active(self)
        self._regulate()

    def pauseProducing(self) -> None:
        self._writes_blocked = True
        self._regulate()

    def resumeProducing(self) -> None:
        self._writes_blocked = False
        self._regulate()

    def stopProducing(self) -> None:
        self.transport.loseConnection()

    def _send(self, message: bytes) -> None:
        self.pending -= 1
        if self.connected:
            self.sendString(message)
            self._regulate()

    def _regulate(self) -> None:
        """Read on, or not: a client that asks more than it takes waits."""
        wanted = self._writes_blocked or self.pending >= TCP_PENDING
        if wanted and not self.paused:
            self.paused = True
            self.transport.pauseProducing()
        elif self.paused and not wanted:
            self.paused = False
            self.transport.resumeProducing()
            self.dataReceived(b"")

    def _expire(self) -> None:
        """Ten seconds without a whole query: close, unless an upstream still owes this client an answer it will read."""
        if self.pending and not self._writes_blocked:
            self._idle = self._reactor.callLater(TCP_IDLE, self._expire)
        else:
            self.transport.abortConnection()


class TcpFactory(server.DNSServerFactory):
    """The TCP door: at most TCP_CONNECTIONS streams, the one idle longest makes room (rule D1)."""

    protocol: Any = TcpStream
    noisy = False
    connections: Any

    def __init__(self, front: Front, reactor: Any) -> None:
        super().__init__()
        self.front = front
        self.reactor = reactor
        self.connections = dict[TcpStream, None]()  # the one idle longest first

    def connectionMade(self, protocol: TcpStream) -> None:
        self.connections[protocol] = None
        if len(self.connections) > TCP_CONNECTIONS:
            oldest = next((stream for stream in self.connections if not stream.pending), next(iter(self.connections)))
            del self.connections[oldest]  # its end is told a turn later, and a burst must not choose it again
            oldest.transport.abortConnection()

    def connectionLost(self, protocol: TcpStream) -> None:
        self.connections.pop(protocol, None)

    def end(self) -> None:
        """Close every stream, once what it was sent has left."""
        for stream in list(self.connections):
            stream.transport.loseConnection()

    def active(self, protocol: TcpStream) -> None:
        if protocol in self.connections:
            self.connections[protocol] = self.connections.pop(protocol)


class TcpPort(tcp.Port):
    """A listening TCP socket."""

    factory: TcpFactory

    def createInternetSocket(self) -> socket.socket:
        stock: socket.socket = super().createInternetSocket()
        if stock.family == socket.AF_INET6:  # IPv4 on the same port is a door of its own
            stock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return stock
