"""Vocabulary: a mapping made of many small dicts, so that nothing done to it takes long at once, however large it is.

Keys and values enter and leave as with a dict, but in an order of its own. A dict of 100,000 keys takes milliseconds to grow,
to be copied and to be freed, and in none of them a packet is answered.
"""

from collections.abc import Hashable, Iterable, Iterator, MutableMapping
from itertools import chain
from typing import TypeVar, overload

from meshdns.defaults import SPLIT_PARTS

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")
_MASK = SPLIT_PARTS - 1  # of a hash


class SplitDict(MutableMapping[K, V]):
    """`parts` are the dicts, to be looked at: each holds the keys of some hashes, as they came. Copies have them in common; of
    those a change makes one its own, and so costs the same in a mapping of any age."""

    __slots__ = ("_common", "parts")

    def __init__(self, items: Iterable[tuple[K, V]] = ()) -> None:
        self.parts: list[dict[K, V]] = [{} for _ in range(SPLIT_PARTS)]
        self._common = bytearray(SPLIT_PARTS)  # 1 for what a copy may have, too
        for key, value in items:
            self[key] = value

    def copy(self) -> "SplitDict[K, V]":
        """The same keys and values; what changes in one of both does not in the other."""
        copied: SplitDict[K, V] = SplitDict.__new__(SplitDict)
        copied.parts = self.parts.copy()
        self._common = bytearray(b"\1" * SPLIT_PARTS)
        copied._common = self._common.copy()
        return copied

    @staticmethod
    def number(key: K) -> int:
        """Which of the parts a key belongs in."""
        return hash(key) & _MASK

    def part(self, key: K) -> dict[K, V]:
        """The part that a key belongs in, to be changed: quicker than to look there first, and then to change it here."""
        number = hash(key) & _MASK
        if self._common[number]:
            self.parts[number] = self.parts[number].copy()
            self._common[number] = 0
        return self.parts[number]

    # As with a dict

    def __getitem__(self, key: K) -> V:
        return self.parts[hash(key) & _MASK][key]

    def __setitem__(self, key: K, value: V) -> None:
        self.part(key)[key] = value

    def __delitem__(self, key: K) -> None:
        del self.part(key)[key]

    def __contains__(self, key: object) -> bool:
        return key in self.parts[hash(key) & _MASK]

    def __iter__(self) -> Iterator[K]:
        return chain.from_iterable(self.parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, /, default: V | T) -> V | T: ...
    def get(self, key: K, /, default: V | T | None = None) -> V | T | None:
        return self.parts[hash(key) & _MASK].get(key, default)
