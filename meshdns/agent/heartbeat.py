"""Outside: the agent asks itself, so that a redirect knows that it lives.

Addresses enter; every HEARTBEAT a query leaves for each. What answers it is the UDP door with all behind it, so an answer
proves that applications are answered, too: by one of several workers, always the same; that the others answer is for `workers` to
see. The kernel sees the answer leave, and holds the redirect for a while
(`host/nftables`); nobody reads it. It must never know whether there is a redirect.
"""

import socket
from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from meshdns.agent.pulse import QUERY
from meshdns.defaults import HEARTBEAT

_NEAR = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_ANSWERS = 16  # read away at each turn, unseen: more than can have come
_DATAGRAM = 512


class Heartbeat:
    """Asks the agent's own UDP doors."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._sockets: list[socket.socket] = []
        self._call: IDelayedCall | None = None

    # from the root

    def start(self, addresses: Iterable[tuple[str, int]]) -> None:
        """Beat now, and from now on, at these addresses alone."""
        self.stop()
        for host, port in addresses:
            if asking := _connected(_NEAR.get(host, host), port):
                self._sockets.append(asking)
        self._beat()

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
        while self._sockets:
            self._sockets.pop().close()

    # from the clock

    def _beat(self) -> None:
        self._call = self._reactor.callLater(HEARTBEAT, self._beat)
        for asking in self._sockets:
            try:
                asking.send(QUERY)
                for _ in range(_ANSWERS):
                    asking.recv(_DATAGRAM)
            except OSError:  # nothing more has come; or the door is shut, and the redirect shall end
                continue


def _connected(host: str, port: int) -> socket.socket | None:
    """None: this host has no such address."""
    made = None
    try:
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        made.setblocking(False)
        made.connect((host, port))
        return made
    except OSError:
        if made is not None:
            made.close()
        return None
