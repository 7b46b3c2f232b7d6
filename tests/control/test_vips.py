"""VIPs (rule C5): who gets which, as a machine that does anything in any order sees it; and single cases by hand."""

from ipaddress import IPv4Network, IPv6Network

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from meshdns.control.vips import Lease, Plan, Ranges, plan
from meshdns.defaults import VIP_REST

WIDE = Ranges(IPv4Network("240.240.0.0/16"), IPv6Network("2001:2::/48"))
TINY = Ranges(IPv4Network("240.240.0.0/29"), IPv6Network("2001:2::/125"))
HOSTS = [f"h{number}.example.com" for number in range(12)]


class Store:
    """Leases as a store keeps them, and the clock."""

    def __init__(self, ranges: Ranges = WIDE) -> None:
        self.ranges = ranges
        self.leases: dict[str, Lease] = {}
        self.now = 1_000_000.0

    def plan(self, wanted: set[str], claimed: dict[str, set[str]] | None = None) -> Plan:
        made = plan(wanted, claimed or {}, self.leases, self.ranges, self.now)
        self.leases = {host: lease for host, lease in self.leases.items() if host not in made.forget}
        self.leases |= {lease.host: lease for lease in made.write}
        return made


class PlanTests(SynchronousTestCase):
    def test_pair(self) -> None:
        """C5: one pair per host, of the same number in both ranges, the same whoever gives it first."""
        first, second = Store().plan({"db1.example.com"}).vips, Store().plan({"db1.example.com", "a", "b"}).vips
        self.assertEqual(first["db1.example.com"], second["db1.example.com"])
        self.assertEqual(("240.240.27.128", "2001:2::1b80"), first["db1.example.com"])

    def test_never_given(self) -> None:
        """C5: never the network's first address, never one that ends .0 or .255."""
        given = {WIDE.addresses(slot) for slot in (0, 255, 256, 511, 65535, 65536)}
        self.assertEqual({None}, given)
        self.assertEqual(("240.240.0.1", "2001:2::1"), WIDE.addresses(1))

    def test_full(self) -> None:
        """C5: a full range harms nobody who has one, and says what to do."""
        store = Store(TINY)
        some = store.plan(set(HOSTS[:5])).vips
        made = store.plan(set(HOSTS))
        self.assertEqual(7, len(made.vips))
        self.assertEqual(some, {host: made.vips[host] for host in some})
        self.assertEqual(5, len(made.problems))
        self.assertIn("is full; widen vips.ipv4", made.problems[0].reason)

    def test_user_wins(self) -> None:
        """C5: an address that a user names for another host is given up, and told."""
        store = Store()
        (taken, _) = store.plan({"a.example.com"}).vips["a.example.com"]
        made = store.plan({"a.example.com"}, {taken: {"b.example.com"}})
        self.assertNotIn(taken, made.vips["a.example.com"])
        self.assertIn(f"a user names its VIP {taken} for another host", made.problems[0].reason)

    def test_quarrel_of_users(self) -> None:
        made = Store().plan(set(), {"240.240.9.9": {"a.example.com", "b.example.com"}})
        self.assertEqual(["b.example.com"], [problem.subject for problem in made.problems])

    def test_rest(self) -> None:
        """C5: a freed VIP is given to nobody for 24 hours, whatever the clock does; its own host has it back at once."""
        store = Store(Ranges(IPv4Network("240.240.0.0/30"), None))
        store.plan({"a", "b", "c"})
        store.plan({"a", "b"})
        self.assertNotIn("d", store.plan({"a", "b", "d"}).vips)
        store.now -= 7 * VIP_REST
        self.assertNotIn("d", store.plan({"a", "b", "d"}).vips)
        store.now += 7 * VIP_REST + VIP_REST - 1
        self.assertNotIn("d", store.plan({"a", "b", "d"}).vips)
        self.assertIn("c", store.plan({"a", "b", "c"}).vips)
        store.plan({"a", "b"})
        store.now += VIP_REST
        store.plan({"a", "b"})
        self.assertIn("d", store.plan({"a", "b", "d"}).vips)

    def test_other_ranges(self) -> None:
        """C5: leases inside the new ranges stay, those outside are given anew, with a word about it."""
        store = Store()
        before = store.plan({"a.example.com"}).vips
        store.ranges = Ranges(IPv4Network("240.240.0.0/12", strict=False), WIDE.ipv6)
        self.assertEqual(before, store.plan({"a.example.com"}).vips)
        store.ranges = Ranges(IPv4Network("10.0.0.0/16"), None)
        made = store.plan({"a.example.com"})
        self.assertEqual(1, len(made.vips["a.example.com"]))
        self.assertIn("outside the ranges of now", made.problems[0].reason)


