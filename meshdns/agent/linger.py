"""Outside: a short way round the reactor for the few sockets on which DNS itself arrives.

Packets come one by one to a sidecar, and for each the reactor would go its whole round: timers, every descriptor, a logging
context. That is dearer than all else about a packed answer. So whoever has read its socket lingers: it asks the reactor's own
epoll what comes next, and as long as that is such a socket again, and no timer is due, reads it on the spot. For anything else
the reactor has its turn, at once. A thread of its own for the socket, blocked in recvmmsg, was measured too
(docs/performance.md): hardly cheaper, and whatever it could not answer would cost a hand-over and a wait for the
interpreter's lock. Where the reactor is not Twisted's epoll one, nobody lingers. It must never know what is read.
"""

from collections.abc import Callable
from select import EPOLLIN, epoll
from typing import Any

Read = Callable[[], object]  # reads once what there is, and never raises
_EVENTS = 4  # looked for at once: two doors, and upstreams


class Linger:
    """Shared by all who read such sockets."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        poller = getattr(reactor, "_poller", None)
        self._poll = poller.poll if isinstance(poller, epoll) else None
        self._reads: dict[tuple[int, int], Read] = {}  # by descriptor and event

    def add(self, descriptor: int, read: Read) -> None:
        self._reads[descriptor, EPOLLIN] = read

    def remove(self, descriptor: int) -> None:
        self._reads.pop((descriptor, EPOLLIN), None)

    def read(self, read: Read) -> None:
        """Read, and go on as long as the reactor is not wanted."""
        read()
        poll, reads, reactor = self._poll, self._reads, self._reactor
        while poll is not None and reactor.running:
            wait = reactor.timeout()  # until the next timer
            if wait is not None and wait <= 0:
                return
            events = poll(wait, _EVENTS)
            if not events or not all(event in reads for event in events):
                return  # the reactor finds them again: it looks at what is ready, not at what has become so
            for event in events:
                if event in reads:  # else it was closed by what another one brought
                    reads[event]()
