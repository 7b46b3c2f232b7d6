"""Outside: the tokens file, read again when it changes.

A path enters, tokens leave; a file that is wrong leaves those in force that were there before. It must never know who
presents one.
"""

import os
from collections.abc import Mapping

from twisted.logger import Logger

from meshdns.control.tokens import Token, by_hash, parse
from meshdns.defaults import SETTINGS_MAX_BYTES
from meshdns.settings import Invalid

_log = Logger()


class TokensFile:
    """The tokens of one file; none without a path."""

    def __init__(self, path: str | None) -> None:
        self.problem = ""  # why the file as it is now is of no use
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._tokens: Mapping[str, Token] = {}

    def tokens(self) -> Mapping[str, Token]:
        """Those in force, by hash: a look costs one stat."""
        if self._path is not None and (stamp := _stamp(self._path)) != self._seen:
            self._seen = stamp
            self._read(self._path)
        return self._tokens

    def _read(self, path: str) -> None:
        try:
            with open(path, "rb") as opened:
                self._tokens = by_hash(parse(opened.read(SETTINGS_MAX_BYTES + 1), path))
        except OSError as error:
            self.problem = f"{path} cannot be read: {error.strerror}"
        except Invalid as invalid:
            self.problem = str(invalid)
        else:
            self.problem = ""
            _log.info("{path} holds {count} tokens", path=path, count=len(self._tokens))
            return
        _log.error("the tokens stay as they were: {problem}", problem=self.problem)


def _stamp(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
