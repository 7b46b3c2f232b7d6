"""Outside: TCP ports under TLS whose answers leave at once.

A factory enters; its connections run under TLS, and what they write goes to the socket as it is written. The stock ones gather
it for the reactor's next turn, twice: a news for thousands would leave only after the last of them has been told. It
must never know what is said over a connection.
"""

from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import ServerFactory
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

from meshdns.defaults import TCP_BACKLOG


class _Connection(tcp.Server):
    """Buffers only what the socket does not take now."""

    _waiting = False  # whether something is buffered, and the reactor watches for room

    def startWriting(self) -> None:
        self._waiting = True
        super().startWriting()

    def stopWriting(self) -> None:
        self._waiting = False
        super().stopWriting()

    def write(self, data: bytes) -> None:
        if self.connected and not self._waiting:
            sent = self.writeSomeData(data)
            if isinstance(sent, int):
                data = data[sent:]  # else the connection is lost, which the reactor will meet when it tries
        super().write(data)


class _Port(tcp.Port):
    transport = _Connection


def tls_port(address: tuple[str, int], tls: IOpenSSLServerConnectionCreator, factory: Any, reactor: Any) -> tcp.Port:
    """A port that is open. Raises CannotListenError."""
    under_tls = TLSMemoryBIOFactory(tls, False, factory)
    under_tls.protocol = TLSMemoryBIOProtocol
    port = _Port(address[1], cast(ServerFactory, under_tls), TCP_BACKLOG, address[0], reactor)
    port.startListening()
    return port
