"""From objects to what a workload may see (rules C2 to C6, X2, X3)."""

import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshdns import table
from meshdns.control.explain import explain
from meshdns.control.model import Cluster, Workload
from tests.control.world import EAST, NS1, WEST, World, endpoints, entry, read, service, thing

WEST_NS1 = Workload("west", "west-net", "ns1", "default")
NS2 = Workload("east", "east-net", "ns2", "default")
REVIEWS = "reviews.ns1.svc.cluster.local"
ISTIO = "networking.istio.io/v1"


class ServiceTests(SynchronousTestCase):
    """C2: what a Kubernetes service answers."""

    def test_cluster_ips(self) -> None:
        world = World().put("east", service("reviews", clusterIPs=["10.4.0.1", "fd00::1"]))
        self.assertEqual(["10.4.0.1", "fd00::1"], world.ips(REVIEWS))

    def test_no_address_yet(self) -> None:
        """C2: a manifest that has never been in a cluster has no ClusterIP, and the host no entry."""
        world = World().put("east", service("reviews", ip=""))
        self.assertEqual([], world.hosts())
        told = explain(world.registry, world.views, {}, [], REVIEWS, NS1)
        self.assertIn("it has no clusterIP yet", " ".join(told["because"]))

    def test_external_name(self) -> None:
        world = World().put("east", service("docs", ip="", type="ExternalName", externalName="docs.example.org"))
        found = world.view().entry("docs.ns1.svc.cluster.local")
        assert found is not None
        self.assertEqual(b"\x04docs\x07example\x03org\x00", found.alias)

    def test_headless(self) -> None:
        """C2: the ready endpoints of every slice, pod names, those without host name by their address, no others."""
        world = World().put(
            "east",
            service("mysql", ip="None"),
            endpoints(
                "mysql", "ns1",
                {"addresses": ["10.1.0.1"], "hostname": "mysql-0"},
                {"addresses": ["10.1.0.2"], "hostname": "mysql-1", "conditions": {"ready": False}},
            ),
            endpoints("mysql", "ns1", {"addresses": ["10.1.0.3"], "conditions": {"ready": None}}, name="mysql-more"),
        )  # fmt: skip
        found = world.view().entry("mysql.ns1.svc.cluster.local")
        assert found is not None
        self.assertEqual(["10.1.0.1", "10.1.0.3"], found.ips)
        self.assertEqual(2, len(found.pods))
        self.assertEqual(["10.1.0.1"], world.ips("mysql-0.mysql.ns1.svc.cluster.local"))
        self.assertEqual(["10.1.0.3"], world.ips("10-1-0-3.mysql.ns1.svc.cluster.local"))
        self.assertIsNone(world.ips("mysql-1.mysql.ns1.svc.cluster.local"))

    def test_not_ready_addresses(self) -> None:
        world = World().put(
            "east",
            service("mysql", ip="None", publishNotReadyAddresses=True),
            endpoints("mysql", "ns1", {"addresses": ["10.1.0.2"], "conditions": {"ready": False}}),
        )
        self.assertEqual(["10.1.0.2"], world.ips("mysql.ns1.svc.cluster.local"))

    def test_nothing_ready(self) -> None:
        """C2: no ready endpoint, no entry: so NXDOMAIN, as the Kubernetes specification says."""
        world = World().put("east", service("mysql", ip="None"))
        self.assertIsNone(world.ips("mysql.ns1.svc.cluster.local"))

    def test_endpoints(self) -> None:
        """C1: the older Endpoints say the same."""
        subsets = [{"addresses": [{"ip": "10.1.0.1", "hostname": "a"}], "notReadyAddresses": [{"ip": "10.1.0.2"}]}]
        world = World().put("east", service("mysql", ip="None"), thing("Endpoints", "mysql", subsets=subsets))
        self.assertEqual(["10.1.0.1"], world.ips("mysql.ns1.svc.cluster.local"))

    def test_pods_by_selector(self) -> None:
        """C1: without any slice the ready pods that the selector finds."""
        ready = {"podIP": "10.1.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
        pods = [
            thing("Pod", "a", labels={"app": "m"}, spec={"hostname": "a", "subdomain": "mysql"}, status=ready),
            thing("Pod", "b", labels={"app": "m"}, status={"podIP": "10.1.0.2"}),
            thing("Pod", "c", labels={"app": "x"}, status=ready | {"podIP": "10.1.0.3"}),
        ]
        world = World().put("east", service("mysql", ip="None", selector={"app": "m"}), *pods)
        self.assertEqual(["10.1.0.1"], world.ips("mysql.ns1.svc.cluster.local"))
        self.assertEqual(["10.1.0.1"], world.ips("a.mysql.ns1.svc.cluster.local"))

    def test_service_import(self) -> None:
        """C3: clusterset.local, which is a zone then."""
        version = "multicluster.x-k8s.io/v1alpha1"
        given = thing("ServiceImport", "shop", version=version, spec={"type": "ClusterSetIP", "ips": ["10.9.0.9"]})
        world = World().put("west", given)
        self.assertEqual(["10.9.0.9"], world.ips("shop.ns1.svc.clusterset.local"))
        self.assertEqual(("cluster.local", "clusterset.local"), world.view().zones)


class ClusterTests(SynchronousTestCase):
    """C3: the same host in several clusters."""

    def setUp(self) -> None:
        self.world = World().put("east", service("reviews")).put("west", service("reviews", ip="10.8.0.1"))

    def test_own_first(self) -> None:
        self.assertEqual(["10.4.0.1"], self.world.ips(REVIEWS))
        self.assertEqual(["10.8.0.1"], self.world.ips(REVIEWS, WEST_NS1))

    def test_first_configured(self) -> None:
        """C3: of clusters that are not the workload's the one first in the configuration."""
        self.assertEqual(["10.4.0.1"], self.world.ips(REVIEWS, Workload("", "", "ns1")))
        other = World(WEST, EAST).put("east", service("reviews")).put("west", service("reviews", ip="10.8.0.1"))
        self.assertEqual(["10.8.0.1"], other.ips(REVIEWS, Workload("", "", "ns1")))

    def test_only_elsewhere(self) -> None:
        self.world.drop("east", "Service", "reviews")
        self.assertEqual(["10.8.0.1"], self.world.ips(REVIEWS))

    def test_other_domain(self) -> None:
        """C3: different cluster domains stay different names, and both are zones."""
        world = World(EAST, Cluster("west", "", "west.internal"))
        world.put("east", service("reviews")).put("west", service("reviews", ip="10.8.0.1"))
        self.assertEqual(["10.8.0.1"], world.ips("reviews.ns1.svc.west.internal"))
        self.assertEqual(("cluster.local", "west.internal"), world.view().zones)

    def test_headless_by_network(self) -> None:
        """C3: endpoints of the workload's network; a pod name of the own cluster hides the remote one."""
        world = World(Cluster("east", "net", "cluster.local"), Cluster("west", "net", "cluster.local"))
        for cluster, ip, own in (("east", "10.1.0.1", "a"), ("west", "10.2.0.1", "b")):
            pods = [{"addresses": [ip], "hostname": "mysql-0"}, {"addresses": [f"{ip}0"], "hostname": own}]
            world.put(cluster, service("mysql", ip="None"), endpoints("mysql", "ns1", *pods))
        here = Workload("east", "net", "ns1")
        self.assertEqual(["10.1.0.1", "10.1.0.10", "10.2.0.10"], world.ips("mysql.ns1.svc.cluster.local", here))
        self.assertEqual(["10.1.0.1"], world.ips("mysql-0.mysql.ns1.svc.cluster.local", here))
        self.assertEqual(["10.2.0.10"], world.ips("b.mysql.ns1.svc.cluster.local", here))
        self.assertIsNone(world.ips("mysql.ns1.svc.cluster.local", Workload("east", "elsewhere", "ns1")))


class EntryTests(SynchronousTestCase):
    """C4, C5: external services."""

    def test_addresses(self) -> None:
        """C4: its addresses; networks are no answer, one of a single address is."""
        world = World().put(
            "east", entry("db", "db.example.com", addresses=["192.0.2.0/24", "192.0.2.7/32", "192.0.2.9"])
        )
        self.assertEqual(["192.0.2.7", "192.0.2.9"], world.ips("db.example.com"))

    def test_only_networks(self) -> None:
        world = World().put("east", entry("db", "db.example.com", addresses=["192.0.2.0/24"]))
        self.assertIsNone(world.ips("db.example.com"))

    def test_vip(self) -> None:
        """C5: one pair, marked in the table."""
        found = World().put("east", entry("db", "db.example.com")).view().entry("db.example.com")
        assert found is not None
        self.assertTrue(found.vip)
        self.assertEqual((1, 1), (len(found.v4), len(found.v6)))

    def test_no_vip(self) -> None:
        """C5: none for wildcards, for resolution NONE, with the label that forbids it, with a status of its own."""
        label = {"networking.istio.io/enable-autoallocate-ip": "False"}
        world = World().put(
            "east",
            entry("a", "*.example.com"),
            entry("b", "b.example.com", resolution="NONE"),
            entry("c", "c.example.com", labels=label),
            entry("d", "d.example.com", status={"addresses": [{"host": "d.example.com", "value": "240.240.9.9"}]}),
        )
        self.assertEqual(["d.example.com"], world.hosts())
        self.assertEqual(["240.240.9.9"], world.ips("d.example.com"))
        self.assertEqual({}, world.vips)

    def test_none_with_endpoints(self) -> None:
        """C4: with resolution NONE the endpoints, or the machines that the selector finds."""
        world = World().put(
            "east",
            entry("a", "a.example.com", resolution="NONE", endpoints=[{"address": "192.0.2.1"}, {"address": "a.name"}]),
            entry("b", "b.example.com", resolution="NONE", workloadSelector={"labels": {"app": "vm"}}),
            thing(
                "WorkloadEntry",
                "vm",
                version=ISTIO,
                spec={"address": "192.0.2.2", "labels": {"app": "vm"}},
            ),
        )
        self.assertEqual(["192.0.2.1"], world.ips("a.example.com"))
        self.assertEqual(["192.0.2.2"], world.ips("b.example.com"))

    def test_several_of_one_host(self) -> None:
        """C4: one VIP, ports merged; addresses united without repeats."""
        other = [{"number": 5671, "name": "amqps", "protocol": "TLS"}]
        world = World().put("east", entry("a", "mq.example.com"), entry("b", "mq.example.com", ports=other))
        found = world.view().entry("mq.example.com")
        assert found is not None
        self.assertEqual([3306, 5671], [port.number for port in found.ports])
        self.assertEqual(1, len(found.v4))
        world.put("west", entry("c", "db.example.com", addresses=["192.0.2.1", "192.0.2.2"]))
        world.put("east", entry("d", "db.example.com", addresses=["192.0.2.2", "192.0.2.3"]))
        self.assertEqual(["192.0.2.2", "192.0.2.3", "192.0.2.1"], world.ips("db.example.com"))

    def test_service_wins(self) -> None:
        """C4: a Kubernetes service of the same host wins entirely, and no VIP is spent on it."""
        world = World().put(
            "east", service("reviews"), entry("a", REVIEWS, addresses=["192.0.2.1"]), entry("b", REVIEWS)
        )
        self.assertEqual(["10.4.0.1"], world.ips(REVIEWS))
        self.assertEqual({}, world.vips)


class VisibilityTests(SynchronousTestCase):
    """C6: what a workload may not see is not in its table at all."""

    def test_export_to(self) -> None:
        world = World().put(
            "east",
            entry("own", "own.example.com", exportTo=["."]),
            entry("none", "none.example.com", exportTo=["~"]),
            entry("some", "some.example.com", exportTo=["ns2", "ns3"]),
            entry("all", "all.example.com", exportTo=["ns2", "*"]),
            service("hidden", annotations={"networking.istio.io/exportTo": "ns2, ns3"}),
        )
        self.assertEqual(["all.example.com", "own.example.com"], world.hosts())
        seen = ["all.example.com", "hidden.ns1.svc.cluster.local", "some.example.com"]
        self.assertEqual(seen, world.hosts(NS2))

    def test_default(self) -> None:
        world = World(export_to=(".",)).put("east", service("reviews"))
        self.assertEqual([REVIEWS], world.hosts())
        self.assertEqual([], world.hosts(NS2))

    def test_hidden_service_shadows_nothing(self) -> None:
        """C6: a service that a workload does not see leaves the name to the ServiceEntry that it does see."""
        hidden = service("reviews", annotations={"networking.istio.io/exportTo": "."})
        world = World().put("east", hidden, entry("a", REVIEWS, addresses=["192.0.2.1"]))
        self.assertEqual(["10.4.0.1"], world.ips(REVIEWS))
        self.assertEqual(["192.0.2.1"], world.ips(REVIEWS, NS2))

    def sidecar(self, name: str, *hosts: str, namespace: str = "ns1", **more: Any) -> dict[str, Any]:
        port = {"port": more.pop("port")} if "port" in more else {}
        spec = {"egress": [{"hosts": list(hosts), **port}], **more}
        return thing("Sidecar", name, namespace, ISTIO, spec=spec)

    def test_sidecar(self) -> None:
        """C6: egress hosts by namespace and host, patterns and all."""
        world = World().put(
            "east", service("a"), service("b", "ns2"), service("c", "ns3"),
            entry("x", "x.example.com", namespace="ns3"), entry("y", "y.example.org", namespace="ns3"),
            self.sidecar("s", "./*", "ns2/*", "*/*.example.com"),
        )  # fmt: skip
        own = ["a.ns1.svc.cluster.local", "b.ns2.svc.cluster.local", "x.example.com"]
        self.assertEqual(own, world.hosts())
        self.assertEqual(5, len(world.hosts(NS2)))

    def test_sidecar_hides(self) -> None:
        """C6: `~` in front of a namespace hides what the other hosts of the same listener show."""
        things = service("a"), service("b"), service("a", "ns2"), entry("x", "x.example.com", namespace="ns2")
        own, other = ("b.ns1.svc.cluster.local",), ("a.ns2.svc.cluster.local", "x.example.com")
        for hidden, seen in (
            ("~./a.ns1.svc.cluster.local", own + other), ("~ns2/*", ("a.ns1.svc.cluster.local", *own)),
            ("~/*.svc.cluster.local", other[1:]), ("~*/*", ()), ("~ns3/*", ("a.ns1.svc.cluster.local", *own, *other)),
        ):  # fmt: skip
            world = World().put("east", *things, self.sidecar("s", "*/*", hidden))
            self.assertEqual(sorted(seen), sorted(world.hosts()), hidden)

    def test_sidecar_port(self) -> None:
        """C6: an egress port leaves only services that have it."""
        world = World().put("east", service("a"), entry("x", "x.example.com"))
        world.put("east", self.sidecar("s", "*/*", port={"number": 3306}))
        self.assertEqual(["x.example.com"], world.hosts())

    def test_whose_sidecar(self) -> None:
        """C6: the one that selects the workload, else its namespace's, else the root namespace's."""
        world = World().put("east", service("a"), service("b", "ns2"))
        world.put("east", self.sidecar("root", "ns2/*", namespace="istio-system"))
        self.assertEqual(["b.ns2.svc.cluster.local"], world.hosts())
        world.put("east", self.sidecar("own", "~/*"))
        self.assertEqual([], world.hosts())
        world.put("east", self.sidecar("vm", "./*", workloadSelector={"labels": {"app": "vm"}}))
        self.assertEqual([], world.hosts())
        spec = {"address": "192.0.2.2", "labels": {"app": "vm"}, "serviceAccount": "default"}
        world.put("east", thing("WorkloadEntry", "vm", version=ISTIO, spec=spec))
        self.assertEqual(["a.ns1.svc.cluster.local"], world.hosts())

    def test_pods_with_their_service(self) -> None:
        """C6: a pod's own host is seen with its service."""
        slices = endpoints("mysql", "ns2", {"addresses": ["10.1.0.1"], "hostname": "m"})
        world = World().put("east", service("mysql", "ns2", ip="None"), slices)
        world.put("east", self.sidecar("s", "ns2/mysql.ns2.svc.cluster.local"))
        self.assertEqual(["m.mysql.ns2.svc.cluster.local", "mysql.ns2.svc.cluster.local"], world.hosts())

    def test_explained(self) -> None:
        """C7: which document, which rule, which VIP."""
        world = World().put("east", entry("pay", "pay.example.com", namespace="hr", exportTo=["."]))
        world.view()
        told = explain(world.registry, world.views, world.vips, [], "pay.example.com", NS1)
        self.assertIsNone(told["entry"])
        self.assertIn("exportTo shows it to hr only", " ".join(told["because"]))
        self.assertEqual(list(world.vips["pay.example.com"]), told["vip"])
        self.assertEqual("ServiceEntry-hr-pay.yaml:1", told["offers"][0]["place"])


class DemandTests(SynchronousTestCase):
    """C5: who wants a VIP and who names addresses; the same object until one of them does otherwise."""

    def test_kept(self) -> None:
        world = World().put("east", entry("pay", "pay.example.com"), service("a")).take()
        before = world.registry.demand
        self.assertEqual({"pay.example.com"}, before.wanted)
        world.put("east", service("b"), service("a", ip="10.4.0.9")).take()
        self.assertIs(before, world.registry.demand)

    def test_wants(self) -> None:
        """A host wants one only while no Kubernetes service has its name, and an entry leaves it without addresses."""
        host = "a.ns1.svc.cluster.local"
        world = World().put("east", entry("z", host)).take()
        self.assertEqual({host}, world.registry.demand.wanted)
        self.assertEqual(set(), world.put("east", service("a")).take().registry.demand.wanted)
        self.assertEqual({host}, world.drop("east", "Service", "a").take().registry.demand.wanted)
        self.assertEqual(set(), world.drop("east", "ServiceEntry", "z").take().registry.demand.wanted)

    def test_names(self) -> None:
        world = World().put("east", entry("x", "x.example.com", addresses=["240.240.0.5", "10.9.0.0/16"])).take()
        self.assertEqual({"240.240.0.5": {"x.example.com"}}, world.registry.demand.claimed)
        world.put("east", entry("x", "x.example.com")).take()
        self.assertEqual({}, world.registry.demand.claimed)


class ViewTests(SynchronousTestCase):
    """X2, X3, C8: generations and deltas that agents take."""

    def test_whole_table(self) -> None:
        view = World().put("east", service("a"), entry("x", "x.example.com")).view()
        found = read(view.lines())
        self.assertEqual((view.generation, 2), (found.generation, len(found.entries)))

    def test_shared(self) -> None:
        """All who see the same have one view; a namespace that sees more has the difference alone."""
        world = World().put("east", service("a"), entry("own", "own.example.com", namespace="ns9", exportTo=["."]))
        one, two = world.view(NS1), world.view(NS2)
        self.assertIs(one, two)
        nine = world.view(Workload("east", "east-net", "ns9"))
        self.assertEqual({"own.example.com"}, nine.own.keys())
        self.assertEqual(2, nine.hosts)

    def test_delta(self) -> None:
        """X3: what changed, what went, and nothing else."""
        world = World().put("east", service("a"), service("b", ip="10.4.0.2"))
        view = world.view()
        base = read(view.lines())
        world.put("east", service("a", ip="10.4.0.9"), service("c", ip="10.4.0.3")).drop("east", "Service", "b").take()
        lines = list(view.delta(base.generation) or ())
        self.assertEqual(5, len(lines))
        self.assertEqual(read(view.lines()), read(lines, base))

    def test_unknown_base(self) -> None:
        self.assertIsNone(World().put("east", service("a")).view().delta("0" * 32))

    def test_same_content_same_generation(self) -> None:
        """C8: any replica knows a generation by its content, and what leads back to it is no change."""
        world = World().put("east", service("a"))
        first = world.view().generation
        world.put("east", service("a", ip="10.4.0.9")).take()
        world.put("east", service("a")).take()
        self.assertEqual(first, world.view().generation)
        self.assertEqual(first, World().put("east", service("a")).view().generation)

    def test_one_namespace_begins_to_see_more(self) -> None:
        """X3: who had everybody's table gets the difference as a delta."""
        world = World().put("east", service("a"))
        base = read(world.view().lines())
        world.put("east", entry("own", "own.example.com", exportTo=["."]))
        view = world.view()
        self.assertEqual(read(view.lines()), read(view.delta(base.generation) or (), base))


OBJECTS: list[tuple[str, dict[str, Any]]] = [
    ("east", service("a")), ("west", service("a", ip="10.8.0.1")), ("east", service("mysql", ip="None")),
    ("east", endpoints("mysql", "ns1", {"addresses": ["10.1.0.1"], "hostname": "m-0"})),
    ("west", service("mysql", ip="None")), ("west", endpoints("mysql", "ns1", {"addresses": ["10.2.0.1"], "hostname": "m-0"})),
    ("east", entry("x", "x.example.com")), ("west", entry("x", "x.example.com", exportTo=["."])),
    ("east", entry("y", "x.example.com", namespace="ns2", addresses=["192.0.2.1"], exportTo=["ns1"])),
    ("east", entry("z", "a.ns1.svc.cluster.local", addresses=["192.0.2.2"])),
    ("east", entry("n", "n.example.com", resolution="NONE", workloadSelector={"labels": {"app": "vm"}})),
    ("east", thing("WorkloadEntry", "vm", version=ISTIO, spec={"address": "192.0.2.3", "labels": {"app": "vm"}})),
    ("east", thing("Sidecar", "s", "ns2", ISTIO, spec={"egress": [{"hosts": ["./*", "*/x.example.com"]}]})),
    ("east", thing("Namespace", "ns1", "", labels={"topology.istio.io/network": "other-net"})),
]  # fmt: skip
WORKLOADS = [NS1, NS2, WEST_NS1, Workload("", "", "ns3")]


class OrderTests(SynchronousTestCase):
    """C1: precedence is a total order."""

    @settings(max_examples=60, deadline=None)
    @given(
        st.permutations(range(len(OBJECTS))), st.sets(st.integers(0, len(OBJECTS))), st.randoms(use_true_random=False)
    )
    def test_any_order(self, order: list[int], takes: set[int], random: Any) -> None:
        """C1, C8: the same documents in whatever order, with looks in between, give the same tables byte for byte; and every
        delta leads from what was to what is."""
        straight, shuffled = World(), World()
        for cluster, each in OBJECTS:
            straight.put(cluster, each)
        held: dict[Workload, table.Table] = {}
        for number, index in enumerate(order):
            shuffled.put(OBJECTS[index][0], OBJECTS[index][1])
            if number in takes:
                shuffled.take()
                self.follow(shuffled, held, random)
        shuffled.take()
        self.follow(shuffled, held, random)
        for workload in WORKLOADS:
            self.assertEqual(list(straight.view(workload).lines()), list(shuffled.view(workload).lines()))

    @settings(max_examples=60, deadline=None)
    @given(
        st.permutations(range(len(OBJECTS))), st.lists(st.integers(0, 3), min_size=len(OBJECTS), max_size=len(OBJECTS))
    )
    def test_any_files(self, order: list[int], files: list[int]) -> None:
        """C1, C8: the same documents, however they are spread over files and in whatever order within them."""
        straight, spread = World(), World()
        for cluster, each in OBJECTS:
            straight.put(cluster, each)
        gathered: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for index in order:
            cluster, each = OBJECTS[index]
            gathered.setdefault((cluster, f"{files[index]}.yaml"), []).append(each)
        for (cluster, file), several in gathered.items():
            spread.put(cluster, *several, file=file)
        for workload in WORKLOADS:
            self.assertEqual(list(straight.view(workload).lines()), list(spread.view(workload).lines()))

    def follow(self, world: World, held: dict[Workload, table.Table], random: Any) -> None:
        for workload in WORKLOADS:
            if random.random() < 0.3:
                continue
            view = world.views.view(workload)
            base = held.get(workload)
            delta = view.delta(base.generation) if base else None
            now = read(view.lines())
            self.assertEqual(view.generation, now.generation)
            if delta is not None:
                self.assertEqual(now, read(delta, base))
            inside = view.table(base)
            self.assertEqual((now, delta is not None), (inside, bool(inside.base)))
            if base and inside.base:
                changed = {
                    host
                    for host in base.entries.keys() | now.entries.keys()
                    if base.entries.get(host) != now.entries.get(host)
                }
                self.assertLessEqual(changed, set(inside.changed))
            held[workload] = now


class ScaleTests(SynchronousTestCase):
    def test_views_share(self) -> None:
        """A hundred namespaces that each see one host more cost a hundred entries, not a hundred tables."""
        world = World()
        for number in range(100):
            own = entry(f"e{number}", f"e{number}.example.com", namespace=f"n{number}", exportTo=["."])
            world.put("east", service(f"s{number}"), own)
        views = [world.view(Workload("east", "east-net", f"n{number}")) for number in range(100)]
        self.assertEqual(100, sum(len(view.own) for view in views))
        self.assertEqual({101}, {view.hosts for view in views})
        self.assertEqual(100, len({view.generation for view in views}))
        self.assertEqual(1, len(set(itertools.chain([id(view.below) for view in views]))))
