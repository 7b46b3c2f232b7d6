"""Outside: the last good table on disk (rule X11): read before the first poll, written after each change.

A path enters; a table leaves at the start, and tables come in to be kept: as a new file beside the old one, forced to the
disk, then put in its place. That is done in steps: another thread would hold packets up for as long as the interpreter lets
it run. A file that is damaged is set aside and never half used. It must never know where tables come from.
"""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from functools import partial
from itertools import chain, islice
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from meshdns.agent.uncollected import uncollected
from meshdns.defaults import SNAPSHOT_REST, SNAPSHOT_REST_PART, TABLE_FILE_BYTES, TABLE_STEP
from meshdns.table import BadTable, Table, read, whole_lines

_log = Logger()


class Snapshot:
    """One file. A table is written a few lines at a time, the newest if several wait, and none soon after the one before."""

    def __init__(self, path: str, reactor: Any) -> None:
        self._path = path
        self._reactor = reactor
        self._waiting: Table | None = None
        self._writing: Deferred[None] | None = None
        self._rest: IDelayedCall | None = None
        self._closing = False
        self._told = ""

    # from the root

    def load(self) -> Table | None:
        """The table that was kept last, if there is a good one."""
        try:
            with uncollected(), open(self._path, "rb") as opened:
                table = read(opened.read(TABLE_FILE_BYTES + 1))
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.error("snapshot {path} cannot be read: {why}", path=self._path, why=error.strerror)
            return None
        except BadTable as bad:
            self._set_aside(str(bad))
            return None
        _log.info(
            "snapshot {path}: {hosts} hosts, generation {generation}",
            path=self._path,
            hosts=len(table.entries),
            generation=table.generation,
        )
        return table

    def keep(self, table: Table) -> None:
        """Write a table, now or some time after the one before is written."""
        self._waiting = table
        if self._writing is None and self._rest is None:
            self._write()

    async def close(self) -> None:
        """Wait until all is written."""
        self._closing = True
        if self._rest is not None:
            self._rest.reset(0)
        while self._writing is not None or self._rest is not None:
            await (self._writing or deferLater(self._reactor, 0))

    def _set_aside(self, why: str) -> None:
        aside = f"{self._path}.damaged"
        with suppress(OSError):
            os.replace(self._path, aside)
        _log.error(
            "snapshot {path} is damaged: {why}; it is not used, and kept as {aside}",
            path=self._path,
            why=why,
            aside=aside,
        )

    # Writing

    def _write(self) -> None:
        self._rest = None
        table, self._waiting = self._waiting, None
        if table is not None:
            begun = self._reactor.seconds()
            self._writing = Deferred.fromCoroutine(self._written(table))
            self._writing.addCallback(lambda _: self._written_since(begun))

    async def _written(self, table: Table) -> None:
        try:
            steps = write_in_steps(self._path, table)
            del table  # nothing here may keep it
            with closing(steps):
                for slow in steps:
                    if slow is None:
                        await deferLater(self._reactor, 0)
                    else:
                        await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), slow)
            self._told = ""
        except OSError as error:
            if error.strerror != self._told:
                _log.error("snapshot {path} cannot be written: {why}", path=self._path, why=error.strerror)
            self._told = error.strerror or ""

    def _written_since(self, begun: float) -> None:
        self._writing = None
        took = self._reactor.seconds() - begun
        rest = 0.0 if self._closing else max(SNAPSHOT_REST, SNAPSHOT_REST_PART * took)
        self._rest = self._reactor.callLater(rest, self._write)


def write(path: str, table: Table) -> None:
    """A table's file, whole or not at all: raises OSError with the old one still in its place."""
    with closing(write_in_steps(path, table)) as steps:
        for slow in steps:
            if slow is not None:
                slow()


def write_in_steps(path: str, table: Table) -> Generator[Callable[[], None] | None, None, None]:
    """The same, stopping to breathe. What is yielded is to be called by who takes the steps: a disk may take its time for it."""
    new = f"{path}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as opened:
            os.fchmod(descriptor, 0o600)
            lines = _lines(table)
            del table  # if nobody else has it any more, it goes as it is written
            while some := "".join([f"{line}\n" for line in islice(lines, TABLE_STEP)]):
                opened.write(some.encode())
                yield None
            opened.flush()
            yield partial(os.fsync, descriptor)
        yield partial(os.replace, new, path)
        yield from _sync_folder(path)
    except BaseException:  # who takes the steps may have given up
        with suppress(OSError):
            os.unlink(new)
        raise


def _lines(table: Table) -> Iterator[str]:
    """In whatever order: to sort them would take long."""
    parts = table.entries.parts.copy()
    hosts = len(table.entries)
    entries = chain.from_iterable(parts.pop().values() for _ in range(len(parts)))
    return whole_lines(table.generation, hosts, table.zones, table.ttl, entries)


def _sync_folder(path: str) -> Iterator[Callable[[], None]]:
    """So that the new name survives a power cut, too."""
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield partial(os.fsync, folder)
    finally:
        os.close(folder)
