"""Inside: a table as the octets of an answer's body arrive: unpacked, cut into lines and loaded, some at a time.

Octets enter as they come, at the end of the body a table leaves. How much an unpacked body and a line of it may have is bounded.
It must never know of connections, nor how long anybody waits.
"""

import zlib

from meshdns.defaults import TABLE_FILE_BYTES, TABLE_LINE, TABLE_STEP
from meshdns.exchange import Answer
from meshdns.table import Loader, Table

_GZIP = 16 + zlib.MAX_WBITS
_PIECE = 1 << 16  # octets unpacked at once


class Arriving:
    """One body. Whatever is wrong with it is raised as BadTable or ValueError, with a clause, or as zlib.error."""

    def __init__(self, answer: Answer, base: Table | None) -> None:
        """`base` is the table held where the answer is a delta."""
        self._loader = Loader(base)
        self._generation = answer.generation
        self._unzip = zlib.decompressobj(_GZIP) if answer.gzip else None
        self._packed: list[bytes] = []  # not unpacked yet
        self._rest = b""  # of a line
        self._lines: list[bytes] = []  # not loaded yet
        self._octets = 0

    def add(self, data: bytes) -> None:
        """More has come."""
        self._packed.append(data)

    @property
    def busy(self) -> bool:
        """Whether something that came is not loaded yet."""
        return bool(self._packed or self._lines or (self._unzip and self._unzip.unconsumed_tail))

    def step(self) -> None:
        """Load some lines; or, where there are none, unpack some more."""
        if not self._lines:
            return self._unpack()
        for line in self._lines[:TABLE_STEP]:
            self._loader.feed(line)
        del self._lines[:TABLE_STEP]

    def finish(self) -> Table:
        """The table, once the body has ended and nothing of it is left to load."""
        if self._unzip is not None and not self._unzip.eof:
            raise ValueError("its body was cut off")
        if self._rest:
            self._loader.feed(self._rest)
        table = self._loader.finish()
        if self._generation and table.generation != self._generation:
            raise ValueError(f"its table has generation {table.generation}, but its ETag says {self._generation}")
        return table

    def _unpack(self) -> None:
        if self._unzip is None:
            data = self._packed.pop(0) if self._packed else b""
        else:
            tail = self._unzip.unconsumed_tail
            data = self._unzip.decompress(tail or (self._packed.pop(0) if self._packed else b""), _PIECE)
        self._octets += len(data)
        if self._octets > TABLE_FILE_BYTES:
            raise ValueError(f"its body has more than {TABLE_FILE_BYTES >> 20} MiB")
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > TABLE_LINE:
            raise ValueError(f"a line of it has more than {TABLE_LINE} octets")
        self._lines += lines
