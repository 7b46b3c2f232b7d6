"""Inside: answers kept as bytes, so that a known question costs one look-up.

The key is all of a query behind its id, the value all of its answer behind the id, once for each order of a service's
addresses. What is kept came from the ordinary path, so there is one truth; a new table empties it. An answer out of the cache
holds only until its TTLs must be counted down again, within a second: then the ordinary path sees the question, and so the
cache knows what is popular.
"""

import math
from collections.abc import Callable, Sequence
from itertools import cycle

from meshdns.defaults import PACKED_ANSWERS


class Packed:
    """One question's answers: `next_tail()` gives the answer behind the id, in turns; `hits` counts for the metrics.

    `source` is mesh or cache; `until` is the time from which on it must not be given any more.
    """

    __slots__ = ("hits", "next_tail", "rcode", "source", "type", "until")

    def __init__(
        self, tails: Sequence[bytes], qtype: int, rcode: int, source: str = "mesh", until: float = math.inf
    ) -> None:
        self.next_tail: Callable[[], bytes] = cycle(tails).__next__
        self.type = qtype
        self.rcode = rcode
        self.source = source
        self.until = until
        self.hits = 0


class PackedAnswers:
    """Questions and their packed answers, at most PACKED_ANSWERS."""

    def __init__(self) -> None:
        self.enabled = True
        self.known: dict[bytes, Packed] = {}
        self.counted: dict[tuple[int, int, str], int] = {}

    def keep(self, question: bytes, packed: Packed) -> None:
        """Keep the answers of a question (a packet without its id). A full store starts anew: a name refills in microseconds."""
        if not self.enabled:
            return
        old = self.known.get(question)
        if old is not None:
            self._count(old, self.counted)
        elif len(self.known) >= PACKED_ANSWERS:
            self.forget()
        self.known[question] = packed

    def forget(self) -> None:
        """Let go of every answer, as a new table wants; what they counted stays counted."""
        self.counted = self.counts()
        self.known.clear()

    def counts(self) -> dict[tuple[int, int, str], int]:
        """Answers given so far by (type, rcode, source)."""
        total = dict(self.counted)
        for packed in self.known.values():
            self._count(packed, total)
        return total

    @property
    def cache_hits(self) -> int:
        """Answers out of the cache given so far, of which the cache itself knows nothing."""
        return sum(count for (_, _, source), count in self.counts().items() if source == "cache")

    def _count(self, packed: Packed, total: dict[tuple[int, int, str], int]) -> None:
        key = packed.type, packed.rcode, packed.source
        total[key] = total.get(key, 0) + packed.hits
