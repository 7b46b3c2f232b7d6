"""Inside: what every door does with a packet: may it ask, what is the answer, count it.

A packet and its source enter; the answer leaves through a callable, at once or later. It must never know sockets.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from meshdns import messages, wire
from meshdns.agent.ledger import Ledger
from meshdns.agent.pulse import QUESTION as PULSE
from meshdns.agent.resolver import Answered, Done

Send = Callable[[bytes], object]


class Answer(Protocol):
    """The resolver, as a door sees it: `done` is called once, now or later; False when it never will be."""

    def __call__(self, packet: bytes, /, *, tcp: bool, now: float, done: Done) -> bool: ...


class Tell(Protocol):
    """Logs one query with its answer, for `log.queries`."""

    def __call__(self, packet: bytes, source: str, transport: str, seconds: float, answered: Answered, /) -> None: ...


class Front:
    """Of all doors together."""

    def __init__(
        self,
        answer: Answer,
        allows: Callable[[str], bool],
        ledger: Ledger,
        clock: Callable[[], float],
        tell_bug: Callable[[bytes, str], None],
        tell: Tell,
    ) -> None:
        """`tell_bug` logs the exception under way with the packet and the source that brought it about."""
        self._answer = answer
        self.allows = allows
        self.ledger = ledger
        self.clock = clock
        self._tell_bug = tell_bug
        self._tell = tell
        self.pending = 0  # packets whose answer is still to come
        self.tells = False  # whether each query is logged
        self._idle: Callable[[], None] | None = None

    def take(self, packet: bytes, source: str, transport: str, send: Send) -> bool:
        """Answer a packet by calling `send` once, now or later; False when there will be no answer."""
        if not self.allows(source):
            return self._refuse(packet, send)
        self.pending += 1
        try:
            now = self.clock()
            done = partial(self._done, transport, now, send)
            if packet[2:] == PULSE:
                done = partial(self._beat, send)
            elif self.tells:
                done = partial(self._done_told, packet, source, transport, now, done)
            answering = self._answer(packet, tcp=transport == "tcp", now=now, done=done)
        except Exception:
            self.bug(packet, source)
            return False
        if not answering:
            self.less("not-a-query")
        return answering

    def bug(self, packet: bytes, source: str) -> None:
        """A bug of ours must neither stop the door nor reach the next client. To be called where it is caught."""
        self._tell_bug(packet, source)
        self.less("bug")

    def when_idle(self, call: Callable[[], None]) -> None:
        """Call this once, when no answer is to come any more."""
        self._idle = call
        self._look()

    def settle(self, transport: str, started: float, answered: Answered) -> None:
        """Count an answer that is about to leave."""
        self.ledger.answered(transport, answered, self.clock() - started)
        self.less()

    def less(self, dropped: str = "") -> None:
        """One packet less to answer."""
        if dropped:
            self.ledger.drop(dropped)
        self.pending -= 1
        if self._idle:
            self._look()

    def _look(self) -> None:
        if self._idle and not self.pending:
            call, self._idle = self._idle, None
            call()

    def _done(self, transport: str, started: float, send: Send, answered: Answered) -> None:
        self.settle(transport, started, answered)
        send(answered.message)

    def _done_told(
        self, packet: bytes, source: str, transport: str, started: float, done: Done, answered: Answered
    ) -> None:
        self._tell(packet, source, transport, self.clock() - started, answered)
        done(answered)

    def _beat(self, send: Send, answered: Answered) -> None:
        """We asked ourselves: neither counted nor told."""
        self.less()
        send(answered.message)

    def _refuse(self, packet: bytes, send: Send) -> bool:
        if packet[2:] == PULSE:  # `allow` leaves this host out: then nothing of it is to be redirected either
            return False
        self.ledger.drop("not-allowed")
        query = wire.read_query(packet)
        if query is None:
            return False
        send(messages.refuse(packet, query if isinstance(query, int) else wire.REFUSED))
        return True
