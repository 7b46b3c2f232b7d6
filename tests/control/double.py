"""A control plane in memory: the real mesh, long poll and site, its leases a double; connections over `twisted.test.iosim`.

Time passes when the test says so, and everything that is due happens with it. Connections take no more than a socket's buffer
from whoever writes, and a client that does not read takes nothing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.protocols import tls as twisted_tls
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from meshdns import table
from meshdns.control.identity import Identity, Refusal, identify
from meshdns.control.leases import MemoryLeases
from meshdns.control.longpoll import LongPoll
from meshdns.control.manifests import Manifests
from meshdns.control.mesh import Leases, Mesh
from meshdns.control.model import Problem, Update
from meshdns.control.tokens import Token, by_hash, hashed
from meshdns.defaults import DEBOUNCE_QUIET, POLL_CONNECTIONS, POLL_IDLE
from meshdns.net.site import Site
from meshdns.net.tls import ServerTls
from tests.control.world import EAST, RANGES, WEST, finish

BUFFER = 1 << 16  # octets that wait in a connection before its writer is told to pause
TOKENS = (Token(id="one", hash=hashed("secret"), namespace="ns1"), Token(id="hr", hash=hashed("other"), namespace="hr"))


# The network


@implementer(IPushProducer)
class Wire(FakeTransport):  # type: ignore[misc]
    """One end of a connection."""

    def __init__(self, protocol: Any, is_server: bool, own: IPv4Address, peer: IPv4Address) -> None:
        super().__init__(protocol, is_server, own, peer)
        self.reads = True
        self.pending = 0  # octets that are not taken yet
        self.most = 0  # of them, ever
        self._paused = False

    def write(self, data: bytes) -> None:
        if self.disconnecting:
            return
        self.stream.append(data)
        self.pending += len(data)
        self.most = max(self.most, self.pending)
        if self.producer and self.streamingProducer and self.pending > BUFFER and not self._paused:
            self._paused = True
            self.producer.pauseProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        self._paused = False

    def taken(self) -> bytes:
        """What the other end gets next."""
        whole = b"".join(self.stream)
        data, rest = whole[:BUFFER], whole[BUFFER:]
        self.stream, self.pending = [rest] if rest else [], len(rest)
        if self._paused and self.producer and self.pending <= BUFFER // 2:
            self._paused = False
            self.producer.resumeProducing()
        return data

    def abortConnection(self) -> None:
        self.stream, self.pending = [], 0
        self.disconnecting = True

    def pauseProducing(self) -> None:
        self.reads = False

    def resumeProducing(self) -> None:
        self.reads = True


class Connection(IOPump):  # type: ignore[misc]
    """Both ends. `gate` stands between server and client and may change what the server says."""

    gate: Callable[[bytes], bytes] = staticmethod(lambda data: data)

    def pump(self, debug: bool = False, advanceClock: bool = False) -> bool:
        moved = False
        for sender, receiver in ((self.clientIO, self.serverIO), (self.serverIO, self.clientIO)):
            if sender.pending and (receiver.reads or receiver.disconnecting):
                data = sender.taken()
                if sender is self.serverIO:
                    data = self.gate(data)
                if data and not receiver.disconnecting:
                    receiver.bufferReceived(data)
                moved = True
        if moved:
            return True
        if any(each.pending for each in (self.clientIO, self.serverIO)):
            return False  # an end comes behind what was said before it
        return bool(super().pump(debug, False))

    @property
    def over(self) -> bool:
        return bool(self.clientIO.disconnected and self.serverIO.disconnected)


class Network(Clock):
    """A reactor with connections in memory, every server by its port."""

    def __init__(self) -> None:
        super().__init__()
        self.connections: list[Connection] = []
        self.gate: Callable[[bytes], bytes] | None = None  # of connections to come
        self._servers: dict[int, Any] = {}
        self._clients = 40_000

    def listen(self, port: int, factory: Any) -> None:
        factory.doStart()
        self._servers[port] = factory

    def close(self, port: int) -> None:
        """The server's process is gone, and its connections with it."""
        del self._servers[port]
        for each in self.connections:
            if each.serverIO.getHost().port == port:
                each.serverIO.abortConnection()

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> "Connector":
        connector = Connector(IPv4Address("TCP", host, port))
        factory.doStart()
        factory.startedConnecting(connector)
        self.callLater(0, self._connected, connector, factory)
        return connector

    def _connected(self, connector: "Connector", factory: Any) -> None:
        there = connector.getDestination()
        if connector.stopped:
            return
        if there.port not in self._servers:
            factory.clientConnectionFailed(connector, Failure(error.ConnectionRefusedError()))
            return
        self._clients += 1
        here = IPv4Address("TCP", "192.0.2.77", self._clients)
        client, server = factory.buildProtocol(there), self._servers[there.port].buildProtocol(here)
        client_io, server_io = Wire(client, False, here, there), Wire(server, True, there, here)
        connection = Connection(client, server, client_io, server_io, False, self)
        if self.gate:
            connection.gate = self.gate
        self.connections.append(connection)
        server.makeConnection(server_io)
        client.makeConnection(client_io)

    # Time

    def wait(self, seconds: float = 0.0) -> None:
        """So much time passes, and what is due in it happens, each at its own moment."""
        end = self.seconds() + seconds
        self._settle()
        while (due := self._next()) is not None and due <= end:
            self.rightNow = max(self.rightNow, due)
            self._settle()
        self.rightNow = end
        self._settle()

    def _next(self) -> float | None:
        return min((call.getTime() for call in self.getDelayedCalls()), default=None)

    def _settle(self) -> None:
        """All that happens without time passing."""
        for _ in range(100_000):
            moved = [each.pump() for each in self.connections]
            self.connections = [each for each in self.connections if not each.over]
            due = self._next()
            if due is not None and due <= self.seconds():
                self.advance(0)
            elif not any(moved):
                return
        raise AssertionError("this never comes to rest")


