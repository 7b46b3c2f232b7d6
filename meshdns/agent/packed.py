"""Inside: answers kept as bytes, so that a known question costs one look-up.

The key is all of a query behind its id, the value all of its answer behind the id, once for each order of a service's
addresses. What is kept came from the ordinary path, so there is one truth; a new table empties it.
"""

from collections.abc import Callable, Sequence
from itertools import cycle

from meshdns.defaults import PACKED_ANSWERS


class Packed:
    """One question's answers: `next_tail()` gives the answer behind the id, in turns; `hits` counts for the metrics."""

    __slots__ = ("hits", "next_tail", "rcode", "type")

    def __init__(self, tails: Sequence[bytes], qtype: int, rcode: int) -> None:
        self.next_tail: Callable[[], bytes] = cycle(tails).__next__
        self.type = qtype
        self.rcode = rcode
        self.hits = 0


class PackedAnswers:
    """Questions and their packed answers, at most PACKED_ANSWERS."""

    def __init__(self) -> None:
        self.enabled = True
        self.known: dict[bytes, Packed] = {}
        self.counted: dict[tuple[int, int], int] = {}

    def keep(self, question: bytes, packed: Packed) -> None:
        """Keep the answers of a question (a packet without its id). A full store starts anew: a name refills in microseconds."""
        if len(self.known) >= PACKED_ANSWERS:
            self.forget()
        if self.enabled:
            self.known[question] = packed

    def forget(self) -> None:
        """Let go of every answer, as a new table wants; what they counted stays counted."""
        self.counted = self.counts()
        self.known.clear()

    def counts(self) -> dict[tuple[int, int], int]:
        """Answers given so far by (type, rcode)."""
        total = dict(self.counted)
        for packed in self.known.values():
            key = packed.type, packed.rcode
            total[key] = total.get(key, 0) + packed.hits
        return total
