"""Inside: one object and what belongs to it -> what it would answer at which hosts (rules C2, C4, C5).

A Service with its endpoints, a ServiceEntry with the machines that it selects, a ServiceImport enter; offers leave. What
becomes of several offers for one host is `views.py`. It must never know who asks.
"""

from collections.abc import Iterable, Iterator, Sequence

import attrs

from meshdns.clusters import CLUSTERSET
from meshdns.control.model import Endpoint, Offer, Service, ServiceEntry, ServiceImport, Spot

KUBERNETES, EXTERNAL = "Kubernetes", "External"
EVERYBODY = "*"


def exports(words: Sequence[str], namespace: str, default: Sequence[str]) -> frozenset[str]:
    """Who may see what stands in a namespace, by the words of exportTo: `*` makes it everybody, whatever else is there."""
    said = words or default
    if EVERYBODY in said:
        return frozenset({EVERYBODY})
    return frozenset(namespace if word == "." else word for word in said if word != "~")


def service_host(service: Service, domain: str) -> str:
    return f"{service.ref.name}.{service.ref.namespace}.svc.{domain}"


def of_service(service: Service, spots: Sequence[Spot], domain: str, default: Sequence[str]) -> Iterator[Offer]:
    """The service's host, and one for each pod of a headless one. `spots` are its endpoints, those that are ready."""
    host = service_host(service, domain)
    offer = Offer(
        host,
        service.ref,
        KUBERNETES,
        exports(service.export_to, service.ref.namespace, default),
        ports=service.ports,
        shortname=service.ref.name,
        namespace=service.ref.namespace,
        created=service.created,
        place=service.place,
    )
    if service.alias:
        yield attrs.evolve(offer, alias=service.alias)
    elif service.headless:
        if spots:
            yield attrs.evolve(offer, spots=tuple(spots))
            yield from _of_pods(offer, spots)
    elif service.ips:
        yield attrs.evolve(offer, addresses=service.ips)


def _of_pods(service: Offer, spots: Iterable[Spot]) -> Iterator[Offer]:
    """`POD.SERVICE…` for each pod name; several addresses of one name come together."""
    by_name: dict[str, list[Spot]] = {}
    for spot in spots:
        by_name.setdefault(spot.pod, []).append(spot)
    for pod, own in by_name.items():
        name, short = f"{pod}.{service.host}", f"{pod}.{service.shortname}"
        yield attrs.evolve(service, host=name, spots=tuple(own), shortname=short, within=service.host)


def spots_of(endpoints: Iterable[Endpoint], network: str, cluster: str) -> Iterator[Spot]:
    """Endpoints as spots of a cluster, each address once; a pod without a host name is called by its address."""
    seen: set[tuple[str, str]] = set()
    for endpoint in endpoints:
        for address in endpoint.addresses:
            pod = endpoint.hostname or address.replace(".", "-").replace(":", "-")
            if (pod, address) not in seen:
                seen.add((pod, address))
                yield Spot((address,), endpoint.network or network, cluster, pod)


def of_entry(entry: ServiceEntry, spots: Sequence[Spot], default: Sequence[str]) -> Iterator[Offer]:
    """Each host of a ServiceEntry that it has an answer for. `spots` are its endpoints and the machines that it selects."""
    fixed = tuple(address for address in entry.addresses if "/" not in address)
    offer = Offer(
        "",
        entry.ref,
        EXTERNAL,
        exports(entry.export_to, entry.ref.namespace, default),
        ports=entry.ports,
        namespace=entry.ref.namespace,
        created=entry.created,
        place=entry.place,
    )
    for host in entry.hosts:
        assigned = tuple(dict.fromkeys(address for name, address in entry.assigned if name in ("", host)))
        if fixed or (assigned and not entry.addresses):
            yield attrs.evolve(offer, host=host, addresses=fixed or assigned)
        elif entry.resolution == "NONE":
            if spots:
                yield attrs.evolve(offer, host=host, spots=tuple(spots))
        elif not entry.addresses and not host.startswith("*") and entry.auto_vip:
            yield attrs.evolve(offer, host=host, wants_vip=True)


def of_import(given: ServiceImport) -> Iterator[Offer]:
    """The host of a ServiceImport that has addresses (KEP-1645)."""
    if given.ips:
        yield Offer(
            f"{given.ref.name}.{given.ref.namespace}.svc.{CLUSTERSET}",
            given.ref,
            KUBERNETES,
            frozenset({EVERYBODY}),
            addresses=given.ips,
            ports=given.ports,
            namespace=given.ref.namespace,
            place=given.place,
        )
