"""Inside: what is measured of a running agent, under the names that contract section 4 gives (prefix `meshdns_`).

`Facts` enter, measures leave as plain numbers. It must never know of the format that scrapers read.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate

from meshdns import __version__
from meshdns.agent.counts import Counts
from meshdns.agent.facts import Facts
from meshdns.agent.ledger import BOUNDS, Histogram
from meshdns.metrics import Buckets, Mean, Measure


def measures(facts: Facts) -> Iterator[Measure]:
    """Every measure, also those that have no sample yet."""
    counts = facts.counts
    yield from _of_queries(counts)
    yield from _of_the_cache(counts.cache)
    yield from _of_upstreams(counts)
    yield from _of_the_table(facts)
    yield from _of_workers(facts)


def _of_queries(counts: Counts) -> Iterator[Measure]:
    labels = ("transport", "type", "rcode", "source")
    yield Measure("counter", "queries", "Queries answered.", labels, list(counts.queries.items()))
    durations = [((source,), _buckets(held)) for source, held in counts.durations.items()]
    about = "Time from a query's arrival to its answer; packed answers are sampled."
    yield Measure("histogram", "query_duration_seconds", about, ("source",), durations)
    about = "Names answered by walking the search list for the client."
    yield Measure("counter", "autopath_answers", about, (), [((), counts.autopath)])
    lost = [((reason,), count) for reason, count in counts.dropped.items()]
    yield Measure(
        "counter", "dropped", "Packets dropped or refused; upstream-* came from upstream servers.", ("reason",), lost
    )


def _of_the_cache(cache: Mapping[str, int]) -> Iterator[Measure]:
    yield Measure("gauge", "cache_entries", "Answers and failures of upstreams kept.", (), [((), cache["entries"])])
    yield Measure("gauge", "cache_bytes", "Memory that these take.", (), [((), cache["bytes"])])
    about = "Answers pushed out of the cache by others."
    yield Measure("counter", "cache_evictions", about, (), [((), cache["evictions"])])
    about = "Looks into the cache that found an answer in time, or a failure of just now."
    yield Measure("counter", "cache_hits", about, (), [((), cache["hits"])])
    about = "Looks into the cache that found an expired answer."
    yield Measure("counter", "cache_stale", about, (), [((), cache["stale"])])
    yield Measure("counter", "cache_misses", "Looks into the cache that found nothing.", (), [((), cache["misses"])])
    about = "Answers asked for again before they expired, since they are popular."
    yield Measure("counter", "cache_prefetches", about, (), [((), cache["prefetches"])])


def _of_upstreams(counts: Counts) -> Iterator[Measure]:
    # A server may stand in several groups, but only once here.
    outcomes: Counter[tuple[str, str]] = Counter()
    means: dict[str, Mean] = {}
    for each in counts.upstreams:
        label: str = each["server"]
        outcomes.update({(label, outcome): count for outcome, count in each["requests"].items() if count})
        before = means.get(label, Mean(0, 0.0))
        means[label] = Mean(before.count + each["answers"], before.total + each["seconds"])
    about = "Messages sent to upstream servers, by what became of them."
    yield Measure("counter", "upstream_requests", about, ("server", "outcome"), list(outcomes.items()))
    about = "Questions failed at once since upstream.max_inflight of them were under way."
    yield Measure("counter", "upstream_shed", about, (), [((), counts.upstream["shed"])])
    yield Measure("gauge", "upstream_inflight", "Questions under way.", (), [((), counts.upstream["inflight"])])
    about = "Time that upstream servers took for their good answers."
    samples = [((label,), mean) for label, mean in means.items()]
    yield Measure("summary", "upstream_duration_seconds", about, ("server",), samples)


def _of_the_table(facts: Facts) -> Iterator[Measure]:
    held, age = facts.held, facts.table_age
    generation = [((held.generation,), 1)] if held else []
    yield Measure("gauge", "table_generation_info", "The table in force.", ("generation",), generation)
    yield Measure("gauge", "table_hosts", "Hosts of the table in force.", (), [((), len(held.entries) if held else 0)])
    about = "Time since the table in force came."
    yield Measure("gauge", "table_age_seconds", about, (), [] if age is None else [((), age)])
    kinds = [(("whole",), facts.table.updates), (("refused",), facts.table.failures)]
    yield Measure("counter", "table_updates", "Tables taken whole, and refused.", ("kind",), kinds)
    polls = [((outcome,), count) for outcome, count in facts.table.polls.items()]
    yield Measure("counter", "control_polls", "Polls of control planes, by what came of them.", ("outcome",), polls)
    yield Measure("gauge", "build_info", "What runs.", ("version",), [((__version__,), 1)])


def _of_workers(facts: Facts) -> Iterator[Measure]:
    workers = facts.workers
    up = sum(each["state"] == "up" for each in workers)
    yield Measure("gauge", "workers", "Processes that answer.", (), [((), up)])
    about = "Workers that died, or were ended since they hung, and were replaced."
    yield Measure("counter", "worker_restarts", about, (), [((), sum(each["restarts"] for each in workers))])


def _buckets(held: Histogram) -> Buckets:
    ends = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]
    return Buckets(list(zip(ends, accumulate(held.buckets), strict=True)), held.total)
