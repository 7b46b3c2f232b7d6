"""The command: which benchmarks, for how long, and in which form the figures are printed."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import attrs

from benchmarks import (
    bars,
    counted,
    deltas,
    footprint,
    job,
    loading,
    machine,
    peers,
    processes,
    profiling,
    push,
    report,
    scale,
    workers,
)
from benchmarks.cases import CASES
from benchmarks.job import Done, Job, Setting
from benchmarks.report import Page
from benchmarks.rounds import WARM_UP, Case, measure
from benchmarks.servers import PACKAGES, Builder, require_programs

JOBS = cast("tuple[Job, ...]", (counted, push, scale, loading, deltas, footprint, workers, profiling))
_ALONE = {push.WORD, scale.WORD, loading.WORD, footprint.WORD}  # which need no other program than taskset
WORDS = (*dict.fromkeys(case.word for case in CASES), *(each.WORD for each in JOBS))


def main() -> int:
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where Debian has servers, and only root looks
    options = _options()
    processes.end_on_sigterm()
    try:
        require_programs(["taskset"] if _ALONE.issuperset(options.words) else PACKAGES)
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
    facts["timed"] = f"{options.rounds} interleaved rounds of {options.seconds:g} s each, median (least–most)"
    if options.times > 1:
        facts["complete runs"] = f"{options.times}; all of them stand under Bars, and the first in the other tables"
    _tell(f"This takes about {_duration(cases, options)}.")
    if used.server == used.load:
        _tell("Only one core may be used here: server and dnsperf share it, and the figures say little.")
    for sentence in peers.left_out(_asked_for(options)) if not _ALONE.issuperset(options.words) else ():
        _tell(sentence)
    _print(report.FIGURES + report.facts_as_markdown(facts) if options.markdown else report.facts_as_text(facts))
    runs = [_run(number, cases, options, used) for number in range(1, options.times + 1)]
    if (held := bars.summary([[page for done in run for page in done.pages] for run in runs])) is not None:
        _show(held, options)
    pairs = [pair for done in runs[0] for pair in done.used]
    if options.markdown and pairs:
        _print("### Configurations\n\n" + report.configurations(pairs))
    if options.json:
        everything = {"machine": facts, "runs": [[done.data for done in run] for run in runs]}
        options.json.write_text(json.dumps(everything, indent=1) + "\n")
    return 0


def _run(number: int, cases: list[Case], options: argparse.Namespace, used: machine.Cores) -> Sequence[Done]:
    """One complete run. In Markdown only the first is shown."""
    if options.times > 1:
        _tell(f"Run {number} of {options.times}.")
    all_done = []
    for done in _benchmarks(cases, options, used, again=number > 1):
        all_done.append(done)
        for page in done.pages if number == 1 or not options.markdown else ():
            _show(page, options)
    return all_done


def _show(page: Page, options: argparse.Namespace) -> None:
    _print(report.as_markdown(page) if options.markdown else report.as_text(page))


def _benchmarks(cases: list[Case], options: argparse.Namespace, used: machine.Cores, *, again: bool) -> Iterator[Done]:
    """Each in its turn, in a directory of its own. The profile has no bars, and is not made again."""
    for case in cases:
        with _directory() as directory:
            measured = measure(
                case, rounds=options.rounds, seconds=options.seconds, used=used, directory=directory, tell=_tell
            )
        pairs = [(case.caching, server) for server in measured.servers]
        yield Done(report.page(measured), report.as_data(measured), pairs)
    for each in JOBS:
        if each.WORD in options.words and not (again and each is profiling):
            with _directory() as directory:
                yield each.run(Setting(options, _wanted(options), used, directory, _tell))


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
        raise processes.CannotMeasure(f"None of these servers takes part: {', '.join(options.only or peers.NAMES)}.")
    return chosen


def _asked_for(options: argparse.Namespace) -> list[Builder]:
    return [build for build in peers.ALL if not options.only or build.__name__ in options.only]


def _wanted(options: argparse.Namespace) -> list[Builder]:
    """The servers that can be started and were not left out."""
    return [build for build in _asked_for(options) if peers.is_there(build)]


def _duration(cases: list[Case], options: argparse.Namespace) -> str:
    """About how long it all takes; starting and checking the servers of a case takes some three seconds."""
    runs = sum(len(case.servers) for case in cases) * options.rounds
    total = runs * (options.seconds + min(WARM_UP, options.seconds)) + 3 * len(cases)
    total += sum(each.duration(options) for each in JOBS if each.WORD in options.words)
    total *= options.times
    return f"{total:.0f} s" if total < 120 else f"{total / 60:.0f} min"


def _tell(line: str) -> None:
    """What goes on, beside the figures on standard output."""
    print(line, file=sys.stderr, flush=True)


def _print(text: str) -> None:
    print(text, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure meshdns beside other servers.")
    parser.add_argument("words", nargs="*", metavar="BENCHMARK", help=f"of {', '.join(WORDS)}; all by default")
    parser.add_argument("--rounds", type=_count, default=5, metavar="N", help="rounds of each benchmark (5)")
    parser.add_argument("--seconds", type=_seconds, default=5.0, metavar="S", help="length of each timed run (5)")
    parser.add_argument(
        "--times", type=_count, default=1, metavar="N",
        help="do all of it so often, and say of each bar in how many of these runs it held (1)",
    )  # fmt: skip
    job.add_arguments(parser)
    parser.add_argument(
        "--only", action="append", choices=peers.NAMES, help="measure only this server; may be repeated"
    )
    parser.add_argument("--markdown", action="store_true", help="print what docs/performance.md shows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run to a file as well")
    options = parser.parse_args()
    if unknown := [word for word in options.words if word not in WORDS]:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(WORDS)}")
    options.words = options.words or _all_words()
    return options


def _all_words() -> list[str]:
    """All that this machine can do."""
    lacking = profiling.lacking()
    if lacking:
        _tell(f"{profiling.WORD} is left out. {lacking}")
    return [word for word in WORDS if word != profiling.WORD or not lacking]


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
