"""A large mesh: how long a control plane takes from its start to the first table, what it holds, and what one change costs it."""

import random
import statistics
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from benchmarks import machine, plane, polling, world
from benchmarks.job import Done, Setting
from benchmarks.plane import Plane
from benchmarks.polling import Heard, Poller
from benchmarks.processes import CannotMeasure
from benchmarks.report import Page, Spread, verdict
from meshdns.defaults import FILES_POLL, POLL_WAIT
from meshdns.exchange import Poll

WORD = "scale"
PER_NAMESPACE = 100  # services, and so many to a file
CHANGES = 20
BAR_SERVICES = 50_000
BAR_CPU = 0.050  # seconds of CPU for one changed service
BAR_OCTETS = 1000  # on the wire for it
_START = 600.0  # seconds for the first table
_PUSH = 60.0  # seconds for a delta
_IDLE = 5.0  # seconds in which it is seen what a control plane takes with nothing to do
_WAITED = 0.02  # share of the time that others may have its core before the figures are called disturbed
_SEED = 20_002


@attrs.frozen
class Start:
    """From the process's start to the end of the first table: seconds, CPU seconds of them, and resident octets then."""

    services: int
    manifests: int  # octets
    seconds: float
    cpu: float
    memory: int
    body: int  # octets of the table, as they came


@attrs.frozen
class Change:
    """One changed service: seconds from the rename to the whole delta at a parked poll, CPU seconds and in how many seconds,
    octets of the answer with its head, and all that came on the socket, TLS with it."""

    seconds: float
    cpu: float
    window: float
    octets: int
    on_wire: int


@attrs.frozen
class Scaled:
    """A large mesh beside an empty one. `idle` is CPU seconds a second with nothing to do."""

    empty: Start
    large: Start
    idle: float
    changes: Sequence[Change]
    waited: float

    @property
    def memory(self) -> float:
        """Octets for each service."""
        return (self.large.memory - self.empty.memory) / self.large.services


def duration(options: Namespace) -> float:
    return float(5 + options.services * 0.0007 + _IDLE + CHANGES * 2)


def run(setting: Setting) -> Done:
    with machine.on(setting.used.load):
        scaled = measure(setting)
    return Done(page(scaled), {"case": WORD, "scaled": attrs.asdict(scaled)})


def measure(setting: Setting) -> Scaled:
    empty, large = setting.directory / "empty", setting.directory / "large"
    world.write(empty, 1, 1)
    namespaces = max(1, setting.options.services // PER_NAMESPACE)
    octets = world.write(large, namespaces, PER_NAMESPACE)
    core = setting.used.server
    with plane.plane(setting.directory / "control-empty", empty, core) as control:
        first, poller, _ = _start(control, 1, 0)
        poller.close()
    began = time.monotonic()
    with plane.plane(setting.directory / "control", large, core) as control:
        start, poller, heard = _start(control, namespaces * PER_NAMESPACE, octets)
        setting.tell(f"{WORD}: the first table of {start.services:,} services after {start.seconds:.1f} s")
        raw = list(_changes(control, poller, heard, large))
        idle = control.idle(_IDLE)
        found = [attrs.evolve(each, cpu=each.cpu - idle * each.window) for each in raw]
        waited = machine.waited_seconds(control.process.pid) / (time.monotonic() - began)
        poller.close()
    return Scaled(first, start, idle, found, waited)


def _start(control: Plane, services: int, octets: int) -> tuple[Start, Poller, Heard]:
    poller, heard = control.first_table(_START)
    seconds = time.monotonic() - control.started
    memory = machine.memory(control.process.pid)
    return Start(services, octets, seconds, control.cpu(), memory, len(heard.body)), poller, heard


def _changes(control: Plane, poller: Poller, heard: Heard, manifests: Path) -> Iterator[Change]:
    """Changes of one service each, every one in another file, seen by a poll that is parked as an agent's is."""
    first = Poll(cluster=plane.CLUSTER, gzip=True, wait=POLL_WAIT, deltas=True)
    files = len(list(manifests.iterdir()))
    chance = random.Random(_SEED)
    for number in range(CHANGES):
        known = attrs.evolve(first, known=(heard.answer.generation,))
        poller.ask(polling.request(known, control.token))
        control.rest()
        time.sleep(FILES_POLL * chance.random())  # so that looks and renames have no rhythm in common
        index = number % files
        text = world.namespace_text(index, PER_NAMESPACE, 1 + number // files)
        cpu, began, received = control.cpu(), time.monotonic(), poller.received
        renamed = plane.replace(manifests.with_name("new"), text, manifests / f"ns{index}.yaml")
        heard = poller.wait(_PUSH)
        seconds = time.monotonic() - renamed
        if heard.answer.kind != "delta":
            raise CannotMeasure(f"The control plane answers a change with a {heard.answer.kind} instead of a delta.")
        on_wire = poller.received - received
        control.rest()
        yield Change(seconds, control.cpu() - cpu, time.monotonic() - began, heard.octets, on_wire)


# For the reader


def page(scaled: Scaled) -> Page:
    start, changes = scaled.large, scaled.changes

    def spread(attribute: str, scale: float, form: str) -> str:
        return Spread.of([getattr(each, attribute) * scale for each in changes]).text(form)

    rows = [
        ["what", "figure"],
        ["manifests", f"{start.manifests / 1e6:.1f} MB"],
        ["start to first table", f"{start.seconds:.1f} s"],
        ["CPU for that", f"{start.cpu:.1f} s"],
        ["the table, gzipped", f"{start.body / 1e6:.2f} MB"],
        ["resident memory", f"{start.memory / 1e6:.0f} MB"],
        ["of an empty mesh", f"{scaled.empty.memory / 1e6:.0f} MB"],
        ["for 10,000 services", f"{scaled.memory * 10_000 / 1e6:.1f} MB"],
        ["CPU with nothing to do", f"{scaled.idle:.1%} of a core"],
        ["one changed service, ms", spread("seconds", 1e3, ".0f")],
        ["CPU for that, ms", spread("cpu", 1e3, ".1f")],
        ["its delta with head, octets", spread("octets", 1, ".0f")],
        ["the same on the wire", spread("on_wire", 1, ".0f")],
    ]
    title = f"A mesh of {start.services:,} services"
    return Page(title, WORD, rows, list(notes(scaled)))


def notes(scaled: Scaled) -> Iterator[str]:
    """The bars, and whether to trust them."""
    cpu = statistics.median(each.cpu for each in scaled.changes)
    octets = max(each.on_wire for each in scaled.changes)
    yield f"CPU for one changed service below {BAR_CPU * 1e3:.0f} ms: {verdict(cpu, BAR_CPU)}, {cpu * 1e3:.1f} ms"
    yield f"on the wire for it below {BAR_OCTETS} octets: {verdict(octets, BAR_OCTETS)}, {octets} at most"
    if scaled.large.services < BAR_SERVICES:
        yield f"the bars are meant for {BAR_SERVICES:,} services"
    if scaled.waited > _WAITED:
        yield f"(!) others had the control plane's core for {scaled.waited:.0%} of the time"