class AnythingHappens(RuleBasedStateMachine):
    """Hosts come, go and are claimed, time passes either way, processes start anew: in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(TINY)
        self.wanted: set[str] = set()
        self.claimed: dict[str, set[str]] = {}
        self.vips: dict[str, tuple[str, ...]] = {}
        self.freed: dict[str, float] = {}  # address -> the clock when it was let go
        self.clock = 0.0  # as time really passes
        self.owners: dict[str, str] = {}  # who had an address last

    @rule(host=st.sampled_from(HOSTS))
    def add(self, host: str) -> None:
        self.look(self.wanted | {host}, self.claimed)

    @rule(host=st.sampled_from(HOSTS))
    def remove(self, host: str) -> None:
        self.look(self.wanted - {host}, self.claimed)

    @rule(host=st.sampled_from(HOSTS), slot=st.integers(1, 6))
    def claim(self, host: str, slot: int) -> None:
        self.look(self.wanted, {**self.claimed, f"240.240.0.{slot}": {host}})

    @rule()
    def unclaim(self) -> None:
        self.look(self.wanted, {})

    @rule(seconds=st.sampled_from([10.0, VIP_REST / 2, VIP_REST * 2]))
    def wait(self, seconds: float) -> None:
        self.clock += seconds
        self.store.now += seconds
        self.look(self.wanted, self.claimed)

    @rule(seconds=st.sampled_from([3600.0, 7 * VIP_REST]))
    def clock_is_set_back(self, seconds: float) -> None:
        self.store.now -= seconds
        self.look(self.wanted, self.claimed)

    @rule()
    def restart(self) -> None:
        self.look(self.wanted, self.claimed)

    def look(self, wanted: set[str], claimed: dict[str, set[str]]) -> None:
        before = self.vips
        self.wanted, self.claimed = wanted, claimed
        made = self.store.plan(wanted, claimed)
        self.vips = dict(made.vips)
        for host, pair in before.items():
            lost = any(each in claimed and host not in claimed[each] for each in pair)
            if host in wanted and not lost:
                assert self.vips[host] == pair, "a VIP moved"
            elif host not in wanted and not lost:
                self.freed.update(dict.fromkeys(pair, self.clock))
        for host, pair in self.vips.items():
            for each in pair:
                if self.owners.setdefault(each, host) != host:
                    assert self.clock - self.freed.get(each, -VIP_REST) >= VIP_REST, "a freed VIP did not rest"
                self.owners[each] = host

    @invariant()
    def nobody_shares(self) -> None:
        every = [each for pair in self.vips.values() for each in pair]
        assert len(every) == len(set(every))

    @invariant()
    def users_addresses_are_theirs(self) -> None:
        for host, pair in self.vips.items():
            for each in pair:
                assert host in self.claimed.get(each, {host})

    @invariant()
    def stored_before_published(self) -> None:
        for host, pair in self.vips.items():
            lease = self.store.leases[host]
            assert (lease.ipv4, lease.ipv6) == pair and lease.freed is None


class MachineTests(SynchronousTestCase):
    def test_anything(self) -> None:
        """C5: no add, remove, rename or restart of anything else moves a VIP; no two share one; a user's is nobody else's."""
        run_state_machine_as_test(
            AnythingHappens, settings=settings(max_examples=150, stateful_step_count=40, deadline=None)
        )
