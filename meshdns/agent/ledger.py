"""Inside: what the metrics count of the queries, as plain numbers.

Whoever answers a query says so here; `status.py` reads. Labels stay few whatever is asked: a type without a name of its
own counts as "other".
"""

from bisect import bisect_left, bisect_right
from collections import Counter

import attrs

from meshdns.agent.packed import PackedAnswers
from meshdns.agent.resolver import Answered
from meshdns.wire import rcode_text, type_text

# Upper bounds in seconds: a mesh answer takes microseconds, an upstream milliseconds, a failing one seconds.
BOUNDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SOURCES = ("mesh", "cache", "stale", "upstream", "local")
_MANY = 256  # durations that are kept before they are counted together
SAMPLE = 64  # of about so many packed answers one is timed, and counts for all


@attrs.define
class Histogram:
    """Durations in buckets that end at BOUNDS, the last one open."""

    buckets: list[int] = attrs.field(factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        self.buckets[bisect_left(BOUNDS, seconds)] += times
        self.total += seconds * times

    def add_all(self, durations: list[float]) -> None:
        """Sorted, they are counted with one look for each bucket."""
        durations.sort()
        before = 0
        for number, bound in enumerate(BOUNDS):
            until = bisect_right(durations, bound)
            self.buckets[number] += until - before
            before = until
        self.buckets[-1] += len(durations) - before
        self.total += sum(durations)


class Ledger:
    """Queries answered, how long they took, and packets dropped."""

    def __init__(self, *packed: PackedAnswers) -> None:
        """`packed` count their answers themselves."""
        self._packed = packed
        self._queries: Counter[tuple[str, int, int, str]] = Counter()
        self._durations: dict[str, Histogram] = {source: Histogram() for source in SOURCES}
        self._took: list[float] = []  # of plain answers of upstreams, to be counted
        self._relayed: dict[int, int] = {}  # by type and rcode in one number
        self.dropped: Counter[str] = Counter()

    # from the doors

    def answered(self, transport: str, answered: Answered, seconds: float) -> None:
        self._queries[transport, answered.type, answered.rcode, answered.source] += 1
        self._durations[answered.source].add(seconds)

    def relayed(self, qtype: int, rcode: int, seconds: float) -> None:
        """A plain answer of an upstream, over UDP."""
        key = qtype << 4 | rcode
        self._relayed[key] = self._relayed.get(key, 0) + 1
        self._took.append(seconds)
        if len(self._took) >= _MANY:
            self._count_up()

    def _count_up(self) -> None:
        took, self._took = self._took, []
        self._durations["upstream"].add_all(took)

    def sampled(self, seconds: float, source: str, times: int) -> None:
        """One packed answer was timed, for so many."""
        self._durations[source].add(seconds, times)

    def drop(self, reason: str, times: int = 1) -> None:
        if times:
            self.dropped[reason] += times

    # from the status page

    @property
    def durations(self) -> dict[str, Histogram]:
        """How long answers took, by source."""
        self._count_up()
        return self._durations

    def queries(self) -> dict[tuple[str, str, str, str], int]:
        """Queries by (transport, type, rcode, source), as texts."""
        total: Counter[tuple[str, str, str, str]] = Counter()
        for (transport, qtype, rcode, source), count in self._queries.items():
            total[transport, _type_label(qtype), rcode_text(rcode), source] += count
        for key, count in self._relayed.items():
            total["udp", _type_label(key >> 4), rcode_text(key & 0x0F), "upstream"] += count
        for packed in self._packed:
            for (qtype, rcode, source), count in packed.counts().items():
                total[packed.transport, _type_label(qtype), rcode_text(rcode), source] += count
        return dict(total)


def _type_label(qtype: int) -> str:
    text = type_text(qtype)
    return "other" if text.startswith("TYPE") else text
