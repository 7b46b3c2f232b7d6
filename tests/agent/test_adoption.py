"""Tables come into force in steps, and small deltas at once; what results is what a table alone makes (D28, X8)."""

import gc
import itertools
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from meshdns import names, table
from meshdns.agent.adoption import Adoption
from meshdns.agent.authority import Authority, let_go
from meshdns.defaults import AUTHORITY_STEP
from meshdns.table import Loader, Table

DOMAIN = names.parse("cluster.local")
PLACE = ("ns1", DOMAIN)
HOSTS = [
    "a.ns1.svc.cluster.local",
    "b.ns1.svc.cluster.local",
    "pod-0.a.ns1.svc.cluster.local",
    "deep.below.many.names.cluster.local",
    "many.names.cluster.local",
    "*.names.cluster.local",
    "*.example.com",
    "db.example.com",
    "svc.cluster.local",
    "c.svc.cluster.local",
    "cluster.local",
]
ADDRESSES = ["10.0.0.1", "10.0.0.2", "2001:db8::1"]
entries = st.fixed_dictionaries(
    {"host": st.sampled_from(HOSTS), "ips": st.lists(st.sampled_from(ADDRESSES), max_size=3, unique=True)},
    optional={"registry": st.sampled_from(["Kubernetes", "External"])},
).map(table.entry)
ZONES = [["cluster.local"], ["cluster.local", "svc.cluster.local"], ["cluster.local", "a.ns1.svc.cluster.local"]]
tables = st.sampled_from(ZONES).flatmap(
    lambda zones: st.lists(
        st.lists(entries, max_size=8).map(lambda each: Table.of(each, zones)), min_size=2, max_size=4
    )
)


def by_delta(old: Table, new: Table) -> Table:
    """The new table as it comes over the wire from the old one."""
    loader = Loader(old)
    for line in table.diff(old, new):
        loader.feed(line.encode())
    return loader.finish()


def indexes(authority: Authority) -> dict[str, Any]:
    return dict(vars(authority))


def many(count: int, ips: str = "10.0.0.1") -> Table:
    rows = [table.entry({"host": f"s{each}.ns1.svc.cluster.local", "ips": [ips]}) for each in range(count)]
    return Table.of(rows, ["cluster.local"])


class FollowTests(SynchronousTestCase):
    @given(tables)
    def test_as_if_built_anew(self, several: list[Table]) -> None:
        """X3: after any deltas an authority has what it would have had from the last table alone."""
        held = several[0]
        authority = Authority(held, *PLACE)
        for each in several[1:]:
            held = by_delta(held, each)
            self.assertTrue(authority.follow(held))
            self.assertEqual(indexes(Authority(each, *PLACE)), indexes(authority))

    def test_what_is_not_followed(self) -> None:
        """X3: a table that is no delta of the one held, has other zones, or differs in much: nothing is done."""
        old, new = many(2), many(3)
        authority = Authority(old, *PLACE)
        before = indexes(authority)
        zoned = Table(new.entries, ("cluster.local", "other.local"), 30, "0" * 32, old.generation, new.entries.keys())
        for other in (new, by_delta(many(1), new), zoned, by_delta(old, many(AUTHORITY_STEP + 10))):
            self.assertFalse(authority.follow(other))
        self.assertFalse(Authority(None, *PLACE).follow(new))
        self.assertEqual(before, indexes(authority))


class LetGoTests(SynchronousTestCase):
    def test_some_at_a_time(self) -> None:
        """X8: what a table was made of is freed in steps, and all of it."""

        def alive() -> int:
            return sum(type(each) is table.Entry for each in gc.get_objects())

        gc.collect()
        before = alive()
        parts = Authority(many(AUTHORITY_STEP * 3), *PLACE).parts()
        counts = [alive(), *(alive() for _ in let_go(parts)), alive()]
        self.assertEqual((before + AUTHORITY_STEP * 3, before), (counts[0], counts[-1]))
        self.assertLessEqual(max(one - two for one, two in itertools.pairwise(counts)), AUTHORITY_STEP)


class AdoptionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.authority = Authority(None, *PLACE)
        self.adopted: list[str] = []
        self.settled: list[str] = []
        self.breaths = 0
        self.adoption = Adoption(self.steps, self.settle, self.clock)
        self.addCleanup(lambda: self.assertEqual([], self.clock.getDelayedCalls()))

    def steps(self, wanted: Table) -> Iterator[None]:
        if not self.authority.follow(wanted):
            steps = Authority.in_steps(wanted, *PLACE)
            try:
                while True:
                    yield next(steps)
                    self.breaths += 1
            except StopIteration as done:
                self.authority = done.value
        self.adopted.append(wanted.generation)

    def settle(self) -> None:
        self.settled.append(self.adopted[-1] if self.adopted else "")

    def turns(self) -> int:
        """Until nothing is left to do; how often others had their turn."""
        before = self.breaths
        self.clock.advance(0)
        return self.breaths - before

    def test_small(self) -> None:
        """D28: a small table, and a delta of it, are in force at once; only the table is said to have settled, as it comes and as
        it is in force."""
        old, new = many(5), many(7)
        self.adoption.take(old)
        self.adoption.take(by_delta(old, new))
        self.assertEqual([old.generation, new.generation], self.adopted)
        self.assertEqual(["", old.generation], self.settled)

    def test_large(self) -> None:
        """X8: a large table lets others have their turn, and the old one stands up to the last step."""
        old, new = many(5), many(AUTHORITY_STEP * 3 + 1)
        self.adoption.take(old)
        self.adoption.take(new)
        self.assertEqual(old, self.authority.table)
        self.assertEqual(3, self.turns())
        self.assertEqual([old.generation, new.generation], self.adopted)

    def test_deltas_meanwhile(self) -> None:
        """X3: deltas that come while a table is taken in follow it as one, whatever they undo of each other."""
        large = many(AUTHORITY_STEP + 1)
        first = by_delta(large, many(AUTHORITY_STEP + 3))
        second = by_delta(first, many(AUTHORITY_STEP + 2))
        self.adoption.take(large)
        self.adoption.take(first)
        self.adoption.take(second)
        self.assertEqual(1, self.turns())
        self.assertEqual([large.generation, second.generation], self.adopted)
        self.assertEqual(indexes(Authority(many(AUTHORITY_STEP + 2), *PLACE)), indexes(self.authority))

    def test_whole_table_meanwhile(self) -> None:
        """X3: of what waits a whole table replaces the rest, and a delta that does not follow it is taken whole, too."""
        large, other = many(AUTHORITY_STEP + 1), many(AUTHORITY_STEP + 2, "10.0.0.9")
        self.adoption.take(large)
        self.adoption.take(by_delta(large, many(3)))
        self.adoption.take(other)
        last = by_delta(other, many(4))
        self.adoption.take(last)
        self.turns()
        self.assertEqual(last, self.authority.table)
        self.assertEqual([large.generation, last.generation], self.adopted)
        self.assertEqual(["", "", *self.adopted], self.settled)

    def test_finish(self) -> None:
        """X11: at the start all is taken at once."""
        large = many(AUTHORITY_STEP * 2 + 1)
        self.adoption.take(large)
        self.adoption.take(by_delta(large, many(3)))
        self.adoption.finish()
        self.assertEqual([large.generation, many(3).generation], self.adopted)
        self.assertEqual(0, self.turns())

    def test_stop(self) -> None:
        large = many(AUTHORITY_STEP * 2 + 1)
        self.adoption.take(large)
        self.adoption.take(many(3))
        self.adoption.stop()
        self.assertEqual(0, self.turns())
        self.assertEqual([], self.adopted)
