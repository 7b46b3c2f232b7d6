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
from meshdns.defaults import DRAIN_READS, UDP_BACKLOG, UDP_DATAGRAM, UDP_SINGLES

_ROOM = UDP_DATAGRAM + 1  # for one datagram: one that does not fit is longer than any that does


class Access(Protocol):
    """Who may ask: `sources` are those who may, as their addresses stand in a slot or as texts, until `forget_at`."""

    sources: set[bytes | str]
    forget_at: float

    def allows(self, address: str, /) -> bool: ...
    def forget(self) -> None: ...


class Linger(Protocol):
    """The short way round the reactor."""

    def add(self, descriptor: int, read: Callable[[], object], /) -> None: ...
    def remove(self, descriptor: int, /) -> None: ...
    def read(self, read: Callable[[], object], /) -> None: ...


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
        self._singles = 0  # datagrams to be read one by one before the next look whether there are several
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
        self.use(self._open(self.socket))

    def use(self, datagrams: Datagrams) -> None:
        """Take datagrams from these, and send them there."""
        self._datagrams = datagrams
        self._receive, self._send = datagrams.one, datagrams.send_one

    def drain(self) -> None:
        """Answer all that waits in the socket."""
        for _ in range(DRAIN_READS):
            self._answer_batch()

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

    def read(self) -> bool:
        """Answer what has come; whether all of it was packed.

        Where packets come one by one, each finds our code gone from the CPU's caches. Then it is cheaper to read and answer it by
        the socket's own methods, however much dearer they are than a batch when there are many.
        """
        if not self._singles:
            return self._answer_batch()
        self._singles -= 1
        try:
            packet, origin = self._receive(_ROOM)
        except OSError:  # nothing more to read, or an error of something sent before
            return True
        now = self._clock()
        packed = self._known.get(packet[2:])
        access = self._access
        if packed is None or now >= packed.until or now >= access.forget_at or origin[0] not in access.sources:
            self._take_one(packet[:UDP_DATAGRAM], origin, now)
            return False
        packed.hits += 1
        try:
            self._send(packet[:2] + (packed.tail or packed.next_tail()), origin)
        except OSError:  # there is no way to this client, or no room: it asks again, or it does not care
            self._ledger.drop("send")
        self._untimed += 1
        if self._untimed >= SAMPLE:
            self._tell_sample(now, packed.source)
        return True

    def _take_one(self, packet: bytes, origin: Origin, now: float) -> None:
        if now >= self._access.forget_at:
            self._access.forget()
        self._batch.begin()
        try:
            self._take(packet, origin, origin[0], now)
        finally:
            self._batch.end()

    def _answer_batch(self) -> bool:
        now = self._clock()
        if now >= self._access.forget_at:
            self._access.forget()
        count = self._datagrams.receive()
        try:
            others = self._answer_slots(count, now)
        finally:
            self._batch.end()
        self._singles = UDP_SINGLES if count <= 1 and self._datagrams.has_one else 0
        return not others

    def _answer_slots(self, count: int, now: float) -> int:
        """Answer what stands in so many slots; how many of them were not packed."""
        datagrams, known, sources = self._datagrams, self._known, self._access.sources
        octets, received, leaving = datagrams.octets, datagrams.received, datagrams.leaving
        first = lost = others = 0  # from `first` on the slots hold answers that have not left yet
        found = "mesh"
        for number in range(count):
            at = number * SLOT
            start = at + PACKET + 2  # behind the id
            packed = known.get(octets[start : at + PACKET + received[number]])
            source = octets[at + HOST : at + NAME]
            if packed is None or now >= packed.until or source not in sources:
                if first < number:
                    lost += datagrams.answer(first, number)
                first = number + 1
                if not others:
                    self._batch.begin()
                others += 1
                size = received[number]
                packet = octets[start - 2 : start - 2 + (size if size < UDP_DATAGRAM else UDP_DATAGRAM)]
                self._take(packet, datagrams.origin(number), source, now)
                continue
            packed.hits += 1
            found = packed.source
            tail = packed.tail or packed.next_tail()
            octets[start : start + len(tail)] = tail
            leaving[number] = len(tail) + 2
        if first < count:
            lost += datagrams.answer(first, count)
        self._ledger.drop("send", lost)
        self._untimed += count - others
        if self._untimed >= SAMPLE:
            self._tell_sample(now, found)
        return others

    def _tell_sample(self, began: float, source: str) -> None:
        self._ledger.sampled(self._clock() - began, source, self._untimed)
        self._untimed = 0

    def _take(self, packet: bytes, origin: Origin, source: bytes | str, now: float) -> None:
        """The way of a datagram that has no packed answer, or comes from a source that is not known to be allowed."""
        front, protocol = self._front, self.protocol
        if source in self._access.sources and not front.tells:
            front.pending += 1
            try:
                if self._take_short(packet, origin, protocol, now):
                    return
            except Exception:
                return front.bug(packet, self._datagrams.host(origin))
            front.pending -= 1
        host = self._datagrams.host(origin)
        if self._access.allows(host):
            self._access.sources |= {source, host}
        front.take(packet, host, "udp", partial(protocol.send, origin))
