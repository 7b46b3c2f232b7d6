"""The mesh as a whole (rules C1, C5, C8): whatever happens around a host, its VIP stays, nobody shares one, and what is published
is stored."""

from ipaddress import IPv4Network, IPv6Network
from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from meshdns.control.leases import Decide, MemoryLeases, StoreProblem
from meshdns.control.mesh import Mesh
from meshdns.control.model import Workload
from meshdns.control.vips import Lease, Plan, Ranges
from meshdns.defaults import DEBOUNCE_QUIET, LEASES_RETRY, VIP_REST
from tests.control.double import MemorySource
from tests.control.world import EAST, WEST, entry, service

SMALL = Ranges(IPv4Network("240.240.0.0/28"), IPv6Network("2001:2::/124"))
WORKLOADS = [Workload("east", "east-net", "ns1"), Workload("west", "west-net", "ns2"), Workload("", "", "ns3")]
SERVICE_HOSTS = [f"s{number}.ns1.svc.cluster.local" for number in range(2)]
HOSTS = st.sampled_from([f"h{number}.example.com" for number in range(8)] + SERVICE_HOSTS)
CLUSTERS = st.sampled_from(["east", "west"])
NAMESPACES = st.sampled_from(["ns1", "ns2"])
ADDRESSES = st.sampled_from([f"240.240.0.{number}" for number in range(1, 15)] + ["192.0.2.1"])


class Store(MemoryLeases):
    """Leases that outlive the process, and a disk that may be full, or away."""

    def __init__(self) -> None:
        super().__init__()
        self.full = self.away = False

    async def update(self, decide: Decide) -> Plan:
        if self.away:
            raise StoreProblem("the disk is away")
        plan = decide(self.held)
        if self.full and (plan.write or plan.forget):
            raise StoreProblem("the disk is full")
        return await super().update(lambda held: plan)

    @property
    def held(self) -> dict[str, Lease]:
        return dict(self._held)


