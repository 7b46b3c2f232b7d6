"""Outside: one cluster's objects out of trees of YAML and JSON files, read again as they change (rule C1).

Paths enter; Updates leave through `changed`, a file's at a time. Trees are looked through again and again by stat, with
breaths in between: so a rename, an edit in place and the swap of a ConfigMap's `..data` are all seen, on any file system. What a
file that cannot be read or understood gave last stays. It must never know what objects are for.
"""

import os
import stat
from collections.abc import Callable, Generator, Iterator, Sequence

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from meshdns.control.manifests import Manifests
from meshdns.control.model import SOURCE, Problem, Update
from meshdns.defaults import FILES_LEVELS, FILES_MOST, FILES_POLL, FILES_REST, FILES_STEP, MANIFEST_FILE_BYTES

_log = Logger()
_ENDS = (".yaml", ".yml", ".json")
Stamp = tuple[int, ...]


@attrs.define
class _Seen:
    """A file as it was looked at last: its stamp, and the one that it was read at."""

    stamp: Stamp
    read_at: Stamp = ()


class Files:
    """The files of one cluster below some paths, each a directory or a single file."""

    def __init__(
        self, cluster: str, paths: Sequence[str], changed: Callable[[Update], None], clock: IReactorTime
    ) -> None:
        """`changed` is called with each Update; `synced` is true from before the last one of the first look."""
        self.synced = False
        self._cluster = cluster
        self._paths = tuple(paths)
        self._changed = changed
        self._clock = clock
        self._manifests = Manifests(cluster)
        self._seen: dict[str, _Seen] = {}
        self._troubles: dict[str, str] = {}  # what cannot be read now
        self._told: set[str] = set()
        self._stirred = False  # whether a file was read or is gone, so that problems may be others
        self._life = self._watch()
        self._call: IDelayedCall | None = None

    # from the root

    def start(self) -> None:
        self._turn()

    def stop(self) -> None:
        """Looks no more; objects stay as they were."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._life.close()

    # from the status page

    @property
    def problems(self) -> list[Problem]:
        """All that is wrong now."""
        troubles = [
            Problem(SOURCE, self._cluster, path, 1, "", reason) for path, reason in sorted(self._troubles.items())
        ]
        return troubles + self._manifests.problems

    @property
    def counted(self) -> dict[str, int]:
        """Objects by kind."""
        return self._manifests.counted

    # from the clock

    def _turn(self) -> None:
        self._call = self._clock.callLater(next(self._life), self._turn)

    def _watch(self) -> Generator[float, None, None]:
        """All that is ever done here, as the seconds to wait in between; 0 for a breath in which others have their turn."""
        while True:
            took, began = 0.0, self._clock.seconds()
            found: dict[str, Stamp] = {}
            troubles: dict[str, str] = {}  # by path, whose files nobody can see now
            for path in self._paths:
                for count, (file, stamp) in enumerate(files(path, troubles), 1):
                    found[file] = stamp
                    if count % FILES_STEP == 0:
                        took += self._clock.seconds() - began
                        yield 0.0  # the others' time is not ours
                        began = self._clock.seconds()
            took += self._clock.seconds() - began
            yield from self._compare(found, set(troubles), troubles)
            if self._stirred or troubles != self._troubles:
                self._troubles, self._stirred = troubles, False
                self._tell()
            if not self.synced and not any(path in troubles for path in self._paths):
                self.synced = True
                self._changed(Update())
            yield max(FILES_POLL, took * FILES_REST)

    def _compare(
        self, found: dict[str, Stamp], lost: set[str], troubles: dict[str, str]
    ) -> Generator[float, None, None]:
        for file in [file for file in self._seen if file not in found]:
            if not any(file == path or file.startswith(path.rstrip("/") + "/") for path in lost):
                del self._seen[file]
                self._stirred = True
                self._hand_over(self._manifests.drop(file))
        for file, stamp in found.items():
            seen = self._seen.get(file)
            if seen is None:
                seen = self._seen[file] = _Seen(stamp)
            elif stamp == seen.read_at:
                continue
            elif stamp != seen.stamp and _inode(stamp) == _inode(seen.stamp) and self.synced:
                seen.stamp = stamp  # written in place, and perhaps not to its end: at the next look it may stand still
                continue
            seen.stamp = stamp
            yield from self._read(file, seen, troubles)

    def _read(self, file: str, seen: _Seen, troubles: dict[str, str]) -> Generator[float, None, None]:
        try:
            data = content(file)
        except OSError as error:
            troubles[file] = f"cannot be read: {error.strerror}; what it gave last stays"
            return
        seen.read_at = seen.stamp
        self._stirred = True
        steps = self._manifests.feed(file, data)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                self._hand_over(done.value)
                yield 0.0
                return
            yield 0.0

    def _hand_over(self, update: Update) -> None:
        if update:
            self._changed(update)

    def _tell(self) -> None:
        """Each problem once, as it comes."""
        now = {str(problem) for problem in self.problems}
        for problem in sorted(now - self._told):
            _log.warn("cluster {cluster}: {problem}", cluster=self._cluster, problem=problem)
        if self._told and not now:
            _log.info("cluster {cluster}: all manifests are right again", cluster=self._cluster)
        self._told = now


def files(path: str, troubles: dict[str, str]) -> Iterator[tuple[str, Stamp]]:
    """Every file of manifests below a path, by name; hidden ones (and so `..data` and what editors leave) are passed over."""
    try:
        found = os.stat(path)
    except OSError as error:
        troubles[path] = f"cannot be read: {error.strerror}; what it gave last stays"
        return
    if stat.S_ISREG(found.st_mode):
        yield path, _stamp(found)
        return
    if not stat.S_ISDIR(found.st_mode):
        troubles[path] = "is neither a file nor a directory; what it gave last stays"
        return
    yield from _below(path, ((found.st_dev, found.st_ino),), troubles, [FILES_MOST])


def _below(
    folder: str, above: tuple[tuple[int, int], ...], troubles: dict[str, str], room: list[int]
) -> Iterator[tuple[str, Stamp]]:
    """`above` are the directories that it stands in, by which a circle of links is known; `room` is for so many files."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        troubles[folder] = f"cannot be read: {error.strerror}; what it gave last stays"
        return
    for name in names:
        path = os.path.join(folder, name)
        if name.startswith("."):
            continue
        try:
            found = os.stat(path)
        except OSError:  # it has just gone, or is a link to nothing
            continue
        if stat.S_ISDIR(found.st_mode):
            here = found.st_dev, found.st_ino
            if here not in above and len(above) < FILES_LEVELS:
                yield from _below(path, (*above, here), troubles, room)
        elif name.endswith(_ENDS) and stat.S_ISREG(found.st_mode):
            room[0] -= 1
            if room[0] < 0:
                troubles[folder] = f"there are more than {FILES_MOST:,} files; is it the right directory?"
                return
            yield path, _stamp(found)


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _inode(stamp: Stamp) -> Stamp:
    return stamp[:2]


def content(file: str) -> bytes:
    """A regular file's octets, one more than is read of any; raises OSError."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would make open wait for ever
    with open(descriptor, "rb") as opened:
        return opened.read(MANIFEST_FILE_BYTES + 1)
