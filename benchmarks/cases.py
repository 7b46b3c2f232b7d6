"""What is timed in rounds, beside whom, and the bars."""

import attrs

from benchmarks import caching, names, peers
from benchmarks.rounds import Case

_HITS = Case("hits", "Cache hits", peers.CACHES, names.popular_hosts, caching=caching.USUAL)
_MISSES = Case(
    "misses", "Cache misses", peers.CACHES, names.outside_hosts, caching=caching.PASSING, relayed=True, fresh=True
)
CASES = (
    Case(
        "mesh",
        f"Mesh answers, {names.HOSTS:,} hosts",
        peers.ALL,
        names.mesh_hosts,
        bars={"unbound": 1.0, "C echo": 1.3},
    ),
    Case(
        "tcp",
        "Mesh answers over TCP, 20 connections",
        peers.OVER_TCP,
        names.mesh_hosts,
        tcp=True,
        bars={"unbound": 1.0},
    ),
    Case(
        "relay",
        "Relayed queries, no cache",
        peers.RELAYS,
        names.outside_hosts,
        relayed=True,
        bars={"dnsmasq": 1.0},
    ),
    Case("paced", "Mesh answers at 2,000 queries a second", peers.ALL, names.mesh_hosts, rate=2_000),
    Case(
        "paced",
        "Mesh answers at 10,000 queries a second",
        peers.ALL,
        names.mesh_hosts,
        rate=10_000,
        bars={"unbound": 1.15},
    ),
    attrs.evolve(_HITS, title=f"Cache hits, {names.POPULAR_NAMES:,} names", bars={"unbound": 1.1}),
    attrs.evolve(_HITS, title="Cache hits at 2,000 queries a second", rate=2_000),
    attrs.evolve(_MISSES, title="Cache misses, names never asked before", bars={"unbound": 1.0, "dnsmasq": 0.8}),
    attrs.evolve(_MISSES, title="Cache misses at 2,000 queries a second", rate=2_000),
)
