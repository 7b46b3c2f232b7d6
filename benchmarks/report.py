"""What was measured, as text for the terminal, as Markdown for docs/performance.md, and as JSON."""

import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from benchmarks.caching import Caching
from benchmarks.load import Outcome
from benchmarks.rounds import Measured, Run
from benchmarks.servers import Server

OURS = "meshdns"
FIGURES = """\
## Figures

As `make figures` prints them. A row with **(!)** had a round that should not be trusted, and a line below the table says why.

"""  # the head of what docs/performance.md ends with
_ENOUGH = 10_000  # answers of a run for a p99.9 that says something: ten of them took longer


@attrs.frozen
class Spread:
    """The median of some rounds, with the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    def text(self, form: str) -> str:
        """As `5.91 (5.80-6.12)`; a single round has no spread."""
        if self.least == self.most:
            return format(self.median, form)
        return f"{self.median:{form}} ({self.least:{form}}–{self.most:{form}})"


def percentile(values: Sequence[float], share: float) -> float:
    """The least of the values that so large a share of them does not exceed (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def verdict(found: float, bar: float) -> str:
    """Whether something is below its bar."""
    return "holds" if found < bar else "missed"


Row = list[str]


@attrs.frozen
class Page:
    """One benchmark for a reader: the first of the rows is their head."""

    title: str
    word: str
    rows: Sequence[Row]
    notes: Sequence[str]


def page(measured: Measured) -> Page:
    return Page(measured.case.title, measured.case.word, table(measured), list(notes(measured)))


def ratio(measured: Measured, peer: str) -> Spread | None:
    """CPU per query of meshdns as a multiple of a peer's, round by round: noise that both had cancels out."""
    ours, theirs = measured.of(OURS), measured.of(peer)
    values = [a.cpu_per_query / b.cpu_per_query for a, b in zip(ours, theirs, strict=True) if b.cpu] if ours else []
    return Spread.of(values) if values and peer != OURS else None


def table(measured: Measured) -> list[Row]:
    """Head and rows, one for each server."""
    with_latency = any(run.outcome.latency for run in measured.runs)
    head = ["server", "CPU us/query", f"{OURS} / this", "queries/s", "core used"]
    head += ["p50 us", "p99 us", "p99.9 us"] if with_latency else []
    head += ["upstream asked per answer"] if _goes_upstream(measured) else []
    return [head, *(_row(measured, server.name, with_latency) for server in measured.servers)]


def _row(measured: Measured, server: str, with_latency: bool) -> Row:
    runs = measured.of(server)
    against = ratio(measured, server)
    row = [
        server + (" (!)" if any(run.problems for run in runs) else ""),
        Spread.of([run.cpu_per_query for run in runs]).text(".2f"),
        against.text(".2f") if against else "",
        Spread.of([run.queries_per_second for run in runs]).text(",.0f"),
        Spread.of([run.core_used * 100 for run in runs]).text(".0f") + " %",
    ]
    if with_latency:
        row += latencies([run.outcome for run in runs])
    if _goes_upstream(measured):
        row += [Spread.of([run.asked / max(1, run.outcome.answered) for run in runs]).text(".3f")]
    return row


def latencies(outcomes: Sequence[Outcome]) -> Row:
    """p50, p99 and p99.9, in microseconds."""
    found = [outcome.latency for outcome in outcomes if outcome.latency]
    columns = ([each.p50 for each in found], [each.p99 for each in found], [each.p999 for each in found])
    return [Spread.of([seconds * 1e6 for seconds in column]).text(".0f") for column in columns]


def _goes_upstream(measured: Measured) -> bool:
    """Whether the upstream's count tells the reader anything."""
    return measured.case.relayed or measured.case.cached


def notes(measured: Measured) -> Iterator[str]:
    """The bars, and the rounds that should not be trusted."""
    for peer, bar in measured.case.bars.items():
        if against := ratio(measured, peer):
            verdict = "holds" if against.median <= bar else "missed"
            yield f"{OURS} at most {bar:.2f} times {peer}: {verdict}, {against.text('.2f')}"
    fewest = min((run.outcome.answered for run in measured.runs if run.outcome.latency), default=_ENOUGH)
    if fewest < _ENOUGH * 0.9:
        yield f"p99.9 is of {fewest:,} answers a round, which are few: longer ones (--seconds) say more"
    for run in measured.runs:
        for problem in run.problems:
            yield f"(!) {run.server}, round {run.round}: {problem}"


def as_text(shown: Page) -> str:
    widths = [max(map(len, column)) for column in zip(*shown.rows, strict=True)]
    lines = [shown.title]
    for row in shown.rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  " + "  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())
    return "\n".join([*lines, *(f"  {note}" for note in shown.notes)]) + "\n"


def as_markdown(shown: Page) -> str:
    head, *rows = shown.rows
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    parts = [f"### {shown.title}"]
    if shown.word:
        parts.append(f"`.venv/bin/python -m benchmarks {shown.word}` repeats this:")
    parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    if shown.notes:
        parts.append("\n".join(f"- {note}" for note in shown.notes))
    return "\n\n".join(parts) + "\n"


def facts_as_text(facts: Mapping[str, str]) -> str:
    width = max(map(len, facts))
    return "".join(f"{fact.ljust(width)}  {what}\n" for fact, what in facts.items())


def facts_as_markdown(facts: Mapping[str, str]) -> str:
    return "| | |\n|---|---|\n" + "".join(f"| {fact} | {what} |\n" for fact, what in facts.items())


def configurations(all_used: Iterable[tuple[Caching, Server]]) -> str:
    """The servers' configurations as Markdown, each once, with all ways to cache for which a server has it."""
    shown: dict[tuple[str, str], tuple[Server, dict[str, None]]] = {}
    for caching, server in all_used:
        _, ways = shown.setdefault((server.name, _PORT.sub(r"\1", server.configuration)), (server, {}))
        ways[caching.title] = None
    return "\n".join(
        f"#### {server.name}: {', '.join(ways)}\n\n`{_command(server)}`\n\n```\n{server.configuration}```\n"
        for server, ways in shown.values()
    )


_PORT = re.compile(r"(127\.0\.0\.1[:@#]|\bport(?:_value)?[=: ]+)\d+")  # another one in each run


def _command(server: Server) -> str:
    """As a reader would type it: without directories that differ from run to run."""
    program, *words = server.command
    return " ".join([program.rpartition("/")[2], *(word.replace(f"{server.directory}/", "") for word in words)])


def as_data(measured: Measured) -> dict[str, Any]:
    """Every run, nothing summed up, for JSON."""
    return {
        "case": measured.case.word,
        "title": measured.case.title,
        "runs": [_run(run) for run in measured.runs],
    }


def _run(run: Run) -> dict[str, Any]:
    derived = {"cpu_us_per_query": run.cpu_per_query, "queries_per_second": run.queries_per_second}
    return {**attrs.asdict(run), **derived}
