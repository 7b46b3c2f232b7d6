"""Worlds for tests, out of YAML as a user writes it."""

from collections.abc import Generator, Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from meshdns import table
from meshdns.control.manifests import Manifests
from meshdns.control.model import Cluster, Update, Workload
from meshdns.control.registry import Registry
from meshdns.control.views import View, Views
from meshdns.control.vips import Lease, Ranges, plan

EAST = Cluster("east", "east-net", "cluster.local")
WEST = Cluster("west", "west-net", "cluster.local")
RANGES = Ranges(IPv4Network("240.240.0.0/16"), IPv6Network("2001:2::/48"))
NS1 = Workload("east", "east-net", "ns1", "default")


def finish(steps: Generator[None, None, Update]) -> Update:
    """What all steps come to."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            update: Update = done.value
            return update


def service(name: str, namespace: str = "ns1", ip: str = "10.4.0.1", **spec: Any) -> dict[str, Any]:
    """A Service; `spec` adds to its spec, and `annotations` and `labels` to its metadata."""
    meta = {key: spec.pop(key) for key in ("annotations", "labels", "creationTimestamp") if key in spec}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, **meta},
        "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80}], **spec},
    }


def entry(name: str, *hosts: str, namespace: str = "ns1", **spec: Any) -> dict[str, Any]:
    """A ServiceEntry that is resolved by DNS; `spec` adds to its spec, and `labels`, `status` beside it."""
    more = {"status": spec.pop("status")} if "status" in spec else {}
    meta = {key: spec.pop(key) for key in ("labels", "creationTimestamp") if key in spec}
    ports = [{"number": 3306, "name": "mysql", "protocol": "TCP"}]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": name, "namespace": namespace, **meta},
        "spec": {"hosts": list(hosts), "resolution": "DNS", "ports": ports, **spec},
        **more,
    }


def endpoints(service_name: str, namespace: str, *several: dict[str, Any], name: str = "") -> dict[str, Any]:
    """An EndpointSlice."""
    labels = {"kubernetes.io/service-name": service_name}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name or f"{service_name}-abc", "namespace": namespace, "labels": labels},
        "addressType": "IPv4",
        "endpoints": list(several),
    }


def thing(kind: str, name: str, namespace: str = "ns1", version: str = "v1", **body: Any) -> dict[str, Any]:
    """Any other object; `labels` go into its metadata."""
    meta = {"name": name, "namespace": namespace} | ({"labels": body.pop("labels")} if "labels" in body else {})
    return {"apiVersion": version, "kind": kind, "metadata": meta, **body}


class World:
    """A registry, its VIPs and its views, fed with objects of clusters."""

    def __init__(self, *clusters: Cluster, export_to: tuple[str, ...] = ("*",)) -> None:
        self.registry = Registry(clusters or (EAST, WEST), export_to, "istio-system")
        self.views = Views(self.registry)
        self.leases: dict[str, Lease] = {}
        self.vips: dict[str, tuple[str, ...]] = {}
        self.problems: tuple[Any, ...] = ()
        self._manifests = {name: Manifests(name) for name in self.registry.clusters}

    def put(self, cluster: str, *objects: dict[str, Any], file: str = "") -> "World":
        """A file with these objects, JSON as YAML takes it; each object has a file of its own where none is named."""
        import json

        for number, each in enumerate(objects):
            meta = each["metadata"]
            name = file or f"{each['kind']}-{meta.get('namespace')}-{meta['name']}.yaml"
            text = "---\n".join(json.dumps(one) + "\n" for one in objects) if file else json.dumps(each)
            self.registry.update(finish(self._manifests[cluster].feed(name, text.encode())))
            if file and number == 0:
                break
        return self

    def drop(self, cluster: str, kind: str, name: str, namespace: str = "ns1") -> "World":
        self.registry.update(self._manifests[cluster].drop(f"{kind}-{namespace}-{name}.yaml"))
        return self

    def take(self, now: float = 0.0) -> "World":
        """What has changed is made known."""
        changes = self.registry.take()
        demand = self.registry.demand
        made = plan(demand.wanted, demand.claimed, self.leases, RANGES, now)
        self.leases = {host: each for host, each in self.leases.items() if host not in made.forget}
        self.leases |= {each.host: each for each in made.write}
        self.vips, self.problems = dict(made.vips), made.problems
        self.views.adopt(changes, made.vips)
        return self

    def view(self, workload: Workload = NS1) -> View:
        return self.take().views.view(workload)

    def ips(self, host: str, workload: Workload = NS1) -> list[str] | None:
        """A host's addresses, None where it is not in the table."""
        found = self.view(workload).entry(host)
        return None if found is None else found.ips

    def hosts(self, workload: Workload = NS1) -> list[str]:
        return [each.host for each in self.view(workload).entries()]


def read(lines: Iterable[str], base: table.Table | None = None) -> table.Table:
    """The table that lines make, as an agent reads it."""
    loader = table.Loader(base)
    for line in lines:
        loader.feed(line.encode())
    return loader.finish()
