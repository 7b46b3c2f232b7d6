"""Inside: the objects of every cluster -> the World: who offers what at which host (rules C2 to C4).

Updates enter in whatever order; the same objects make the same World. Of a change only the definitions that it concerns are
made anew. It must never know where objects come from, nor who asks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from meshdns.clusters import CLUSTERSET
from meshdns.control.model import (
    Changes,
    Cluster,
    Demand,
    Endpoint,
    EndpointSlice,
    Labels,
    Namespace,
    Object,
    Offer,
    Pod,
    Ref,
    Service,
    ServiceEntry,
    ServiceImport,
    Sidecar,
    Spot,
    Update,
    Workload,
    WorkloadEntry,
)
from meshdns.control.offers import KUBERNETES, of_entry, of_import, of_service, service_host, spots_of

_Machines = dict[Ref, Pod | WorkloadEntry]


class Registry:
    """The World as it becomes."""

    def __init__(self, clusters: Sequence[Cluster], export_to: Sequence[str], root_namespace: str) -> None:
        """The order of the clusters is one of preference; `export_to` is for what says nothing itself."""
        self.clusters: Mapping[str, Cluster] = {cluster.name: cluster for cluster in clusters}
        self.offers: dict[str, tuple[Offer, ...]] = {}
        self._rank = {cluster.name: number for number, cluster in enumerate(clusters)}
        self._export_to = tuple(export_to)
        self._root = root_namespace
        self._objects: dict[Ref, Object] = {}
        self._slices: dict[Ref, dict[Ref, EndpointSlice]] = {}  # by the Service that they are of
        self._machines: dict[tuple[str, str], _Machines] = {}  # by cluster and namespace
        self._selecting: dict[tuple[str, str], set[Ref]] = {}  # definitions with a selector, likewise
        self._sidecars: dict[tuple[str, str], dict[Ref, Sidecar]] = {}
        self._defined: dict[Ref, tuple[Offer, ...]] = {}  # by definition
        self._wanting: set[str] = set()  # hosts whose addresses are to be VIPs
        self._naming: dict[Ref, ServiceEntry] = {}  # those with addresses that users name
        self._demand: Demand | None = None  # of these two, until they change
        self._dirty: set[Ref] = set()
        self._scopes = True  # who sees what is to be told anew

    # from the root

    def update(self, update: Update) -> None:
        """Objects came, changed or went; `take` tells what became of that."""
        for ref in update.gone:
            old = self._objects.pop(ref, None)
            if old is not None:
                self._move(ref, old, None)
        for new in update.changed:
            old = self._objects.get(new.ref)
            self._objects[new.ref] = new
            self._move(new.ref, old, new)

    def take(self) -> Changes:
        """What has changed since the last time."""
        hosts: set[str] = set()
        for ref in self._dirty:
            old, new = self._defined.pop(ref, ()), tuple(self._offers_of(ref))
            if new:
                self._defined[ref] = new
            if new != old:
                touched = {offer.host for offer in (*old, *new)}
                for host in touched:
                    self._place(host, ref, new)
                hosts |= touched
        self._dirty.clear()
        scopes, self._scopes = self._scopes, False
        return Changes(frozenset(hosts), scopes)

    # The World

    @property
    def zones(self) -> tuple[str, ...]:
        found = {cluster.domain for cluster in self.clusters.values()}
        if any(isinstance(each, ServiceImport) for each in self._objects.values()):
            found.add(CLUSTERSET)
        return tuple(sorted(found))

    def sidecar(self, workload: Workload) -> Sidecar | None:
        """The Sidecar that counts for a workload (rule C6): one that selects it, its namespace's, the root namespace's."""
        own = self._sidecars.get((workload.cluster, workload.namespace), {})
        labels = dict(self._labels(workload)) if any(each.selector for each in own.values()) else {}
        for several in (
            [each for each in own.values() if each.selector and _matches(each.selector, labels)],
            [each for each in own.values() if not each.selector],
            [each for each in self._sidecars.get((workload.cluster, self._root), {}).values() if not each.selector],
        ):
            if several:
                return min(several, key=lambda each: (each.created, each.ref))
        return None

    def _labels(self, workload: Workload) -> Labels:
        """What all machines of a service account have in common: all that an identity says of labels."""
        machines = self._machines.get((workload.cluster, workload.namespace), {}).values()
        own = [set(each.labels) for each in machines if each.service_account == workload.service_account]
        return tuple(sorted(set.intersection(*own))) if own else ()

    @property
    def demand(self) -> Demand:
        """What the plan of VIPs is made of; the same object as long as nothing in it has changed."""
        if self._demand is None:
            claimed: dict[str, set[str]] = {}
            for entry in self._naming.values():
                for address in entry.addresses:
                    claimed.setdefault(address, set()).update(entry.hosts)
                for host, address in entry.assigned:
                    claimed.setdefault(address, set()).update([host] if host else entry.hosts)
            self._demand = Demand(
                frozenset(self._wanting),
                {address: frozenset(hosts) for address, hosts in claimed.items() if "/" not in address},
            )
        return self._demand

    def definitions(self, host: str) -> Iterator[tuple[Ref, str, str]]:
        """Objects that are for a host and offer nothing there: which, where it stands, and why, as a clause."""
        for ref, found in self._objects.items():
            if isinstance(found, Service) and host == service_host(found, self.clusters[ref.cluster].domain):
                yield ref, found.place, "no endpoint of it is ready" if found.headless else "it has no clusterIP yet"
            elif isinstance(found, ServiceEntry) and host in found.hosts:
                yield ref, found.place, _why_nothing(found, host)

    # Indexes

    def _move(self, ref: Ref, old: Object | None, new: Object | None) -> None:
        place = ref.cluster, ref.namespace
        either = new or old
        if isinstance(either, EndpointSlice):
            self._move_slice(ref, old, new)
        elif isinstance(either, Pod | WorkloadEntry):
            self._move_machine(ref, old, new)
        elif isinstance(either, Sidecar):
            sidecars = self._sidecars.setdefault(place, {})
            sidecars.pop(ref, None)
            if isinstance(new, Sidecar):
                sidecars[ref] = new
            self._scopes = True
        elif isinstance(either, Namespace):
            self._scopes = True
            whole = ref.name == self._root
            self._dirty |= {
                each for each in self._objects if each.cluster == ref.cluster and (whole or each.namespace == ref.name)
            } & self._definitions()
        elif isinstance(either, Service | ServiceEntry):
            selecting = self._selecting.setdefault(place, set())
            selecting.discard(ref)
            if isinstance(new, Service | ServiceEntry) and new.selector:
                selecting.add(ref)
            self._move_naming(ref, new)
            self._dirty.add(ref)
        else:
            self._scopes = True  # the zones may be others
            self._dirty.add(ref)

    def _move_naming(self, ref: Ref, new: Object | None) -> None:
        if self._naming.pop(ref, None) is not None:
            self._demand = None
        if isinstance(new, ServiceEntry) and (new.addresses or new.assigned):
            self._naming[ref] = new
            self._demand = None

    def _definitions(self) -> set[Ref]:
        return {ref for ref, each in self._objects.items() if isinstance(each, Service | ServiceEntry)}

    def _move_slice(self, ref: Ref, old: Object | None, new: Object | None) -> None:
        for each in (old, new):
            if isinstance(each, EndpointSlice):
                service = Ref(ref.cluster, "Service", ref.namespace, each.service)
                slices = self._slices.setdefault(service, {})
                slices.pop(ref, None)
                if each is new:
                    slices[ref] = each
                self._dirty.add(service)

    def _move_machine(self, ref: Ref, old: Object | None, new: Object | None) -> None:
        place = ref.cluster, ref.namespace
        machines = self._machines.setdefault(place, {})
        machines.pop(ref, None)
        if isinstance(new, Pod | WorkloadEntry):
            machines[ref] = new
        labels = [dict(each.labels) for each in (old, new) if isinstance(each, Pod | WorkloadEntry)]
        for definition in self._selecting.get(place, ()):
            selector = _selector(self._objects.get(definition))
            if any(_matches(selector, each) for each in labels):
                self._dirty.add(definition)
        self._scopes = self._scopes or any(each.selector for each in self._sidecars.get(place, {}).values())

    # Offers

    def _offers_of(self, ref: Ref) -> Iterator[Offer]:
        found = self._objects.get(ref)
        if isinstance(found, Service):
            domain = self.clusters[ref.cluster].domain
            yield from of_service(found, self._spots_of_service(found), domain, self._export_to)
        elif isinstance(found, ServiceEntry):
            yield from of_entry(found, self._spots_of_entry(found), self._export_to)
        elif isinstance(found, ServiceImport):
            yield from of_import(found)

    def _network(self, cluster: str, namespace: str) -> str:
        for name in (namespace, self._root):
            found = self._objects.get(Ref(cluster, "Namespace", "", name))
            if isinstance(found, Namespace) and found.network:
                return found.network
        return self.clusters[cluster].network

    def _spots_of_service(self, service: Service) -> list[Spot]:
        """Its ready endpoints, of all slices; without any slice the pods that it selects."""
        if not service.headless:
            return []
        ref = service.ref
        slices = self._slices.get(ref, {})
        if slices:
            every = [each for _, one in sorted(slices.items()) for each in one.endpoints]
        else:
            every = [
                Endpoint(pod.addresses, pod.hostname if pod.subdomain == ref.name else "", pod.ready)
                for pod in self._selected(ref, service.selector)
                if isinstance(pod, Pod)
            ]
        ready = [each for each in every if each.ready or service.publish_not_ready]
        return list(spots_of(ready, self._network(ref.cluster, ref.namespace), ref.cluster))

    def _spots_of_entry(self, entry: ServiceEntry) -> list[Spot]:
        ref = entry.ref
        every = list(entry.endpoints)
        for machine in self._selected(ref, entry.selector):
            if isinstance(machine, Pod) and machine.ready:
                every.append(Endpoint(machine.addresses))
            elif isinstance(machine, WorkloadEntry) and machine.address:
                every.append(Endpoint((machine.address,), network=machine.network))
        return list(spots_of(every, self._network(ref.cluster, ref.namespace), ref.cluster))

    def _selected(self, ref: Ref, selector: Labels) -> Iterator[Pod | WorkloadEntry]:
        """The machines of a definition's namespace that it selects, in a total order."""
        machines = self._machines.get((ref.cluster, ref.namespace), {}) if selector else {}
        for _, machine in sorted(machines.items()):
            if _matches(selector, dict(machine.labels)):
                yield machine

    def _place(self, host: str, ref: Ref, new: Iterable[Offer]) -> None:
        """One definition's offers for a host are these; all of a host are in the order of precedence."""
        offers = [offer for offer in self.offers.get(host, ()) if offer.ref != ref]
        offers += [offer for offer in new if offer.host == host]
        offers.sort(key=self._precedence)
        if offers:
            self.offers[host] = tuple(offers)
        else:
            self.offers.pop(host, None)
        if _wants_vip(offers) != (host in self._wanting):
            self._wanting ^= {host}
            self._demand = None

    def _precedence(self, offer: Offer) -> tuple[bool, int, str, Ref]:
        """Kubernetes services first, then in the order of the clusters, then the older one, then by name."""
        return offer.registry != KUBERNETES, self._rank[offer.ref.cluster], offer.created, offer.ref


def _wants_vip(offers: Sequence[Offer]) -> bool:
    """Whether a ServiceEntry leaves a host without addresses, and no Kubernetes service has its name."""
    return any(offer.wants_vip for offer in offers) and offers[0].registry != KUBERNETES


def _why_nothing(entry: ServiceEntry, host: str) -> str:
    """Why a ServiceEntry has no answer for a host of its own."""
    if entry.resolution == "NONE":
        return "its resolution is NONE, and it has neither addresses nor endpoints"
    if entry.addresses:
        return "its addresses are networks, which are no answer"
    if host.startswith("*"):
        return "a wildcard gets no VIP: give it addresses"
    return 'its label networking.istio.io/enable-autoallocate-ip says "false", and it has no addresses'


def _selector(found: Object | None) -> Labels:
    return found.selector if isinstance(found, Service | ServiceEntry) else ()


def _matches(selector: Labels, labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector)
