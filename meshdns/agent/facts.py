"""Inside: what is known of a running agent, gathered as plain values for whoever looks in.

The owners of the numbers enter as `Facts`; dictionaries ready for JSON leave. Nothing is changed by looking. It must never
know of HTTP, nor how anything is shown.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs

from meshdns import __version__, names
from meshdns.agent.counts import Counts, UpstreamSide, summed
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


class Others(Protocol):
    """The workers beside this process, as Workers has them: their numbers when they last told them, those of processes that have
    ended among them, and a row about each that is there."""

    @property
    def counts(self) -> Sequence[Counts]: ...
    def status(self) -> Sequence[Mapping[str, Any]]: ...


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
    others: Others | None = None

    @property
    def held(self) -> Table | None:
        """The table in force."""
        return self.resolver.authority.table

    @property
    def counts(self) -> Counts:
        """What all workers have counted; of upstream servers those of now."""
        own = Counts.of(self.resolver, self.ledger, self.upstream)
        total = summed([own, *(self.others.counts if self.others else ())])
        return attrs.evolve(total, upstreams=total.upstreams[: len(own.upstreams)])

    @property
    def workers(self) -> list[dict[str, Any]]:
        """A row about each process that answers, this one first."""
        rows = self.others.status() if self.others else ()
        own = sum(self.ledger.queries().values())
        return [{"number": 1, "state": "up", "restarts": 0, "queries": own}, *map(dict, rows)]

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
    return [*found, *_silent(facts.counts.upstreams), *_missing(facts.workers)]


def _missing(workers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Workers that are not there just now."""
    for each in workers:
        if each["state"] != "up":
            yield f"Worker {each['number']} is not up ({each['state']}): the main process does its work meanwhile."


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
    place, counts = facts.resolver.place, facts.counts
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
        "queries": _queries(counts) | {"autopath": counts.autopath},
        "cache": dict(counts.cache),
        "upstream": dict(counts.upstream),
        "upstreams": [dict(server) for server in counts.upstreams],
        "dropped": dict(counts.dropped),
        "workers": facts.workers,
    }


def _queries(counts: Counts) -> dict[str, Any]:
    """Queries answered: in all, by source and by rcode."""
    sources: dict[str, int] = {}
    rcodes: dict[str, int] = {}
    for (_, _, rcode, source), count in counts.queries.items():
        sources[source] = sources.get(source, 0) + count
        rcodes[rcode] = rcodes.get(rcode, 0) + count
    return {"total": sum(sources.values()), "sources": sources, "rcodes": rcodes}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
