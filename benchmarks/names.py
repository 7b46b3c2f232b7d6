"""What is asked: the hosts of the mesh, the names outside it, and the files in which dnsperf reads them."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

HOSTS = 1000
MESH_ZONE = "cluster.local"
MESH_SEARCH = (f"ns1.svc.{MESH_ZONE}", f"svc.{MESH_ZONE}", MESH_ZONE)
OUTSIDE_ZONE = "outside.example"
OUTSIDE_ADDRESS = "198.51.100.7"
OUTSIDE_NAMES = 50_000  # far more than are under way at once, so that no two equal questions can be joined
POPULAR_NAMES = 1000  # what a workload keeps asking for, and a cache holds
FRESH_NAMES = 100_000  # names that were never asked, for a second as fast as can be: no relay here is so fast
TTL = 30


def mesh_hosts() -> dict[str, str]:
    """Full host names and their one address each; services of ten namespaces."""
    return {
        f"service-{i}.ns{i % 10}.svc.{MESH_ZONE}": f"10.{4 + i // 65025}.{i // 255}.{1 + i % 255}" for i in range(HOSTS)
    }


def outside_hosts() -> dict[str, str]:
    """Names that only the upstream knows."""
    return {f"host-{i}.{OUTSIDE_ZONE}": OUTSIDE_ADDRESS for i in range(OUTSIDE_NAMES)}


def popular_hosts() -> dict[str, str]:
    """Few enough of them for any cache."""
    return dict(islice(outside_hosts().items(), POPULAR_NAMES))


def sample(hosts: Mapping[str, str], count: int = 20) -> Sequence[tuple[str, str]]:
    """Some of them, spread evenly."""
    return list(hosts.items())[:: max(1, len(hosts) // count)]


def write_queries(path: Path, hosts: Mapping[str, str]) -> Path:
    """The A queries for hosts as dnsperf reads them, in an order that no table has."""
    names = sorted(hosts, key=lambda host: hash_of(host))
    path.write_text("".join(f"{name} A\n" for name in names))
    return path


def write_fresh_queries(path: Path, label: str, count: int) -> Path:
    """The A queries for names outside the mesh that have this label and are in no other file."""
    path.write_text("".join(f"{label}-{i}.{OUTSIDE_ZONE} A\n" for i in range(count)))
    return path


def hash_of(text: str) -> int:
    """Mixes names, the same way in each run (Python's own hash differs from run to run)."""
    mixed = 2166136261
    for octet in text.encode():
        mixed = (mixed ^ octet) * 16777619 & 0xFFFFFFFF
    return mixed
