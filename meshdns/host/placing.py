"""Outside: files put into their places, all of them or none.

Contents and where they go enter. All are written beside their places and forced to the disk before the first one is
renamed into it: a full disk, a missing right or a lost directory leaves everything as it was. It must never know what they say.
"""

import os
from collections.abc import Sequence
from contextlib import suppress

import attrs

_MARKS = ("new", "old")


@attrs.frozen(kw_only=True)
class File:
    """`owner` is (user, group) by number, None: whoever writes it; directories above it are made with `folder_mode`."""

    path: str
    content: bytes
    mode: int
    owner: tuple[int, int] | None = None
    folder_mode: int = 0o755

    def beside(self, mark: str) -> str:
        folder, name = os.path.split(self.path)
        return os.path.join(folder, f".{name}.{mark}")


def place(files: Sequence[File]) -> None:
    """Put them there. Raises OSError with all as it was."""
    made: list[str] = []
    try:
        for each in files:
            _make_folder(each, made)
            _write(each)
        _swap(files)
    except OSError:
        _clear(files)
        for folder in reversed(made):
            with suppress(OSError):
                os.rmdir(folder)
        raise
    _clear(files)


def _clear(files: Sequence[File]) -> None:
    for each in files:
        for mark in _MARKS:
            with suppress(OSError):
                os.unlink(each.beside(mark))


def is_there(file: File) -> bool:
    """Whether the very same content stands there already."""
    try:
        with open(file.path, "rb") as opened:
            return opened.read(len(file.content) + 1) == file.content
    except OSError:
        return False


def _make_folder(file: File, made: list[str]) -> None:
    folder = os.path.dirname(file.path)
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for each in reversed(missing):
        os.mkdir(each, file.folder_mode)
        made.append(each)
    if missing and file.owner:
        os.chown(missing[0], *file.owner)


def _write(file: File) -> None:
    """The content beside its place, and the file that is there now under a second name."""
    for mark in _MARKS:  # of a run that was killed
        with suppress(FileNotFoundError):
            os.unlink(file.beside(mark))
    with suppress(FileNotFoundError):
        os.link(file.path, file.beside("old"))
    descriptor = os.open(file.beside("new"), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as opened:
        if file.owner:
            os.fchown(descriptor, *file.owner)
        os.fchmod(descriptor, file.mode)
        opened.write(file.content)
        opened.flush()
        os.fsync(descriptor)


def _swap(files: Sequence[File]) -> None:
    done: list[File] = []
    try:
        for each in files:
            os.replace(each.beside("new"), each.path)
            done.append(each)
        for folder in {os.path.dirname(each.path) for each in files}:
            _sync(folder)
    except OSError:
        for each in reversed(done):
            _take_back(each)
        raise


def _take_back(file: File) -> None:
    if os.path.lexists(file.beside("old")):
        os.replace(file.beside("old"), file.path)
    else:
        os.unlink(file.path)


def _sync(folder: str) -> None:
    """So that the new names survive a power cut, too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
