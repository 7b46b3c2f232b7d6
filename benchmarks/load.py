"""dnsperf: one run of it against a server, and what it says of it."""

import re
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

import attrs

from benchmarks.processes import CannotMeasure, Core, end, last_words, pinned

CLIENTS = 20  # sockets
OUTSTANDING = 200  # queries on the way at once; with one, every server idles between them


@attrs.frozen
class Load:
    """What dnsperf does: as fast as it can with `rate` None, else so many queries a second; with `once` it ends rather than
    ask anything twice; over TCP each of its sockets is one connection."""

    queries: Path
    rate: int | None = None
    once: bool = False
    tcp: bool = False
    options: Sequence[str] = ()  # further words of dnsperf

    def command(self, port: int, seconds: float) -> list[str]:
        words = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(self.queries)]
        words += ["-l", f"{seconds:g}", "-c", str(CLIENTS), "-q", str(OUTSTANDING), "-W"]
        words += ["-n", "1"] if self.once else []
        words += ["-m", "tcp"] if self.tcp else []
        words += self.options
        return words + (["-Q", str(self.rate), "-v"] if self.rate else [])


@attrs.frozen
class Latency:
    """How long answers took, in seconds."""

    p50: float
    p99: float
    p999: float
    most: float

    @classmethod
    def of(cls, each: Sequence[float]) -> "Latency":
        cuts = statistics.quantiles(each, n=1000, method="inclusive")
        return cls(cuts[499], cuts[989], cuts[998], max(each))


@attrs.frozen
class Outcome:
    """One run as dnsperf saw it. Latencies are known of paced runs only."""

    sent: int
    answered: int
    lost: int
    rcodes: dict[str, int]
    seconds: float
    latency: Latency | None = None


def drive(load: Load, port: int, seconds: float, core: Core, log: Path) -> Outcome:
    """Run dnsperf to its end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned(load.command(port, seconds), core),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        status = process.wait(seconds + 30)
    except subprocess.TimeoutExpired:
        raise CannotMeasure(f"dnsperf did not end {seconds + 30:.0f} s after its start.") from None
    finally:
        end(process)
    if status:
        raise CannotMeasure(f"dnsperf failed:\n{last_words(log)}")
    return parse(log.read_text())


def parse(text: str) -> Outcome:
    """dnsperf's report, with the lines of `-v` in front of it where it wrote them."""
    rcodes = re.findall(r"([A-Z0-9]+) (\d+) \(", _line(text, "Response codes"))
    latencies = [float(found) for found in re.findall(r"^> [A-Z0-9]+ \S+ \S+ ([0-9.]+)$", text, re.MULTILINE)]
    return Outcome(
        sent=int(_line(text, "Queries sent")),
        answered=int(_line(text, "Queries completed").split()[0]),
        lost=int(_line(text, "Queries lost").split()[0]),
        rcodes={rcode: int(count) for rcode, count in rcodes},
        seconds=float(_line(text, "Run time (s)")),
        latency=Latency.of(latencies) if len(latencies) > 1 else None,
    )


def _line(text: str, title: str) -> str:
    found = re.search(rf"^\s*{re.escape(title)}:\s*(.*)$", text, re.MULTILINE)
    if found is None:
        raise CannotMeasure(f"dnsperf said nothing of {title!r}; its version is not one that we can read.")
    return found[1]
