"""Inside: what is to be sent waits until all that one wake-up brought is read.

Each datagram sent to a sleeping process wakes it, which costs the sender as much as sending. Sent one right behind the other
they wake it once: a relayed query is a quarter cheaper. Doors and Upstream share one Batch. It must never know what is sent.
"""

from collections.abc import Callable


class Batch:
    """Open while datagrams are read; `end` has everything sent that was put off."""

    def __init__(self) -> None:
        self.is_open = False
        self._send_all: list[Callable[[], None]] = []

    def at_end(self, send_all: Callable[[], None]) -> None:
        """Have this called at the end of each batch, after those registered before."""
        self._send_all.append(send_all)

    def leave(self, send_all: Callable[[], None]) -> None:
        self._send_all = [each for each in self._send_all if each != send_all]

    def begin(self) -> None:
        self.is_open = True

    def end(self) -> None:
        self.is_open = False
        for send_all in self._send_all:
            send_all()
