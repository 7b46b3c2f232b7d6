"""Scenes of the upstream side: plain calls, a clock that is a number, and chance from a seed."""

from random import Random

from meshdns import names
from meshdns.agent.flights import Finished, Flights, Notice, Result, Send, Steps
from meshdns.agent.servers import Options
from meshdns.values import Server
from meshdns.wire import NXDOMAIN, RD, Ask

ONE, TWO, THREE = Server("192.0.2.1"), Server("192.0.2.2"), Server("192.0.2.3")
ADDRESS = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x07"
TC = 0x0200


def ask(name: str = "www.example.com", flags: int = RD) -> Ask:
    return Ask(names.parse(name) + b"\x00\x01\x00\x01", flags, b"")


def question(message: bytes) -> bytes:
    """Name, type and class of a query, as sent."""
    end = 12
    while message[end]:
        end += 1 + message[end]
    return message[12 : end + 5]


def name(message: bytes) -> str:
    return names.text(question(message)[:-4].lower())


def reply(
    query: bytes, rcode: int = 0, *, flags: int = 0, asked: bytes | None = None, records: bytes = ADDRESS
) -> bytes:
    """What an honest server answers; `asked` echoes another question."""
    count = (len(records) // len(ADDRESS)).to_bytes(2)
    header = query[:2] + (0x8180 | flags | rcode).to_bytes(2) + b"\x00\x01" + count + bytes(4)
    return header + (question(query) if asked is None else asked) + records


class Scene:
    """Flights, their time, and what came of them so far."""

    def __init__(self, *servers: Server, answered: bool = True, **options: object) -> None:
        self.now = 100.0
        self.sent: list[Send] = []
        self.results: list[tuple[object, Result]] = []
        self.notices: list[str] = []
        self.flights = Flights(Random(7).getrandbits)
        probes = self.play(self.flights.replace(servers, Options(**options), 512, self.now))
        self.probes = list(probes)
        if answered:
            for probe in probes:
                self.answer(probe, NXDOMAIN, records=b"")

    def play(self, steps: Steps) -> list[Send]:
        for step in steps:
            if isinstance(step, Finished):
                self.results += [(waiter, step.result) for waiter in step.waiters]
            elif isinstance(step, Notice):
                self.notices.append(step.text)
        sent = [step for step in steps if isinstance(step, Send)]
        self.sent += sent
        return sent

    def ask(self, name: str = "www.example.com", waiter: object = "client", flags: int = RD) -> list[Send]:
        return self.play(self.flights.ask(ask(name, flags), waiter, self.now))

    def answer(self, send: Send, rcode: int = 0, **how: object) -> list[Send]:
        return self.hear(send, reply(send.message, rcode, **how))

    def hear(self, send: Send, message: bytes) -> list[Send]:
        return self.play(self.flights.received(send.server, send.slot, message, self.now))

    def fail(self, send: Send, text: str = "refused", **how: object) -> list[Send]:
        return self.play(self.flights.failed(send.server, send.slot, text, self.now, **how))

    def wait(self, seconds: float) -> list[Send]:
        """Time passes as the one timer lets it: from wake to wake."""
        end = self.now + seconds
        sent = []
        while (wake := self.flights.next_wake()) is not None and wake <= end:
            self.now = max(self.now, wake)
            sent += self.play(self.flights.tick(self.now))
        self.now = end
        return sent

    def train(self, server: int, seconds: float, times: int = 64) -> None:
        """Let a server answer so often in that time; others of the same scene do not count."""
        peer = self.flights.peers[server]
        for _ in range(times):
            peer.answered(seconds)
        self.flights._stale = True

    @property
    def result(self) -> Result:
        ((_, result),) = self.results
        return result

    def state(self, server: int) -> str:
        return self.flights.peers[server].state
