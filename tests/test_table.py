"""Whole tables: lines in and out, generation (X2), deltas (X3), bad input of every kind, and what the document says."""

import json
import re
from hashlib import blake2b
from itertools import permutations
from pathlib import Path
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshdns import defaults, table
from meshdns.table import BadTable, Loader, Table
from tests.tables import (
    DB1,
    HEADER,
    JSON,
    OBJECTS,
    PRODUCTPAGE,
    TABLES,
    BadCase,
    apply,
    dumped,
    lines,
    reference,
)

DOCUMENT = Path(__file__).parent.parent / "docs" / "name-table.md"
# Of the table's head and its two hosts in canonical JSON, by `b2sum -l 128`; the texts are in test_entries.py.
DIGESTS = ("652e025e5cdca18c2b01be62f5d16545", "1a89a6a422399aa9142eb85a16ae0bbb", "e3f6ebf37421f73d8b8cd3a58070d513")


class GenerationTests(SynchronousTestCase):
    def test_sum(self) -> None:
        """X2: the sum modulo 2^128 over the entries and the head."""
        head, db1, productpage = (int(digest, 16) for digest in DIGESTS)
        held = Table.of([table.entry(PRODUCTPAGE), table.entry(DB1)], ["cluster.local"])
        self.assertEqual(held.generation, f"{(head + db1 + productpage) % 2**128:032x}")
        self.assertEqual(table.read(lines(HEADER, DB1, PRODUCTPAGE)), held)

    def test_any_order_of_lines_keys_and_zones(self) -> None:
        """X2: the generation does not depend on order, nor on spaces, nor on escapes."""
        objects = [PRODUCTPAGE, DB1, {"host": "c", "größe": "ü"}]
        found = set()
        for order in permutations(objects):
            turned = [json.dumps(dict(reversed(obj.items()))) for obj in order]
            found.add(table.read(lines('{"nametable":1,"zones":["b.c","a"]}', *turned)).generation)
            found.add(table.read(lines('{"zones":["a","b.c"],"ttl":30,"nametable":1}', *order)).generation)
        self.assertEqual(len(found), 1)

    @given(TABLES, st.randoms())
    def test_order_never_counts(self, held: Table, random: Any) -> None:
        """X2."""
        shuffled = list(held.entries.values())
        random.shuffle(shuffled)
        self.assertEqual(table.generation(shuffled, held.zones[::-1], held.ttl), held.generation)

    @given(TABLES, OBJECTS)
    def test_entry_by_entry(self, held: Table, obj: dict[str, Any]) -> None:
        """X2: an agent can keep it up to date entry by entry."""
        came = table.entry(obj)
        total = int(held.generation, 16) + table.weigh(came.line)
        if old := held.entries.get(came.host):
            total -= table.weigh(old.line)
        expected = Table.of([*held.entries.values(), came], held.zones, held.ttl)
        self.assertEqual(table.total_text(total), expected.generation)

    def test_every_part_counts(self) -> None:
        """X2: addresses in another order, an unknown field, the TTL, a zone: another generation."""
        base = Table.of([table.entry(DB1)], ["a"])
        others = [
            Table.of([table.entry(DB1 | {"ips": DB1["ips"][::-1]})], ["a"]),
            Table.of([table.entry(DB1 | {"note": 1})], ["a"]),
            Table.of([table.entry(DB1)], ["a"], 31),
            Table.of([table.entry(DB1)], ["a", "b"]),
        ]
        self.assertEqual(len({held.generation for held in [base, *others]}), 5)


