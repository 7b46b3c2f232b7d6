"""Outside: the workers beside the main process: as many as are wanted, each with its sockets; who dies is replaced.

Settings and tables enter, for all of them; their counts leave. As long as a worker is not there, or does not answer yet, the
main process reads its sockets by doors of its own: so a death costs nobody more than what was in that process. It must never know
how a process is started, nor what it answers.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from meshdns.agent.counts import Counts, summed
from meshdns.agent.frames import Word
from meshdns.defaults import WORKER_LEAVE, WORKER_LOOK, WORKER_REST_LEAST, WORKER_REST_MOST, WORKER_STEADY
from meshdns.table import Table

_log = Logger()
_DOUBLINGS = 10  # of a rest: more are beyond WORKER_REST_MOST, and at last no number
Address = tuple[str, int]


class Share(Protocol):
    """The sockets of one worker, as Share of `shares` has them."""

    @property
    def pairs(self) -> Mapping[Address, Any]: ...
    @property
    def sockets(self) -> Sequence[Any]: ...
    def leave(self) -> None: ...
    def close(self) -> None: ...


class Doors(Protocol):
    """Doors of the main process's own."""

    def close(self) -> Coroutine[Any, Any, None]: ...


class Child(Protocol):
    """A worker's process."""

    counts: Counts
    started: float
    pid: int

    def tell(self, word: Word, content: bytes = b"", /) -> None: ...
    def tell_table(self, table: Table, /) -> None: ...
    def open(self, addresses: Sequence[Address], /) -> None: ...
    def look(self) -> Deferred[None]: ...
    def stop(self) -> None: ...
    def kill(self, why: str, /) -> None: ...


StandIn = Callable[[Any], Doors]  # of a Share; raises CannotListenError or OSError
Start = Callable[[int, Any, "_Post"], Child]  # of a number, a Share and who hears of it


class Workers:
    """All of them. `counts` are those that they told last, and those of processes that have ended."""

    def __init__(self, stand_in: StandIn, start: Start, settings: Callable[[], bytes], reactor: Any) -> None:
        """`settings` are what a worker must know beside tables."""
        self.reactor = reactor
        self.stand_in, self._start, self._settings = stand_in, start, settings
        self._table: Table | None = None
        self._posts: list[_Post] = []
        self._leaving: list[_Post] = []
        self._running = False
        self._past = Counts()
        self._children: list[Child] = []  # those that are on their way out, too
        self._closing: set[Deferred[None]] = set()
        self._none_left: Deferred[None] | None = None

    # from the root

    def place(self, shares: Sequence[Share], left_over: Sequence[Share] = ()) -> None:
        """Have one worker for each of these shares, in which those that there were may go on; `left_over` had one in a process
        before this one."""
        self._leaving += [_Post(0, share, self) for share in left_over]
        for post, share in zip(self._posts, shares, strict=False):
            post.move(share)
        while len(self._posts) > len(shares):
            self._leave(self._posts.pop())
        for number in range(len(self._posts), len(shares)):
            self._posts.append(_Post(number + 2, shares[number], self))
            if self._running:
                self._posts[-1].begin()

    def start(self) -> None:
        self._running = True
        for post in self._posts:
            post.begin()
        for post in self._leaving:
            post.retire()

    def tell_settings(self) -> None:
        """They have changed."""
        settings = self._settings() if self._children else b""
        for child in self._children:
            child.tell(Word.SETTINGS, settings)

    def take(self, table: Table) -> None:
        self._table = table
        for child in self._children:
            child.tell_table(table)

    async def stop(self) -> None:
        """Each answers what it was asked, and ends."""
        self._running = False
        for post in self._posts:
            post.stop()
        for post in [*self._leaving]:
            post.end()
        if self._children:
            self._none_left = Deferred()
            await self._none_left
        await DeferredList([*self._closing])

    # from the status page

    @property
    def counts(self) -> list[Counts]:
        return [self._past, *(child.counts for child in self._children)]

    def status(self) -> list[dict[str, Any]]:
        return [post.status() for post in self._posts]

    def look(self) -> Deferred[None] | None:
        """Once the counts are those of now, or a worker does not tell its; None: there is no worker."""
        if not self._children:
            return None
        looks = DeferredList([child.look() for child in self._children], consumeErrors=True)
        return looks.addTimeout(WORKER_LOOK, self.reactor).addBoth(lambda _: None)

    # from the posts

    def hire(self, post: "_Post") -> Child:
        child = self._start(post.number, post.share, post)
        self._children.append(child)
        child.tell(Word.SETTINGS, self._settings())
        if self._table is not None:
            child.tell_table(self._table)
        child.open([*post.share.pairs])
        return child

    def left(self, post: "_Post") -> None:
        self._leaving.remove(post)

    def ended(self, child: Child) -> None:
        self._children.remove(child)
        self._past = summed([self._past, child.counts.ended()])
        if self._none_left is not None and not self._children:
            self._none_left.callback(None)

    def close(self, doors: Doors) -> Deferred[None]:
        """Answer what these were asked, and close them."""
        closing = Deferred.fromCoroutine(doors.close())
        self._closing.add(closing)
        return closing.addBoth(lambda _: self._closing.discard(closing))

    def _leave(self, post: "_Post") -> None:
        self._leaving.append(post)
        if self._running:
            post.retire()
        else:
            post.end()


