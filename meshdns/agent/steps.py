"""Inside: what the questions to upstreams come to: messages to send, results to hand out, sentences for the log.

These are values only. Flights yields them, the module outside carries them out. They must never know how.
"""

from collections.abc import Sequence
from typing import NamedTuple

import attrs

from meshdns.wire import Body


@attrs.define
class Reply:  # not frozen: one is made for each answer, and freezing takes four times as long
    """A validated upstream message, its question byte for byte as sent; who gave it, and how long it took in all.

    `body` is where its records stand.
    """

    message: bytes
    server: str
    seconds: float
    body: Body | None = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen
class Failed:
    """No answer. `reason` is a word for counting, `ede` and `text` the extended error (RFC 8914).

    `reply` is the last failing (SERVFAIL, REFUSED …) or truncated message that a server gave, if one did. `cached`: nobody was
    asked, for that was a moment ago.
    """

    reason: str  # none, shed, timeout, network, rcode, truncated or stopped
    ede: int
    text: str
    reply: bytes | None = None
    cached: bool = False


Result = Reply | Failed


class Send(NamedTuple):
    """A message to send through a slot of a server, in which a new socket is to be opened first if `fresh`."""

    server: int
    slot: int
    fresh: bool
    message: bytes


class Finished(NamedTuple):
    """A result and all who wait for it."""

    waiters: Sequence[object]
    result: Result


class Notice(NamedTuple):
    """A sentence for the log."""

    text: str


class Recovered(NamedTuple):
    """A server that was dead answers again: what failed for want of it may be asked at once."""

    server: str


Step = Send | Finished | Notice | Recovered
Steps = list[Step]
