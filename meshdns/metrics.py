"""Vocabulary: what is measured, as plain numbers under the names that contract section 4 gives (prefix `meshdns_`).

It knows nothing of the format that scrapers read, nor of what is measured.
"""

from collections.abc import Sequence

import attrs


@attrs.frozen
class Buckets:
    """A histogram: how many were at most so many seconds, the last bound being infinite, and their sum."""

    bounds: Sequence[tuple[str, int]]
    total: float


@attrs.frozen
class Mean:
    """How many there were, and their sum in seconds."""

    count: int
    total: float


Value = float | Buckets | Mean


@attrs.frozen
class Measure:
    """Samples of one name. `kind` is counter, gauge, histogram or summary; each sample has the labels' values first."""

    kind: str
    name: str  # without prefix, and without a counter's `_total`
    about: str
    labels: Sequence[str]
    samples: Sequence[tuple[Sequence[str], Value]]
