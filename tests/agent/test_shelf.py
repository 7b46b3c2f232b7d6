"""The room that the cache takes (D27)."""

import gc
import struct
import tracemalloc
from collections.abc import Callable

from meshdns import names, wire
from meshdns.agent.cache import Cache
from meshdns.agent.lifetimes import Limits
from meshdns.agent.steps import Failed
from meshdns.wire import RD, Ask
from tests.agent.saying import TIMEOUT, CacheCase, ask


def small(number: int, lines: int = 1) -> tuple[Ask, bytes]:
    """A question of its own and its answer, quickly."""
    name = b"\x09n%08d\x07example\x03net\x00" % number
    record = b"\xc0\x0c" + struct.pack("!HHIH", wire.A, 1, 3600, 4)
    message = struct.pack("!6H", 1, 0x8180, 1, lines, 0, 0) + name + b"\x00\x01\x00\x01"
    return Ask(name + b"\x00\x01\x00\x01", RD, b""), message + b"".join(
        record + (number + n & 0xFFFFFFFF).to_bytes(4) for n in range(lines)
    )


def traced(act: Callable[[], object]) -> int:
    """Octets of memory that acting took and did not give back."""
    gc.collect()
    tracemalloc.start()
    try:
        act()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


class ShelfTests(CacheCase):
    """D27: bounded by octets; the least recently used goes first; a flood pushes out nothing that is in use."""

    def fill(self, start: int, count: int, lines: int = 1) -> None:
        for number in range(start, start + count):
            asked, message = small(number, lines)
            self.cache.put(asked, message, wire.body(message), 0.0)

    def here(self, *numbers: int) -> list[bool]:
        return [self.cache.glance(small(number)[0], 1.0) is not None for number in numbers]

    def room_for(self, count: int) -> None:
        """Room for so many answers of one record."""
        self.cache = Cache(Limits())
        self.fill(0, 1)
        self.cache = Cache(Limits(max_bytes=self.cache.octets * count))

    def test_least_recently_used_first(self) -> None:
        self.room_for(20)
        self.fill(0, 20)
        for number in (3, 1, 2, 1):
            self.cache.look_up(small(number)[0], 0.5)
        self.cache.look_up(small(3)[0], 5.5)  # another second, another way
        self.fill(20, 3)
        self.assertEqual([False, True, True, True, False, False, True], self.here(0, 1, 2, 3, 4, 5, 6))
        self.assertEqual(3, self.cache.evictions)
        for number in range(6, 20):  # more come in use than the part for them holds: 2 is the one longest not used
            self.cache.look_up(small(number)[0], 5.7)
        self.fill(30, 4)
        self.assertEqual([False, True, True], self.here(2, 1, 3))

    def test_flood(self) -> None:
        """D27: a flood of unique names neither grows it nor pushes out what has been used."""
        self.room_for(500)
        for _ in range(2):  # what is forgotten leaves its room to others
            self.cache.forget(names.ROOT)
            self.fill(0, 400)
            for number in range(400):
                self.cache.look_up(small(number)[0], 0.5)
        self.fill(1000, 5000)
        self.assertEqual([True] * 400, self.here(*range(400)))
        self.assertLessEqual(self.cache.octets, self.cache.limits.max_bytes)
        self.assertEqual(500, self.cache.entries)

    def test_refreshed_stays_in_use(self) -> None:
        """D27: a newer answer takes the place of the older in what has been used."""
        self.room_for(20)
        self.fill(0, 1)
        self.cache.look_up(small(0)[0], 0.5)
        self.fill(0, 1)
        self.fill(1, 100)
        self.assertEqual([True], self.here(0))

    def test_one_large(self) -> None:
        """D27: an answer that would push out too many others is not kept."""
        self.room_for(20)
        self.fill(0, 1, lines=200)
        self.assertEqual((0, 0), (self.cache.entries, self.cache.octets))

    def test_failures_count(self) -> None:
        """D27: failures have their part of the same room."""
        self.room_for(100)
        self.fill(0, 100)
        for number in range(1000, 1100):
            self.cache.failed(small(number)[0], TIMEOUT, 0.0)
            self.assertLessEqual(self.cache.octets, self.cache.limits.max_bytes)
        self.assertEqual([False, True, True], self.here(0, 99, 1099))

    def test_off(self) -> None:
        self.cache = Cache(Limits(max_bytes=0))
        self.fill(0, 3)
        self.cache.failed(ask(), TIMEOUT, 0.0)
        self.assertEqual((0, 0), (self.cache.entries, self.cache.octets))

    def test_less_room(self) -> None:
        """D27: a smaller limit counts from when it is set."""
        self.fill(0, 1000)
        self.cache.use(Limits(max_bytes=self.cache.octets // 10))
        self.assertLessEqual(self.cache.octets, self.cache.limits.max_bytes)
        self.assertEqual([False, True], self.here(0, 999))

    def test_octets_are_memory(self) -> None:
        """D27: the octets counted are those that the interpreter takes, within 25 %: new, in use, large, failed, flooded."""

        def new() -> None:
            self.fill(0, 3000)

        def in_use() -> None:
            self.fill(0, 3000)
            for number in range(3000):
                self.cache.look_up(small(number)[0], 300.25 + number / 8)

        def large() -> None:
            self.fill(0, 500, lines=100)

        def failed() -> None:
            for number in range(3000):
                self.cache.failed(
                    small(number)[0], Failed("timeout", 22, f"server {number} gave no answer in 2 s"), 0.0
                )

        def flooded() -> None:
            self.cache.use(Limits(max_bytes=2 << 20))
            self.fill(0, 9_000)

        for act in (new, in_use, large, failed, flooded):
            self.cache = Cache(Limits(max_bytes=64 << 20))
            memory = traced(act)
            self.assertTrue(
                0.75 < self.cache.octets / memory < 1.25, f"{act.__name__}: {self.cache.octets} of {memory}"
            )
