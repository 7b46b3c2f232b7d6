"""What the benchmarks that are no comparison of rounds have in common: a module each, with a `WORD`, a `duration` and a `run`."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs

from benchmarks.caching import Caching
from benchmarks.machine import Cores
from benchmarks.report import Page
from benchmarks.servers import Builder, Server


@attrs.frozen
class Setting:
    """Where a benchmark runs: its options, the servers wanted, the cores, a directory of its own, and who hears how it goes."""

    options: argparse.Namespace
    builders: Sequence[Builder]
    used: Cores
    directory: Path
    tell: Callable[[str], None]


@attrs.frozen
class Done:
    """What a benchmark came to: for the reader, for arithmetic, and the servers whose configurations are shown. `more` are pages
    that belong to the first."""

    page: Page
    data: dict[str, Any]
    used: Sequence[tuple[Caching, Server]] = ()
    more: Sequence[Page] = ()

    @property
    def pages(self) -> Sequence[Page]:
        return [self.page, *self.more]


class Job(Protocol):
    """Such a module."""

    WORD: str

    def duration(self, options: argparse.Namespace) -> float:
        """About how many seconds it takes."""

    def run(self, setting: Setting) -> Done: ...


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes of these benchmarks."""
    parser.add_argument("--lookups", type=_number(1_000_000), default=20_000, metavar="N", help="of workload (20000)")
    parser.add_argument(
        "--pollers", type=_number(20_000), action="append", metavar="N",
        help="of push: agents that are connected, one of them real; may be repeated (1, 100, 5000)",
    )  # fmt: skip
    parser.add_argument("--renames", type=_number(10_000), metavar="N", help="of push (100, and 50 from 1000 pollers)")
    parser.add_argument(
        "--services", type=_number(500_000), default=50_000, metavar="N", help="of scale, a hundred to a file (50000)"
    )
    parser.add_argument(
        "--hosts", type=_number(500_000), default=100_000, metavar="N", help="of loading and deltas (100000)"
    )
    parser.add_argument(
        "--snapshot-hosts", type=_number(500_000), default=100_000, metavar="N", help="of footprint's snapshot (100000)"
    )


def _number(most: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdigit() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"a number from 1 to {most} is wanted")
        return int(text)

    return convert
