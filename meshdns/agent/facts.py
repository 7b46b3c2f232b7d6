"""Inside: what is known of a running agent, gathered as plain values for whoever looks in.

The owners of the numbers enter as `Facts`; dictionaries ready for JSON leave. Nothing is changed by looking. It must never
know of HTTP, nor how anything is shown.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs

from meshdns import __version__, names
from meshdns.agent.cache import Cache
from meshdns.agent.ledger import Ledger
from meshdns.agent.resolver import Resolver
from meshdns.agent.servers import USELESS
from meshdns.table import Table


class TableSource(Protocol):
    """Where tables come from, as TableFile has it: counts, the clock's seconds at the last change and when it was last said to be
    right still, why it is of no use just now ("" when it is), and polls of a control plane by outcome."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    @property
    def updates(self) -> int: ...
    @property
    def failures(self) -> int: ...
    @property
    def last_change(self) -> float | None: ...
    @property
    def confirmed(self) -> float | None: ...
    @property
    def trouble(self) -> str: ...
    @property
    def polls(self) -> Mapping[str, int]: ...


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
    def cache(self) -> Cache:
        """What upstreams said."""
        return self.resolver.lookups.cache

    @property
    def table_age(self) -> float | None:
        """Seconds since the table in force came, or was last said to be right still."""
        said = self.table.confirmed
        return None if self.held is None or said is None else max(0.0, self.clock() - said)


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
    return [*found, *_silent(facts.upstream.status())]


def _silent(servers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Names for which nobody can be asked."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for each in servers:
        words = groups.setdefault(tuple(each.get("domains", ())), [])
        words.append(f"{each['server']} ({each['state']})" if each["state"] in USELESS else "")
    if () not in groups:
        yield "There is no upstream server: only mesh names are answered. Look at upstream in the configuration."
    for domains, words in groups.items():
        if all(words) and domains:
            yield f"No upstream server for {', '.join(domains)} answers: {', '.join(words)}."
        elif all(words):
            yield f"No upstream server answers: {', '.join(words)}. Only mesh names are answered."


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
        "cache": _cache(facts.cache, facts.resolver.packs.cache_hits),
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


def _queries(ledger: Ledger) -> dict[str, Any]:
    """Queries answered: in all, by source and by rcode."""
    sources: dict[str, int] = {}
    rcodes: dict[str, int] = {}
    for (_, _, rcode, source), count in ledger.queries().items():
        sources[source] = sources.get(source, 0) + count
        rcodes[rcode] = rcodes.get(rcode, 0) + count
    return {"total": sum(sources.values()), "sources": sources, "rcodes": rcodes}


def _cache(cache: Cache, packed: int) -> dict[str, int]:
    """What is kept, in octets of memory, and what came of the looks into it: each is one of hit, stale and miss.

    `packed` are hits of which the cache itself knows nothing.
    """
    return {
        "entries": cache.entries,
        "bytes": cache.octets,
        "max_bytes": cache.limits.max_bytes,
        "hits": cache.hits + packed,
        "stale": cache.stale,
        "misses": cache.misses,
        "prefetches": cache.prefetches,
        "evictions": cache.evictions,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
