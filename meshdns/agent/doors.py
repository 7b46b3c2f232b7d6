"""Outside: where clients come in, over UDP and TCP (rules D1 to D3).

A packet enters and goes to the resolver; its answer leaves the way it came, at once or later. The frame is
twisted.names' server; its protocols are overridden where they read messages, because they answer responses, never
truncate and know no EDNS (Twisted tickets 6949 and 12604). It must never know what an answer says.
"""

import errno
import socket
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from twisted.internet import tcp, udp
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.names import dns, server
from twisted.python.failure import Failure

from meshdns import messages, names, wire
from meshdns.agent.batch import Batch
from meshdns.agent.ledger import SAMPLE, Ledger
from meshdns.agent.packed import Packed, PackedAnswers
from meshdns.agent.pulse import QUESTION as PULSE
from meshdns.agent.resolver import Answered, Done
from meshdns.defaults import (
    DRAIN,
    TCP_BACKLOG,
    TCP_CONNECTIONS,
    TCP_IDLE,
    TCP_PENDING,
    UDP_BACKLOG,
    UDP_DATAGRAM,
    UDP_READS,
)

_log = Logger()
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
Address = tuple[Any, ...]
Send = Callable[[bytes], object]
TakePassed = Callable[[int, str, int], "socket.socket | None"]


class Answer(Protocol):
    """The resolver, as a door sees it: `done` is called once, now or later; False when it never will be."""

    def __call__(self, packet: bytes, /, *, tcp: bool, now: float, done: Done) -> bool: ...


class TakeShort(Protocol):
    """The short way, as a door sees it: the door is given the answer, now or later; False: it takes no such packet."""

    def __call__(self, packet: bytes, address: Address, door: "UdpProtocol", now: float, /) -> bool: ...


def take_none(packet: bytes, address: Address, door: "UdpProtocol", now: float) -> bool:
    """No short way."""
    return False


def pass_none(kind: int, host: str, port: int) -> None:
    """No socket of a process before this one."""


class Access(Protocol):
    """Who may ask, as a door sees it: `known` holds the sources asked about lately."""

    known: dict[str, bool]

    def allows(self, address: str, /) -> bool: ...


