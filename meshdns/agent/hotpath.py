"""Outside: the UDP door, and in it the way that most packets go: one look, and the answer leaves.

Packets enter in batches; a question with a packed answer is answered in place, without an object, a call of the resolver or a
line in the log; any other goes to the short way, or to the front and the resolver. This one place departs from Twisted's way
of reading datagrams, since that costs more than all the rest: the figures are in docs/performance.md. It must never know what
an answer says.
"""

import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from twisted.internet import udp
from twisted.names import dns

from meshdns.agent.batch import Batch
from meshdns.agent.front import Front
from meshdns.agent.ledger import SAMPLE
from meshdns.agent.packed import PackedAnswers
from meshdns.agent.resolver import Answered
from meshdns.agent.slots import HOST, NAME, PACKET, SLOT, Datagrams, Origin
from meshdns.defaults import DRAIN_READS, UDP_BACKLOG, UDP_DATAGRAM


class Access(Protocol):
    """Who may ask: `sources` are those who may, as their addresses stand in a slot, until `forget_at`."""

    sources: set[bytes]
    forget_at: float

    def allows(self, address: str, /) -> bool: ...
    def forget(self) -> None: ...


class Linger(Protocol):
    """The short way round the reactor."""

    def add(self, descriptor: int, read: Callable[[], None], /) -> None: ...
    def remove(self, descriptor: int, /) -> None: ...
    def read(self, read: Callable[[], None], /) -> None: ...


class TakeShort(Protocol):
    """The short way: the door is given the answer, now or later; False: it takes no such packet."""

    def __call__(self, packet: bytes, origin: Origin, door: "UdpProtocol", now: float, /) -> bool: ...


class UdpProtocol(dns.DNSDatagramProtocol):
    """What leaves later, or was not packed. Of twisted.names' protocol only the frame is left: it never truncates and knows no
    EDNS (tickets 6949, 12604)."""

    noisy = False
    transport: Any

    def __init__(self, front: Front, reactor: Any, batch: Batch) -> None:
        super().__init__(None, reactor)
        self._front = front
        self._ledger = front.ledger
        self._batch = batch
        self._outbox: list[tuple[bytes, Origin]] = []
        batch.at_end(self._flush)

    def stopProtocol(self) -> None:
        self._batch.leave(self._flush)
        super().stopProtocol()

    def send(self, origin: Origin, message: bytes) -> None:
        self._outbox.append((message, origin))
        if not self._batch.is_open:
            self._flush()

    # from the short way

    def give(self, origin: Origin, came: float, answered: Answered) -> None:
        self._front.settle("udp", came, answered)
        self.send(origin, answered.message)

    def give_relayed(self, origin: Origin, message: bytes, qtype: int, seconds: float) -> None:
        self._ledger.relayed(qtype, message[3] & 0x0F, seconds)
        self._front.less()
        self._outbox.append((message, origin))
        if not self._batch.is_open:
            self._flush()

    def _flush(self) -> None:
        if not self._outbox:
            return
        outbox, self._outbox = self._outbox, []
        if self.transport is not None:  # else closed while an upstream was asked
            self._ledger.drop("send", self.transport.send(outbox))


class UdpPort(udp.Port):
    """A UDP socket that is read in batches."""

    protocol: UdpProtocol
    passed: socket.socket | None = None  # that a process before this one has listened on

    def __init__(
        self, port: int, protocol: UdpProtocol, interface: str, reactor: Any, *, front: Front, packed: PackedAnswers,
        access: Access, batch: Batch, linger: Linger, open_datagrams: Callable[[socket.socket], Datagrams], take_short: TakeShort,
    ) -> None:  # fmt: skip
        super().__init__(port, protocol, interface, UDP_DATAGRAM, reactor)
        self._front = front
        self._ledger = front.ledger
        self._clock = front.clock
        self._known = packed.known
        self._access = access
        self._batch = batch
        self._linger = linger
        self._open = open_datagrams
        self._untimed = 0  # packed answers since one was timed
        self._take_short = take_short

    # from the doors

    def createInternetSocket(self) -> socket.socket:
        stock: socket.socket = self.passed or super().createInternetSocket()
        if stock.family == socket.AF_INET6 and not self.passed:  # IPv4 on the same port is a door of its own
            stock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        stock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_BACKLOG)
        return stock

    def startListening(self) -> None:
        super().startListening()
        self._datagrams = self._open(self.socket)

    def drain(self) -> None:
        """Answer all that waits in the socket."""
        for _ in range(DRAIN_READS):
            self.read()

    # from the protocol

    def send(self, outbox: Sequence[tuple[bytes, Origin]]) -> int:
        """How many could not be sent."""
        return self._datagrams.send(outbox)

    # from the reactor

    def startReading(self) -> None:
        super().startReading()
        self._linger.add(self.fileno(), self.read)

    def stopReading(self) -> None:
        super().stopReading()
        self._linger.remove(self.fileno())

    def doRead(self) -> None:
        self._linger.read(self.read)

    def read(self) -> None:
        """Answer one batch."""
        self._batch.begin()
        try:
            self._answer_batch()
        finally:
            self._batch.end()

    def _answer_batch(self) -> None:
        datagrams, access, known = self._datagrams, self._access, self._known
        octets, received, leaving = datagrams.octets, datagrams.received, datagrams.leaving
        now = self._clock()
        if now >= access.forget_at:
            access.forget()
        sources = access.sources
        first = lost = answered = 0  # from `first` on the slots hold answers that have not left yet
        found = "mesh"
        count = datagrams.receive()
        for number in range(count):
            at = number * SLOT
            start = at + PACKET + 2  # behind the id
            packed = known.get(octets[start : at + PACKET + received[number]])
            may_ask = octets[at + HOST : at + NAME] in sources
            if packed is None or now >= packed.until or not may_ask:
                if first < number:
                    lost += datagrams.answer(first, number)
                first = number + 1
                self._take(number, may_ask, now)
                continue
            packed.hits += 1
            answered += 1
            found = packed.source
            tail = packed.next_tail()
            octets[start : start + len(tail)] = tail
            leaving[number] = len(tail) + 2
        if first < count:
            lost += datagrams.answer(first, count)
        self._ledger.drop("send", lost)
        self._untimed += answered
        if self._untimed >= SAMPLE:
            self._ledger.sampled(self._clock() - now, found, self._untimed)
            self._untimed = 0

    def _take(self, number: int, may_ask: bool, now: float) -> None:
        """The way of a datagram that has no packed answer, or comes from somebody who is not known to be allowed."""
        datagrams, front, protocol = self._datagrams, self._front, self.protocol
        size = datagrams.received[number]
        start = number * SLOT + PACKET
        packet = datagrams.octets[start : start + (size if size < UDP_DATAGRAM else UDP_DATAGRAM)]
        origin = datagrams.origin(number)
        if may_ask and not front.tells:
            front.pending += 1
            try:
                if self._take_short(packet, origin, protocol, now):
                    return
            except Exception:
                return front.bug(packet, datagrams.host(number))
            front.pending -= 1
        host = datagrams.host(number)
        if self._access.allows(host):
            self._access.sources.add(datagrams.octets[start - PACKET + HOST : start - PACKET + NAME])
        front.take(packet, host, "udp", partial(protocol.send, origin))