class Anything(RuleBasedStateMachine):
    """Objects come, change and go; processes end and start with what stands in the files; the disk fills; days pass."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.clock = Clock()
        self.files: dict[tuple[str, str], dict[str, Any]] = {}
        self.published: dict[str, list[str]] = {}
        self.owners: dict[str, tuple[str, float]] = {}  # who had an address last, and until when
        self.mesh: Mesh | None = None

    @initialize()
    def begin(self) -> None:
        self.start(Random(0))

    # What happens

    @rule(
        host=HOSTS,
        cluster=CLUSTERS,
        namespace=NAMESPACES,
        name=st.sampled_from("ab"),
        more=st.sampled_from([{}, {"exportTo": ["."]}]),
    )
    def wants_a_vip(self, host: str, cluster: str, namespace: str, name: str, more: dict[str, Any]) -> None:
        self.put(cluster, entry(f"{name}-{host}", host, namespace=namespace, **more))

    @rule(host=HOSTS, cluster=CLUSTERS, address=ADDRESSES)
    def brings_its_address(self, host: str, cluster: str, address: str) -> None:
        self.put(cluster, entry(f"a-{host}", host, addresses=[address]))

    @rule(cluster=CLUSTERS, number=st.integers(0, 1))
    def is_a_service(self, cluster: str, number: int) -> None:
        """Which wins over a ServiceEntry of its name."""
        self.put(cluster, service(f"s{number}"))

    @rule(data=st.data())
    def goes(self, data: st.DataObject) -> None:
        if self.files:
            cluster, file = data.draw(st.sampled_from(sorted(self.files)))
            del self.files[cluster, file]
            self.sources[cluster].erase(file)
            self.clock.advance(DEBOUNCE_QUIET)

    @rule(data=st.data())
    def is_renamed(self, data: st.DataObject) -> None:
        """The same host in another object, of another file."""
        entries = [key for key, each in sorted(self.files.items()) if each["kind"] == "ServiceEntry"]
        if entries:
            cluster, file = data.draw(st.sampled_from(entries))
            given = self.files.pop((cluster, file))
            meta = {**given["metadata"], "name": given["metadata"]["name"] + "x"}
            self.sources[cluster].erase(file)
            self.put(cluster, {**given, "metadata": meta})

    @rule(random=st.randoms(use_true_random=False))
    def process_starts_anew(self, random: Random) -> None:
        assert self.mesh is not None
        self.mesh.stop()
        self.start(random)

    @rule(full=st.booleans(), away=st.booleans())
    def disk(self, full: bool, away: bool) -> None:
        self.store.full, self.store.away = full, away
        self.clock.advance(2 * LEASES_RETRY)

    @rule(seconds=st.sampled_from([LEASES_RETRY, VIP_REST / 2, VIP_REST * 1.5]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # How

    def put(self, cluster: str, given: dict[str, Any]) -> None:
        file = f"{given['kind']}-{given['metadata']['namespace']}-{given['metadata']['name']}.yaml"
        self.files[cluster, file] = given
        self.sources[cluster].put(given)
        self.clock.advance(DEBOUNCE_QUIET)

    def start(self, random: Random) -> None:
        self.mesh = Mesh(
            (EAST, WEST), ("*",), "istio-system", SMALL, self.store, self.clock, self.clock.seconds, lambda: None
        )
        self.sources = {name: MemorySource(name, self.mesh.update) for name in ("east", "west")}
        self.mesh.sources.update(self.sources)
        order = sorted(self.files)
        random.shuffle(order)
        for cluster, file in order:
            self.sources[cluster].put(self.files[cluster, file])
        for source in self.sources.values():
            source.sync()
        self.clock.advance(DEBOUNCE_QUIET)

    # What holds

    @invariant()
    def look(self) -> None:
        """Of all tables together: one pair for each host, and the one that it had."""
        if self.mesh is None:
            return
        seen: dict[str, list[str]] = {}
        for workload in WORKLOADS if self.mesh.ready else ():
            view = self.mesh.view(workload)
            assert view is not None
            for each in view.entries():
                if each.vip:
                    assert seen.setdefault(each.host, each.ips) == each.ips, "two workloads see two VIPs of one host"
        claimed = self.claimed()
        now, held = self.clock.seconds(), self.store.held
        for host, pair in seen.items():
            lease = held[host]
            assert [lease.ipv4, lease.ipv6] == pair, "published and not stored"
            before = self.published.get(host)
            assert pair == before or before is None or self.lost(host, before, claimed), "a VIP moved"
            for address in pair:
                assert host in claimed.get(address, {host}), "a user's own address is another host's VIP"
                owner, until = self.owners.get(address, (host, now))
                assert owner == host or now - until >= VIP_REST, "a freed VIP did not rest"
                self.owners[address] = host, now
        addresses = [each for pair in seen.values() for each in pair]
        assert len(addresses) == len(set(addresses)), "two hosts share a VIP"
        assert self.mesh.ready or self.store.away, "nothing is published although the store can be read"
        for host, pair in self.published.items():
            stays = host in self.visible() and not self.lost(host, pair, claimed)
            assert host in seen or not stays or not self.mesh.ready, "a VIP is not published any more"
        for host in self.vip_hosts():
            if host in seen:
                self.published[host] = seen[host]
        self.published = {
            host: pair
            for host, pair in self.published.items()
            if host in self.vip_hosts() and not self.lost(host, pair, claimed)
        }

    def visible(self) -> set[str]:
        """Hosts that some of these workloads must see with a VIP: nobody hides them, and nobody gives them an address."""
        entries = [each["spec"] for each in self.files.values() if each["kind"] == "ServiceEntry"]
        own = {host for spec in entries if spec.get("addresses") for host in spec["hosts"]}
        shown = {host for spec in entries if "exportTo" not in spec for host in spec["hosts"]}
        return (shown & self.vip_hosts()) - own

    def lost(self, host: str, pair: list[str], claimed: dict[str, set[str]]) -> bool:
        return any(address in claimed and host not in claimed[address] for address in pair)

    def claimed(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for each in self.files.values():
            for address in each["spec"].get("addresses", ()):
                found.setdefault(address, set()).update(each["spec"]["hosts"])
        return found

    def vip_hosts(self) -> set[str]:
        """Hosts that want a VIP all the time: some entry leaves them without addresses, and no service has their name."""
        services = {
            f"{each['metadata']['name']}.ns1.svc.cluster.local"
            for each in self.files.values()
            if each["kind"] == "Service"
        }
        entries = [each["spec"] for each in self.files.values() if each["kind"] == "ServiceEntry"]
        return {host for spec in entries if not spec.get("addresses") for host in spec["hosts"]} - services


class MachineTests(SynchronousTestCase):
    def test_anything(self) -> None:
        """C5, C8: no add, remove, rename, restart or full disk moves a VIP of another host; no two live hosts share one; a
        user's own address is nobody else's; what is published is stored; what was freed rests."""
        run_state_machine_as_test(Anything, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))


class ClaimTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.machine = Anything()
        self.machine.begin()
        self.addCleanup(self.machine.look)

    @property
    def vips(self) -> dict[str, tuple[str, ...]]:
        assert self.machine.mesh is not None
        return dict(self.machine.mesh.vips)

    def test_lost_one_rests(self) -> None:
        """C5: a VIP that a host lost to a user's word is given to nobody for a day, though the user takes it back at once."""
        self.machine.wants_a_vip("h5.example.com", "east", "ns1", "a", {})
        self.machine.look()
        address = self.machine.published["h5.example.com"][0]
        self.machine.brings_its_address("h0.example.com", "east", address)
        self.machine.look()
        self.machine.wants_a_vip("h0.example.com", "east", "ns1", "a", {})  # in the place of what said so
        for number in range(1, 8):
            self.machine.wants_a_vip(f"h{number}.example.com", "west", "ns1", "b", {})
            self.machine.look()
        given = {each for pair in self.vips.values() for each in pair}
        self.assertNotIn(address, given)
        self.assertEqual({f"h{number}.example.com" for number in range(8)}, self.vips.keys())

    def test_claimed_while_the_store_is_away(self) -> None:
        """C5: a user's own address is nobody else's from the moment at which it is named, whatever the store can do."""
        self.machine.wants_a_vip("h5.example.com", "east", "ns1", "a", {})
        self.machine.look()
        address = self.machine.published["h5.example.com"][0]
        self.machine.store.away = True
        self.machine.brings_its_address("h0.example.com", "east", address)
        self.assertEqual({}, dict(self.vips))
        self.machine.disk(full=False, away=False)
        self.assertEqual({"h5.example.com"}, self.vips.keys())


