"""Inside: what a host answers for one workload: several offers -> one entry of its table (rules C3, C4).

The offers that the workload sees enter in the order of precedence; fields of an entry (contract rule X1) leave. It must
never know of tables.
"""

from collections.abc import Iterable, Sequence

import attrs

from meshdns.control.model import Offer, Spot
from meshdns.control.offers import EXTERNAL, KUBERNETES
from meshdns.entries import Port


@attrs.frozen
class Where:
    """Where a workload is: its cluster and network, "" for unknown."""

    cluster: str
    network: str


def fields(offers: Sequence[Offer], where: Where, vip: tuple[str, ...]) -> dict[str, object] | None:
    """The entry's fields, or None where there is nothing to answer. `vip` is the host's own, if it has one."""
    if not offers:
        return None
    if offers[0].registry == KUBERNETES:
        # A Kubernetes service wins entirely over whatever else has its name.
        return _of_service([offer for offer in offers if offer.registry == KUBERNETES], where)
    return _of_entries(offers, where, vip)


def _of_service(offers: Sequence[Offer], where: Where) -> dict[str, object] | None:
    """The own cluster's service, else that of the cluster first in the configuration; headless: the endpoints of all."""
    chosen = next((offer for offer in offers if offer.ref.cluster == where.cluster), offers[0])
    found = _named(chosen, KUBERNETES)
    if chosen.alias:
        return found | {"alias": chosen.alias}
    if chosen.addresses:
        return found | {"ips": list(chosen.addresses)} | _ports(chosen.ports)
    spots = _near([spot for offer in offers for spot in offer.spots], where)
    if not spots:
        return None
    pods = (
        {} if chosen.within else {"pods": [f"{pod}.{chosen.host}" for pod in dict.fromkeys(spot.pod for spot in spots)]}
    )
    return found | {"ips": _addresses(spots)} | _ports(chosen.ports) | pods


def _near(spots: Iterable[Spot], where: Where) -> list[Spot]:
    """The endpoints that the workload's network reaches, its own cluster's first; a pod name that it has counts there alone."""
    reached = [spot for spot in spots if not spot.network or not where.network or spot.network == where.network]
    own = [spot for spot in reached if spot.cluster == where.cluster]
    names = {spot.pod for spot in own}
    return own + [spot for spot in reached if spot.cluster != where.cluster and spot.pod not in names]


def _of_entries(offers: Sequence[Offer], where: Where, vip: tuple[str, ...]) -> dict[str, object] | None:
    """ServiceEntries of one host: addresses united, ports merged; its VIP where none has an address."""
    found = _named(offers[0], EXTERNAL)
    ports = _ports(dict.fromkeys(port for offer in offers for port in offer.ports))
    ips = list(dict.fromkeys(address for offer in offers for address in offer.addresses))
    ips += [ip for ip in _addresses(_near([spot for offer in offers for spot in offer.spots], where)) if ip not in ips]
    if ips:
        return found | {"ips": ips} | ports
    if vip and any(offer.wants_vip for offer in offers):
        return found | {"ips": list(vip), "vip": True} | ports
    return None


def _named(offer: Offer, registry: str) -> dict[str, object]:
    found: dict[str, object] = {"host": offer.host, "registry": registry, "namespace": offer.namespace}
    return found | ({"shortname": offer.shortname} if offer.shortname else {})


def _addresses(spots: Iterable[Spot]) -> list[str]:
    return list(dict.fromkeys(address for spot in spots for address in spot.addresses))


def _ports(ports: Iterable[Port]) -> dict[str, object]:
    told = [{"name": port.name, "number": port.number, "protocol": port.protocol} for port in ports]
    return {"ports": told} if told else {}
