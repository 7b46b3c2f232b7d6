"""Where the time of an answer goes: kernel or program, by system call, by library, and, in meshdns, by Python function.

Under the load of `paced` at 10,000 a second and of `mesh`. What perf and py-spy see is taken as shares only, and multiplied by the
CPU per query that the same server needs without them.
"""

from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from benchmarks import caching, frames, names, perf, processes
from benchmarks.job import Done, Setting
from benchmarks.load import Load, Outcome, drive
from benchmarks.perf import Sample
from benchmarks.processes import CannotMeasure
from benchmarks.report import OURS, Page, Row
from benchmarks.rounds import WARM_UP, Started, up
from benchmarks.servers import Room
from benchmarks.upstreams import upstream

WORD = "profile"
LOADS: Mapping[str, int | None] = {"10,000 queries a second": 10_000, "full load": None}
PYTHON = 20.0  # seconds for py-spy, which sees little of a process that mostly waits
_MARGIN = 2.0  # seconds that the load outlasts py-spy, which begins after it
_LEAST = 0.01  # share of a query's CPU, and calls per query, that are shown
_LINES = 12  # of libraries, and of functions


@attrs.frozen
class Profile:
    """What one server does under one load. `cpu`: microseconds per query while nobody looks; `samples` while perf looks; `calls`
    per query; `functions` are py-spy's samples of Python."""

    server: str
    load: str
    cpu: float
    samples: Counter[Sample]
    calls: Mapping[str, float]
    functions: Counter[str]

    @property
    def kernel(self) -> dict[str, float]:
        """By system call, in microseconds per query, the most first; as all that follow."""
        found: Counter[str] = Counter()
        for sample, count in self.samples.items():
            if sample.object == perf.KERNEL:
                found[sample.call or "other"] += count
        return self._shares(found)

    @property
    def program(self) -> dict[str, float]:
        """By library."""
        outside = {each.object: count for each, count in self.samples.items() if each.object != perf.KERNEL}
        return self._shares(Counter(outside))

    @property
    def python(self) -> dict[str, float]:
        """The program's share by Python function, each with the C below it."""
        one = sum(self.program.values()) / max(1, self.functions.total())
        return {what: count * one for what, count in self.functions.most_common()}

    def _shares(self, found: Counter[str]) -> dict[str, float]:
        one = self.cpu / max(1, self.samples.total())
        return {what: count * one for what, count in found.most_common()}


def lacking() -> str:
    """What this machine has not got, as a sentence; else nothing."""
    return perf.lacking()


def duration(options: Namespace) -> float:
    servers = len(options.only or ()) or 6
    each = 3 * options.seconds + min(WARM_UP, options.seconds) + 3  # perf takes its time to begin and to read
    return float(len(LOADS) * (servers * each + PYTHON))


def run(setting: Setting) -> Done:
    if sentence := lacking():
        raise CannotMeasure(sentence)
    if sentence := frames.lacking():
        setting.tell(f"{WORD}: Python functions are left out. {sentence}")
    found = list(_profiles(setting))
    first, *more = pages(found)
    return Done(first, {"case": WORD, "profiles": [_as_data(each) for each in found]}, more=more)


def _profiles(setting: Setting) -> Iterator[Profile]:
    room = Room(setting.directory, processes.free_port(), caching.NONE)
    hosts = names.mesh_hosts()
    queries = names.write_queries(setting.directory / "queries", hosts)
    with up(upstream, room, setting.used.load, names.outside_hosts()):
        for build in setting.builders:
            with up(build, room, setting.used.server, hosts) as peer:
                for load, rate in LOADS.items():
                    found = _profile(peer, load, Load(queries, rate), setting)
                    setting.tell(f"{WORD}: {load}: {found.server}: {found.cpu:.2f} us")
                    yield found


def _profile(peer: Started, load: str, driven: Load, setting: Setting) -> Profile:
    core, server, process, seconds = setting.used.load, peer.server, peer.process.pid, setting.options.seconds

    def ask(seconds: float) -> Outcome:
        return drive(driven, server.port, seconds, core, server.directory / "dnsperf")

    ask(min(WARM_UP, seconds))
    before, _ = peer.spent()
    answered = ask(seconds).answered
    cpu = (peer.spent()[0] - before) / max(1, answered) * 1e6
    path = server.directory / "perf.data"
    with perf.recording(process, core, path):
        ask(seconds)
    samples = perf.samples(path)
    path = server.directory / "calls"
    with perf.counting(process, core, path):
        answered = ask(seconds).answered
    calls = {call: count / max(1, answered) for call, count in perf.counts(path).most_common()}
    return Profile(server.name, load, cpu, samples, calls, _functions(peer, ask, setting))


def _functions(peer: Started, ask: Callable[[float], Outcome], setting: Setting) -> Counter[str]:
    """Of meshdns only: the others are not written in Python."""
    if peer.server.name != OURS or frames.lacking():
        return Counter()
    path = peer.server.directory / "stacks"
    with frames.recording(peer.process.pid, PYTHON, setting.used.load, path):
        ask(PYTHON + _MARGIN)
    if path.exists():
        return frames.functions(path.read_text())
    setting.tell(f"{WORD}: py-spy has seen nothing: {processes.last_words(path.with_suffix('.log'))}")
    return Counter()


# For the reader


def pages(profiles: Sequence[Profile]) -> Iterator[Page]:
    """A page of all servers for each load, then what is to be seen in meshdns."""
    for load in LOADS:
        found = [each for each in profiles if each.load == load]
        yield Page(f"Where the time goes at {load}", WORD, [_HEAD, *map(_row, found)], [])
    ours = [each for each in profiles if each.server == OURS]
    if ours:
        yield _beside(f"{OURS}: the program's share by library", [each.program for each in ours])
    if ours and all(each.functions for each in ours):
        yield _beside(f"{OURS}: the same by Python function, with the C below it", [each.python for each in ours])


_HEAD = ["server", "CPU us/query", "program us", "kernel us", "of which", "system calls per query"]


def _row(profile: Profile) -> Row:
    kernel, program = profile.kernel, profile.program
    return [
        profile.server,
        f"{profile.cpu:.2f}",
        f"{sum(program.values()):.2f}",
        f"{sum(kernel.values()):.2f}",
        _listed({call: spent for call, spent in kernel.items() if spent >= profile.cpu * _LEAST}),
        _listed({call: times for call, times in profile.calls.items() if times >= _LEAST}),
    ]


def _listed(found: Mapping[str, float]) -> str:
    return ", ".join(f"{what} {amount:.2f}" for what, amount in found.items())


def _beside(title: str, found: Sequence[Mapping[str, float]]) -> Page:
    """Microseconds per query under each load, the most first; what is too little for a line of its own is added up."""
    most = {what: max(each.get(what, 0.0) for each in found) for each in found for what in each}
    shown = sorted(most, key=lambda what: -most[what])[:_LINES]
    rows = [[what, *(f"{each.get(what, 0.0):.2f}" for each in found)] for what in shown]
    rest = [sum(spent for what, spent in each.items() if what not in shown) for each in found]
    head = ["where", *(f"us at {load}" for load in LOADS)]
    return Page(title, WORD, [head, *rows, ["all else", *(f"{each:.2f}" for each in rest)]], [])


def _as_data(profile: Profile) -> dict[str, Any]:
    shares = {"kernel": profile.kernel, "program": profile.program, "python": profile.python}
    return {"server": profile.server, "load": profile.load, "cpu": profile.cpu, "calls": dict(profile.calls), **shares}
