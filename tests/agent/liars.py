"""Upstream servers for tests, on loopback: they keep what they are asked, and answer as a script says."""

from collections.abc import Callable
from struct import pack
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.protocols.basic import Int16StringReceiver

from meshdns.defaults import PROBE_ZONE
from meshdns.wire import NXDOMAIN
from tests.agent.scene import name, reply

reactor: Any = _reactor

Answer = tuple[float, bytes]  # after so many seconds, this message
Script = Callable[[bytes], list[Answer]]


def honest(query: bytes) -> list[Answer]:
    return [(0.0, reply(query))]


def silent(query: bytes) -> list[Answer]:
    return []


class UdpServer(DatagramProtocol):
    """A UDP server. Probes are answered with NXDOMAIN, and not kept, as long as `probes` is true."""

    def __init__(self, script: Script = honest) -> None:
        self.script = script
        self.probes = True
        self.queries: list[bytes] = []
        self.sources: list[tuple[str, int]] = []

    def listen(self, port: int = 0, interface: str = "127.0.0.1") -> int:
        self.port = reactor.listenUDP(port, self, interface=interface)
        return int(self.port.getHost().port)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if PROBE_ZONE in name(datagram):
            if self.probes:
                self.transport.write(reply(datagram, NXDOMAIN, records=b""), addr)
            return
        self.queries.append(datagram)
        self.sources.append(addr)
        for delay, message in self.script(datagram):
            if delay:
                reactor.callLater(delay, self.transport.write, message, addr)
            else:
                self.transport.write(message, addr)


class TcpConnection(Int16StringReceiver):
    """One connection to a TcpServer."""

    factory: "TcpServer"

    def connectionMade(self) -> None:
        self.factory.connections.append(self)

    def stringReceived(self, string: bytes) -> None:
        server = self.factory
        if PROBE_ZONE in name(string):
            self.sendString(reply(string, NXDOMAIN, records=b""))
            return
        server.queries.append(string)
        server.answer(self, string)

    def half(self, message: bytes) -> None:
        """Two thirds of a frame, then the end."""
        self.transport.write((pack("!H", len(message)) + message)[: len(message) * 2 // 3])
        self.transport.loseConnection()


class TcpServer(Factory):
    """A TCP server; `answer(connection, query)` does what it likes."""

    protocol = TcpConnection
    noisy = False

    def __init__(self, answer: Callable[[TcpConnection, bytes], None] | None = None) -> None:
        self.answer = answer or (lambda connection, query: connection.sendString(reply(query)))
        self.queries: list[bytes] = []
        self.connections: list[TcpConnection] = []

    def listen(self, port: int = 0) -> int:
        self.port = reactor.listenTCP(port, self, interface="127.0.0.1")
        return int(self.port.getHost().port)
