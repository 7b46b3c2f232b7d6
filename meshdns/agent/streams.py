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
from meshdns.agent.packed import PackedAnswers
from meshdns.defaults import TCP_CONNECTIONS, TCP_IDLE, TCP_PENDING, TCP_WRITE


class TcpTransport(tcp.Server):
    """A connection on which an answer leaves at once. `write` would have the reactor go a round for it."""

    def send(self, octets: bytes) -> None:
        if not self.connected or self.dataBuffer or self._tempDataBuffer:  # gone, or what came before has not all left
            self.write(octets)
            return
        sent = self.writeSomeData(octets)
        if isinstance(sent, int) and sent < len(octets):  # else the connection is lost, which reading it tells
            self.write(octets[sent:])


class TcpStream(dns.DNSProtocol):
    """One client's TCP connection: queries one behind the other, answers in the order they are ready (RFC 7766)."""

    transport: Any

    def __init__(self, factory: "TcpFactory") -> None:
        super().__init__(factory, factory.reactor)
        self.pending = 0
        self._front = factory.front
        self._known = factory.packed.known
        self._rest = b""  # the beginning of a query
        self._writes_blocked = False
        self._heard_at = 0.0
        self._idle: IDelayedCall | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        # The transport tells us when the client does not read its answers: then we stop reading its queries.
        self.transport.registerProducer(self, True)
        self._source = self.transport.getPeer().host
        self._heard_at = self._front.clock()
        self._idle = self._reactor.callLater(TCP_IDLE, self._expire)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self._idle and self._idle.active():
            self._idle.cancel()

    def dataReceived(self, data: bytes) -> None:
        """Answer what has a packed answer, many in one piece; hand on the rest."""
        octets = self._rest + data
        now = self._front.clock()
        known = self._known if self._front.allows(self._source) else {}
        at, last, size, source = 0, len(octets), 0, "mesh"
        answers: list[bytes] = []
        while at + 2 <= last and not self.paused:
            end = at + 2 + (octets[at] << 8 | octets[at + 1])
            if end > last:
                break
            packed = known.get(octets[at + 4 : end])
            if packed is None or now >= packed.until:
                self._take(octets[at + 2 : end])
            else:
                packed.hits += 1
                source = packed.source
                tail = packed.tail or packed.next_tail()
                answers += ((len(tail) + 2).to_bytes(2), octets[at + 2 : at + 4], tail)
                size += len(tail)
            at = end
            if size >= TCP_WRITE:  # then the client may have to wait
                self._answer(answers, source, now)
                answers, size = [], 0
        self._rest = octets[at:]
        if answers:
            self._answer(answers, source, now)

    def _answer(self, answers: list[bytes], source: str, now: float) -> None:
        """Send packed answers: a length, an id and what is behind it of each."""
        self._lives(now)
        self.transport.send(b"".join(answers))
        self._front.ledger.sampled(self._front.clock() - now, source, len(answers) // 3)

    def _take(self, packet: bytes) -> None:
        """The way of a query that has no packed answer."""
        self.pending += 1
        if not self._front.take(packet, self._source, "tcp", self._send):
            self.pending -= 1
        else:  # scraps and empty frames do not keep a connection open
            self._lives(self._front.clock())
        self._regulate()

    def _lives(self, now: float) -> None:
        self._heard_at = now
        self.controller.active(self)

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
        self.transport.send(len(message).to_bytes(2) + message)
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
        left = self._heard_at + TCP_IDLE - self._front.clock()
        if left <= 0 and (not self.pending or self._writes_blocked):
            self.transport.abortConnection()
        else:
            self._idle = self._reactor.callLater(left if left > 0 else TCP_IDLE, self._expire)


class TcpFactory(server.DNSServerFactory):
    """The TCP door: at most TCP_CONNECTIONS streams, the one idle longest makes room (rule D1)."""

    protocol: Any = TcpStream
    noisy = False
    connections: Any

    def __init__(self, front: Front, packed: PackedAnswers, reactor: Any) -> None:
        super().__init__()
        self.front = front
        self.packed = packed
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

    transport: Any = TcpTransport
    factory: TcpFactory
    passed: socket.socket | None = None  # that a process before this one has listened on
    _shouldShutdown = False  # what a supervisor holds must go on listening when we close ours

    def createInternetSocket(self) -> socket.socket:
        stock: socket.socket = self.passed or super().createInternetSocket()
        if stock.family == socket.AF_INET6 and not self.passed:  # IPv4 on the same port is a door of its own
            stock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return stock
