"""Whether bars hold in each of several complete runs.

A bar is a note of a page in one form, `WHAT: holds, FOUND` or `WHAT: missed, FOUND`; so each benchmark has its say.
"""

import re
from collections.abc import Iterator, Sequence

import attrs

from benchmarks.report import Page

_NOTE = re.compile(r"(?P<what>.+): (?P<verdict>holds|missed), (?P<found>.+)")


@attrs.frozen
class Bar:
    """What came of one in one run."""

    page: str
    what: str
    holds: bool
    found: str


def of(pages: Sequence[Page]) -> Iterator[Bar]:
    """All that one run says of bars."""
    for page in pages:
        for note in page.notes:
            if said := _NOTE.fullmatch(note):
                yield Bar(page.title, said["what"], said["verdict"] == "holds", said["found"])


def summary(runs: Sequence[Sequence[Page]]) -> Page | None:
    """Each bar beside what was found in each run; None when nothing was asked that has one."""
    found: dict[tuple[str, str], list[Bar]] = {}
    for run in runs:
        for bar in of(run):
            found.setdefault((bar.page, bar.what), []).append(bar)
    if not found:
        return None
    many = len(runs) > 1
    columns = [f"run {number}" for number in range(1, len(runs) + 1)] if many else ["found"]
    rows = [_row(bars) for bars in found.values()]
    whole = sum(all(bar.holds for bar in bars) for bars in found.values())
    each = f" in each of {len(runs)} complete runs" if many else ""
    return Page("Bars", "", [["benchmark", "bar", *columns, "held"], *rows], [f"{whole} of {len(found)} hold{each}"])


def _row(bars: Sequence[Bar]) -> list[str]:
    cells = [bar.found if bar.holds else f"{bar.found} (missed)" for bar in bars]
    return [bars[0].page, bars[0].what, *cells, f"{sum(bar.holds for bar in bars)} of {len(bars)}"]
