"""Inside: things kept by key within a number of octets, what is in use longest.

Two parts: what has been used at least once is kept apart, in most of the room, so that a flood of things that are never
asked for again cannot push it out; in either part the least recently used goes first. It must never know what things are.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from meshdns.defaults import CACHE_USED_PART


class Sized(Protocol):
    """A thing and the octets of memory that it takes, always the same."""

    @property
    def octets(self) -> int: ...


Thing = TypeVar("Thing", bound=Sized)


class Shelf(Generic[Thing]):
    """`octets` is the sum of what is kept."""

    def __init__(self) -> None:
        self.used: OrderedDict[bytes, Thing] = OrderedDict()  # the last one most recently
        self.octets = 0
        self.evictions = 0
        self.idle: OrderedDict[bytes, Thing] = OrderedDict()  # never used, or long ago; the last one newest
        self._used_bytes = 0

    def __len__(self) -> int:
        return len(self.used) + len(self.idle)

    def __iter__(self) -> Iterator[bytes]:
        """Every key."""
        yield from self.used
        yield from self.idle

    def get(self, key: bytes) -> Thing | None:
        thing = self.used.get(key)
        return thing if thing is not None else self.idle.get(key)

    def touch(self, key: bytes, limit: float) -> None:
        """What has this key is in use just now. All that is kept takes at most `limit` octets, as in `put`."""
        if key in self.used:
            self.used.move_to_end(key)
            return
        thing = self.used[key] = self.idle.pop(key)
        self._used_bytes += thing.octets
        self.shrink(limit)

    def put(self, key: bytes, thing: Thing, used: bool, limit: float) -> None:
        """Keep a thing under a free key, and push out others until all fits."""
        self.octets += thing.octets
        if used:
            self.used[key] = thing
            self._used_bytes += thing.octets
        else:
            self.idle[key] = thing
        if self.octets > limit or used:
            self.shrink(limit)

    def pop(self, key: bytes) -> Thing | None:
        """Let go of what has this key."""
        thing = self.used.pop(key, None)
        if thing is not None:
            self._used_bytes -= thing.octets
        else:
            thing = self.idle.pop(key, None)
        if thing is not None:
            self.octets -= thing.octets
        return thing

    def clear(self) -> None:
        self.used.clear()
        self.idle.clear()
        self.octets = self._used_bytes = 0

    def shrink(self, limit: float) -> None:
        """Push out until the rest fits: first what was never used, then what was longest not used."""
        while self._used_bytes > limit * CACHE_USED_PART:
            key, thing = self.used.popitem(last=False)
            self._used_bytes -= thing.octets
            self.idle[key] = thing
        while self.octets > limit:
            _, thing = (self.idle or self.used).popitem(last=False)
            self.octets -= thing.octets
            self.evictions += 1
