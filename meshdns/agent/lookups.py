"""Inside: an upstream's word on a question: from the cache, or asked for (rules D22 to D28).

Asks and the time enter; a `Word` or a `Failed` leaves through `done`, now or later. Every word is trimmed to its question
before anybody sees it or it is kept. It must never know clients or the mesh; the upstream and the one timer are callables.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple, Protocol

import attrs

from meshdns import wire
from meshdns.agent.cache import Cache, Hit
from meshdns.agent.chain import trim
from meshdns.agent.steps import Failed, Reply
from meshdns.defaults import STALE_PATIENCE
from meshdns.wire import Ask, Body


class Word(NamedTuple):
    """What was said: a checked message, where its records stand, and where it came from: cache, stale or upstream.

    Before `until` it would be said the same way again.
    """

    message: bytes
    body: Body
    source: str
    until: float = -math.inf

    @property
    def rcode(self) -> int:
        """The lower four bits; the upper ones are for EDNS trouble, which never comes so far."""
        return self.message[3] & 0x0F


Said = Callable[[Word | Failed, float], None]
# Between a client and us only: COOKIE (RFC 7873), edns-tcp-keepalive (RFC 7828) and Padding (RFC 7830). c-ares and dig send
# a cookie always: passed on it would go to every server, and no such query would ever be answered from the cache.
_HOP_BY_HOP = frozenset({b"\x00\x0a", b"\x00\x0b", b"\x00\x0c"})


class AskUpstream(Protocol):
    """The upstream side: `done` is called once with the result and the time."""

    def __call__(self, ask: Ask, done: Callable[[Reply | Failed, float], None], /) -> None: ...


class Later(Protocol):
    """Call a function after so many seconds; the callable that is returned takes that back."""

    def __call__(self, seconds: float, call: Callable[[], None], /) -> Callable[[], None]: ...


@attrs.define(eq=False)
class _Waiting:
    """One who would take a stale word if no fresh one comes in time."""

    ask: Ask
    stale: Word
    done: Said | None
    cancel: Callable[[], None] | None = None


class Lookups:
    """The cache with the upstream behind it."""

    def __init__(self, cache: Cache, ask_upstream: AskUpstream, later: Later) -> None:
        self.cache = cache
        self._ask_upstream = ask_upstream
        self._later = later

    def find(self, ask: Ask, now: float, done: Said) -> None:
        """Call `done` once with a word or a failure."""
        if ask.options:
            ask = ask._replace(options=_passing(ask.options))
        self.go_on(ask, self.cache.look_up(ask, now), now, done)

    def go_on(self, ask: Ask, kept: Hit | Failed | None, now: float, done: Said) -> None:
        """`find` from where the cache has said what is kept."""
        if kept is None:
            self._ask_upstream(ask, partial(self.heard, ask, done))
        elif isinstance(kept, Failed):
            done(attrs.evolve(kept, cached=True), now)
        elif not kept.stale:
            if kept.refresh:
                self._ask_upstream(ask, partial(self.heard, ask, None))
            done(Word(kept.message, kept.body, "cache", kept.until), now)
        elif not kept.refresh:
            done(Word(kept.message, kept.body, "stale"), now)
        else:
            waiting = _Waiting(ask, Word(kept.message, kept.body, "stale"), done)
            self._ask_upstream(ask, partial(self._heard_in_time, waiting))
            if waiting.done is not None:
                waiting.cancel = self._later(
                    STALE_PATIENCE, partial(self._out_of_patience, waiting, now + STALE_PATIENCE)
                )

    def heard(self, ask: Ask, done: Said | None, result: Reply | Failed, now: float) -> None:
        """What an upstream said, trimmed and kept, is the word for `done`."""
        word = self._keep(ask, result, now)
        if done is not None:
            done(word, now)

    def _keep(self, ask: Ask, result: Reply | Failed, now: float) -> Word | Failed:
        """Trim a reply and keep it, or remember the failure."""
        if isinstance(result, Reply):
            try:
                message = result.message
                message, body = trim(message, result.body or wire.body(message), 12 + len(ask.question))
            except wire.Malformed as problem:
                result = Failed("rcode", 0, f"{result.server} sent a broken answer: {problem}")
            else:
                self.cache.put(ask, message, body, now)
                return Word(message, body, "upstream")
        self.cache.failed(ask, result, now)
        return result

    # Stale words (RFC 8767)

    def _heard_in_time(self, waiting: _Waiting, result: Reply | Failed, now: float) -> None:
        word = self._keep(waiting.ask, result, now)
        if waiting.cancel is not None:
            waiting.cancel()
        done, waiting.done = waiting.done, None
        if done is not None:
            done(waiting.stale if isinstance(word, Failed) else word, now)

    def _out_of_patience(self, waiting: _Waiting, now: float) -> None:
        """The upstream takes too long: the stale word goes out, and the question stays asked."""
        done, waiting.done, waiting.cancel = waiting.done, None, None
        if done is not None:
            self.cache.failed(waiting.ask, Failed("timeout", 22, "no answer yet"), now)
            done(waiting.stale, now)


def _passing(options: bytes) -> bytes:
    """EDNS options without those that are not for the next hop."""
    kept = (options[start:end] for start, end in pairwise(wire.option_starts(options)))
    return b"".join(option for option in kept if option[:2] not in _HOP_BY_HOP)
