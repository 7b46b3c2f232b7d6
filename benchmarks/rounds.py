"""Interleaved rounds: in each, every server of a case has its turn, beginning with another one each time."""

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from benchmarks import asking, caching, machine, names, processes
from benchmarks.caching import Caching
from benchmarks.load import Load, Outcome, drive
from benchmarks.machine import Cores
from benchmarks.processes import Core
from benchmarks.servers import Builder, Room, Server
from benchmarks.upstreams import upstream

WARM_UP = 1.0  # seconds of the same load before each timed run, or the run's own length if that is less
_LOST = 0.001  # share of queries without an answer that is still called none
_UPSTREAM = 0.01  # how far the upstream's count may be from one per answer: a cache would show here
_WAITED = 0.02  # share of a run that a server may have waited for its core before the run is called disturbed
_PACE = 0.02  # how far a paced run may be from its pace


@attrs.frozen
class Case:
    """One comparison. `relayed`: each answer must have cost the upstream one query, else none; `fresh`: each name is asked
    once and never again, instead of `hosts` over and over; `bars`: what meshdns' CPU per query may at most be, as a
    multiple of a peer's."""

    word: str
    title: str
    servers: Sequence[Builder]
    hosts: Callable[[], Mapping[str, str]]
    rate: int | None = None
    relayed: bool = False
    fresh: bool = False
    caching: Caching = caching.NONE
    tcp: bool = False
    bars: Mapping[str, float] = attrs.field(factory=dict)

    @property
    def cached(self) -> bool:
        """Whether every answer is to come from a cache."""
        return self.caching is not caching.NONE and not self.relayed


@attrs.frozen
class Run:
    """One timed run of one server. Times in seconds; `asked` is what the upstream counted meanwhile."""

    server: str
    round: int
    outcome: Outcome
    cpu: float
    waited: float
    asked: int
    problems: Sequence[str]

    @property
    def cpu_per_query(self) -> float:
        """In microseconds."""
        return self.cpu / max(1, self.outcome.answered) * 1e6

    @property
    def queries_per_second(self) -> float:
        return self.outcome.answered / self.outcome.seconds

    @property
    def core_used(self) -> float:
        """Share of its core that the server used."""
        return self.cpu / self.outcome.seconds


@attrs.frozen
class Measured:
    """A case with its runs, in the order they were made, and the configurations used."""

    case: Case
    runs: Sequence[Run]
    servers: Sequence[Server]

    def of(self, server: str) -> list[Run]:
        return [run for run in self.runs if run.server == server]


@attrs.frozen
class Started:
    """A server that runs."""

    server: Server
    process: subprocess.Popen[bytes]

    def spent(self) -> tuple[float, float]:
        """Its CPU time and the time it waited for its core while others had it, so far, in seconds."""
        if self.process.poll() is not None:
            words = processes.last_words(self.server.directory / "log")
            raise processes.CannotMeasure(f"{self.server.name} ended with status {self.process.returncode}:\n{words}")
        waited = 0.0 if self.server.crowded else machine.waited_seconds(self.process.pid)
        return machine.cpu_seconds(self.process.pid), waited


def measure(
    case: Case, *, rounds: int, seconds: float, used: Cores, directory: Path, tell: Callable[[str], None]
) -> Measured:
    """Start the servers of a case, check their answers, and time them."""
    room = Room(directory, processes.free_port(), case.caching)
    hosts = case.hosts()
    with up(upstream, room, used.load, names.outside_hosts()) as source, ExitStack() as stack:
        peers = [stack.enter_context(up(builder, room, used.server, hosts)) for builder in case.servers]
        for peer in peers if case.cached else ():
            asking.check_answers(peer.server, list(hosts.items()))  # from now on it has them all
        runs = []
        for number in range(1, rounds + 1):
            loads = _loads(case, hosts, number, seconds, directory)
            turn = (number - 1) % len(peers)
            for peer in peers[turn:] + peers[:turn]:
                run = _timed(case, peer, source.server, loads, number, seconds, used)
                tell(f"{case.word}: round {number} of {rounds}: {peer.server.name}: {run.cpu_per_query:.2f} us")
                runs.append(run)
        return Measured(case, runs, [peer.server for peer in peers])


@contextmanager
def up(build: Builder, room: Room, core: Core, hosts: Mapping[str, str]) -> Iterator[Started]:
    """A server that runs and gives right answers."""
    server = build(room)
    with processes.running(server.command, core, server.directory / "log", server.environment) as process:
        sample = names.sample(hosts)
        asking.wait_until_up(server, process, sample[0][0])
        asking.check_answers(server, sample)
        yield Started(server, process)


def _loads(case: Case, hosts: Mapping[str, str], number: int, seconds: float, directory: Path) -> tuple[Load, Load]:
    """What is asked in a round, of each server: before the clock runs, and while it does."""
    if not case.fresh:
        load = Load(names.write_queries(directory / "queries", hosts), case.rate, tcp=case.tcp)
        return load, load
    enough = int((case.rate or names.FRESH_NAMES) * seconds * 1.1) + 1000
    labels = f"early-{number}", f"fresh-{number}"
    paths = [names.write_fresh_queries(directory / label.split("-")[0], label, enough) for label in labels]
    return Load(paths[0], case.rate, once=True), Load(paths[1], case.rate, once=True)


def _timed(
    case: Case, peer: Started, source: Server, loads: tuple[Load, Load], number: int, seconds: float, used: Cores
) -> Run:
    log = peer.server.directory / "dnsperf"
    warming, load = loads
    drive(warming, peer.server.port, min(WARM_UP, seconds), used.load, log)
    asked_before, (cpu_before, waited_before) = asking.times_asked(source), peer.spent()
    outcome = drive(load, peer.server.port, seconds, used.load, log)
    asked_after, (cpu_after, waited_after) = asking.times_asked(source), peer.spent()
    asked, cpu, waited = asked_after - asked_before, cpu_after - cpu_before, waited_after - waited_before
    problems = list(_problems(case, outcome, waited, asked))
    return Run(peer.server.name, number, outcome, cpu, waited, asked, problems)


def _problems(case: Case, outcome: Outcome, waited: float, asked: int) -> Iterator[str]:
    """Why a run's figures should not be trusted."""
    if outcome.lost > outcome.sent * _LOST:
        yield f"{outcome.lost} of {outcome.sent} queries were not answered"
    if others := {rcode: count for rcode, count in outcome.rcodes.items() if rcode != "NOERROR"}:
        yield f"answers that were errors: {others}"
    if abs(asked - case.relayed * outcome.answered) > outcome.answered * _UPSTREAM:
        yield f"the upstream was asked {asked} times for {outcome.answered} answers"
    if waited > outcome.seconds * _WAITED:
        yield f"others had the server's core for {waited / outcome.seconds:.0%} of the time"
    if case.rate and abs(outcome.answered / outcome.seconds / case.rate - 1) > _PACE:
        yield f"{outcome.answered / outcome.seconds:,.0f} queries a second instead of {case.rate:,}"
