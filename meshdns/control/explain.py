"""Inside: why a host is in a workload's table, or is not: every document that speaks of it, which counts, and what hides it.

A World and a host enter, sentences leave (rule C7). It must never know who wants to know.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from meshdns import names
from meshdns.control.model import Offer, Problem, Workload
from meshdns.control.offers import EVERYBODY, KUBERNETES
from meshdns.control.registry import Registry
from meshdns.control.views import Views


def explain(
    registry: Registry, views: Views, vips: Mapping[str, tuple[str, ...]], problems: Sequence[Problem], host: str,
    workload: Workload | None,
) -> dict[str, Any]:  # fmt: skip
    """`workload` None: what there is of the host at all. The result is ready for JSON."""
    offers = registry.offers.get(host, ())
    told: dict[str, Any] = {
        "host": host,
        "offers": [_told(offer, number == 0) for number, offer in enumerate(offers)],
        "vip": list(vips.get(host, ())) or None,
        "problems": [
            str(problem) for problem in problems if host in (problem.subject, problem.reason) or _about(problem, offers)
        ],
    }
    lines = list(_of_the_world(registry, host, offers, vips))
    if workload is not None:
        scope = views.scope(workload)
        seen = scope.sees(offers)
        entry = views.view(workload).entry(host)
        told["workload"] = {"namespace": workload.namespace, "cluster": workload.cluster, "network": workload.network}
        told["entry"] = entry.line if entry else None
        lines += [f"{offer.ref} is hidden: {why}." for offer in offers if (why := scope.hidden_by(offer))]
        if entry is not None:
            lines.append(
                f"So a workload of {workload.namespace} in {workload.cluster} gets {_answer(entry.ips, entry.alias)}."
            )
        elif seen:
            lines.append("What is left has no address that this workload could reach, so the host is not in its table.")
        elif offers:
            lines.append("Nothing is left, so the host is not in its table.")
    told["because"] = lines
    return told


def _told(offer: Offer, first: bool) -> dict[str, Any]:
    return {
        "object": str(offer.ref),
        "cluster": offer.ref.cluster,
        "place": offer.place,
        "registry": offer.registry,
        "seen_by": sorted(offer.export_to),
        "addresses": list(offer.addresses) or [address for spot in offer.spots for address in spot.addresses],
        "alias": offer.alias or None,
        "wants_vip": offer.wants_vip,
        "first": first,
    }


def _about(problem: Problem, offers: Sequence[Offer]) -> bool:
    return any(problem.subject == str(offer.ref) for offer in offers)


def _of_the_world(
    registry: Registry, host: str, offers: Sequence[Offer], vips: Mapping[str, tuple[str, ...]]
) -> Iterator[str]:
    if not offers:
        yield from _nobody(registry, host)
        return
    for offer in offers:
        whom = "everybody" if EVERYBODY in offer.export_to else ", ".join(sorted(offer.export_to)) or "nobody"
        yield f"{offer.ref} of {offer.ref.cluster} ({offer.place}) offers it to {whom}: {_what(offer, vips)}."
    services = [offer for offer in offers if offer.registry == KUBERNETES]
    if services and len(services) < len(offers):
        yield "A Kubernetes service of this name wins entirely over ServiceEntries, for whoever sees it (rule C4)."
    if len(services) > 1:
        order = ", ".join(dict.fromkeys(offer.ref.cluster for offer in services))
        yield f"Of several clusters the workload's own counts, else the first of {order} (rule C3)."


def _what(offer: Offer, vips: Mapping[str, tuple[str, ...]]) -> str:
    if offer.alias:
        return f"an alias for {offer.alias}"
    if offer.addresses:
        return ", ".join(offer.addresses)
    if offer.spots:
        return f"its endpoints {', '.join(address for spot in offer.spots for address in spot.addresses)}"
    pair = vips.get(offer.host)
    return (
        f"no address of its own, so it has the VIP {' and '.join(pair)}" if pair else "no address, and no VIP is free"
    )


def _nobody(registry: Registry, host: str) -> Iterator[str]:
    """Why there is nothing: an object may well be there."""
    found = list(registry.definitions(host))
    if not found:
        yield "No Service, ServiceEntry or ServiceImport of any cluster makes this host."
    for ref, place, why in found:
        yield f"{ref} of {ref.cluster} ({place}) is for this host, but {why}."


def _answer(ips: Sequence[str], alias: bytes | None) -> str:
    return f"an alias for {names.text(alias)}" if alias else ", ".join(ips)
