"""Outside: one table file, read at the start and again whenever it changes (`table.file`; contract section 2.1, X4).

A path enters, tables leave through `adopt`; the log hears of each change once. It must never know what a table is for.
The file is looked at by stat, through symbolic links, so that a rename, an edit in place and the swap of a ConfigMap's
`..data` are all seen, on any file system.
"""

import os
import stat
from collections.abc import Callable, Generator, Iterator, Mapping

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from meshdns.agent.uncollected import uncollected
from meshdns.defaults import TABLE_FILE_BYTES, TABLE_FILE_POLL
from meshdns.table import BadTable, Table, read_in_steps

_log = Logger()
_PIECE = 1 << 16  # octets read at once
_MEANWHILE = "until it is there, names in mesh zones get SERVFAIL and all other names are forwarded"


class TableFile:
    """Watches one file. `adopt` is called with each table that is new; a broken or vanished file changes nothing."""

    def __init__(self, path: str, adopt: Callable[[Table], None], clock: IReactorTime) -> None:
        self.updates = 0  # tables adopted
        self.failures = 0  # times that the file became of no use
        self.last_change: float | None = None  # the clock's seconds at the last adoption
        self._path = path
        self._adopt = adopt
        self._clock = clock
        self._held: tuple[int, str] | None = None  # hosts and generation in force
        self.trouble = ""  # why the file as it is now is of no use
        self._told = False
        self._life = self._watch()
        self._call: IDelayedCall | None = None

    # from the status page

    @property
    def confirmed(self) -> float | None:
        return self.last_change

    @property
    def polls(self) -> Mapping[str, int]:
        """Nobody is polled."""
        return {}

    # from the root

    def start(self) -> None:
        """Reads the file before it returns, whole, and watches it from now on."""
        while not (delay := next(self._life)):
            pass
        self._tell()
        self._call = self._clock.callLater(delay, self._turn)

    def stop(self) -> None:
        """Looks no more; the table in force is not touched."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._life.close()

    # from the clock

    def _turn(self) -> None:
        self._call = self._clock.callLater(next(self._life) or 0, self._turn)

    def _watch(self) -> Generator[float | None, None, None]:
        """All that is ever done here, as the seconds to wait in between; None for a breath in which packets go out."""
        seen: tuple[int, ...] = ()
        while True:
            stamp = _stamp(self._path)
            if stamp == seen:
                self._tell()  # not before: a file that is just being written mends itself
            else:
                seen = stamp if (yield from self._load()) else ()
            yield TABLE_FILE_POLL

    def _load(self) -> Generator[None, None, bool]:
        """Reads the file and adopts what it holds; whether another look is only worth it when the file has changed."""
        try:
            with uncollected():
                self._good((yield from read_in_steps(_pieces(self._path))))
        except BadTable as error:
            self._bad(str(error))
        except OSError as error:
            self._bad(error.strerror or str(error))
            return isinstance(error, FileNotFoundError)
        return True

    def _good(self, table: Table) -> None:
        again = self._told
        self.trouble, self._told = "", False
        held = len(table.entries), table.generation
        if held != self._held:
            self._held = held
            self.updates += 1
            self.last_change = self._clock.seconds()
            _hand_over(self._adopt, table)
        elif not again:
            return
        _log.info(
            "table file {path}{again}: {hosts} hosts, generation {generation}",
            path=self._path,
            again=" is good again" if again else "",
            hosts=len(table.entries),
            generation=table.generation,
        )

    def _bad(self, reason: str) -> None:
        if reason == self.trouble:
            self._tell()
            return
        self.failures += 1
        self.trouble, self._told = reason, False

    def _tell(self) -> None:
        if not self.trouble or self._told:
            return
        self._told = True
        hosts, generation = self._held or (0, "")
        _log.error(
            "table file {path}: {reason}; {meanwhile}",
            path=self._path,
            reason=self.trouble,
            meanwhile=f"the table of {hosts} hosts, generation {generation}, stays in force"
            if self._held
            else _MEANWHILE,
        )


def _hand_over(adopt: Callable[[Table], None], table: Table) -> None:
    try:
        adopt(table)
    except Exception:  # a bug there, and no reason to look at the file no more
        _log.failure("a table of {hosts} hosts was not adopted", hosts=len(table.entries))


def _stamp(path: str) -> tuple[int, ...]:
    """What changes when a file does. ctime shows new permissions, and an edit that sets mtime back."""
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _pieces(path: str) -> Iterator[bytes]:
    """A regular file's octets; raises OSError, and BadTable for what is no file or too large."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would make open wait for ever
    with open(descriptor, "rb", 0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadTable(0, "is no regular file: name a file with a table")
        octets = 0
        while piece := file.read(_PIECE):
            octets += len(piece)
            if octets > TABLE_FILE_BYTES:
                most = TABLE_FILE_BYTES >> 20
                raise BadTable(0, f"has more than {most} MiB: no mesh has so many hosts, is it the right file?")
            yield piece
