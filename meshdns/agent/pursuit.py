"""Inside: a walk of the search list that needs upstreams (rule D8), from the first question to its end.

A `Walk` and the time enter; where it ends leaves through `done`. The order of the steps is never violated: they are asked
about at once, and judged one after the other. It must never know clients, nor how the end is told them.
"""

from collections.abc import Callable
from functools import partial

import attrs

from meshdns import wire
from meshdns.agent.authority import Found
from meshdns.agent.lookups import Lookups, Word
from meshdns.agent.search import Walk
from meshdns.agent.steps import Failed
from meshdns.wire import Ask

_ADDRESSES = frozenset({wire.A, wire.AAAA})


@attrs.frozen
class End:
    """Where a walk ended: at a mesh host; at a name that upstreams know, with their word on it; at nothing, with the word
    on the first name asked about; or in a failure at some step."""

    name: bytes
    found: Found | None = None
    word: Word | Failed | None = None
    exists: bool = False


class Pursuit:
    """One walk. Whether a name exists is asked once for both address types, so that A and AAAA always agree."""

    def __init__(self, walk: Walk, ask: Ask, lookups: Lookups, done: Callable[[End, float], None]) -> None:
        """`ask` is the client's question; its name is replaced by each step's."""
        self._walk = walk
        self._ask = ask
        self._lookups = lookups
        self._done: Callable[[End, float], None] | None = done
        self._asked = ask.question[:-4]
        self._type = int.from_bytes(ask.question[-4:-2])
        self._decides = deciding(self._type)
        self._words: dict[bytes, Word | Failed] = {}

    def start(self, now: float) -> None:
        """Ask about every step at once: no answer changes which names the client would try."""
        open_steps = [step.name for step in self._walk.steps if step.verdict == "upstream"]
        if self._decides != self._type:
            # Most walks end at the name as it was asked or at the bare one: what these have of the type is fetched meanwhile,
            # so that AAAA takes no longer than A. Whoever asks for it later joins the question or finds it in the cache.
            for name in open_steps:
                if name in (self._asked, self._walk.bare):
                    self._lookups.find(self._about(name, self._type), now, _ignore)
        for name in open_steps:
            if self._done is not None:
                self._lookups.find(self._about(name, self._decides), now, partial(self._heard, name))

    def _about(self, name: bytes, qtype: int) -> Ask:
        return self._ask._replace(question=name + qtype.to_bytes(2) + self._ask.question[-2:])

    def _heard(self, name: bytes, word: Word | Failed, now: float) -> None:
        self._words[name] = word
        if self._done is not None:
            self._judge(now)

    def _judge(self, now: float) -> None:
        """Go along the steps as far as words have come."""
        first: Word | None = None
        for step in self._walk.steps:
            if step.found is not None:
                return self._finish(End(step.name, found=step.found, exists=True), now)
            if step.verdict == "absent":
                continue
            word = self._words.get(step.name)
            if word is None:
                return None
            if isinstance(word, Failed):
                return self._finish(End(step.name, word=word), now)
            if word.rcode != wire.NXDOMAIN:
                return self._arrive(step.name, word, now)
            first = first or word
        self._finish(End(self._walk.bare, word=first), now)
        return None

    def _arrive(self, name: bytes, word: Word, now: float) -> None:
        """The step exists: what does it have of the type asked?"""
        if self._decides == self._type:
            self._finish(End(name, word=word, exists=True), now)
            return
        done, self._done = self._done, None
        if done is not None:
            self._lookups.find(self._about(name, self._type), now, partial(_tell, done, name))

    def _finish(self, end: End, now: float) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(end, now)


def deciding(qtype: int) -> int:
    """The type by which it is decided whether a name exists.

    NXDOMAIN is of all types; for addresses the type asked decides nothing, or a server that denies a name for want of AAAA
    (RFC 4074 section 4.2) would make one family's walk end elsewhere than the other's.
    """
    return wire.A if qtype in _ADDRESSES else qtype


def _ignore(word: Word | Failed, now: float) -> None:
    """For words that are only to be kept."""


def _tell(done: Callable[[End, float], None], name: bytes, word: Word | Failed, now: float) -> None:
    done(End(name, word=word, exists=not isinstance(word, Failed)), now)
