"""One question after the other at an even pace, whether or not the last one is answered yet: a server that stalls is asked on, and
each question that it kept waiting counts."""

import select
import socket
import time
from collections.abc import Callable, Sequence

import attrs
import dns.rdatatype

from benchmarks import client
from benchmarks.processes import CannotMeasure
from benchmarks.report import percentile

RATE = 2000  # questions a second
_LOST = 1.0  # seconds after which an answer is not waited for any more
_BEHIND = 0.1  # seconds that we may be late ourselves before what was to be asked meanwhile is left out


@attrs.frozen
class Asked:
    """What came of it: how long each answer took, in seconds, the questions without one, and how long it all took."""

    took: Sequence[float]
    lost: int
    seconds: float

    def __add__(self, other: "Asked") -> "Asked":
        return Asked([*self.took, *other.took], self.lost + other.lost, self.seconds + other.seconds)

    def percentile(self, share: float) -> float:
        return percentile(self.took, share)

    @property
    def rate(self) -> float:
        return (len(self.took) + self.lost) / self.seconds


class Pacer:
    """A client that asks for the A records of some hosts in turn. `address` is in the last answer, four octets."""

    def __init__(self, port: int, hosts: Sequence[str]) -> None:
        self.address = b""
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setblocking(False)
        self._queries = [client.query(0, host, dns.rdatatype.A)[2:] for host in hosts]
        self._count = 0
        self._sent: dict[bytes, float] = {}  # id -> when
        self._took: list[float] = []

    def close(self) -> None:
        self._socket.close()

    def ask(self, over: Callable[[], bool], patience: float) -> Asked:
        """Until `over` says so, which is called after each question and its pause."""
        self._sent, self._took = {}, []
        begun = due = time.monotonic()
        asked = False
        while not (asked and over()):
            asked, now = True, time.monotonic()
            if now - begun > patience:
                raise CannotMeasure(f"What was waited for did not come to pass within {patience:.0f} s.")
            self._send()
            due = max(due + 1 / RATE, now - _BEHIND)
            while (left := due - time.monotonic()) > 0:
                self._receive(left)
            self._receive(0)
        seconds = time.monotonic() - begun
        while self._sent and time.monotonic() - begun - seconds < _LOST:
            self._receive(_LOST / 10)
        return Asked(self._took, len(self._sent), seconds)

    def _send(self) -> None:
        self._count += 1
        own = (self._count & 0xFFFF).to_bytes(2)
        self._sent[own] = time.monotonic()
        self._socket.send(own + self._queries[self._count % len(self._queries)])

    def _receive(self, patience: float) -> None:
        """All answers that are there, or the next one."""
        if not select.select([self._socket], [], [], patience)[0]:
            return
        try:
            while True:
                reply = self._socket.recv(4096)
                sent = self._sent.pop(reply[:2], None)
                if sent is not None:
                    self._took.append(time.monotonic() - sent)
                    self._check(reply)
        except BlockingIOError:
            pass
        except OSError as error:
            raise CannotMeasure(f"The agent does not answer: {error}") from None

    def _check(self, reply: bytes) -> None:
        if reply[3] & 0x0F or reply[6:8] != b"\0\1":
            raise CannotMeasure(
                f"The agent answers wrongly: rcode {reply[3] & 0x0F}, {reply[7]} records instead of one."
            )
        self.address = reply[-4:]