class _Post:
    """What one worker is for: its sockets. There is a process for it, or the main process stands in, or both for a moment."""

    def __init__(self, number: int, share: Share, workers: Workers) -> None:
        self.number = number
        self.share = share
        self._workers = workers
        self._clock = workers.reactor
        self._child: Child | None = None
        self._up = False
        self._doors: Doors | None = None
        self._rest: IDelayedCall | None = None
        self._restarts = 0
        self._soon = 0  # deaths in a row, each soon after a start

    # from the workers

    def begin(self) -> None:
        self._stand_in()
        self._hire()

    def move(self, share: Share) -> None:
        """Other sockets, some of them perhaps the same: another process."""
        if share.pairs == self.share.pairs:
            return
        given_up = {*self.share.sockets} - {*share.sockets}
        self.share = share
        if self._child is not None or self._doors is not None:
            self.stop()
            self.begin()
        for each in given_up:
            each.close()

    def retire(self) -> None:
        """Nobody shall read its sockets any more, once what waits in them is answered."""
        self.share.leave()
        self.stop()
        self._stand_in()
        self._rest = self._clock.callLater(WORKER_LEAVE, self.end)

    def end(self) -> None:
        """No socket of it is read or held any more."""
        self._workers.left(self)
        self.stop()
        self.share.close()  # doors have descriptors of their own

    def stop(self) -> None:
        child, was_up = self._child, self._up
        self._child, self._up = None, False
        if child is not None and was_up:
            child.stop()
        elif child is not None:
            child.kill("it is not wanted any more")  # it has answered nothing yet
        if self._rest is not None and self._rest.active():
            self._rest.cancel()
        self._step_back()

    def status(self) -> dict[str, Any]:
        state = "up" if self._up else "starting" if self._child else "resting"
        pid, queries = (self._child.pid, sum(self._child.counts.queries.values())) if self._child else (None, 0)
        return {"number": self.number, "state": state, "restarts": self._restarts, "queries": queries, "pid": pid}

    # from the process

    def ready(self, child: Child) -> None:
        if child is self._child:
            self._up = True
            self._step_back()

    def gone(self, child: Child, why: str) -> None:
        self._workers.ended(child)
        if child is not self._child:
            return
        self._child, self._up = None, False
        self._replace(f"(process {child.pid}) has died: {why}", self._clock.seconds() - child.started)

    # Its work

    def _hire(self) -> None:
        try:
            self._child = self._workers.hire(self)
        except OSError as error:
            self._replace(f"cannot be started: {error}", 0.0)

    def _replace(self, why: str, lived: float) -> None:
        """The one that there was lived so many seconds."""
        self._restarts += 1
        self._stand_in()
        self._soon = 1 if lived >= WORKER_STEADY else self._soon + 1
        rest = (
            min(WORKER_REST_LEAST * 2.0 ** min(self._soon - 2, _DOUBLINGS), WORKER_REST_MOST) if self._soon > 1 else 0.0
        )
        told = "worker {number} {why}; the next one starts {when}, and its work is done here meanwhile"
        _log.error(told, number=self.number, why=why, when=f"in {rest:g} s" if rest else "at once")
        self._rest = self._clock.callLater(rest, self._hire)

    def _stand_in(self) -> None:
        if self._doors is not None:
            return
        try:
            self._doors = self._workers.stand_in(self.share)
        except (CannotListenError, OSError) as error:
            _log.error(
                "nobody reads the sockets of worker {number} until it is there: {why}",
                number=self.number,
                why=str(error),
            )

    def _step_back(self) -> None:
        doors, self._doors = self._doors, None
        if doors is not None:
            self._workers.close(doors)
