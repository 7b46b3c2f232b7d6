"""Inside: what is known of a running agent, gathered as plain values for whoever looks in.

The owners of the numbers enter as `Facts`; dictionaries ready for JSON leave. Nothing is changed by looking. It must never
know of HTTP, nor how anything is shown.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from meshdns import __version__, names
from meshdns.agent.explain import USELESS, explain
from meshdns.agent.ledger import Ledger
from meshdns.agent.resolver import Resolver
from meshdns.table import Table


class TableSource(Protocol):
    """Where tables come from, as TableFile has it: counts, and the clock's seconds at the last change."""

    @property
    def updates(self) -> int: ...
    @property
    def failures(self) -> int: ...
    @property
    def last_change(self) -> float | None: ...


class UpstreamSide(Protocol):
    """The upstream servers, as Upstream has them."""

    def status(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def inflight(self) -> int: ...
    @property
    def joined(self) -> int: ...
    @property
    def shed(self) -> int: ...
    @property
    def dropped(self) -> Mapping[str, int]: ...


@attrs.frozen(kw_only=True)
class Facts:
    """Everything that the status page reads, and by which it changes nothing.

    `clock` gives monotonic seconds, `started` is one of them; `table_source` says where tables come from ("file
    /etc/meshdns/nametable.jsonl"); `trouble` gives the sentence on why the source is of no use just now, "" when it is.
    """

    resolver: Resolver
    ledger: Ledger
    upstream: UpstreamSide
    table: TableSource
    clock: Callable[[], float]
    started: float
    config: str
    table_source: str
    trouble: Callable[[], str] = str

    @property
    def held(self) -> Table | None:
        """The table in force."""
        return self.resolver.authority.table

    @property
    def table_age(self) -> float | None:
        """Seconds since the table in force came."""
        changed = self.table.last_change
        return None if self.held is None or changed is None else max(0.0, self.clock() - changed)


def unready(facts: Facts) -> str | None:
    """Why the agent is not ready, as a sentence; None when it is."""
    if facts.held is not None:
        return None
    why = facts.trouble() or "it has not been read yet"
    return f"No name table is held: {facts.table_source}: {why}. Until it is, names in mesh zones get SERVFAIL."


def problems(facts: Facts) -> list[str]:
    """What is not as it should be, as sentences."""
    found = [reason] if (reason := unready(facts)) else []
    if facts.held is not None and (trouble := facts.trouble()):
        found.append(f"The name table is old: {facts.table_source}: {trouble}. The last good one stays in force.")
    servers = facts.upstream.status()
    if not servers:
        found.append(
            "There is no upstream server: only mesh names are answered. Look at upstream in the configuration."
        )
    elif all(each["state"] in USELESS for each in servers):
        listed = ", ".join(f"{each['server']} ({each['state']})" for each in servers)
        found.append(f"No upstream server answers: {listed}. Only mesh names are answered.")
    return found


def table_summary(facts: Facts) -> dict[str, Any]:
    """Of the table in force: generation (None without one), hosts, zones, age in seconds, and its source."""
    held = facts.held
    return {
        "generation": held.generation if held else None,
        "hosts": len(held.entries) if held else 0,
        "zones": [names.text(zone) for zone in facts.resolver.authority.zones] if held else [],
        "age": _rounded(facts.table_age),
        "source": facts.table_source,
        "updates": facts.table.updates,
        "failures": facts.table.failures,
        "trouble": facts.trouble() or None,
    }


def overview(facts: Facts) -> dict[str, Any]:
    """The state of the whole agent."""
    place, upstream = facts.resolver.place, facts.upstream
    return {
        "version": __version__,
        "ready": facts.held is not None,
        "problems": problems(facts),
        "uptime": _rounded(facts.clock() - facts.started),
        "config": facts.config,
        "workload": {
            "namespace": place.namespace,
            "cluster_domain": names.text(place.domain),
            "search": [names.text(domain) for domain in place.search],
            "autopath": place.autopath,
        },
        "table": table_summary(facts),
        "queries": _queries(facts.ledger) | {"autopath": facts.resolver.autopath_answers},
        "upstream": {"inflight": upstream.inflight, "joined": upstream.joined, "shed": upstream.shed},
        "upstreams": [dict(server) for server in upstream.status()],
        "dropped": dropped(facts),
    }


def dropped(facts: Facts) -> dict[str, int]:
    """Packets dropped by reason; those from upstreams have `upstream-` in front."""
    found = dict(facts.ledger.dropped)
    for reason, count in facts.upstream.dropped.items():
        found[f"upstream-{reason}"] = count
    return found


def explained(facts: Facts, name: bytes, qtype: int) -> dict[str, Any]:
    """Why a question is answered as it is."""
    summary = table_summary(facts)
    told = {key: summary[key] for key in ("generation", "hosts", "age", "source")}
    return explain(facts.resolver, name, qtype, upstreams=facts.upstream.status(), table=told)


def _queries(ledger: Ledger) -> dict[str, Any]:
    """Queries answered: in all, by source and by rcode."""
    sources: dict[str, int] = {}
    rcodes: dict[str, int] = {}
    for (_, _, rcode, source), count in ledger.queries().items():
        sources[source] = sources.get(source, 0) + count
        rcodes[rcode] = rcodes.get(rcode, 0) + count
    return {"total": sum(sources.values()), "sources": sources, "rcodes": rcodes}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
