"""Outside: files that say where to ask, looked at each second (rule D19: by content, not by time).

Paths and a way to read them enter; what they come to say leaves through `take`, once for each change. A file may be found
half written: what changed is read when it has settled, and what seems too little is doubted for a while. What the files
say this module must never know.
"""

import os
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from meshdns.defaults import RESOLV_DOUBT, RESOLV_POLL, RESOLV_SETTLE

T = TypeVar("T")
Stamp = tuple[int, ...]


class Watch(Generic[T]):
    """Watches some files that are read together. What `read` gives is compared with `held`, what is in force."""

    _log = Logger()

    def __init__(
        self,
        paths: Sequence[str],
        held: T,
        read: Callable[[], T],
        take: Callable[[T], None],
        clock: IReactorTime,
        is_doubtful: Callable[[T, T], bool] = lambda held, found: False,
    ) -> None:
        """`is_doubtful(held, found)`: whether a file that is about to be written may look like that."""
        self._paths = paths
        self._held = held
        self._read = read
        self._take = take
        self._clock = clock
        self._is_doubtful = is_doubtful
        self._read_at: list[Stamp] = []  # what the files looked like when they were last read; [] reads them
        self._seen: list[Stamp] = []
        self._doubted: float | None = None  # since when
        self._call: IDelayedCall | None = None

    # from the root

    def start(self) -> None:
        """Look now, for the files may have changed since `held` was read, and from now on."""
        self._turn()

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    # from the clock

    def _turn(self) -> None:
        self._call = self._clock.callLater(RESOLV_POLL, self._turn)
        stamps = [_stamp(path) for path in self._paths]
        if stamps == self._read_at:
            return
        if stamps != self._seen and self._seen:
            self._seen = stamps
            self._call.reset(RESOLV_SETTLE)  # it may be being written just now
            return
        self._seen = stamps
        try:
            self._look(stamps)
        except Exception:  # a bug in what is done with it, and no reason to look no more
            self._read_at = stamps
            self._log.failure("please report this bug: {paths} could not be taken on", paths=", ".join(self._paths))

    def _look(self, stamps: list[Stamp]) -> None:
        found = self._read()
        if found == self._held:
            self._read_at, self._doubted = stamps, None
            return
        now = self._clock.seconds()
        if self._is_doubtful(self._held, found):
            self._doubted = now if self._doubted is None else self._doubted
            if now < self._doubted + RESOLV_DOUBT:
                return
        self._held, self._read_at, self._doubted = found, stamps, None
        self._take(found)


def _stamp(path: str) -> Stamp:
    """What changes when a file does, through symbolic links; ctime shows an edit that sets mtime back."""
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