@attrs.define
class Connector:
    """Of one attempt to connect."""

    _there: IPv4Address
    stopped: bool = False

    def getDestination(self) -> IPv4Address:
        return self._there

    def stopConnecting(self) -> None:
        self.stopped = True

    disconnect = stopConnecting


# The control plane


class MemorySource:
    """One cluster's objects out of texts that stand nowhere: a source, as `mesh.Source` has it."""

    def __init__(self, cluster: str, changed: Callable[[Update], None]) -> None:
        self.synced = False
        self._changed = changed
        self._manifests = Manifests(cluster)

    @property
    def problems(self) -> Sequence[Problem]:
        return self._manifests.problems

    @property
    def counted(self) -> Mapping[str, int]:
        return self._manifests.counted

    def write(self, file: str, text: str) -> None:
        self._hand_over(finish(self._manifests.feed(file, text.encode())))

    def put(self, *objects: dict[str, Any]) -> None:
        """Each object in a file of its own."""
        for each in objects:
            self.write(_file_of(each), json.dumps(each))

    def erase(self, file: str) -> None:
        self._hand_over(self._manifests.drop(file))

    def drop(self, *objects: dict[str, Any]) -> None:
        for each in objects:
            self.erase(_file_of(each))

    def sync(self) -> None:
        """All has been read once."""
        self.synced = True
        self._changed(Update())

    def stop(self) -> None:
        """Tells nothing any more; objects stay as they were."""
        self._changed = lambda update: None

    def _hand_over(self, update: Update) -> None:
        if update:
            self._changed(update)


def _file_of(given: dict[str, Any]) -> str:
    meta = given["metadata"]
    return f"{given['kind']}-{meta.get('namespace')}-{meta['name']}.yaml"


