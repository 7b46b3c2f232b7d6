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

Read = Callable[[], object]  # reads once what there is, and never raises; true: it has set no timer, and ended nothing
_EVENTS = 4  # looked for at once: two doors, and upstreams
_LONG = 3600.0  # seconds to wait where no timer is set


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
        while self._stay():
            pass

    def _stay(self) -> bool:
        """Read what comes until the next timer, or until something was read that may have set one; whether to stay longer."""
        reactor = self._reactor
        if self._poll is None or not reactor.running:
            return False
        poll, find, clock = self._poll, self._reads.get, reactor.seconds
        wait = reactor.timeout()
        left = _LONG if wait is None else wait
        due = clock() + left
        is_settled = True
        while is_settled:
            if left <= 0 or not (events := poll(left, _EVENTS)):
                return False
            for event in events:
                read = find(event)
                if (
                    read is None
                ):  # the reactor's: it looks at what is ready, not at what has become so, and finds it again
                    return False
                if not read():
                    is_settled = False
            left = due - clock()
        return True
