"""Inside: what the control plane knows: the objects of every cluster as they were read, and the World that they make.

Values only. `manifests` makes the objects, `registry` makes a World of them, `views` makes a workload's table of that. This
module must never know how any of it comes about.
"""

from collections.abc import Mapping
from typing import Protocol

import attrs

from meshdns.entries import Port

Labels = tuple[tuple[str, str], ...]  # sorted by key, each key once

# What is wrong with an object, for `meshdns_problems{kind}`.
INVALID = "invalid"  # a document that does not validate; its last good version stays
DUPLICATE = "duplicate"  # an object that another document has, too; the first by file and line counts
CONFLICT = "conflict"  # a host that another object owns entirely, or an address that two hosts claim
VIP = "vip"  # a host that gets no VIP, or another one than it had
SOURCE = "source"  # a directory, file or store that cannot be read or written


@attrs.frozen(order=True)
class Ref:
    """One object of one cluster. `kind` is the Kubernetes kind; `namespace` is "" for what has none."""

    cluster: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@attrs.frozen(order=True)
class Problem:
    """One thing wrong, as operators see it: `kind` is one of the words above; `subject` an object, a host or a path.

    `file` and `line` (from 1) say where it stands, "" and 0 where nowhere. Prints as `file:line: subject: reason`.
    """

    kind: str
    cluster: str
    file: str
    line: int
    subject: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.file else ""
        return f"{where}{self.subject}: {self.reason}" if self.subject else f"{where}{self.reason}"


# Objects. Addresses are texts in their usual form; `place` is `file:line`; `created` is the creationTimestamp as written,
# which sorts by time, "" where there is none. An object that only moved within its file is the same object.


def _place() -> str:
    place: str = attrs.field(eq=False, default="", kw_only=True)
    return place


@attrs.frozen
class Endpoint:
    """Where a service runs: all addresses of one pod or machine. `hostname` "": it has none of its own; `network` "": that of
    its cluster."""

    addresses: tuple[str, ...]
    hostname: str = ""
    ready: bool = True
    network: str = ""


@attrs.frozen
class Service:
    """A core/v1 Service. `ips` are its ClusterIPs, () for a headless one; `alias` is the externalName, else "".

    `export_to` holds the words of the annotation networking.istio.io/exportTo, () for the mesh's default.
    """

    ref: Ref
    ips: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    headless: bool = False
    publish_not_ready: bool = False
    alias: str = ""
    selector: Labels = ()
    export_to: tuple[str, ...] = ()
    created: str = ""
    place: str = _place()


@attrs.frozen
class EndpointSlice:
    """A discovery.k8s.io/v1 EndpointSlice, or a core/v1 Endpoints object (its `ref` says which); `service` has the endpoints."""

    ref: Ref
    service: str
    endpoints: tuple[Endpoint, ...] = ()
    place: str = _place()


@attrs.frozen
class ServiceEntry:
    """A networking.istio.io ServiceEntry. `addresses` as written, CIDR among them; `assigned` is status.addresses as (host,
    address); `auto_vip` False: the label networking.istio.io/enable-autoallocate-ip says "false"."""

    ref: Ref
    hosts: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    resolution: str = "NONE"
    endpoints: tuple[Endpoint, ...] = ()
    selector: Labels = ()
    export_to: tuple[str, ...] = ()
    auto_vip: bool = True
    assigned: tuple[tuple[str, str], ...] = ()
    created: str = ""
    place: str = _place()


@attrs.frozen
class WorkloadEntry:
    """A networking.istio.io WorkloadEntry: a machine that selectors find. `address` is no address where it is a name."""

    ref: Ref
    address: str
    labels: Labels = ()
    network: str = ""
    service_account: str = ""
    place: str = _place()


@attrs.frozen
class Pod:
    """A core/v1 Pod that selectors find."""

    ref: Ref
    addresses: tuple[str, ...] = ()
    labels: Labels = ()
    hostname: str = ""
    subdomain: str = ""
    ready: bool = True
    service_account: str = "default"
    place: str = _place()


