"""A workload as sidecars see it: few names asked often, many asked seldom, most of them as people write them, unqualified."""

import random
from collections.abc import Sequence

import attrs

from benchmarks import names

NDOTS = 5  # what Kubernetes sets
SEARCH = (*names.MESH_SEARCH, "eng.corp.example", "ops.corp.example", "corp.example")
# Of the 2,000 names: services of the mesh, hosts of the company, and the rest of the world.
_MESH, _CORP, _WORLD = 800, 200, 1000
_SEED = 20_000


@attrs.frozen
class Wanted:
    """A name as an application writes it, the one it means, and the addresses it is to get."""

    written: str
    meant: str
    addresses: frozenset[str]


def all_names() -> list[Wanted]:
    """The 2,000 names, in an order that has nothing to do with their kind."""
    wanted = [*_mesh(), *_corp(), *_world()]
    random.Random(_SEED).shuffle(wanted)
    return wanted


def _mesh() -> list[Wanted]:
    """Services: those of the own namespace by their short names; of the others every other one with its namespace only."""
    found = []
    for number, (host, address) in enumerate(list(names.mesh_hosts().items())[:_MESH]):
        service, namespace, _ = host.split(".", 2)
        short = service if namespace == "ns1" else f"{service}.{namespace}"
        found.append(Wanted(short if namespace == "ns1" or number % 4 < 2 else host, host, frozenset([address])))
    return found


def _corp() -> list[Wanted]:
    """Hosts in the first and in the last of the company's domains, by their short names, and others by their full ones."""
    found = []
    for number in range(_CORP):
        domain = SEARCH[3] if number % 2 else SEARCH[5]
        short = f"host-{number}"
        written = f"{short}.{domain}" if number % 3 == 2 else short
        found.append(Wanted(written, f"{short}.{domain}", frozenset([f"10.200.0.{number + 1}"])))
    return found


def _world() -> list[Wanted]:
    """Names elsewhere, of three or four labels, in full as all programs write them; one of three has IPv6, too."""
    found = []
    for number in range(_WORLD):
        name = f"api-{number}.{'eu.' if number % 2 else ''}service-{number % 40}.example"
        four = f"198.51.{number // 250}.{1 + number % 250}"
        found.append(Wanted(name, name, frozenset([four, f"2001:db8::{number:x}"] if number % 3 == 0 else [four])))
    return found


def records(wanted: Sequence[Wanted]) -> list[str]:
    """What an upstream that knows it all is to hold."""
    return [
        f"{one.meant} {'AAAA' if ':' in address else 'A'} {address}"
        for one in wanted
        for address in sorted(one.addresses)
    ]


def zipf(wanted: Sequence[Wanted], lookups: int) -> list[Wanted]:
    """So many look-ups of them: the n-th name comes up 1/n times as often as the first (s = 1.0); always the same ones."""
    weights = [1 / rank for rank in range(1, len(wanted) + 1)]
    return random.Random(_SEED).choices(wanted, weights, k=lookups)
