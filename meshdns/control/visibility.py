"""Inside: which offers a workload may see (rule C6): exportTo, and the Sidecar that counts for it.

An offer enters; it leaves as the workload sees it, or not at all. It must never know what is answered.
"""

from collections.abc import Iterable

import attrs

from meshdns.control.model import Egress, Offer, Sidecar
from meshdns.control.offers import EVERYBODY


@attrs.frozen
class Scope:
    """What a workload sees depends on no more than this. `sidecar` None, or one without egress: it narrows nothing."""

    namespace: str
    sidecar: Sidecar | None = None

    @property
    def narrows(self) -> bool:
        return self.sidecar is not None and bool(self.sidecar.egress)

    def sees(self, offers: Iterable[Offer]) -> tuple[Offer, ...]:
        """Of one host's offers those that are seen, their ports narrowed to those that are."""
        return tuple(seen for offer in offers if (seen := self._seen(offer)) is not None)

    def hidden_by(self, offer: Offer) -> str:
        """Why an offer is not seen, as a clause; "" when it is."""
        if self._seen(offer) is not None:
            return ""
        if not self._exported(offer):
            words = ", ".join(sorted(offer.export_to)) or "nobody"
            return f"exportTo shows it to {words} only, and the workload is in {self.namespace}"
        assert self.sidecar is not None  # what else could hide it
        return f"the egress hosts of {self.sidecar.ref} ({self.sidecar.place}) do not name it, or hide it"

    def _exported(self, offer: Offer) -> bool:
        return EVERYBODY in offer.export_to or self.namespace in offer.export_to

    def _seen(self, offer: Offer) -> Offer | None:
        if not self._exported(offer):
            return None
        if self.sidecar is None or not self.sidecar.egress:
            return offer
        ports: set[int] = set()
        for egress in self.sidecar.egress:
            if not self._names(egress, offer):
                continue
            if egress.port is None:
                return offer
            ports.add(egress.port)
        kept = tuple(port for port in offer.ports if port.number in ports)
        return attrs.evolve(offer, ports=kept) if kept else None

    def _names(self, egress: Egress, offer: Offer) -> bool:
        """Whether a host of it names the offer, and none with `~` in front does."""
        named = [each for each in egress.hosts if self._speaks_of(each, offer)]
        return bool(named) and not any(each.startswith("~") for each in named)

    def _speaks_of(self, egress_host: str, offer: Offer) -> bool:
        namespace, _, name = egress_host.partition("/")
        namespace = "*" if namespace == "~" else namespace.removeprefix("~")
        wanted = self.namespace if namespace == "." else namespace
        return wanted in ("*", offer.ref.namespace) and _covers(name, offer.within or offer.host)


def _covers(pattern: str, host: str) -> bool:
    """Whether a pattern of a Sidecar is for a host: `*`, the host itself, or `*.rest` for all that lies below."""
    if pattern in ("*", host):
        return True
    return pattern.startswith("*.") and host.removeprefix("*").endswith(pattern[1:])