class WholeTests(BadCase):
    """JSON lines (section 2.1): header, entries, end."""

    def test_contract_example(self) -> None:
        held = Table.of([table.entry(PRODUCTPAGE), table.entry(DB1)], ["cluster.local"])
        header = {"nametable": 1, "generation": held.generation, "hosts": 2, "zones": ["cluster.local"], "ttl": 30}
        self.assertEqual(table.read(lines(header, PRODUCTPAGE, DB1, {"end": held.generation})), held)

    def test_kept_by_hand(self) -> None:
        """No generation in the header: no hash is checked, no end is needed; empty lines, CRLF and a BOM are fine."""
        data = b'\xef\xbb\xbf\r\n{"nametable": 1}\r\n\r\n{"host": "a.b", "ips": ["10.0.0.1"]}\r\n'
        held = table.read(data)
        self.assertEqual((list(held.entries), held.zones, held.ttl), (["a.b"], (), 30))
        self.assertEqual(table.read(data + b'{"end": "whatever"}'), held)

    @given(TABLES)
    def test_dump_and_read(self, held: Table) -> None:
        """X1, X2: what is written is read again; hosts sorted, so that equal tables are equal files."""
        written = list(table.dump(held))
        self.assertEqual(table.read("\n".join(written).encode()), held)
        self.assertEqual([json.loads(line)["host"] for line in written[1:-1]], sorted(held.entries))
        self.assertEqual([reference(json.loads(line)) for line in written[1:-1]], written[1:-1])
        self.assertEqual(json.loads(written[0])["generation"], held.generation)
        self.assertEqual(json.loads(written[-1]), {"end": held.generation})

    @given(TABLES)
    def test_cut_off_anywhere(self, held: Table) -> None:
        """X3, X11: a table is adopted whole or not at all."""
        written = [line.encode() + b"\n" for line in table.dump(held)]
        for count in range(len(written)):
            self.assertRaises(BadTable, table.read, b"".join(written[:count]))
            self.assertRaises(BadTable, table.read, b"".join(written[:count]) + written[count][:-2])

    def test_cut_off_sentence(self) -> None:
        written = list(table.dump(Table.of([table.entry(DB1)])))
        self.refused(lines(*written[:-1]), 2, "the table was cut off here, without its end line: get it again")

    def test_wrong_hash(self) -> None:
        """X3: only if the hash fits; both values are named, and the way out."""
        held = Table.of([table.entry(DB1)])
        written = list(table.dump(held))
        changed = [written[0], written[1].replace("240.240.0.1", "240.240.0.2"), written[2]]
        found = table.read(lines('{"nametable":1}', changed[1])).generation
        way_out = 'get the table again, or take "generation" out of the header if it is kept by hand'
        told = f'the entries add up to generation {found}, but the {{}} says "{held.generation}": {way_out}'
        self.refused(lines(*changed), 0, told.format("header"))
        header = written[0].replace(held.generation, found)
        self.refused(lines(header, *changed[1:]), 0, told.format("end line"))

    def test_same_host_twice(self) -> None:
        self.refused(
            lines(HEADER, DB1, "", PRODUCTPAGE, DB1), 5, "has db1.example.com again, which line 2 has: keep one of them"
        )

    def test_number_of_hosts(self) -> None:
        sentence = 'the header says "hosts": 2, but the lines make 1: get the table again, or mend "hosts" if it is kept by hand'
        self.refused(lines('{"nametable":1,"hosts":2}', DB1), 0, sentence)

    def test_line_sentences(self) -> None:
        for line, sentence in [
            (
                "{",
                "is not JSON: Expecting property name enclosed in double quotes (column 2); each line holds one object",
            ),
            ("[1]", "is no JSON object: each line holds one, in braces"),
            (
                '{"host":"a"} {"host":"b"}',
                "goes on behind its JSON object (column 13): give each object a line of its own",
            ),
            ('{"hots":"a"}', 'is no entry: give it a "host"'),
            (
                '{"host":"a","host":"a"}',
                'is not usable JSON: the key "host" stands twice in one object, keep one of them',
            ),
            (
                '{"host":"a","x":{"y":1,"y":1}}',
                'is not usable JSON: the key "y" stands twice in one object, keep one of them',
            ),
            ('{"host":"a","x":NaN}', "is not usable JSON: NaN is no number"),
            (
                '{"host":"a","x":1e999}',
                "holds what JSON cannot say (Out of range float values are not JSON compliant): take it out",
            ),
            (
                '{"host":"a","x":"\\ud800"}',
                "holds half of a surrogate pair (\\ud800 to \\udfff): write the whole character",
            ),
            ('{"host":"a","removed":true}', 'removes "a", which only a delta can: leave the line out'),
            ('{"host":"a","removed":1}', 'has "removed": write {"host": "…", "removed": true}'),
        ]:
            self.refused(lines(HEADER, DB1, line), 3, sentence)

    def test_unreadable_lines(self) -> None:
        self.refused(lines(HEADER) + b'\n{"host":"\xff"}', 2, "is not UTF-8 (octet 10): save the file as UTF-8")
        for line in (
            b'{"host":"a\x00"}',
            b"\x00",
            b'{"host":"a","x":' + b"9" * 5000 + b"}",
            b'{"host":"a","x":' + b"[" * 100_000,
        ):
            error = self.assertRaises(BadTable, table.read, lines(HEADER, DB1) + b"\n" + line)
            self.assertEqual(error.line, 3)
        long = b'{"host":"a","x":"' + b"x" * defaults.TABLE_LINE + b'"}'
        self.refused(
            lines(HEADER) + b"\n" + long,
            2,
            "has 1048595 octets, at most 1048576 are taken: split the entry or the file",
        )

    def test_header_sentences(self) -> None:
        for header, sentence in [
            ('{"host":"a"}', 'the header is missing: let the first line be {"nametable": 1}'),
            ('{"nametable":2}', "the table has format 2, only 1 is understood: upgrade meshdns"),
            ('{"nametable":true}', "the table has format true, only 1 is understood: upgrade meshdns"),
            (
                '{"nametable":1,"nametable":1}',
                'is not usable JSON: the key "nametable" stands twice in one object, keep one of them',
            ),
            (
                '{"nametable":1,"generation":"9F"}',
                'has "9F" as "generation": a generation is 32 hex digits in lower case',
            ),
            ('{"nametable":1,"zones":"a"}', 'has "a" as "zones": write a list of domains'),
            ('{"nametable":1,"zones":[1]}', 'has 1 in "zones": write a domain'),
            ('{"nametable":1,"zones":["a","a"]}', 'has a domain twice in "zones": keep one of them'),
            ('{"nametable":1,"zones":["A"]}', '"A" is no host name of a table: write it in lower case'),
            ('{"nametable":1,"ttl":-1}', 'has -1 as "ttl": write a whole number from 0 to 2147483647'),
            ('{"nametable":1,"hosts":"1"}', 'has "1" as "hosts": write a whole number from 0 to 2147483648'),
        ]:
            self.refused(lines(header, DB1), 1, sentence)
        for empty in (b"", b"\n \n"):
            self.refused(empty, 0, 'the table is empty: let its first line be {"nametable": 1}')

    def test_nothing_follows_the_end(self) -> None:
        written = list(table.dump(Table.of([])))
        self.refused(lines(*written, DB1), 3, "stands behind the end line: nothing may follow it")

    def test_a_broken_line_loses_the_table(self) -> None:
        """X3: whoever goes on after a bad line gets no table without it."""
        loader = Loader()
        loader.feed(HEADER.encode())
        self.assertRaises(BadTable, loader.feed, b"{")
        self.assertEqual(self.assertRaises(BadTable, loader.finish).line, 2)

    def test_a_finished_table_stays(self) -> None:
        loader = Loader()
        loader.feed(HEADER.encode())
        held = loader.finish()
        self.assertRaises(BadTable, loader.feed, lines(DB1))
        self.assertEqual(held.entries, {})

    def test_steps(self) -> None:
        """X8: a large table comes in parts of equal size, and is the same."""
        held = Table.of(table.entry({"host": f"h{number}"}) for number in range(50))
        steps = table.read_in_steps([dumped(held)], 10)
        for _ in range(6):
            self.assertIsNone(next(steps))
        self.assertEqual(self.assertRaises(StopIteration, next, steps).value, held)

    @given(TABLES, st.lists(st.integers(1, 300), max_size=40), st.sampled_from(["", "\n \n", "\ufeff"]), st.booleans())
    def test_pieces(self, held: Table, sizes: list[int], front: str, ours: bool) -> None:
        """X4: however a file is cut in pieces, it holds the same, and what is wrong stands in the same line."""
        plain = dumped(held) if ours else json.dumps(table.to_istio(held), indent=1).encode()
        for data in (front.encode() + plain, front.encode() + plain + b'"x"\n'):
            pieces, rest = [], data
            for size in sizes:
                pieces.append(rest[:size])
                rest = rest[size:]
            self.assertEqual(self.outcome([data]), self.outcome([*pieces, rest]))

    def outcome(self, pieces: list[bytes]) -> Table | str:
        steps = table.read_in_steps(pieces, 3)
        try:
            while True:
                next(steps)
        except StopIteration as done:
            return cast(Table, done.value)
        except BadTable as bad:
            return str(bad)


