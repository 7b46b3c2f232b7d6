"""What a table that changes all the time costs: CPU per mesh answer and how long it takes at 10,000 questions a second, while a
table of 100,000 hosts gets ten deltas a second, and while it gets none.

Nobody else has tables that change in this way; so meshdns stands beside itself, one process in both turns of each round.
"""

import threading
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs

from benchmarks import asking, names, processes, report, serving, source
from benchmarks.helper import Helper
from benchmarks.job import Done, Setting
from benchmarks.load import Load, Outcome, drive
from benchmarks.processes import CannotMeasure
from benchmarks.report import Page, Row, Spread, verdict
from benchmarks.rounds import WARM_UP, Started
from benchmarks.servers import Server, agent

WORD = "deltas"
RATE = 10_000  # questions a second
DELTAS = 10  # a second
NAMES = 1000  # hosts that are asked for, spread over the table
BAR_HOSTS = 100_000
BAR = 0.005  # seconds that no answer may take
STILL, CHANGING = "nothing changes", f"{DELTAS} deltas a second"
_START = 10.0  # seconds, about, until the agent has the large table
_PATIENCE = 60.0  # seconds for a table, or the last delta, to be in force
_PAUSE = 0.05  # seconds between two looks whether it is
_WAITED = 0.02  # share of a run that others may have the agent's core before a row is called disturbed


@attrs.frozen
class Turn:
    """One timed run: what went on meanwhile, how many deltas, and what came of it. Times in seconds."""

    meanwhile: str
    round: int
    deltas: int
    outcome: Outcome
    cpu: float
    waited: float

    @property
    def cpu_per_query(self) -> float:
        """In microseconds."""
        return self.cpu / max(1, self.outcome.answered) * 1e6

    @property
    def most(self) -> float:
        return self.outcome.latency.most if self.outcome.latency else 0.0


def duration(options: Namespace) -> float:
    runs = options.rounds * 2
    return float(_START + options.hosts * 0.0001 + runs * (options.seconds + min(WARM_UP, options.seconds)))


def run(setting: Setting) -> Done:
    turns = list(_turns(setting))
    return Done(page(turns, setting.options.hosts), {"case": WORD, "turns": [attrs.asdict(each) for each in turns]})


def _turns(setting: Setting) -> Iterator[Turn]:
    options, used, directory = setting.options, setting.used, setting.directory / "follower"
    with serving.tables(directory, options.hosts, used.load) as (tables, table):
        server = agent(directory, table)
        with processes.running(server.command, used.server, directory / "log", server.environment) as process:
            asking.wait_until_up(server, process, source.host(0))
            tables.say(show="one")
            tables.hear(_PATIENCE)
            _await(server, source.host(options.hosts - 1), source.address(options.hosts - 1, 1))
            driven = _Driven(setting, tables, Started(server, process))
            for number in range(1, options.rounds + 1):
                order = (STILL, CHANGING) if number % 2 else (CHANGING, STILL)
                for meanwhile in order:
                    turn = driven.turn(meanwhile, number)
                    setting.tell(
                        f"{WORD}: round {number} of {options.rounds}: {meanwhile}: {turn.cpu_per_query:.2f} us"
                    )
                    yield turn