@attrs.frozen
class Egress:
    """Some of what a Sidecar lets workloads see: `hosts` are `NAMESPACE/HOST` as written; `port` None: whatever port."""

    hosts: tuple[str, ...]
    port: int | None = None


@attrs.frozen
class Sidecar:
    """A networking.istio.io Sidecar. `selector` (): all workloads of its namespace; `egress` (): it narrows nothing."""

    ref: Ref
    selector: Labels = ()
    egress: tuple[Egress, ...] = ()
    created: str = ""
    place: str = _place()


@attrs.frozen
class Namespace:
    """A core/v1 Namespace; `network` is its label topology.istio.io/network, "" for that of the cluster."""

    ref: Ref
    network: str = ""
    place: str = _place()


@attrs.frozen
class ServiceImport:
    """A multicluster.x-k8s.io ServiceImport: the host NAME.NAMESPACE.svc.clusterset.local at `ips`."""

    ref: Ref
    ips: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    headless: bool = False
    place: str = _place()


Object = Service | EndpointSlice | ServiceEntry | WorkloadEntry | Pod | Sidecar | Namespace | ServiceImport


@attrs.frozen
class Update:
    """What became of a cluster's objects: new or changed ones, whole; those that are gone."""

    changed: tuple[Object, ...] = ()
    gone: tuple[Ref, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.gone)


# The World


@attrs.frozen
class Cluster:
    """A cluster as it is configured. The order of clusters in the configuration is an order of preference (rule C3)."""

    name: str
    network: str
    domain: str  # lower case, no final dot


@attrs.frozen
class Spot:
    """An endpoint in the world: addresses, the network they are reached in, its cluster, its pod's host name ("" without)."""

    addresses: tuple[str, ...]
    network: str
    cluster: str
    pod: str = ""


@attrs.frozen
class Offer:
    """One object's word on one host: what it would answer to whoever sees it.

    `within` is the service host that a pod's own host belongs to and is seen with, "" for all others.
    `ref.namespace` is where it stands, which Sidecars and `export_to` speak of. `export_to` is "*", or the namespaces that may see
    it, () for nobody. Of `addresses` (fixed ones), `spots` (headless, or resolution NONE) and `alias` one is
    there; none with `wants_vip`.
    """

    host: str
    ref: Ref
    registry: str  # Kubernetes or External
    export_to: frozenset[str]
    addresses: tuple[str, ...] = ()
    spots: tuple[Spot, ...] = ()
    alias: str = ""
    wants_vip: bool = False
    ports: tuple[Port, ...] = ()
    shortname: str = ""
    namespace: str = ""  # of the entry in the table
    created: str = ""
    within: str = ""
    place: str = _place()


@attrs.frozen
class Changes:
    """What became of the World since one last looked: hosts whose offers are others, and whether who sees what is (`scopes`)."""

    hosts: frozenset[str] = frozenset()
    scopes: bool = False

    def __bool__(self) -> bool:
        return bool(self.hosts) or self.scopes


@attrs.frozen
class Workload:
    """Who asks, as far as what it sees depends on it."""

    cluster: str
    network: str
    namespace: str
    service_account: str = ""


@attrs.frozen(eq=False)
class Demand:
    """Hosts that want a VIP, and the addresses that users name for hosts: all that VIPs hang on but the leases."""

    wanted: frozenset[str]
    claimed: Mapping[str, frozenset[str]]  # address -> hosts


class World(Protocol):
    """Everything there is at one moment, as `registry.Registry` has it."""

    @property
    def clusters(self) -> Mapping[str, Cluster]:
        """By name, in the configured order."""

    @property
    def offers(self) -> Mapping[str, tuple[Offer, ...]]:
        """By host, each host's in order of precedence (a total order, the same on every replica)."""

    @property
    def zones(self) -> tuple[str, ...]:
        """The mesh zones, sorted."""

    def sidecar(self, workload: Workload) -> Sidecar | None:
        """The one that counts for a workload: workload-selected, its namespace's, the root namespace's (rule C6)."""
