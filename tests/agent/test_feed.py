"""What the main process and a worker say to each other, and how tables pass: the worker ends with the main process's own."""

from collections.abc import Iterator

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshdns import table
from meshdns.agent.feed import Feed
from meshdns.agent.frames import Frames, Nonsense, Word, frame
from meshdns.defaults import AUTHORITY_STEP, WORKER_DELTAS, WORKER_FRAME
from meshdns.table import Loader, Table
from tests.agent.test_adoption import by_delta, many, tables


class Reader:
    """A worker as far as its tables go."""

    def __init__(self) -> None:
        self.held: Table | None = None
        self.came: list[Word] = []
        self.octets = 0
        self._frames = Frames()
        self._loader = Loader()

    def hear(self, message: bytes) -> None:
        self.octets += len(message)
        for word, content in self._frames.feed(message):
            self.came.append(word)
            if word is Word.BEGIN:
                self._loader = Loader(self.held)
            elif word is Word.LINES:
                for line in content.split(b"\n"):
                    self._loader.feed(line)
            else:
                self.held = self._loader.finish()

    def drain(self, feed: Feed) -> None:
        for message in _all(feed):
            self.hear(message)


def _all(feed: Feed) -> Iterator[bytes]:
    while (message := feed.next()) is not None:
        yield message


class FramesTests(SynchronousTestCase):
    @given(st.lists(st.tuples(st.sampled_from(Word), st.binary(max_size=40)), max_size=6), st.integers(1, 7))
    def test_in_whatever_pieces(self, messages: list[tuple[Word, bytes]], size: int) -> None:
        octets = b"".join(frame(word, content) for word, content in messages)
        frames = Frames()
        pieces = (octets[start : start + size] for start in range(0, len(octets), size))
        self.assertEqual(messages, [message for piece in pieces for message in frames.feed(piece)])

    def test_nonsense(self) -> None:
        """What is no message, or too long for one, is refused before it is held."""
        for octets in (b"\0\0\0\0\0", b"\x63\0\0\0\0", bytes([Word.LINES.value]) + (WORKER_FRAME + 1).to_bytes(4)):
            frames = Frames()
            self.assertRaises(Nonsense, list, frames.feed(octets))

    def test_good_before_nonsense(self) -> None:
        """Messages before it count."""
        coming = Frames().feed(frame(Word.READY) + bytes(5))
        self.assertEqual((Word.READY, b""), next(coming))
        self.assertRaises(Nonsense, next, coming)


class FeedTests(SynchronousTestCase):
    @given(tables, st.lists(st.booleans(), min_size=4, max_size=4))
    def test_all_that_comes(self, several: list[Table], reads: list[bool]) -> None:
        """X3: whole tables and deltas of the one before, read at whatever time: the worker has the last one."""
        feed, reader, last = Feed(), Reader(), None
        for new, is_read in zip(several, reads, strict=False):
            feed.take(by_delta(last, new) if last is not None else new)
            last = new
            if is_read:
                reader.drain(feed)
        reader.drain(feed)
        self.assertEqual(last, reader.held)

    def test_delta_is_small(self) -> None:
        """A changed host of many costs as much as itself."""
        feed, reader = Feed(), Reader()
        first = many(8 * AUTHORITY_STEP)
        feed.take(first)
        reader.drain(feed)
        whole, reader.octets = reader.octets, 0
        new = attrs.evolve(
            first, entries={**first.entries, "x.cluster.local": table.entry({"host": "x.cluster.local", "ips": []})}
        )
        feed.take(by_delta(first, Table.of(new.entries.values(), first.zones)))
        reader.drain(feed)
        self.assertLess(reader.octets, 500)
        self.assertGreater(whole, 50_000)
        assert reader.held is not None
        self.assertEqual(len(first.entries) + 1, len(reader.held.entries))

    def test_pieces(self) -> None:
        """No message takes long to load: some lines, or one long one."""
        long = table.entry({"host": "long.cluster.local", "ips": [f"10.{n >> 8}.{n & 255}.1" for n in range(4000)]})
        feed = Feed()
        feed.take(Table.of([*many(1000).entries.values(), long], ["cluster.local"]))
        sizes = [(len(message), message.count(b"\n")) for message in _all(feed)]
        self.assertLess(max(octets for octets, _ in sizes), 130_000)
        self.assertLess(max(lines for _, lines in sizes), 100)

    def test_interrupted(self) -> None:
        """A whole table takes the place of one that is half told."""
        feed, reader = Feed(), Reader()
        feed.take(many(1000, "10.0.0.1"))
        for _ in range(3):
            message = feed.next()
            assert message is not None
            reader.hear(message)
        feed.take(many(900, "10.0.0.2"))
        reader.drain(feed)
        self.assertEqual(many(900, "10.0.0.2"), reader.held)
        self.assertEqual(1, reader.came.count(Word.END))

    def test_backlog(self) -> None:
        """Changes that wait are not more than so many: then the whole table is told."""
        feed, reader, last = Feed(), Reader(), many(5)
        feed.take(last)
        for each in range(2 * WORKER_DELTAS):
            new = many(5, f"10.0.1.{each}")
            feed.take(by_delta(last, new))
            last = new
        reader.drain(feed)
        self.assertEqual(last, reader.held)
        self.assertLessEqual(reader.came.count(Word.END), WORKER_DELTAS)

    def test_same_again(self) -> None:
        feed, reader = Feed(), Reader()
        feed.take(many(5))
        reader.drain(feed)
        feed.take(many(5))
        self.assertIsNone(feed.next())

    def test_more_named_than_differ(self) -> None:
        """`changed` may name hosts that are in neither table: no line is told of them."""
        first, new = many(3), many(3, "10.0.0.9")
        feed, reader = Feed(), Reader()
        feed.take(first)
        feed.take(attrs.evolve(new, base=first.generation, changed={*new.entries, "gone.cluster.local"}))
        reader.drain(feed)
        self.assertEqual(new, reader.held)
