"""Thousands of agents in one process, as a control plane sees them: TLS, a long poll each, and the next one at once.

They hold no tables. Said of each generation, once all have it: when its answer came in at each of them, in seconds of the
monotonic clock, which all processes of a machine share.
"""

import argparse
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

from benchmarks.helper import allow_descriptors, stand_back, tell
from benchmarks.polling import Heard, Poller, request, trusting
from benchmarks.processes import CannotMeasure, end_on_sigterm
from meshdns.defaults import POLL_WAIT
from meshdns.exchange import Poll

_AT_ONCE = 32  # handshakes under way: the control plane's backlog has room for 128
_EVENTS = 256  # sockets looked at in one go


class Fleet:
    """All pollers of one namespace."""

    def __init__(self, port: int, ca: Path, token: str, cluster: str, count: int) -> None:
        self._port, self._trust, self._token, self._count = port, trusting(ca), token, count
        self._first = Poll(cluster=cluster, gzip=True)
        self._epoll = select.epoll()
        self._pollers: dict[int, Poller] = {}
        self._new: set[int] = set()  # those that have had no answer yet
        self._had: dict[str, list[float]] = {}  # generation -> when each had it
        self._requests: dict[str, bytes] = {}  # generation -> the poll of who holds it

    def run(self) -> None:
        while True:
            for _ in self._to_open():
                self._open()
            for descriptor, _ in self._epoll.poll(maxevents=_EVENTS):
                if (heard := self._pollers[descriptor].arrived()) is not None:
                    self._new.discard(descriptor)
                    self._answered(self._pollers[descriptor], heard)

    def _to_open(self) -> Iterator[None]:
        while len(self._pollers) < self._count and len(self._new) < _AT_ONCE:
            yield

    def _open(self) -> None:
        poller = Poller(self._trust, self._port, self._token, self._first)
        descriptor = poller.socket.fileno()
        self._pollers[descriptor] = poller
        self._new.add(descriptor)
        self._epoll.register(descriptor, select.EPOLLIN)

    def _answered(self, poller: Poller, heard: Heard) -> None:
        generation = heard.answer.generation
        if heard.answer.kind == "refused":
            raise CannotMeasure(f"A poller is refused ({heard.answer.status}): {heard.body.decode(errors='replace')}")
        if heard.answer.kind != "nothing":
            self._note(generation, poller.last)
        poller.ask(self._next(generation))

    def _next(self, generation: str) -> bytes:
        """The same for all who hold the same."""
        asked = self._requests.get(generation)
        if asked is None:
            poll = attrs.evolve(self._first, known=(generation,), wait=POLL_WAIT, deltas=True)
            self._requests = {generation: request(poll, self._token)}
            asked = self._requests[generation]
        return asked

    def _note(self, generation: str, when: float) -> None:
        """`when` is of the wall's clock."""
        had = self._had.setdefault(generation, [])
        had.append(when)
        if len(had) == self._count:
            del self._had[generation]
            apart = time.time() - time.monotonic()
            tell(generation=generation, came=[round(each - apart, 6) for each in had])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fleet", description="Simulated pollers, for benchmarks."
    )
    parser.add_argument("port", type=int)
    parser.add_argument("ca", type=Path)
    parser.add_argument("token")
    parser.add_argument("cluster")
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    end_on_sigterm()
    stand_back()
    try:
        allow_descriptors(options.count)
        Fleet(options.port, options.ca, options.token, options.cluster, options.count).run()
    except (CannotMeasure, OSError) as reason:
        tell(trouble=f"The simulated pollers gave up. {reason}")
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
