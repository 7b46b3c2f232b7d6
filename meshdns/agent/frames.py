"""Inside: what the main process and a worker say to each other, as messages on a pipe.

A word and a content enter, octets leave; octets enter as they come, whole messages leave. It must never know what a content
means.
"""

from collections.abc import Iterator
from enum import Enum

from meshdns.defaults import WORKER_FRAME

_HEAD = 5


class Word(Enum):
    """What a message is about; the first are said to a worker, the last by it."""

    SETTINGS = 1  # the configuration in force, and what resolv.conf says
    BEGIN = 2  # of a table: what came of another one is void
    LINES = 3
    END = 4
    OPEN = 5  # the addresses of the sockets that it was started with, from now on its own
    BEAT = 6  # a number, which comes back in COUNTS; and whether these are wanted
    STOP = 7
    READY = 8  # it answers
    COUNTS = 9
    SAID = 10  # an event of its log


_WORDS = {word.value: word for word in Word}


class Nonsense(Exception):
    """What came is none of these messages."""


def frame(word: Word, content: bytes = b"") -> bytes:
    """One message."""
    return bytes([word.value]) + len(content).to_bytes(4) + content


class Frames:
    """Messages as their octets arrive."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Word, bytes]]:
        """The messages that are whole by now. Raises Nonsense."""
        held = self._held
        held += data
        start = 0
        try:
            while len(held) - start >= _HEAD:
                word, size = _WORDS.get(held[start]), int.from_bytes(held[start + 1 : start + _HEAD])
                if word is None or size > WORKER_FRAME:
                    raise Nonsense(f"{bytes(held[start : start + _HEAD]).hex()} begins no message")
                end = start + _HEAD + size
                if len(held) < end:
                    break
                content = bytes(held[start + _HEAD : end])
                start = end
                yield word, content
        finally:
            del held[:start]
