"""Outside: where clients come in: which doors are open (rule D1), and what is logged about who comes in.

What a door does with a packet is `hotpath` over UDP and `streams` over TCP; both are opened by callables from the root.
"""

import errno
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from meshdns import names, wire
from meshdns.agent.front import Front
from meshdns.agent.packed import PackedAnswers
from meshdns.agent.resolver import Answered
from meshdns.defaults import DRAIN

_log = Logger()
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
Address = tuple[str, int]


def tell_bug(packet: bytes, source: str) -> None:
    """Log the exception under way, with the packet that brought it about."""
    _log.failure("please report this bug: a packet from {source}: {packet}", source=source, packet=packet.hex())


def tell_query(packet: bytes, source: str, transport: str, seconds: float, answered: Answered) -> None:
    """Log a query with its answer, for `log.queries`."""
    query = wire.read_query(packet)
    asked = f"{names.text(query.name)} {wire.type_text(query.type)}" if isinstance(query, wire.Query) else "nonsense"
    _log.info(
        "{source} asked {asked} over {transport}: {rcode} from {found} in {ms:.3f} ms",
        source=source, asked=asked, transport=transport, rcode=wire.rcode_text(answered.rcode), found=answered.source,
        ms=seconds * 1000,
    )  # fmt: skip


class UdpDoor(Protocol):
    """A UDP socket that is open."""

    socket: Any

    def drain(self) -> None: ...
    def stopReading(self) -> None: ...
    def stopListening(self) -> Deferred[None] | None: ...


class TcpDoor(Protocol):
    """A listening TCP socket; its factory knows the connections."""

    factory: Any
    socket: Any

    def stopReading(self) -> None: ...
    def stopListening(self) -> Deferred[None] | None: ...


class Doors:
    """Every listening socket of an agent."""

    def __init__(
        self,
        front: Front,
        packed: Iterable[PackedAnswers],
        open_udp: Callable[[str, int], UdpDoor],
        open_tcp: Callable[[str, int], TcpDoor],
        reactor: Any,
    ) -> None:
        """`open_udp` and `open_tcp` raise CannotListenError. `packed` are all answers that leave without a word."""
        self._front = front
        self._packed = tuple(packed)
        self._open_udp, self._open_tcp = open_udp, open_tcp
        self._reactor = reactor
        self._open: dict[Address, tuple[UdpDoor, TcpDoor]] = {}

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
    def sockets(self) -> dict[Address, tuple[Any, Any]]:
        """Those that are listened on, over UDP and TCP."""
        return {address: (datagrams.socket, streams.socket) for address, (datagrams, streams) in self._open.items()}

    def tell_queries(self, wanted: bool) -> None:
        """Whether to log each query; no answer is kept packed then, nor is there a short way: those pass without a word."""
        self._front.tells = wanted
        for packed in self._packed:
            packed.enabled = not wanted
            packed.forget()

    def _door(self, host: str, port: int) -> tuple[UdpDoor, TcpDoor]:
        datagrams = self._open_udp(host, port)
        try:
            return datagrams, self._open_tcp(host, port)
        except CannotListenError:
            datagrams.stopListening()
            raise

    def _shut(self, address: Address) -> Deferred[Any]:
        datagrams, streams = self._open.pop(address)
        streams.factory.end()
        return DeferredList([maybeDeferred(datagrams.stopListening), maybeDeferred(streams.stopListening)])

    async def close(self) -> None:
        """Answer what has been asked, but not longer than DRAIN; then close every socket."""
        for datagrams, streams in self._open.values():
            datagrams.drain()  # what waits in the socket was asked before the end
            datagrams.stopReading()
            streams.stopReading()
        idle: Deferred[None] = Deferred()
        self._front.when_idle(lambda: idle.callback(None))
        await idle.addTimeout(DRAIN, self._reactor, lambda *late: None)
        await DeferredList([self._shut(address) for address in list(self._open)])
