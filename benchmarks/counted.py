"""What a proxy spares the upstream: the same look-ups through each of them, one after the other, and all queries counted."""

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import attrs

from benchmarks import asking, caching, names, peers, processes, workload
from benchmarks.client import Client
from benchmarks.job import Done, Setting
from benchmarks.machine import Cores
from benchmarks.processes import CannotMeasure
from benchmarks.report import OURS, Page
from benchmarks.rounds import up
from benchmarks.servers import Builder, Room, Server
from benchmarks.upstreams import all_knowing
from benchmarks.workload import Wanted

WORD = "workload"
NO_PROXY = "no proxy"
CACHING = caching.AMPLE
LOOKUPS = 20_000
_SECONDS = 120  # about, for so many with all the servers
BAR = 1 / 20  # of the upstream's queries without a proxy may be left with meshdns


@attrs.frozen
class Count:
    """What one server's turn came to: look-ups, and the queries that the client sent and that the upstream got."""

    server: str
    lookups: int
    sent: int
    asked: int


def duration(options: Namespace) -> float:
    return float(_SECONDS * options.lookups / LOOKUPS)


def run(setting: Setting) -> Done:
    counts, servers = count(
        [build for build in setting.builders if build in peers.CACHES],
        lookups=setting.options.lookups,
        used=setting.used,
        directory=setting.directory,
        tell=setting.tell,
    )
    data = {"case": WORD, "counts": [attrs.asdict(one) for one in counts]}
    return Done(page(counts), data, [(CACHING, server) for server in servers])


def count(
    builders: Sequence[Builder], *, lookups: int, used: Cores, directory: Path, tell: Callable[[str], None]
) -> tuple[list[Count], list[Server]]:
    """The look-ups without a proxy and through each of these; and the servers, for their configurations."""
    wanted = workload.all_names()
    asked_for = workload.zipf(wanted, lookups)
    room = Room(directory, processes.free_port(), CACHING, workload.SEARCH)
    counts, servers = [], []
    with up(partial(all_knowing, records=workload.records(wanted)), room, used.load, _known(wanted)) as source:
        for builder in (None, *builders):
            with _asked(builder, room, used, source.server) as server:
                counts.append(_turn(server, source.server, asked_for))
            tell(f"{WORD}: {counts[-1].server}: the upstream was asked {counts[-1].asked:,} times")
            servers += [server] if builder else []
    return counts, servers


def _known(wanted: Sequence[Wanted]) -> dict[str, str]:
    """Names with one IPv4 address, by which it is seen that the upstream has them all."""
    return {one.meant: next(a for a in one.addresses if ":" not in a) for one in wanted}


@contextmanager
def _asked(builder: Builder | None, room: Room, used: Cores, source: Server) -> Iterator[Server]:
    """What the client asks: the upstream itself when there is no proxy."""
    if builder is None:
        yield attrs.evolve(source, name=NO_PROXY)
        return
    with up(builder, room, used.server, names.mesh_hosts()) as started:
        yield started.server


def _turn(server: Server, source: Server, asked_for: Sequence[Wanted]) -> Count:
    before = asking.times_asked(source)
    with closing(Client(server.name, server.port, workload.SEARCH, workload.NDOTS)) as client:
        for one in asked_for:
            if (found := client.look_up(one.written)) != one.addresses:
                raise CannotMeasure(
                    f"{server.name} leads {one.written} to {sorted(found)}; right is {sorted(one.addresses)}."
                )
        return Count(server.name, len(asked_for), client.sent, asking.times_asked(source) - before)


def page(counts: Sequence[Count]) -> Page:
    """For the reader; the first count is that without a proxy."""
    without = counts[0].asked
    ours = next((one for one in counts if one.server == OURS), None)
    head = ["server", "client sent", "per look-up", "upstream asked", "of no proxy", f"{OURS} / this"]
    rows = [
        [
            one.server,
            f"{one.sent:,}",
            f"{one.sent / one.lookups:.2f}",
            f"{one.asked:,}",
            f"1/{without / max(1, one.asked):.1f}",
            f"{ours.asked / max(1, one.asked):.2f}" if ours and one is not ours else "",
        ]
        for one in counts
    ]
    title = f"Queries at the upstream, {counts[0].lookups:,} look-ups of A and AAAA"
    return Page(title, WORD, [head, *rows], list(notes(counts)))


def notes(counts: Sequence[Count]) -> Iterator[str]:
    """The bars. Fewer look-ups than usual see most names for the first time, so that no cache can do much."""
    ours = next((one for one in counts if one.server == OURS), None)
    others = [one for one in counts if one.server != OURS]
    if ours is None:
        return
    share = ours.asked / max(1, others[0].asked)
    verdict = "holds" if share < BAR else "missed"
    yield (
        f"{OURS} below 1/{1 / BAR:.0f} of {others[0].server}: {verdict}, 1/{1 / share:.1f}"
        if share
        else "nothing asked"
    )
    least = min(others, key=lambda one: one.asked)
    verdict = "holds" if ours.asked < least.asked else "missed"
    yield f"{OURS} the lowest: {verdict}, {ours.asked:,} against {least.asked:,} of {least.server}"
    if ours.lookups < LOOKUPS:
        yield f"the bars are meant for {LOOKUPS:,} look-ups"