class StoreTests(SynchronousTestCase):
    """C5: a store that fails."""

    def setUp(self) -> None:
        self.machine = Anything()
        self.machine.begin()
        self.machine.put("east", entry("a", "a.example.com"))
        self.mesh = self.machine.mesh
        assert self.mesh is not None

    def hosts(self) -> dict[str, list[str]]:
        assert self.mesh is not None
        view = self.mesh.view(WORKLOADS[0])
        assert view is not None
        return {each.host: each.ips for each in view.entries()}

    def test_full(self) -> None:
        """C5: what has a VIP keeps it, what would get one waits, everything else goes on; one problem says why, and it heals by
        itself."""
        assert self.mesh is not None
        before = self.hosts()
        self.machine.store.full = True
        self.machine.put("east", entry("b", "b.example.com"))
        self.machine.put("east", service("s0"))
        self.machine.put("east", entry("c", "c.example.com", addresses=["192.0.2.7"]))
        self.machine.clock.advance(10 * LEASES_RETRY)
        given = {SERVICE_HOSTS[0]: ["10.4.0.1"], "c.example.com": ["192.0.2.7"]}
        self.assertEqual(before | given, self.hosts())
        self.assertEqual(["lease store: the disk is full"], [str(each) for each in self.mesh.problems])
        self.machine.store.full = False
        self.machine.clock.advance(LEASES_RETRY)
        self.assertEqual({"b.example.com"}, self.hosts().keys() - (before | given).keys())
        self.assertEqual((before["a.example.com"], []), (self.hosts()["a.example.com"], self.mesh.problems))

    def test_range_has_room_again(self) -> None:
        """C5: who got no VIP because the range was full gets one after another's rest, when anything changes then."""
        assert self.mesh is not None
        for number in range(SMALL.slots):  # one more than there is room for, with the host of setUp
            self.machine.put("east", entry(f"n{number}", f"n{number}.example.com"))
        wanting = {f"n{number}.example.com" for number in range(SMALL.slots)} - self.hosts().keys()
        self.assertEqual(SMALL.slots - len(self.mesh.vips) + 1, len(wanting))
        del self.machine.files["east", "ServiceEntry-ns1-a.yaml"]
        self.machine.sources["east"].erase("ServiceEntry-ns1-a.yaml")
        self.machine.clock.advance(DEBOUNCE_QUIET)
        self.assertLessEqual(wanting, {f"n{number}.example.com" for number in range(SMALL.slots)} - self.hosts().keys())
        self.machine.clock.advance(VIP_REST)
        self.machine.put("east", service("s0"))
        self.assertEqual(1, len(wanting & self.hosts().keys()))

    def test_full_at_the_start(self) -> None:
        """C5: a restart into a full disk: what is stored is published, what is new waits."""
        before = self.hosts()
        self.machine.store.full = True
        self.machine.put("east", entry("b", "b.example.com"))
        self.machine.process_starts_anew(Random(1))
        self.mesh = self.machine.mesh
        self.assertEqual(before, self.hosts())
        self.machine.store.full = False
        self.machine.clock.advance(LEASES_RETRY)
        self.assertEqual(before["a.example.com"], self.hosts()["a.example.com"])
        self.assertIn("b.example.com", self.hosts())

    def test_away_at_the_start(self) -> None:
        """C5, X6: without knowing what is stored nothing is published: a table without VIPs would take them away."""
        before = self.hosts()
        self.machine.store.away = True
        self.machine.process_starts_anew(Random(1))
        self.mesh = self.machine.mesh
        assert self.mesh is not None
        self.assertEqual((False, None), (self.mesh.ready, self.mesh.view(WORKLOADS[0])))
        self.assertEqual(["lease store: the disk is away"], [str(each) for each in self.mesh.problems])
        self.machine.store.away = False
        self.machine.clock.advance(LEASES_RETRY)
        self.assertEqual((before, []), (self.hosts(), self.mesh.problems))

    def test_away_without_need(self) -> None:
        """C5: where no host wants a VIP nobody waits for the store."""
        self.machine.files.clear()
        self.machine.store.away = True
        self.machine.process_starts_anew(Random(1))
        self.mesh = self.machine.mesh
        self.machine.put("east", service("s0"))
        self.assertEqual({SERVICE_HOSTS[0]}, self.hosts().keys())