class Front:
    """What both doors do with a packet: may it ask, what is the answer, count it."""

    def __init__(self, answer: Answer, access: Access, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._answer = answer
        self._access = access
        self._ledger = ledger
        self._clock = clock
        self.pending = 0  # packets whose answer is still to come
        self.tells = False  # whether each query is logged
        self.ends = False  # whether somebody waits for the last answer
        self._idle: Deferred[None] | None = None

    def take(self, packet: bytes, source: str, transport: str, send: Send) -> bool:
        """Answer a packet by calling `send` once, now or later; False when there will be no answer."""
        if not self._access.allows(source):
            return self._refuse(packet, send)
        self.pending += 1
        try:
            now = self._clock()
            done = partial(self._done, transport, now, send)
            if packet[2:] == PULSE:
                done = partial(self._beat, send)
            elif self.tells:
                done = partial(self._tell, packet, source, transport, now, done)
            answering = self._answer(packet, tcp=transport == "tcp", now=now, done=done)
        except Exception:
            self.bug(packet, source)
            return False
        if not answering:
            self.less("not-a-query")
        return answering

    def bug(self, packet: bytes, source: str) -> None:
        """A bug of ours must neither stop the door nor reach the next client. To be called where it is caught."""
        _log.failure("please report this bug: a packet from {source}: {packet}", source=source, packet=packet.hex())
        self.less("bug")

    def idle(self) -> Deferred[None]:
        """Fires when no answer is to come any more."""
        self._idle, self.ends = Deferred(), True
        self.look()
        return self._idle

    def _done(self, transport: str, started: float, send: Send, answered: Answered) -> None:
        self.settle(transport, started, answered)
        send(answered.message)

    def _beat(self, send: Send, answered: Answered) -> None:
        """We asked ourselves: neither counted nor told."""
        self.less()
        send(answered.message)

    def settle(self, transport: str, started: float, answered: Answered) -> None:
        """Count an answer that is about to leave."""
        self._ledger.answered(transport, answered, self._clock() - started)
        self.less()

    def _tell(self, packet: bytes, source: str, transport: str, started: float, done: Done, answered: Answered) -> None:
        """Log one query with its answer, for `log.queries`."""
        query = wire.read_query(packet)
        asked = (
            f"{names.text(query.name)} {wire.type_text(query.type)}" if isinstance(query, wire.Query) else "nonsense"
        )
        _log.info(
            "{source} asked {asked} over {transport}: {rcode} from {found} in {ms:.3f} ms",
            source=source, asked=asked, transport=transport, rcode=wire.rcode_text(answered.rcode), found=answered.source,
            ms=(self._clock() - started) * 1000,
        )  # fmt: skip
        done(answered)

    def less(self, dropped: str = "") -> None:
        if dropped:
            self._ledger.drop(dropped)
        self.pending -= 1
        if self.ends:
            self.look()

    def look(self) -> None:
        """Whether the last answer that was to come has come."""
        if self._idle and not self.pending and not self._idle.called:
            self._idle.callback(None)

    def _refuse(self, packet: bytes, send: Send) -> bool:
        if packet[2:] == PULSE:  # `allow` leaves this host out: then nothing of it is to be redirected either
            return False
        self._ledger.drop("not-allowed")
        query = wire.read_query(packet)
        if query is None:
            return False
        send(messages.refuse(packet, query if isinstance(query, int) else wire.REFUSED))
        return True


class Passed(socket.socket):
    """A socket that a process before this one has listened on: it has its address already."""

    def bind(self, address: Address) -> None:  # type: ignore[override]
        pass


def _passed(take: TakePassed, kind: int, host: str, port: int) -> socket.socket | None:
    found = take(kind, host, port)
    if found is None:
        return None
    ours = Passed(fileno=found.detach())
    ours.setblocking(False)
    return ours


def _own_socket(stock: socket.socket) -> socket.socket:
    """An IPv6 door takes IPv6 alone: its IPv4 neighbour on the same port is a door of its own."""
    if stock.family == socket.AF_INET6:
        stock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return stock


class UdpProtocol(dns.DNSDatagramProtocol):
    """UDP queries that have no packed answer."""

    noisy = False
    transport: Any

    def __init__(self, front: Front, ledger: Ledger, reactor: IReactorTime, batch: Batch) -> None:
        super().__init__(None, reactor)
        self._front = front
        self._ledger = ledger
        self._batch = batch
        self._outbox: list[tuple[bytes, Address]] = []
        batch.at_end(self._flush)

    def stopProtocol(self) -> None:
        self._batch.leave(self._flush)
        super().stopProtocol()

    def datagramReceived(self, data: bytes, addr: Address) -> None:
        self._front.take(data, addr[0], "udp", partial(self._send, addr))

    # from the short way

    def give(self, address: Address, came: float, answered: Answered) -> None:
        self._front.settle("udp", came, answered)
        self._send(address, answered.message)

    def give_relayed(self, address: Address, message: bytes, qtype: int, seconds: float) -> None:
        self._ledger.relayed(qtype, message[3] & 0x0F, seconds)
        front = self._front
        front.pending -= 1
        if front.ends:
            front.look()
        self._outbox.append((message, address))
        if not self._batch.is_open:
            self._flush()

    def _send(self, address: Address, message: bytes) -> None:
        self._outbox.append((message, address))
        if not self._batch.is_open:
            self._flush()

    def _flush(self) -> None:
        if not self._outbox:
            return
        outbox, self._outbox = self._outbox, []
        if self.transport is None:  # closed while an upstream was asked
            return
        send = self.transport.socket.sendto
        for message, address in outbox:
            try:
                send(message, address)
            except OSError:
                # A full buffer, or a client that is gone: it asks again, or it does not care.
                self._ledger.drop("send")


class UdpPort(udp.Port):
    """A UDP socket read in a tight loop, where a question known before is answered without any call of ours."""

    def __init__(
        self, port: int, protocol: UdpProtocol, interface: str, reactor: Any, packed: PackedAnswers, access: Access,
        front: Front, ledger: Ledger, clock: Callable[[], float], batch: Batch, take: TakeShort,
    ) -> None:  # fmt: skip
        super().__init__(port, protocol, interface, UDP_DATAGRAM, reactor)
        self._packed = packed.known
        self._allowed = access.known
        self._ledger = ledger
        self._clock = clock
        self._untimed = 0
        self._batch = batch
        self._front = front
        self.take = take
        self.passed: socket.socket | None = None

    def createInternetSocket(self) -> socket.socket:
        stock = self.passed or _own_socket(super().createInternetSocket())
        stock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_BACKLOG)
        return stock

    def doRead(self) -> None:
        self._batch.begin()
        try:
            self._read()
        finally:
            self._batch.end()

    def _read(self) -> None:
        receive, send, packed, allowed = self.socket.recvfrom, self.socket.sendto, self._packed, self._allowed
        protocol, front, take = self.protocol, self._front, self.take
        now = self._clock()  # for the whole batch, which takes a millisecond or two
        for _ in range(UDP_READS):
            try:
                packet, address = receive(UDP_DATAGRAM)
            except OSError:  # nothing more to read, or a client's port is closed
                return
            known = packed.get(packet[2:])
            if not allowed.get(address[0]):
                self.protocol.datagramReceived(packet, address)
                continue
            if known is None or now >= known.until:
                front.pending += 1
                try:
                    taken = take(packet, address, protocol, now)
                except Exception:
                    front.bug(packet, address[0])
                    continue
                if not taken:
                    front.pending -= 1
                    protocol.datagramReceived(packet, address)
                continue
            known.hits += 1
            self._untimed += 1
            if self._untimed == SAMPLE:
                self._send_timed(packet, known, address)
                continue
            try:
                send(packet[:2] + known.next_tail(), address)
            except OSError:
                self._ledger.drop("send")

    def _send_timed(self, packet: bytes, known: Packed, address: Address) -> None:
        self._untimed = 0
        started = self._clock()
        try:
            self.socket.sendto(packet[:2] + known.next_tail(), address)
        except OSError:
            self._ledger.drop("send")
        self._ledger.sampled(self._clock() - started, known.source)


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
    passed: socket.socket | None = None
    _shouldShutdown = False  # what a supervisor holds must go on listening when we close ours

    def createInternetSocket(self) -> socket.socket:
        return self.passed or _own_socket(super().createInternetSocket())


