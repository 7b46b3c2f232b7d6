"""The command: which benchmarks, for how long, and in which form the figures are printed."""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import attrs

from benchmarks import caching, counted, job, loading, machine, names, processes, push, report, scale, workers
from benchmarks.job import Done, Job, Setting
from benchmarks.rounds import WARM_UP, Case, measure
from benchmarks.servers import PACKAGES, Builder, dnsmasq, echo, has_compiler, meshdns, require_programs, unbound

_AT_MESH = (meshdns, unbound, dnsmasq, echo)
_RELAYS = (meshdns, unbound, dnsmasq)
_HITS = Case("hits", "Cache hits", _RELAYS, names.popular_hosts, caching=caching.USUAL)
_MISSES = Case(
    "misses", "Cache misses", _RELAYS, names.outside_hosts, caching=caching.PASSING, relayed=True, fresh=True
)
CASES = (
    Case(
        "mesh", f"Mesh answers, {names.HOSTS:,} hosts", _AT_MESH, names.mesh_hosts, bars={"unbound": 1.0, "C echo": 1.3}
    ),
    Case(
        "tcp",
        "Mesh answers over TCP, 20 connections",
        (meshdns, unbound),
        names.mesh_hosts,
        tcp=True,
        bars={"unbound": 1.0},
    ),
    Case(
        "relay",
        "Relayed queries, no cache",
        _RELAYS,
        names.outside_hosts,
        relayed=True,
        bars={"dnsmasq": 1.0},
    ),
    Case("paced", "Mesh answers at 2,000 queries a second", _AT_MESH, names.mesh_hosts, rate=2_000),
    Case(
        "paced",
        "Mesh answers at 10,000 queries a second",
        _AT_MESH,
        names.mesh_hosts,
        rate=10_000,
        bars={"unbound": 1.15},
    ),
    attrs.evolve(_HITS, title=f"Cache hits, {names.POPULAR_NAMES:,} names", bars={"unbound": 1.1}),
    attrs.evolve(_HITS, title="Cache hits at 2,000 queries a second", rate=2_000),
    attrs.evolve(_MISSES, title="Cache misses, names never asked before", bars={"unbound": 1.0, "dnsmasq": 0.8}),
    attrs.evolve(_MISSES, title="Cache misses at 2,000 queries a second", rate=2_000),
)
_SERVERS = tuple(build.__name__ for build in _AT_MESH)
JOBS = cast("tuple[Job, ...]", (counted, push, scale, loading, workers))
# What those need in which nobody else takes part.
_OURS = {
    push.WORD: ["taskset"],
    scale.WORD: ["taskset"],
    loading.WORD: ["taskset"],
    workers.WORD: ["taskset", "dnsperf"],
}
WORDS = (*dict.fromkeys(case.word for case in CASES), *(each.WORD for each in JOBS))


def main() -> int:
    options = _options()
    processes.end_on_sigterm()
    try:
        ours = all(word in _OURS for word in options.words)
        require_programs({each for word in options.words for each in _OURS[word]} if ours else PACKAGES)
        return _bench(options)
    except processes.CannotMeasure as reason:
        print(reason, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; all servers are ended", file=sys.stderr)
        return 130


def _bench(options: argparse.Namespace) -> int:
    used = machine.cores()
    facts = machine.description(used)
    cases = _chosen(options)
    if cases:
        facts["timed"] = f"{options.rounds} interleaved rounds of {options.seconds:g} s each, median (least–most)"
    _tell(f"This takes about {_duration(cases, options)}.")
    if used.server == used.load:
        _tell("Only one core may be used here: server and dnsperf share it, and the figures say little.")
    if cases and not has_compiler():
        _tell("There is no C compiler (cc), so the C echo is left out. On Debian and Ubuntu: sudo apt-get install gcc")
    print(report.facts_as_markdown(facts) if options.markdown else report.facts_as_text(facts), flush=True)
    all_done = []
    for done in _benchmarks(cases, options, used):
        all_done.append(done)
        print(report.as_markdown(done.page) if options.markdown else report.as_text(done.page), flush=True)
    pairs = [pair for done in all_done for pair in done.used]
    if options.markdown and pairs:
        print("### Configurations\n\n" + report.configurations(pairs))
    if options.json:
        everything = {"machine": facts, "cases": [done.data for done in all_done]}
        options.json.write_text(json.dumps(everything, indent=1) + "\n")
    return 0


def _benchmarks(cases: list[Case], options: argparse.Namespace, used: machine.Cores) -> Iterator[Done]:
    """Each in its turn, in a directory of its own."""
    for case in cases:
        with _directory() as directory:
            measured = measure(
                case, rounds=options.rounds, seconds=options.seconds, used=used, directory=directory, tell=_tell
            )
        pairs = [(case.caching, server) for server in measured.servers]
        yield Done(report.page(measured), report.as_data(measured), pairs)
    builders = [build for build in _wanted(options) if build in _RELAYS]
    for each in JOBS:
        if each.WORD in options.words:
            with _directory() as directory:
                yield each.run(Setting(options, builders, used, directory, _tell))


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="meshdns-bench-") as directory:
        yield Path(directory)


def _chosen(options: argparse.Namespace) -> list[Case]:
    """The timed cases asked for, with those of their servers that are wanted and possible."""
    wanted = _wanted(options)
    chosen = []
    for case in CASES:
        servers = [build for build in case.servers if build in wanted]
        if case.word in options.words and servers:
            chosen.append(attrs.evolve(case, servers=servers))
    if not chosen and not any(each.WORD in options.words for each in JOBS):
        raise processes.CannotMeasure(
            "None of these servers takes part in that benchmark, or there is no cc for the echo."
        )
    return chosen


def _wanted(options: argparse.Namespace) -> list[Builder]:
    """The servers that can be built and were not left out."""
    possible = [build for build in _AT_MESH if build is not echo or has_compiler()]
    return [build for build in possible if not options.only or build.__name__ in options.only]


def _duration(cases: list[Case], options: argparse.Namespace) -> str:
    """About how long it all takes; starting and checking the servers of a case takes some two seconds."""
    runs = sum(len(case.servers) for case in cases) * options.rounds
    total = runs * (options.seconds + min(WARM_UP, options.seconds)) + 2 * len(cases)
    total += sum(each.duration(options) for each in JOBS if each.WORD in options.words)
    return f"{total:.0f} s" if total < 120 else f"{total / 60:.0f} min"


def _tell(line: str) -> None:
    """What goes on, beside the figures on standard output."""
    print(line, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure meshdns beside other servers.")
    parser.add_argument("words", nargs="*", metavar="BENCHMARK", help=f"of {', '.join(WORDS)}; all by default")
    parser.add_argument("--rounds", type=_count, default=5, metavar="N", help="rounds of each benchmark (5)")
    parser.add_argument("--seconds", type=_seconds, default=5.0, metavar="S", help="length of each timed run (5)")
    job.add_arguments(parser)
    parser.add_argument("--only", action="append", choices=_SERVERS, help="measure only this server; may be repeated")
    parser.add_argument("--markdown", action="store_true", help="print what docs/performance.md shows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run to a file as well")
    options = parser.parse_args()
    if unknown := [word for word in options.words if word not in WORDS]:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(WORDS)}")
    options.words = options.words or list(WORDS)
    return options


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError("a number from 1 to 100 is wanted")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.2 <= seconds <= 60:
        raise argparse.ArgumentTypeError("seconds from 0.2 to 60 are wanted")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
