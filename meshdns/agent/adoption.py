"""Outside: tables come into force one after the other, some hosts at a time, while packets are answered.

Tables enter as sources have them; each is handed to the resolver in steps between which the reactor has its turn. What comes
in the meantime waits, as one table. It must never know where tables come from.
"""

from collections.abc import Callable, Iterator

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from meshdns.table import Table

Adopt = Callable[[Table], Iterator[None]]


class Adoption:
    """Takes tables into force."""

    def __init__(self, adopt: Adopt, settled: Callable[[], None], clock: IReactorTime) -> None:
        """`adopt` gives the steps of a table; `settled` is called when one that is no delta has come, and after the last of its
        steps: what there is then stays."""
        self._adopt = adopt
        self._settled = settled
        self._clock = clock
        self._steps: Iterator[None] | None = None
        self._whole = False
        self._waiting: Table | None = None
        self._call: IDelayedCall | None = None

    # from the sources

    def take(self, table: Table) -> None:
        """A small table, or what a small delta makes of the one in force, is in force when this returns."""
        if not table.base:
            self._settled()
        if self._steps is not None:
            self._waiting = _joined(self._waiting, table)
            return
        self._begin(table)
        self._turn()

    # from the root

    @property
    def busy(self) -> bool:
        """Whether a table is not wholly in force yet."""
        return self._steps is not None

    def finish(self) -> None:
        """Take what has come into force now, whole."""
        while self._steps is not None:
            self._cancel()
            self._step()

    def stop(self) -> None:
        """What is not in force by now will not be."""
        self._cancel()
        self._steps = self._waiting = None

    # Steps

    def _begin(self, table: Table) -> None:
        self._steps, self._whole = self._adopt(table), not table.base

    def _turn(self) -> None:
        self._call = None
        self._step()
        if self._steps is not None:
            self._call = self._clock.callLater(0, self._turn)

    def _step(self) -> None:
        """Some hosts, or the end of a table."""
        assert self._steps is not None
        try:
            next(self._steps)
        except StopIteration:
            self._steps = None
            if self._whole:
                self._settled()
            table, self._waiting = self._waiting, None
            if table is not None:
                self._begin(table)

    def _cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None


def _joined(first: Table | None, second: Table) -> Table:
    """A table that waits and the one that comes after it: two deltas in a row make one, a delta of a whole table a whole."""
    if first is None or second.base != first.generation:
        return second
    return attrs.evolve(second, base=first.base, changed={*first.changed, *second.changed} if first.base else ())
