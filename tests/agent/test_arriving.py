"""A table as the octets of a body arrive (rules X3, X5)."""

import gzip
import zlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshdns import table
from meshdns.agent import arriving
from meshdns.agent.arriving import Arriving
from meshdns.defaults import TABLE_STEP
from meshdns.exchange import Answer
from meshdns.table import BadTable, Table, delta_lines, whole_lines
from tests.tables import HEADER


def many(count: int) -> Table:
    rows = [table.entry({"host": f"h{number}.example.com", "ips": ["10.0.0.1"]}) for number in range(count)]
    return Table.of(rows, ["cluster.local"])


def body(held: Table) -> bytes:
    entries = [held.entries[host] for host in sorted(held.entries)]
    lines = whole_lines(held.generation, len(entries), held.zones, held.ttl, entries)
    return "".join(f"{line}\n" for line in lines).encode()


def answer(generation: str = "", packed: bool = False, kind: str = "table") -> Answer:
    return Answer(kind=kind, status=200, generation=generation, gzip=packed)


def whole(arrives: Arriving, *pieces: bytes) -> Table:
    for piece in pieces:
        arrives.add(piece)
        arrives.step()
    while arrives.busy:
        arrives.step()
    return arrives.finish()


class ArrivingTests(SynchronousTestCase):
    @given(st.lists(st.integers(1, 400), max_size=60), st.booleans())
    def test_any_pieces(self, sizes: list[int], packed: bool) -> None:
        """X5: however a body is cut, and whether it is gzipped, it is the same table."""
        held = many(40)
        data = gzip.compress(body(held)) if packed else body(held)
        arrives = Arriving(answer(held.generation, packed), None)
        pieces = []
        for size in sizes:
            pieces.append(data[:size])
            data = data[size:]
        self.assertEqual(held, whole(arrives, *pieces, data))

    def test_delta(self) -> None:
        """X3: a delta is laid over the table held."""
        held, now = many(3), many(4)
        added = "h3.example.com"
        lines = delta_lines(held.generation, now.generation, 4, now.zones, now.ttl, [(added, now.entries[added])])
        found = whole(
            Arriving(answer(now.generation, kind="delta"), held), "".join(f"{line}\n" for line in lines).encode()
        )
        self.assertEqual((now, held.generation), (found, found.base))

    def test_steps(self) -> None:
        """X8: no step takes more than some lines."""
        arrives = Arriving(answer(), None)
        arrives.add(body(many(TABLE_STEP * 3)))
        steps = 0
        while arrives.busy:
            arrives.step()
            steps += 1
        self.assertGreaterEqual(steps, 3)

    def test_bomb(self) -> None:
        """What unfolds without end is refused before it is unfolded."""
        self.patch(arriving, "TABLE_FILE_BYTES", 1 << 20)
        arrives = Arriving(answer(packed=True), None)
        arrives.add(gzip.compress((b" " * 1000 + b"\n") * 8000))
        with self.assertRaisesRegex(ValueError, "its body has more than 1 MiB"):
            whole(arrives)

    def test_long_line(self) -> None:
        with self.assertRaisesRegex(ValueError, "a line of it has more than"):
            whole(Arriving(answer(), None), b"x" * (2 << 20))

    def test_wrong(self) -> None:
        """X5: cut off, not gzip, another table than the one that was promised, or no table."""
        held = many(2)
        data = body(held)
        for told, said, error, packed in (
            ("cut off", gzip.compress(data)[:-9], ValueError, True),
            ("incorrect header", data, zlib.error, True),
            ("its ETag says", body(many(3)), ValueError, False),
            ("", HEADER.encode() + b"\nnonsense\n", BadTable, False),
            ("", data[: len(data) // 2], BadTable, False),
        ):
            with self.assertRaisesRegex(error, told):
                whole(Arriving(answer(held.generation, packed), None), said)