class DeltaTests(BadCase):
    def setUp(self) -> None:
        self.old = Table.of([table.entry(PRODUCTPAGE), table.entry(DB1)], ["cluster.local"])

    @given(TABLES, TABLES)
    def test_diff_and_apply(self, old: Table, new: Table) -> None:
        """X3: the delta makes the whole; what is equal is not in it; the old table stays what it was."""
        before = dict(old.entries)
        delta = list(table.diff(old, new))
        self.assertEqual(apply(old, delta), new)
        self.assertEqual(old.entries, before)
        named = [json.loads(line)["host"] for line in delta[1:-1]]
        hosts = old.entries.keys() | new.entries.keys()
        self.assertEqual(named, sorted(host for host in hosts if old.entries.get(host) != new.entries.get(host)))

    def test_touches_no_more_than_it_changes(self) -> None:
        """X8: all but the part with the host that changed is the very same, in the old table as in the new one."""
        rows = [table.entry({"host": f"h{number}", "ips": ["10.0.0.1"]}) for number in range(1000)]
        old = Table.of(rows)
        for last in ({"host": "h7", "ips": ["10.0.0.2"]}, {"host": "new"}, None):
            new = Table.of(rows[:7] + rows[8:] + ([table.entry(last)] if last else []))
            came = apply(old, list(table.diff(old, new)))
            self.assertEqual(came, new)
            others = [one for one, other in zip(old.entries.parts, came.entries.parts, strict=True) if one is not other]
            self.assertLessEqual(len(others), len(came.changed))

    def test_lines(self) -> None:
        """X3: the first line names the base, changed entries come whole, end is the generation after it."""
        changed = DB1 | {"ttl": 5}
        new = Table.of([table.entry(changed)], ["cluster.local"])
        header = {"nametable": 1, "base": self.old.generation, "generation": new.generation}
        self.assertEqual(
            [json.loads(line) for line in table.diff(self.old, new)],
            [
                header | {"hosts": 1, "zones": ["cluster.local"], "ttl": 30},
                changed,
                {"host": PRODUCTPAGE["host"], "removed": True},
                {"end": new.generation},
            ],
        )

    def test_zones_and_ttl_are_the_bases(self) -> None:
        """A delta that names neither keeps both."""
        new = Table.of([table.entry(DB1)], ["cluster.local"])
        delta = [
            json.dumps({"nametable": 1, "base": self.old.generation}),
            json.dumps({"host": PRODUCTPAGE["host"], "removed": True}),
            json.dumps({"end": new.generation}),
        ]
        self.assertEqual(apply(self.old, delta), new)

    def test_whole_table_where_a_delta_might_come(self) -> None:
        new = Table.of([table.entry(DB1)])
        self.assertEqual(apply(self.old, list(table.dump(new))), new)

    def test_cut_off_anywhere(self) -> None:
        """X3: adopted at `end` only."""
        delta = list(table.diff(self.old, Table.of([table.entry({"host": "a"})])))
        for count in range(len(delta)):
            self.assertRaises(BadTable, apply, self.old, delta[:count])

    def test_does_not_fit(self) -> None:
        """X3: a delta from another generation, or one that does not add up, is refused, and says what to ask for."""
        new = Table.of([table.entry(DB1 | {"ttl": 5})])
        delta = list(table.diff(self.old, new))
        told = f"is a delta from generation {self.old.generation}"
        error = self.assertRaises(BadTable, apply, None, delta)
        self.assertEqual(error.reason, f"{told}: the whole table is needed here")
        error = self.assertRaises(BadTable, apply, new, delta)
        self.assertEqual(error.reason, f"{told}, but the table held is {new.generation}: ask for the whole table")
        error = self.assertRaises(BadTable, apply, self.old, [delta[0], delta[2], delta[3]])
        self.assertIn("add up to generation", error.reason)

    def test_removals(self) -> None:
        header = json.dumps({"nametable": 1, "base": self.old.generation})
        gone = json.dumps({"host": "nobody.example", "removed": True})
        error = self.assertRaises(BadTable, apply, self.old, [header, gone])
        told = 'line 2: removes "nobody.example", which the table does not have: ask for the whole table'
        self.assertEqual(str(error), told)
        gone = json.dumps({"host": DB1["host"], "removed": True})
        for twice in ([gone, gone], [gone, json.dumps(DB1)], [json.dumps(DB1), gone]):
            error = self.assertRaises(BadTable, apply, self.old, [header, *twice])
            self.assertEqual(str(error), "line 3: has db1.example.com again, which line 2 has: keep one of them")

    def test_a_delta_is_no_file(self) -> None:
        delta = "\n".join(table.diff(self.old, Table.of([])))
        self.refused(
            delta.encode(), 1, f"is a delta from generation {self.old.generation}: the whole table is needed here"
        )