class Double:
    """One control plane for the clusters east and west, read once and ready unless `synced` is False."""

    def __init__(
        self, network: Network, *objects: dict[str, Any], port: int = 15012, leases: Leases | None = None,
        tls: ServerTls | None = None, synced: bool = True,
    ) -> None:  # fmt: skip
        self.network = network
        self.port = port
        self.tokens: tuple[Token, ...] = TOKENS
        self.mesh = Mesh(
            (EAST, WEST), ("*",), "istio-system", RANGES, leases or MemoryLeases(), network,
            lambda: 1e9 + network.seconds(), lambda: self.polls.wake(),
        )  # fmt: skip
        self.east, self.west = (MemorySource(name, self.mesh.update) for name in ("east", "west"))
        self.mesh.sources.update({"east": self.east, "west": self.west})
        networks = {each.name: each.network for each in (EAST, WEST)}
        self.polls = LongPoll(self._identify, self.mesh.view, lambda: networks, network)
        self.site = Site(self.polls, network, connections=POLL_CONNECTIONS, idle=POLL_IDLE)
        network.listen(port, TLSMemoryBIOFactory(tls, False, self.site, clock=network) if tls else self.site)
        self.east.put(*objects)
        if synced:
            self.east.sync()
            self.west.sync()
            network.wait(DEBOUNCE_QUIET)

    def _identify(self, uris: tuple[str, ...] | None, authorization: str) -> Identity | Refusal:
        return identify(uris, authorization, "cluster.local", by_hash(self.tokens), 1e9 + self.network.seconds())

    def change(self, *objects: dict[str, Any]) -> None:
        """Objects of the east are so now, and all who wait are told."""
        self.east.put(*objects)
        self.network.wait(DEBOUNCE_QUIET)

    def die(self) -> None:
        """The process is gone, with all that it had in memory."""
        self.network.close(self.port)
        self.mesh.stop()


# Who asks by hand


@attrs.frozen
class Answer:
    """One response."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def generation(self) -> str:
        return self.headers["etag"].strip('W/"')

    @property
    def detail(self) -> str:
        return str(json.loads(self.body)["detail"])

    def table(self, base: table.Table | None = None) -> table.Table:
        loader = table.Loader(base)
        for line in self.body.splitlines():
            loader.feed(line)
        return loader.finish()


class Client(Protocol):
    """A connection of a client that writes its requests as it likes, without TLS."""

    transport: Wire

    def __init__(self, network: Network, port: int = 15012) -> None:
        self.network = network
        self.data = b""
        self.closed = False
        factory = Factory.forProtocol(lambda: self)
        factory.noisy = False
        network.connectTCP("198.51.100.1", port, _Alone(factory))
        network.wait()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.closed = True

    def ask(self, *rows: str, query: str = "cluster=east", token: str = "secret", method: str = "GET") -> None:
        """Sends a request; `rows` are headers."""
        own = [f"Authorization: Bearer {token}"] if token else []
        head = [f"{method} /v1/nametable?{query} HTTP/1.1", "Host: control.example", *own, *rows, "", ""]
        self.transport.write("\r\n".join(head).encode())
        self.network.wait()

    def park(self, generation: str, *rows: str, wait: int = 55) -> None:
        self.ask(f'If-None-Match: "{generation}"', f"Prefer: wait={wait}", "A-IM: meshdns-delta", *rows)

    def answer(self) -> Answer | None:
        """The next response, once it is whole."""
        head, end, rest = self.data.partition(b"\r\n\r\n")
        first, *rows = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (row.partition(": ") for row in rows)}
        size = int(headers.get("content-length", 0))
        if not end or len(rest) < size:
            return None
        self.data = rest[size:]
        return Answer(int(first.split()[1]), headers, rest[:size])

    def get(self, *rows: str, **more: str) -> Answer:
        """A request and its response, which comes at once."""
        self.ask(*rows, **more)
        found = self.answer()
        assert found is not None, self.data
        return found

    def hang_up(self) -> None:
        self.transport.abortConnection()
        self.network.wait()


class _Alone:
    """A factory for one connection."""

    def __init__(self, inner: Factory) -> None:
        self.buildProtocol = inner.buildProtocol

    def doStart(self) -> None:
        pass

    def startedConnecting(self, connector: Connector) -> None:
        pass


class MemoryCase(SynchronousTestCase):
    """A test with a network of its own, in which nothing is left over at the end."""

    def setUp(self) -> None:
        super().setUp()
        self.network = Network()
        self.patch(twisted_tls, "_get_default_clock", lambda: self.network)

    def replica(self, *objects: dict[str, Any], **more: Any) -> Double:
        return Double(self.network, *objects, **more)

    def client(self, port: int = 15012) -> Client:
        return Client(self.network, port)
