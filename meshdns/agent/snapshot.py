"""Outside: the last good table on disk (rule X11): read before the first poll, written after each change.

A path enters; a table leaves at the start, and tables come in to be kept: as a new file beside the old one, forced to the
disk, then put in its place. A file that is damaged is set aside and never half used. It must never know where tables come
from.
"""

import os
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from meshdns.defaults import TABLE_FILE_BYTES
from meshdns.table import BadTable, Table, dump, read

_log = Logger()


class Snapshot:
    """One file. Tables are written in another thread, the newest if several wait."""

    def __init__(self, path: str, reactor: Any) -> None:
        self._path = path
        self._reactor = reactor
        self._waiting: Table | None = None
        self._writing: Deferred[None] | None = None
        self._told = ""

    # from the root

    def load(self) -> Table | None:
        """The table that was kept last, if there is a good one."""
        try:
            with open(self._path, "rb") as opened:
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
        """Write a table, now or when the one before is written."""
        self._waiting = table
        if self._writing is None:
            self._write()

    async def close(self) -> None:
        """Wait for what is being written."""
        while self._writing is not None:
            await self._writing

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
        table, self._waiting = self._waiting, None
        assert table is not None
        self._writing = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), write, self._path, table)
        self._writing.addCallbacks(self._written, self._failed)
        self._writing.addCallback(lambda _: self._go_on())

    def _written(self, _: None) -> None:
        self._told = ""

    def _failed(self, failure: Any) -> None:
        why = str(failure.value.strerror if isinstance(failure.value, OSError) else failure.value)
        if why != self._told:
            _log.error("snapshot {path} cannot be written: {why}", path=self._path, why=why)
        self._told = why

    def _go_on(self) -> None:
        self._writing = None
        if self._waiting is not None:
            self._write()


def write(path: str, table: Table) -> None:
    """A table's file, whole or not at all: raises OSError with the old one still in its place."""
    new = f"{path}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as opened:
            os.fchmod(descriptor, 0o600)
            for line in dump(table):
                opened.write(f"{line}\n".encode())
            opened.flush()
            os.fsync(descriptor)
        os.replace(new, path)
        _sync_folder(path)
    except OSError:
        with suppress(OSError):
            os.unlink(new)
        raise


def _sync_folder(path: str) -> None:
    """So that the new name survives a power cut, too."""
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
