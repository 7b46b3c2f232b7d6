"""The command: which benchmarks, for how long, and in which form the figures are printed."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import attrs

from benchmarks import machine, names, processes, report
from benchmarks.rounds import WARM_UP, Case, Measured, measure
from benchmarks.servers import dnsmasq, echo, has_compiler, meshdns, require_programs, unbound

_AT_MESH = (meshdns, unbound, dnsmasq, echo)
CASES = (
    Case("mesh", f"Mesh answers, {names.HOSTS:,} hosts", _AT_MESH, names.mesh_hosts, bars={"unbound": 1.5}),
    Case(
        "relay",
        "Relayed queries, no cache",
        (meshdns, unbound, dnsmasq),
        names.outside_hosts,
        relayed=True,
        bars={"dnsmasq": 1.0},
    ),
    Case("paced", "Mesh answers at 2,000 queries a second", _AT_MESH, names.mesh_hosts, rate=2_000),
    Case("paced", "Mesh answers at 10,000 queries a second", _AT_MESH, names.mesh_hosts, rate=10_000),
)
_SERVERS = tuple(build.__name__ for build in _AT_MESH)
WORDS = tuple(dict.fromkeys(case.word for case in CASES))


def main() -> int:
    options = _options()
    processes.end_on_sigterm()
    try:
        require_programs()
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
    facts["timed"] = f"{options.rounds} interleaved rounds of {options.seconds:g} s each, median (least–most)"
    cases = _chosen(options)
    _tell(f"This takes about {_duration(cases, options.rounds, options.seconds)}.")
    if used.server == used.load:
        _tell("Only one core may be used here: server and dnsperf share it, and the figures say little.")
    if not has_compiler():
        _tell("There is no C compiler (cc), so the C echo is left out. On Debian and Ubuntu: sudo apt-get install gcc")
    all_measured = []
    print(report.facts_as_markdown(facts) if options.markdown else report.facts_as_text(facts), flush=True)
    for case in cases:
        measured = _measure(case, options, used)
        all_measured.append(measured)
        print(report.as_markdown(measured) if options.markdown else report.as_text(measured), flush=True)
    if options.markdown:
        print("### Configurations\n\n" + report.configurations(all_measured))
    if options.json:
        options.json.write_text(json.dumps(report.as_json(facts, all_measured), indent=1) + "\n")
    return 0


def _chosen(options: argparse.Namespace) -> list[Case]:
    """The cases asked for, with those of their servers that are wanted and possible."""
    unwanted = [] if has_compiler() else [echo]
    unwanted += [build for build in _AT_MESH if options.only and build.__name__ not in options.only]
    chosen = []
    for case in CASES:
        servers = [build for build in case.servers if build not in unwanted]
        if case.word in options.words and servers:
            chosen.append(attrs.evolve(case, servers=servers))
    if not chosen:
        raise processes.CannotMeasure(
            "None of these servers takes part in that benchmark, or there is no cc for the echo."
        )
    return chosen


def _measure(case: Case, options: argparse.Namespace, used: machine.Cores) -> Measured:
    with tempfile.TemporaryDirectory(prefix="meshdns-bench-") as directory:
        return measure(
            case, rounds=options.rounds, seconds=options.seconds, used=used, directory=Path(directory), tell=_tell
        )


def _duration(cases: list[Case], rounds: int, seconds: float) -> str:
    """About how long it all takes; starting and checking the servers of a case takes some two seconds."""
    runs = sum(len(case.servers) for case in cases) * rounds
    total = runs * (seconds + min(WARM_UP, seconds)) + 2 * len(cases)
    return f"{total:.0f} s" if total < 120 else f"{total / 60:.0f} min"


def _tell(line: str) -> None:
    """What goes on, beside the figures on standard output."""
    print(line, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure meshdns beside other servers.")
    parser.add_argument("words", nargs="*", metavar="BENCHMARK", help=f"of {', '.join(WORDS)}; all by default")
    parser.add_argument("--rounds", type=_count, default=5, metavar="N", help="rounds of each benchmark (5)")
    parser.add_argument("--seconds", type=_seconds, default=5.0, metavar="S", help="length of each timed run (5)")
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