class MutationTests(SynchronousTestCase):
    """Whatever is wrong, it is a BadTable with a sentence."""

    def harmless(self, data: bytes) -> None:
        try:
            found = table.read(data)
        except BadTable as error:
            self.assertTrue(error.reason)
            self.assertTrue(str(error).isprintable(), str(error))
            return
        self.assertEqual(table.read(dumped(found)), found)

    @given(st.binary() | st.text().map(str.encode) | JSON.map(lambda value: json.dumps(value).encode()))
    @settings(max_examples=300)
    def test_anything(self, data: bytes) -> None:
        self.harmless(data)
        self.harmless(lines(HEADER) + b"\n" + data)

    @given(st.dictionaries(st.sampled_from([*PRODUCTPAGE, *DB1, "alias", "pods", "ttl", "removed", "x"]), JSON))
    @settings(max_examples=300)
    def test_any_values(self, obj: dict[str, Any]) -> None:
        self.harmless(lines(HEADER, {"host": "a.b", **obj}))
        self.harmless(lines(obj | {"nametable": 1}))
        self.harmless(lines({"table": obj}))
        self.harmless(lines({"table": {"a.b": {"ips": ["10.0.0.1"], **obj}}}))

    @given(TABLES, st.data())
    def test_changed_octets(self, held: Table, data: st.DataObject) -> None:
        """X3: a table with a generation never passes for another one, whatever octet is hit."""
        good = dumped(held)
        position = data.draw(st.integers(0, len(good) - 1))
        octets = data.draw(st.binary(max_size=3))
        bad = good[:position] + octets + good[position + data.draw(st.integers(0, 3)) :]
        try:
            found = table.read(bad)
        except BadTable:
            return
        if b'"generation"' in bad.partition(b"\n")[0]:
            self.assertEqual(found, held)


