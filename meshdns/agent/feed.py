"""Inside: what one worker is still to be told of tables: the first one whole, then what changes.

Tables enter as they come into force in the main process; messages leave one at a time, as the worker takes them. A change of
a few hosts costs as much as these hosts, however large the table. It must never know when anything is sent.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from meshdns.agent.frames import Word, frame
from meshdns.defaults import AUTHORITY_STEP, TABLE_STEP, WORKER_DELTAS, WORKER_PIECE
from meshdns.table import Table, delta_lines, whole_lines


class Feed:
    """For one worker, from its start."""

    def __init__(self) -> None:
        self._queue: deque[Iterator[bytes]] = deque()  # one for each table, in their order
        self._last: Table | None = None  # what the worker has once all of that is told

    def take(self, table: Table) -> None:
        """Tell this table, too: as what changes, if that is little and follows what is told before; else only this one, whole."""
        last, self._last = self._last, table
        if last is not None and table.generation == last.generation:
            return
        if last is not None and _is_small(table, last) and len(self._queue) < WORKER_DELTAS:
            self._queue.append(iter([*_messages(_changes(last, table))]))
        else:
            self._queue.clear()
            lines = whole_lines(
                table.generation, len(table.entries), table.zones, table.ttl, table.entries.values()
            )  # in whatever order: to sort them would take long
            self._queue.append(_messages(lines))

    def next(self) -> bytes | None:
        """The next message; None: all is told."""
        while self._queue:
            message = next(self._queue[0], None)
            if message is not None:
                return message
            self._queue.popleft()
        return None


def _is_small(table: Table, last: Table) -> bool:
    return bool(table.base) and table.base == last.generation and len(table.changed) <= AUTHORITY_STEP


def _changes(last: Table, table: Table) -> Iterator[str]:
    """The lines of a delta. Not all hosts that may differ do, and one may be in neither table."""
    old, new = last.entries, table.entries
    rows = [(host, new.get(host)) for host in table.changed if old.get(host) != new.get(host)]
    return delta_lines(last.generation, table.generation, len(new), table.zones, table.ttl, rows)


def _messages(lines: Iterable[str]) -> Iterator[bytes]:
    """A table's lines in messages, none of which takes a worker long to load."""
    yield frame(Word.BEGIN)
    some: list[bytes] = []
    size = 0
    for line in lines:
        some.append(line.encode())
        size += len(some[-1]) + 1
        if len(some) >= TABLE_STEP or size >= WORKER_PIECE:
            yield frame(Word.LINES, b"\n".join(some))
            some, size = [], 0
    yield frame(Word.LINES, b"\n".join(some))
    yield frame(Word.END)
