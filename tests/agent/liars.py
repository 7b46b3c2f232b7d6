"""Upstream servers for tests, on loopback: they keep what they are asked, and answer as a script says."""

import contextlib
import os
import socket
from collections.abc import Callable
from struct import pack
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol, Factory, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from meshdns.agent.batch import Batch
from meshdns.agent.flights import Result
from meshdns.agent.linger import Linger
from meshdns.agent.pool import Pool
from meshdns.agent.servers import Options
from meshdns.agent.upstream import Secured, Upstream
from meshdns.defaults import PROBE_ZONE
from meshdns.values import Server
from meshdns.wire import NXDOMAIN
from tests.agent.scene import ask, name, reply

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
    closed = False

    def connectionMade(self) -> None:
        self.factory.connections.append(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed = True

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

    def listen(self, port: int = 0, secured: Any = None) -> int:
        """`secured` is what it speaks TLS with."""
        if secured is None:
            self.port = reactor.listenTCP(port, self, interface="127.0.0.1")
        else:
            self.port = reactor.listenSSL(port, self, secured, interface="127.0.0.1")
        return int(self.port.getHost().port)


def descriptors() -> int:
    """Sockets and the like that are open; Twisted's own reserves do not count."""
    links = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one by which the directory is read
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    return len([link for link in links if "socket:" in link or "eventpoll" in link])


class Case(TestCase):
    """Servers, one Upstream, and the proof that nothing of it stays."""

    timeout = 20

    async def setUp(self) -> None:
        await self.turn()  # the reactor has opened what it needs
        self.before = descriptors()
        self.ports: list[Any] = []
        self.upstream: Upstream | None = None

    async def tearDown(self) -> None:
        if self.upstream is not None:
            await self.upstream.stop()
        for port in self.ports:
            await port.stopListening()
        for connection in [one for port in self.ports for one in getattr(port.factory, "connections", ())]:
            connection.transport.abortConnection()
        for _ in range(100):
            if descriptors() == self.before:
                break
            await self.turn(0.002)
        self.assertEqual(self.before, descriptors(), "a socket was left open")
        left = [call for call in map(str, reactor.getDelayedCalls()) if "TestCase._run" not in call]
        self.assertEqual([], left)

    def turn(self, seconds: float = 0.0) -> Deferred[None]:
        return deferLater(reactor, seconds, lambda: None)

    def udp(self, script: Any = honest, port: int = 0, interface: str = "127.0.0.1") -> tuple[UdpServer, Server]:
        server = UdpServer(script)
        number = server.listen(port, interface)
        server.port.factory = None
        self.ports.append(server.port)
        return server, Server(interface, number)

    def tcp(self, answer: Any = None, port: int = 0, transport: str = "tcp") -> tuple[TcpServer, Server]:
        server = TcpServer(answer)
        number = server.listen(port)
        self.ports.append(server.port)
        return server, Server("127.0.0.1", number, transport)

    def start(
        self,
        *servers: Server,
        sockets: int | None = None,
        batch: Batch | None = None,
        secure: Callable[[], Secured] | None = None,
        **options: Any,
    ) -> Upstream:
        batch = batch or Batch()
        pool = Pool(reactor, batch, Linger(reactor))
        self.upstream = Upstream(
            reactor, servers, Options(**options), pool=pool, sockets=sockets, batch=batch, secure=secure
        )
        self.upstream.start()
        return self.upstream

    def ask(self, name: str = "www.example.com") -> Deferred[Result]:
        done: Deferred[Result] = Deferred()
        assert self.upstream is not None
        self.upstream.ask(ask(name), done.callback)
        return done

    async def timed(self, name: str) -> tuple[Result, float]:
        began = reactor.seconds()
        result = await self.ask(name)
        return result, reactor.seconds() - began

    def free_port(self) -> Server:
        """A port where nobody listens."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.bind(("127.0.0.1", 0))
            return Server("127.0.0.1", one.getsockname()[1])