class DocumentTests(SynchronousTestCase):
    """docs/name-table.md says what is read, in examples that are."""

    def examples(self, word: str) -> list[bytes]:
        blocks = re.findall(rf"```{word}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
        return [block.encode() for block in blocks]

    def test_whole_tables(self) -> None:
        whole, by_hand = (table.read(example) for example in self.examples("jsonl"))
        self.assertEqual(sorted(whole.entries), ["db1.example.com", "productpage.ns1.svc.cluster.local"])
        self.assertIn("*.legacy.example.com", by_hand.entries)

    def test_delta(self) -> None:
        """X3."""
        [delta] = self.examples("jsonl delta")
        found = apply(table.read(self.examples("jsonl")[0]), delta.decode().splitlines())
        self.assertEqual(list(found.entries), ["productpage.ns1.svc.cluster.local"])

    def test_istio(self) -> None:
        """X4."""
        [example] = self.examples("json istio")
        self.assertEqual(len(table.read(example).entries), 2)

    def test_canonical(self) -> None:
        """X2: the document's own numbers."""
        told = re.findall(r"^    ([0-9a-f]{32})  (\{.*\})$", DOCUMENT.read_text(encoding="utf-8"), re.M)
        self.assertEqual(len(told), 3)
        for digest, text in told:
            self.assertEqual(blake2b(text.encode(), digest_size=16).hexdigest(), digest)
        total = sum(int(digest, 16) for digest, _ in told) % 2**128
        self.assertEqual(f"{total:032x}", table.read(self.examples("jsonl")[0]).generation)

    def test_limits(self) -> None:
        text = DOCUMENT.read_text(encoding="utf-8")
        self.assertIn(f"{defaults.TABLE_LINE >> 20} MiB", text)
        self.assertIn(f"{defaults.TABLE_ENTRY_LIST:,}", text)
        self.assertIn(f"{defaults.TABLE_FILE_BYTES >> 20} MiB", text)
