"""What every source and every lease store must do, whatever stands behind it: mixed into the tests of each (rules C1, C5).

A source's test says how an object is written, changed and removed there; a store's how it is opened.
"""

from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from meshdns.control.model import Service, Update
from meshdns.control.vips import Lease, Plan

TEXT = "apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: ns1}\nspec: {clusterIP: %s}\n"
A, B = Lease("a", "240.240.0.1", "2001:2::1"), Lease("b", "240.240.0.2", "2001:2::2", 5.0)


class SourceContract:
    """Mixed into a SynchronousTestCase, which gives `begin`, `put`, `remove`, `look` and `end`.

    `begin()` starts a source that calls `self.changed`, and lets it read all that is there. `put(name, ip, place)` makes or
    changes the Service `name` in the document `place`; `remove(place)` deletes that. `look()` lets the source see it.
    """

    source: Any

    def start(self: Any) -> None:
        self.updates: list[Update] = []
        self.held: dict[str, str] = {}
        self.when_synced: list[bool] = []
        self.begin()

    def changed(self: Any, update: Update) -> None:
        """What the mesh is told."""
        self.updates.append(update)
        self.when_synced.append(self.source.synced)
        for each in update.changed:
            assert isinstance(each, Service)
            self.held[each.ref.name] = each.ips[0]
        for ref in update.gone:
            del self.held[ref.name]  # only what was there can go

    def test_first_reading(self: Any) -> None:
        """C1, X6: synced once all has been read, and the mesh is called after that: it waits for it."""
        for number in range(3):
            self.put(f"s{number}", f"10.0.0.{number + 1}", f"{number}.yaml")
        self.start()
        self.assertEqual({"s0": "10.0.0.1", "s1": "10.0.0.2", "s2": "10.0.0.3"}, self.held)
        self.assertTrue(self.source.synced)
        self.assertTrue(self.when_synced[-1])
        self.assertEqual({"Service": 3}, dict(self.source.counted))

    def test_nothing_there(self: Any) -> None:
        """C1, X6: a cluster without objects is one that has been read, too."""
        self.start()
        self.assertEqual(({}, [True], []), (self.held, self.when_synced, list(self.source.problems)))

    def test_comes_changes_goes(self: Any) -> None:
        """C1: watched for change."""
        self.start()
        self.put("a", "10.0.0.1", "a.yaml")
        self.look()
        self.put("b", "10.0.0.2", "b.yaml")
        self.put("a", "10.0.0.3", "a.yaml")
        self.look()
        self.assertEqual({"a": "10.0.0.3", "b": "10.0.0.2"}, self.held)
        self.remove("a.yaml")
        self.look()
        self.assertEqual(({"b": "10.0.0.2"}, {"Service": 1}), (self.held, dict(self.source.counted)))

    def test_renamed(self: Any) -> None:
        """C1: another object in an old place: one comes, one goes, in whatever order they are told."""
        self.put("a", "10.0.0.1", "a.yaml")
        self.start()
        self.put("b", "10.0.0.1", "a.yaml")
        self.look()
        self.assertEqual({"b": "10.0.0.1"}, self.held)

    def test_nothing_new(self: Any) -> None:
        """C1: what stays as it is wakes nobody."""
        self.put("a", "10.0.0.1", "a.yaml")
        self.start()
        told = len(self.updates)
        self.put("a", "10.0.0.1", "a.yaml")
        self.look()
        self.assertEqual([], [each for each in self.updates[told:] if each])

    def test_goes_bad(self: Any) -> None:
        """C1: reported with file, line and object; the last good version stays, and never blocks the others."""
        self.put("a", "10.0.0.1", "a.yaml")
        self.start()
        self.put("a", "nonsense", "a.yaml")
        self.put("b", "10.0.0.2", "b.yaml")
        self.look()
        self.assertEqual({"a": "10.0.0.1", "b": "10.0.0.2"}, self.held)
        (problem,) = self.source.problems
        self.assertRegex(str(problem), r'\Aa?\S*a\.yaml:4: Service ns1/a: spec\.clusterIP: "nonsense" is not')
        self.put("a", "10.0.0.3", "a.yaml")
        self.look()
        self.assertEqual(({"a": "10.0.0.3", "b": "10.0.0.2"}, []), (self.held, list(self.source.problems)))

    def test_bad_from_the_start(self: Any) -> None:
        """C1, X6: a broken document does not keep a cluster from being read."""
        self.put("a", "nonsense", "a.yaml")
        self.put("b", "10.0.0.2", "b.yaml")
        self.start()
        self.assertEqual(({"b": "10.0.0.2"}, True, 1), (self.held, self.source.synced, len(self.source.problems)))

    def test_twice(self: Any) -> None:
        """C1: of an object that is there twice the same one counts, in whatever order they came; the other takes over."""
        self.put("a", "10.0.0.2", "b.yaml")
        self.start()
        self.put("a", "10.0.0.1", "a.yaml")
        self.look()
        self.assertEqual(({"a": "10.0.0.1"}, 1), (self.held, len(self.source.problems)))
        self.remove("a.yaml")
        self.look()
        self.assertEqual(({"a": "10.0.0.2"}, []), (self.held, list(self.source.problems)))

    def test_ended(self: Any) -> None:
        """Nothing is told any more, and nothing is left running."""
        self.put("a", "10.0.0.1", "a.yaml")
        self.start()
        self.end()
        told = len(self.updates)
        self.put("a", "10.0.0.2", "a.yaml")
        self.look()
        self.assertEqual((told, {"a": "10.0.0.1"}), (len(self.updates), self.held))


