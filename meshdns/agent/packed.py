"""Inside: answers kept as bytes, so that a known question costs one look-up.

The key is all of a query behind its id, the value all of its answer behind the id, once for each order of a service's
addresses. What is kept came from the ordinary path, so there is one truth. When a few hosts change, only what may hang on them
is forgotten. An answer out of the cache holds only until its TTLs must be counted down again, within a second: then the
ordinary path sees the question, and so the cache knows what is popular.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle

from meshdns.defaults import CACHE_USED_PART, PACKED_ANSWER_BYTES, PACKED_BYTES

_NAME = 10  # where in a key the question's name begins
_HANGS_ON_MORE = b"."  # no label


class Packed:
    """One question's answers: `tail or next_tail()` is the answer behind the id, the latter in turns where the addresses have
    several orders; `hits` counts for the metrics.

    `source` is mesh or cache; `until` is the time from which on it must not be given any more. `alone`: of the mesh it hangs on
    nothing but hosts that have the first label of the question's name, `label`, somewhere in theirs.
    """

    __slots__ = ("alone", "hits", "label", "next_tail", "octets", "rcode", "seen", "source", "tail", "type", "until")

    def __init__(
        self, tails: Sequence[bytes], qtype: int, rcode: int, *, alone: bool, source: str = "mesh", until: float = math.inf
    ) -> None:  # fmt: skip
        self.tail = tails[0] if len(tails) == 1 else b""
        self.next_tail: Callable[[], bytes] = cycle(tails).__next__
        self.type = qtype
        self.rcode = rcode
        self.alone = alone
        self.label = _HANGS_ON_MORE
        self.source = source
        self.until = until
        self.hits = 0
        self.seen = 0  # hits that do not count any more when it has to be worth its room
        self.octets = PACKED_ANSWER_BYTES + sum(map(len, tails))

    def look(self) -> None:
        self.seen = (self.seen + self.hits + 1) // 2


class PackedAnswers:
    """The questions of one transport and their packed answers, within PACKED_BYTES.

    A flood of questions that nobody asks again (random case, random sizes) pushes out only its like: what was given at least once
    is kept apart, in most of the room. Nothing is moved when it is given, since that would cost each packet something; but whoever
    would have to go stays if it was given since it was last looked at, and each look makes half of that count no more.
    """

    def __init__(self, transport: str = "udp") -> None:
        self.transport = transport
        self.enabled = True
        self.known: dict[bytes, Packed] = {}
        self.octets = 0
        self._counted: dict[tuple[int, int, str], int] = {}  # of what is not known any more
        self._idle: dict[bytes, None] = {}  # never given, as far as was looked; the first one has been here longest
        self._used: dict[bytes, None] = {}
        self._used_octets = 0

    # from the resolver

    def keep(self, question: bytes, packed: Packed) -> None:
        """Keep the answers of a question (a packet without its id)."""
        if not self.enabled:
            return
        if packed.alone:
            packed.label = _label(question)
        packed.octets += len(question)
        old = self.known.get(question)
        if old is not None:
            self._count(old, self._counted)
            self.octets -= old.octets
            if question in self._used:
                self._used_octets += packed.octets - old.octets
        else:
            self._idle[question] = None
        self.known[question] = packed
        self.octets += packed.octets
        while self.octets > PACKED_BYTES:
            self._push_out()

    def forget(self) -> None:
        """Let go of every answer, as a new table wants; what they counted stays counted."""
        self._counted = self.counts()
        self.known.clear()
        self._idle.clear()
        self._used.clear()
        self.octets = self._used_octets = 0

    def forget_about(self, labels: Iterable[bytes]) -> None:
        """Let go of what may be another answer since hosts changed that have just these labels, in lower case, in their names."""
        gone = {_HANGS_ON_MORE, *labels}
        for question in [each for each, packed in self.known.items() if packed.label in gone]:
            self._drop(question)

    # from the status page

    def counts(self) -> dict[tuple[int, int, str], int]:
        """Answers given so far by (type, rcode, source)."""
        total = dict(self._counted)
        for packed in self.known.values():
            self._count(packed, total)
        return total

    @property
    def cache_hits(self) -> int:
        """Answers out of the cache given so far, of which the cache itself knows nothing."""
        return sum(count for (_, _, source), count in self.counts().items() if source == "cache")

    # Room

    def _push_out(self) -> None:
        """Make room: one goes, or is found to be in use and kept apart."""
        question = next(iter(self._idle or self._used))
        packed = self.known[question]
        if question in self._used or packed.hits == packed.seen:
            return self._drop(question)
        del self._idle[question]
        self._used[question] = None
        self._used_octets += packed.octets
        packed.look()
        while self._used_octets > PACKED_BYTES * CACHE_USED_PART:
            self._set_back()

    def _set_back(self) -> None:
        """The first of those in use goes to the end of its line if it still is, else to the others."""
        question = next(iter(self._used))
        packed = self.known[question]
        del self._used[question]
        if packed.hits > packed.seen:
            self._used[question] = None
        else:
            self._used_octets -= packed.octets
            self._idle[question] = None
        packed.look()

    def _drop(self, question: bytes) -> None:
        packed = self.known.pop(question)
        self._count(packed, self._counted)
        self.octets -= packed.octets
        if question in self._used:
            del self._used[question]
            self._used_octets -= packed.octets
        else:
            del self._idle[question]

    def _count(self, packed: Packed, total: dict[tuple[int, int, str], int]) -> None:
        key = packed.type, packed.rcode, packed.source
        total[key] = total.get(key, 0) + packed.hits


def _label(question: bytes) -> bytes:
    """The first label of the name in a key, in lower case."""
    return question[_NAME + 1 : _NAME + 1 + question[_NAME]].lower()