class _Driven:
    """An agent under load, and the source that changes its table."""

    def __init__(self, setting: Setting, tables: Helper, peer: Started) -> None:
        step = max(1, setting.options.hosts // NAMES)
        asked = {source.host(number): "" for number in range(0, setting.options.hosts, step)}
        self._load = Load(names.write_queries(setting.directory / "queries", asked), RATE)
        self._seconds = setting.options.seconds
        self._core = setting.used.load
        self._tables = tables
        self._peer = peer
        self._made = 0

    def turn(self, meanwhile: str, number: int) -> Turn:
        heard = self._made
        with self._changing(0 if meanwhile == STILL else DELTAS):
            self._drive(min(WARM_UP, self._seconds))
            made, (cpu, waited) = self._made, self._peer.spent()
            outcome = self._drive(self._seconds)
            made, (cpu_after, waited_after) = self._made - made, self._peer.spent()
        for _ in range(self._made - heard):  # the source says something of each, and shall not wait until it is read
            self._tables.hear(_PATIENCE)
        if self._made:
            _await(self._peer.server, source.host(0), source.address(self._made, 3))
        return Turn(meanwhile, number, made, outcome, cpu_after - cpu, waited_after - waited)

    def _drive(self, seconds: float) -> Outcome:
        server = self._peer.server
        return drive(self._load, server.port, seconds, self._core, server.directory / "dnsperf")

    @contextmanager
    def _changing(self, rate: int) -> Iterator[None]:
        """So many deltas a second for the length of a `with`; each gives the first host another address."""
        over = threading.Event()

        def change() -> None:
            while rate and not over.wait(1 / rate):
                self._made += 1
                self._tables.say(change=source.address(self._made, 3))

        thread = threading.Thread(target=change)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _await(server: Server, host: str, address: str) -> None:
    """Return once the agent answers with this address."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return asking.check_answers(server, [(host, address)])
        except CannotMeasure:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)


# For the reader


def page(turns: Sequence[Turn], hosts: int) -> Page:
    head = [
        "meanwhile",
        "deltas",
        "CPU us/query",
        f"this / {STILL}",
        "queries/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "most ms",
    ]
    title = f"Mesh answers at {RATE:,} queries a second from a table of {hosts:,} hosts that changes"
    return Page(title, WORD, [head, *(_row(turns, each) for each in (STILL, CHANGING))], list(notes(turns, hosts)))


def _row(turns: Sequence[Turn], meanwhile: str) -> Row:
    found, still = ([turn for turn in turns if turn.meanwhile == each] for each in (meanwhile, STILL))
    ratios = [one.cpu_per_query / other.cpu_per_query for one, other in zip(found, still, strict=True)]
    return [
        meanwhile + (" (!)" if any(_problem(turn) for turn in found) else ""),
        f"{sum(turn.deltas for turn in found):,}",
        Spread.of([turn.cpu_per_query for turn in found]).text(".2f"),
        "" if meanwhile == STILL else Spread.of(ratios).text(".2f"),
        Spread.of([turn.outcome.answered / turn.outcome.seconds for turn in found]).text(",.0f"),
        *report.latencies([turn.outcome for turn in found]),
        Spread.of([turn.most * 1e3 for turn in found]).text(".2f"),
    ]


def notes(turns: Sequence[Turn], hosts: int) -> Iterator[str]:
    """The bars, and the rounds that should not be trusted."""
    still, changing = ([turn for turn in turns if turn.meanwhile == each] for each in (STILL, CHANGING))
    tail = max(turn.outcome.latency.p999 for turn in changing if turn.outcome.latency)
    most, usual = (max(turn.most for turn in each) for each in (changing, still))
    yield f"{CHANGING}: p99.9 of each round below {BAR * 1e3:.0f} ms: {verdict(tail, BAR)}, {tail * 1e3:.2f} ms"
    beside = f"{most * 1e3:.2f} ms, and {usual * 1e3:.2f} when {STILL}"
    yield f"{CHANGING}: no answer takes {BAR * 1e3:.0f} ms: {verdict(most, BAR)}, {beside}"
    if hosts < BAR_HOSTS:
        yield f"the bars are meant for {BAR_HOSTS:,} hosts"
    for turn in turns:
        if problem := _problem(turn):
            yield f"(!) {turn.meanwhile}, round {turn.round}: {problem}"


def _problem(turn: Turn) -> str:
    if turn.outcome.lost:
        return f"{turn.outcome.lost} questions were not answered"
    if turn.waited > turn.outcome.seconds * _WAITED:
        return f"others had the agent's core for {turn.waited / turn.outcome.seconds:.0%} of the time"
    return ""
