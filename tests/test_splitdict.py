"""A mapping in many parts is a dict to who uses it, and copies of it are nobody else's."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshdns.splitdict import SplitDict

Changes = list[tuple[str, int | None]]
CHANGES = st.lists(st.tuples(st.integers(0, 20).map(str), st.none() | st.integers()))


def change(held: "SplitDict[str, int] | dict[str, int]", changes: Changes) -> None:
    """Set each key to its number, and take away those with none."""
    for key, number in changes:
        if number is not None:
            held[key] = number
        elif key in held:
            del held[key]


class SplitDictTests(SynchronousTestCase):
    def same(self, expected: dict[str, int], found: SplitDict[str, int]) -> None:
        self.assertEqual(expected, dict(found.items()))
        self.assertEqual((len(expected), expected.keys()), (len(found), set(found)))
        for key in map(str, range(22)):
            self.assertEqual(expected.get(key, -1), found.get(key, -1))
            self.assertEqual(key in expected, key in found)

    @given(CHANGES, CHANGES, CHANGES)
    def test_as_a_dict(self, first: Changes, one: Changes, other: Changes) -> None:
        """Also where it and a copy change apart, in any order."""
        plain: dict[str, int] = {}
        split: SplitDict[str, int] = SplitDict()
        change(plain, first)
        change(split, first)
        copies = [plain.copy(), plain], [split.copy(), split]
        for each in copies:
            for held, changes in zip(each, (one, other), strict=True):
                change(held, changes)
        for expected, found in zip(*copies, strict=True):
            self.same(expected, found)

    def test_not_there(self) -> None:
        split = SplitDict([("a", 1)])
        self.assertRaises(KeyError, split.__getitem__, "b")
        self.assertRaises(KeyError, split.__delitem__, "b")
        self.assertIsNone(split.get("b"))
        self.assertNotIn(7, split)

    def test_order(self) -> None:
        """Within a part keys stand as they came, and `number` says which part that is."""
        keys = [str(number) for number in range(1000)]
        split = SplitDict((key, 0) for key in keys)
        for number, part in enumerate(split.parts):
            self.assertEqual([key for key in keys if SplitDict.number(key) == number], list(part))

    def test_parts_in_common(self) -> None:
        """A copy costs no more than the parts that change, once each, and the second copy no more than the first."""
        split = SplitDict((str(number), 0) for number in range(1000))
        for _ in range(2):
            parts, copied = split.parts.copy(), split.copy()
            copied["7"] = 1
            there = copied.parts[SplitDict.number("7")]
            copied["7"] = 2
            self.assertIs(there, copied.parts[SplitDict.number("7")])
            self.assertEqual(1, sum(one is not other for one, other in zip(parts, copied.parts, strict=True)))
            self.assertEqual(0, sum(one is not other for one, other in zip(parts, split.parts, strict=True)))
            split = copied
