"""What more processes bring: answers a second of an agent with one worker and with several, all cores free for everybody.

dnsperf needs a core of its own for packed answers, so on two cores these gain little; an answer that is made anew costs the
agent some ten times what it costs dnsperf, and so shows what the processes do.
"""

import os
import statistics
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs

from benchmarks import names, processes
from benchmarks.job import Done, Setting
from benchmarks.load import Load, drive
from benchmarks.report import Page
from benchmarks.rounds import Started, up
from benchmarks.servers import Room, Server, meshdns

WORD = "workers"
ROUNDS = 3
SECONDS = 4.0
_WARM_UP = 1.0
_LOST = 0.001  # share of queries without an answer that is still called none
_ALL_UP = 2.0  # seconds of load before the first round, in which every worker has started
# An option that nobody knows (RFC 6891): such a query is answered the ordinary way, each time.
_KINDS = {"packed": (), "made anew": ("-E", "65001:00")}


@attrs.frozen
class Turn:
    """What came of one load of one agent."""

    workers: int
    kind: str
    queries_per_second: float
    cpu_per_query: float  # microseconds, of all its processes
    cores_used: float
    lost: float  # share


def duration(options: Namespace) -> float:
    return ROUNDS * len(_KINDS) * 2 * (SECONDS + _WARM_UP) + 10


def run(setting: Setting) -> Done:
    turns = measure(setting.directory, _counts(), setting)
    return Done(page(turns), {"case": WORD, "turns": [attrs.asdict(each) for each in turns]})


def measure(
    directory: Path,
    counts: Sequence[int],
    setting: Setting,
) -> list[Turn]:
    """Each agent under each load, in interleaved rounds."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    hosts = names.mesh_hosts()
    queries = names.write_queries(directory / "queries", hosts)
    loads = {kind: Load(queries, options=options) for kind, options in _KINDS.items()}
    turns = []
    with ExitStack() as stack:
        agents = {}
        for count in counts:
            (directory / str(count)).mkdir()
            room = Room(directory / str(count), processes.free_port())
            agents[count] = stack.enter_context(up(partial(_agent, workers=count), room, cores, hosts))
            drive(loads["packed"], agents[count].server.port, _ALL_UP, cores, directory / "dnsperf")
        for number in range(ROUNDS):
            for kind, load in loads.items():
                for count in (*counts[number % 2 :], *counts[: number % 2]):
                    turns.append(_turn(agents[count], count, kind, load, cores, directory / "dnsperf"))
                    setting.tell(f"{WORD}: {count}, {kind}: {turns[-1].queries_per_second:,.0f} answers a second")
    return turns


def _agent(room: Room, workers: int) -> Server:
    return meshdns(room, f"workers: {workers}\n")


def _turn(agent: Started, count: int, kind: str, load: Load, cores: str, log: Path) -> Turn:
    drive(load, agent.server.port, min(_WARM_UP, SECONDS), cores, log)
    before, _ = agent.spent()
    outcome = drive(load, agent.server.port, SECONDS, cores, log)
    cpu = agent.spent()[0] - before
    answered = max(1, outcome.answered)
    return Turn(
        count, kind, outcome.answered / outcome.seconds, cpu / answered * 1e6, cpu / outcome.seconds,
        outcome.lost / max(1, outcome.sent),
    )  # fmt: skip


def _counts() -> tuple[int, int]:
    """One worker, and one for each core, but two at least."""
    return 1, max(2, len(os.sched_getaffinity(0)))


def page(turns: Sequence[Turn]) -> Page:
    head = ["answers", "workers", "queries/s", "of one", "CPU us/query", "cores used"]
    rows = [head]
    for kind in dict.fromkeys(each.kind for each in turns):
        one = _median([each.queries_per_second for each in turns if (each.kind, each.workers) == (kind, 1)])
        for count in dict.fromkeys(each.workers for each in turns):
            same = [each for each in turns if (each.kind, each.workers) == (kind, count)]
            rate = _median([each.queries_per_second for each in same])
            cpu, used = _median([each.cpu_per_query for each in same]), _median([each.cores_used for each in same])
            rows.append([kind, str(count), f"{rate:,.0f}", f"{rate / one:.2f}", f"{cpu:.2f}", f"{used:.2f}"])
    return Page("Several workers, dnsperf on the same cores", WORD, rows, list(notes(turns)))


def notes(turns: Sequence[Turn]) -> Iterator[str]:
    yield f"{len(os.sched_getaffinity(0))} cores for dnsperf and agents together; medians"
    if lost := [each for each in turns if each.lost > _LOST]:
        yield f"{len(lost)} of {len(turns)} runs lost queries, up to {max(each.lost for each in lost):.1%}"


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)
