"""Inside: what one process has counted, as plain numbers, and the sum of several.

The owners of the numbers enter; a `Counts` leaves, which passes through a pipe as JSON. It must never know how numbers are shown.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

import attrs

from meshdns.agent.ledger import BOUNDS, SOURCES, Histogram, Ledger
from meshdns.agent.resolver import Resolver

Asked = tuple[str, str, str, str]  # transport, type, rcode, source
_NOW = ("entries", "bytes", "max_bytes", "inflight")  # what is so at the moment, and ends with its process
_SERVER_NOW = ("outstanding", "sockets", "max_sockets")


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
class Counts:
    """The numbers of one process, or of several. `cache`, `upstream` and `upstreams` are as the status page has them; of `dropped`
    what came from upstreams has `upstream-` in front."""

    queries: Mapping[Asked, int] = attrs.field(factory=dict)
    durations: Mapping[str, Histogram] = attrs.field(factory=lambda: {source: Histogram() for source in SOURCES})
    autopath: int = 0
    dropped: Mapping[str, int] = attrs.field(factory=dict)
    cache: Mapping[str, int] = attrs.field(factory=dict)
    upstream: Mapping[str, int] = attrs.field(factory=dict)
    upstreams: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def of(cls, resolver: Resolver, ledger: Ledger, upstream: UpstreamSide) -> "Counts":
        """Those of this process, as they are now."""
        theirs = {f"upstream-{reason}": count for reason, count in upstream.dropped.items()}
        return cls(
            queries=ledger.queries(),
            durations=ledger.durations,
            autopath=resolver.autopath_answers,
            dropped={**ledger.dropped, **theirs},
            cache=_cache(resolver),
            upstream={"inflight": upstream.inflight, "joined": upstream.joined, "shed": upstream.shed},
            upstreams=[dict(server) for server in upstream.status()],
        )

    def ended(self) -> "Counts":
        """What stays of a process that has ended: sums do not fall."""
        servers = [{**server, **dict.fromkeys(_SERVER_NOW, 0)} for server in self.upstreams]
        cache, upstream = (
            {**each, **dict.fromkeys(each.keys() & set(_NOW), 0)} for each in (self.cache, self.upstream)
        )
        return attrs.evolve(self, cache=cache, upstream=upstream, upstreams=servers)


def summed(every: Sequence[Counts]) -> Counts:
    """The sum. Upstream servers stand in the order in which they are first told of."""
    if len(every) == 1:
        return every[0]
    servers = {_key(server): None for each in every for server in each.upstreams}
    return Counts(
        queries=_sum(each.queries for each in every),
        durations={source: _histogram([each.durations[source] for each in every]) for source in SOURCES},
        autopath=sum(each.autopath for each in every),
        dropped=_sum(each.dropped for each in every),
        cache=_sum(each.cache for each in every),
        upstream=_sum(each.upstream for each in every),
        upstreams=[_server([s for each in every for s in each.upstreams if _key(s) == key]) for key in servers],
    )


# As JSON


def pack(counts: Counts) -> bytes:
    told = attrs.asdict(counts, recurse=False)
    told["queries"] = [[*key, count] for key, count in counts.queries.items()]
    told["durations"] = {source: [each.buckets, each.total] for source, each in counts.durations.items()}
    return json.dumps(told).encode()


def unpack(data: bytes) -> Counts:
    told = json.loads(data)
    told["queries"] = {tuple(key): count for *key, count in told["queries"]}
    told["durations"] = {source: Histogram(*each) for source, each in told["durations"].items()}
    return Counts(**told)


# Parts


def _cache(resolver: Resolver) -> dict[str, int]:
    """What is kept, in octets of memory, and what came of the looks into it: each is one of hit, stale and miss."""
    cache = resolver.lookups.cache
    return {
        "entries": cache.entries,
        "bytes": cache.octets,
        "max_bytes": cache.limits.max_bytes,
        "hits": cache.hits + resolver.packs.cache_hits,  # of these the cache itself knows nothing
        "stale": cache.stale,
        "misses": cache.misses,
        "prefetches": cache.prefetches,
        "evictions": cache.evictions,
    }


def _sum(numbers: Iterable[Mapping[Any, int]]) -> dict[Any, int]:
    total: dict[Any, int] = {}
    for key, count in chain.from_iterable(each.items() for each in numbers):
        total[key] = total.get(key, 0) + count
    return total


def _histogram(every: Sequence[Histogram]) -> Histogram:
    buckets = [sum(each.buckets[place] for each in every) for place in range(len(BOUNDS) + 1)]
    return Histogram(buckets, sum(each.total for each in every))


def _key(server: Mapping[str, Any]) -> tuple[str, ...]:
    """A server may stand in several groups."""
    return server["server"], *server.get("domains", ())


def _server(same: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A server as several see it: its counts are sums, its state is as the process that has asked it most sees it."""
    numbers = _sum({key: each[key] for key in ("answers", "seconds", *_SERVER_NOW)} for each in same)
    most = max(same, key=lambda each: sum(each["requests"].values()))
    return {**most, **numbers, "requests": _sum(each["requests"] for each in same)}