class Doors:
    """Every listening socket of an agent."""

    def __init__(
        self,
        answer: Answer,
        packed: PackedAnswers,
        access: Access,
        ledger: Ledger,
        reactor: Any,
        clock: Callable[[], float],
        batch: Batch | None = None,
        take_short: TakeShort = take_none,
        take_passed: TakePassed = pass_none,
    ) -> None:
        """`clock` is monotonic, in seconds; `batch` is shared with the upstream side; `take_passed` gives the socket of the
        process before this one, by kind, host and port, where there is one."""
        self._front = Front(answer, access, ledger, clock)
        self._packed, self._access, self._ledger = packed, access, ledger
        self._reactor = reactor
        self._clock = clock
        self._batch = batch or Batch()
        self._take_short = take_short
        self._take_passed = take_passed
        self._open: dict[Address, tuple[UdpPort, TcpPort]] = {}

    def listen(self, addresses: Iterable[Address]) -> None:
        """Be open on exactly these (host, port), over UDP and TCP; those open already stay as they are.

        An address that this host does not have (IPv6 is off, say) is passed over with a line in the log, if another is
        there. Raises twisted's CannotListenError with the doors as they were.
        """
        wanted = set(addresses)
        added: list[Address] = []
        absent: list[Address] = []
        try:
            for address in sorted(wanted - self._open.keys()):
                try:
                    self._open[address] = self._door(*address)
                    added.append(address)
                except CannotListenError as error:
                    if error.socketError.errno not in _NOT_HERE or len(wanted) == 1:
                        raise
                    absent.append(address)
            if not self._open:
                host, port = absent[0]
                raise CannotListenError(host, port, OSError("this host has none of the addresses to listen on"))
        except CannotListenError:
            for address in added:
                self._shut(address)
            raise
        for host, port in absent:
            _log.warn("not listening on {host} port {port}: this host has no such address", host=host, port=port)
        for address in self._open.keys() - wanted:
            self._shut(address)

    @property
    def sockets(self) -> list[socket.socket]:
        """Those that are listened on."""
        return [port.socket for both in self._open.values() for port in both]

    def tell_queries(self, wanted: bool) -> None:
        """Whether to log each query; no answer is kept packed then, nor is there a short way: those pass without a word."""
        self._front.tells = wanted
        self._packed.enabled = not wanted
        self._packed.forget()
        for datagrams, _ in self._open.values():
            datagrams.take = take_none if wanted else self._take_short

    def _door(self, host: str, port: int) -> tuple[UdpPort, TcpPort]:
        protocol = UdpProtocol(self._front, self._ledger, self._reactor, self._batch)
        datagrams = UdpPort(
            port, protocol, host, self._reactor, self._packed, self._access, self._front, self._ledger, self._clock, self._batch,
            take_none if self._front.tells else self._take_short,
        )  # fmt: skip
        streams = TcpPort(port, TcpFactory(self._front, self._reactor), TCP_BACKLOG, host, self._reactor)
        datagrams.passed = _passed(self._take_passed, socket.SOCK_DGRAM, host, port)
        streams.passed = _passed(self._take_passed, socket.SOCK_STREAM, host, port)
        datagrams.startListening()
        try:
            streams.startListening()
        except CannotListenError:
            datagrams.stopListening()
            raise
        return datagrams, streams

    def _shut(self, address: Address) -> Deferred[Any]:
        datagrams, streams = self._open.pop(address)
        streams.factory.end()
        return DeferredList([maybeDeferred(datagrams.stopListening), maybeDeferred(streams.stopListening)])

    async def close(self) -> None:
        """Answer what has been asked, but not longer than DRAIN; then close every socket."""
        for datagrams, streams in self._open.values():
            datagrams.doRead()  # what waits in the socket was asked before the end
            datagrams.stopReading()
            streams.stopReading()
        await self._front.idle().addTimeout(DRAIN, self._reactor, lambda *late: None)
        await DeferredList([self._shut(address) for address in list(self._open)])