class LeasesContract:
    """Mixed into a TestCase whose `store()` opens the store, again too."""

    async def held(self, store: Any) -> dict[str, Lease]:
        found: dict[str, Lease] = {}

        def look(held: dict[str, Lease]) -> Plan:
            found.update(held)
            return Plan()

        await store.update(look)
        return found

    async def test_empty(self: Any) -> None:
        self.assertEqual({}, await self.held(self.store()))

    async def test_written(self: Any) -> None:
        """C5: what was decided is there for the next who decides."""
        store = self.store()
        plan = Plan((A, B), vips={"a": ("x",)})
        self.assertIs(plan, await store.update(lambda held: plan))
        self.assertEqual({"a": A, "b": B}, await self.held(store))

    async def test_changed_and_forgotten(self: Any) -> None:
        """C5: a lease is one host's; what is forgotten is gone, and what is written again counts as written."""
        store = self.store()
        await store.update(lambda held: Plan((A, B)))
        freed = Lease("a", A.ipv4, A.ipv6, 7.0)
        await store.update(lambda held: Plan((freed,), ("b",)))
        self.assertEqual({"a": freed}, await self.held(store))
        again = Lease("b", B.ipv4, B.ipv6)
        await store.update(lambda held: Plan((again,), ("b", "a")))  # forgotten first, then written
        self.assertEqual({"b": again}, await self.held(store))

    async def test_nothing_decided(self: Any) -> None:
        store = self.store()
        await store.update(lambda held: Plan((A,)))
        await store.update(lambda held: Plan())
        self.assertEqual({"a": A}, await self.held(store))

    async def test_a_decision_that_fails(self: Any) -> None:
        """C5: then nothing is written, and the store is as good as before."""
        store = self.store()
        await store.update(lambda held: Plan((A,)))

        def fail(held: dict[str, Lease]) -> Plan:
            raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError):
            await store.update(fail)
        self.assertEqual({"a": A}, await self.held(store))

    async def test_one_family(self: Any) -> None:
        """C5: a pair may have one half only, where there is one range only."""
        store = self.store()
        some = Lease("a", "240.240.0.1", ""), Lease("b", "", "2001:2::2", 1.5)
        await store.update(lambda held: Plan(some))
        self.assertEqual({each.host: each for each in some}, await self.held(store))

    async def test_several_at_once(self: Any) -> None:
        """C5: decisions are made one after the other, each on what the one before has written."""
        store = self.store()

        def count(held: dict[str, Lease]) -> Plan:
            return Plan((Lease(f"h{len(held)}", f"10.0.0.{len(held)}", ""),))

        await gatherResults([Deferred.fromCoroutine(store.update(count)) for _ in range(20)])
        self.assertEqual(20, len(await self.held(store)))
