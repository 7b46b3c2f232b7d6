"""What the redirect costs, and how long a machine is without DNS when its agent has a bad day.

`python -m benchmarks.interception` (as root; nft, iptables, unbound) builds the machine of `tests/e2e/vm.py` out of network
namespaces, once for each way of redirecting, and prints the tables of docs/vm.md. It takes about three minutes.
"""

import signal
import socket
import statistics
import sys
import threading
import unittest
from collections.abc import Callable, Iterator, Sequence
from time import monotonic, sleep

import dns.message

from tests.e2e.agent import SERVICE
from tests.e2e.vm import PUBLIC, SERVER, Vm

QUERIES = 2000  # of each kind; half of them warm up
ROUNDS = 10  # of each bad day
WATCHED = 3.0  # seconds of a bad day in which each query is looked at
PACE = 0.01  # seconds between two of these queries
LATE = 1.0  # seconds after which a query counts as lost


class Measure(Vm):
    """One made-up machine on which something is measured; what it finds is in `rows`."""

    rows: Sequence[Sequence[str]] = ()

    def latency(self) -> None:
        self.start_agent()
        rows = [["to the agent itself", *self.costs("127.0.0.1", 15053)]]
        before = self.costs(SERVER, 53, PUBLIC)
        self.up()
        rows.append(["redirected", *self.costs(SERVER, 53)])
        self.agent.stop()
        self.await_who("unbound")
        rows += [["old server, no rules", *before], ["old server, rules up, no agent", *self.costs(SERVER, 53, PUBLIC)]]
        self.rows = rows

    def costs(self, host: str, port: int, name: str = SERVICE) -> Iterator[str]:
        """Medians in microseconds: over a kept UDP socket, over a new one each time, over a new TCP connection."""
        kept = self.open(socket.SOCK_DGRAM, host, port)
        yield self.median(lambda: self.ask(name, over=kept))
        yield self.median(lambda: self.ask_anew(socket.SOCK_DGRAM, host, port, name))
        yield self.median(lambda: self.ask_anew(socket.SOCK_STREAM, host, port, name))

    def ask_anew(self, kind: int, host: str, port: int, name: str) -> object:
        with self.open(kind, host, port) as over:
            return self.ask(name, over=over, tcp=kind == socket.SOCK_STREAM)

    def open(self, kind: int, host: str, port: int) -> socket.socket:
        made = self.vm.place.make_socket(socket.AF_INET, kind)
        made.connect((host, port))
        return made

    def median(self, ask: Callable[[], object]) -> str:
        times = []
        for _ in range(QUERIES):
            started = monotonic()
            self.assertIsNotNone(ask())
            times.append(monotonic() - started)
        return f"{statistics.median(times[QUERIES // 2 :]) * 1e6:.0f}"

    def bad_days(self) -> None:
        self.start_agent()
        self.up()
        self.rows = [
            ["SIGKILL", *self.days(self.agent_dies, self.restart_agent)],
            ["SIGSTOP", *self.days(self.agent_stops, self.agent_goes_on)],
            ["restart", *self.days(self.agent_restarts, lambda: None)],
            ["upgrade: the rules, then the agent", *self.days(self.upgrade, lambda: None)],
            [
                "first boot, the redirect before the agent",
                *self.days(self.restart_agent, lambda: None, self.agent_ends),
            ],
        ]

    def agent_dies(self) -> None:
        self.agent.process.kill()
        self.agent.process.wait()

    def agent_stops(self) -> None:
        self.agent.process.send_signal(signal.SIGSTOP)

    def agent_goes_on(self) -> None:
        self.agent.process.send_signal(signal.SIGCONT)

    def agent_restarts(self) -> None:
        self.agent.stop()
        self.restart_agent()

    def upgrade(self) -> None:
        self.up()
        self.agent_restarts()

    def agent_ends(self) -> None:
        self.agent.stop()
        self.await_who("unbound")

    def days(
        self, act: Callable[[], None], after: Callable[[], None], before: Callable[[], None] = lambda: None
    ) -> list[str]:
        """The median and the longest outage; then how many queries of a bad day's were lost."""
        outages, lost, asked = [], 0, 0
        for _ in range(ROUNDS):
            before()
            outages.append(self.outage(act))
            after()
            self.await_agent()
        for _ in range(3):
            before()
            gone, put = self.losses(act)
            lost, asked = lost + gone, asked + put
            after()
            self.await_agent()
        return [f"{statistics.median(outages):.2f} s", f"{max(outages):.2f} s", f"{lost} of {asked}"]

    def losses(self, act: Callable[[], None]) -> tuple[int, int]:
        """Of queries put one by one from before the bad day on, each over a socket of its own: how many were lost, of how many."""
        sockets = [self.open(socket.SOCK_DGRAM, SERVER, 53) for _ in range(int(WATCHED / PACE))]
        self.addCleanup(lambda: [each.close() for each in sockets])
        day = threading.Timer(0.3, act)
        day.start()
        put: list[tuple[socket.socket, float]] = []
        started = monotonic()
        for number, each in enumerate(sockets):
            while monotonic() < started + number * PACE:
                sleep(PACE / 10)
            each.send(dns.message.make_query(PUBLIC, "A").to_wire())
            put.append((each, monotonic()))
        day.join()
        lost = 0
        for each, at in put:
            each.settimeout(max(0.001, at + LATE - monotonic()))
            try:
                each.recv(4096)
            except OSError:
                lost += 1
        return lost, len(put)


def measure(method: str, words: Sequence[str]) -> Sequence[Sequence[str]]:
    case = Measure(method)
    case.words = words
    result = unittest.TestResult()
    case.run(result)
    for _, trace in (*result.errors, *result.failures):
        sys.exit(f"it could not be measured:\n{trace}")
    for _, why in result.skipped:
        sys.exit(f"it cannot be measured here: {why}")
    return case.rows


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"| {' | '.join(headers)} |\n|{'---|' * len(headers)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    for mode in ("nftables", "iptables"):
        words = ("--mode", mode)
        print(f"\n{mode}, medians in microseconds\n")
        table(("query", "kept UDP socket", "new UDP socket", "new TCP connection"), measure("latency", words))
        print(f"\n{mode}, seconds without DNS\n")
        table(("bad day", "median", "longest", "queries lost"), measure("bad_days", words))


if __name__ == "__main__":
    main()
