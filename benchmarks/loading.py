"""How long a client waits for a mesh answer while the agent takes in a large table, whole or host by host.

The control plane is `source`, which has all packed beforehand. It and the client share a core; the agent has the other one.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from socket import inet_aton

import attrs

from benchmarks import asking, machine, processes, serving, source
from benchmarks.helper import Helper
from benchmarks.job import Done, Setting
from benchmarks.pace import RATE, Asked, Pacer
from benchmarks.plane import replace
from benchmarks.report import Page, verdict
from benchmarks.servers import agent

WORD = "loading"
ROUNDS = 3  # loads of each kind
SECONDS = 10.0  # of deltas, and of nothing
DELTAS = 10  # a second
BAR_HOSTS = 100_000
BAR = 0.005  # seconds for 99 of 100 answers
_BEFORE = 1.0  # seconds that what the last table left behind has to be over
_AFTER = 0.5  # seconds that still belong to a load once its table is in force: the old one is let go
_PATIENCE = 60.0  # seconds for a table to be in force, and for its snapshot to begin
_WAITED = 0.02  # share of the time that others may have the agent's core before a row is called disturbed


@attrs.frozen
class Phase:
    """What went on, how often, and how long answers took meanwhile; `load` is how long it was until the new table answered,
    on average; `waited` the share of the time in which others had the agent's core."""

    what: str
    times: int
    asked: Asked
    waited: float
    load: float | None = None
    bar: bool = True


def duration(options: Namespace) -> float:
    return float(4 * SECONDS + options.hosts * 0.0006)


def run(setting: Setting) -> Done:
    hosts = setting.options.hosts
    with machine.on(setting.used.load):
        phases = [*_from_control_plane(hosts, setting), *_from_file(hosts, setting)]
    return Done(page(phases, hosts), {"case": WORD, "phases": [attrs.asdict(each) for each in phases]})


class _Client:
    """Who asks the agent in `phase` after phase."""

    def __init__(self, port: int, process: int, pacer: Pacer) -> None:
        self._port = port
        self._process = process
        self._pacer = pacer

    def idle(self, what: str, seconds: float) -> Phase:
        return self._phase(what, 1, lambda: self._pacer.ask(_for(seconds), seconds + _PATIENCE), bar=False)

    def loads(self, what: str, start: Callable[[str], None], ways: Sequence[tuple[str, str]]) -> Phase:
        """Each way leads from a table, which is brought into force first, to the one that is loaded."""
        asked, loads, waited = Asked([], 0, 0.0), 0.0, 0.0
        for before, after in ways:
            start(before)
            self._until(before, 0.0)
            self._pacer.ask(_for(_BEFORE), _PATIENCE)
            already = self._waited()
            start(after)
            found = self._until(after, _AFTER)
            waited += self._waited() - already
            asked += found
            loads += found.seconds - _AFTER
        return Phase(what, len(ways), asked, waited / asked.seconds, loads / len(ways))

    def deltas(self, what: str, change: Callable[[str], None]) -> Phase:
        """Ten a second, each of which gives the first host another address; the last one must come into force."""
        begun, made = time.monotonic(), 0

        def over() -> bool:
            nonlocal made
            now = time.monotonic() - begun
            if now >= SECONDS:
                return True
            if now * DELTAS >= made:
                made += 1
                change(_address(made))
            return False

        phase = self._phase(what, 1, lambda: self._pacer.ask(over, SECONDS + _PATIENCE))
        with closing(Pacer(self._port, [source.host(0)])) as changed:
            changed.ask(lambda: changed.address == inet_aton(_address(made)), _PATIENCE)
        return attrs.evolve(phase, times=made)

    def writing(self, what: str, start: Callable[[str], None], snapshot: Path) -> Phase:
        """As long as the snapshot of another table is being written; until then the file has another name."""
        new, before = snapshot.with_name(f"{snapshot.name}.new"), snapshot.stat().st_ino
        start("one")
        self._pacer.ask(lambda: new.exists() or snapshot.stat().st_ino != before, _PATIENCE)
        return self._phase(what, 1, lambda: self._pacer.ask(lambda: not new.exists(), _PATIENCE))

    def _phase(self, what: str, times: int, ask: Callable[[], Asked], bar: bool = True) -> Phase:
        already = self._waited()
        asked = ask()
        return Phase(what, times, asked, (self._waited() - already) / asked.seconds, bar=bar)

    def _until(self, name: str, after: float) -> Asked:
        """Until a table answers, and a little longer."""
        version = source.TABLES.index(name)
        there: list[float] = []

        def over() -> bool:
            if not there and source.version(self._pacer.address) == version:
                there.append(time.monotonic())
            return bool(there) and time.monotonic() - there[0] >= after

        return self._pacer.ask(over, _PATIENCE)

    def _waited(self) -> float:
        return machine.waited_seconds(self._process)


def _address(change: int) -> str:
    return source.address(change, 3)


def _for(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


@contextmanager
def _asked(directory: Path, table: str, setting: Setting) -> Iterator[_Client]:
    """An agent with this table, and its client."""
    server = agent(directory, table)
    with processes.running(server.command, setting.used.server, directory / "log", server.environment) as process:
        hosts = [source.host(number) for number in range(min(source.SMALL, setting.options.hosts))]
        asking.wait_until_up(server, process, hosts[0])
        pacer = Pacer(server.port, hosts)
        try:
            yield _Client(server.port, process.pid, pacer)
        finally:
            pacer.close()


def _ways() -> tuple[Sequence[tuple[str, str]], Sequence[tuple[str, str]]]:
    """From the small table to a large one, and from one large to the other."""
    return [("small", "one")] * ROUNDS, [("one", "two"), ("two", "one")] * (ROUNDS // 2) + [("one", "two")] * (
        ROUNDS % 2
    )


def _from_control_plane(hosts: int, setting: Setting) -> Iterator[Phase]:
    directory = setting.directory / "follower"
    with serving.tables(directory, hosts, setting.used.load) as (tables, table):
        table = table.removesuffix("}") + ", snapshot: snapshot.jsonl}"
        with _asked(directory, table, setting) as asker:
            yield from _followed(asker, tables, directory, setting)


def _followed(asker: _Client, tables: Helper, directory: Path, setting: Setting) -> Iterator[Phase]:
    first, second = _ways()
    many = f"{setting.options.hosts:,}"

    def show(name: str) -> None:
        tables.say(show=name)
        tables.hear(_PATIENCE)

    for phase in (
        lambda: asker.idle("nothing happens", SECONDS),
        lambda: asker.loads(f"control plane: {many} hosts come", show, first),
        lambda: asker.loads(f"control plane: {many} others come", show, second),
        lambda: asker.writing("the snapshot is written", show, directory / "snapshot.jsonl"),
        lambda: asker.deltas(f"control plane: {DELTAS} deltas a second", lambda ip: tables.say(change=ip)),
    ):
        done = phase()
        setting.tell(f"{WORD}: {done.what}: p99 {done.asked.percentile(0.99) * 1e3:.2f} ms")
        yield done


def _from_file(hosts: int, setting: Setting) -> Iterator[Phase]:
    directory = setting.directory / "reader"
    directory.mkdir()
    texts = {name: source.text(table).decode() for name, table in source.tables(hosts).items()}
    (directory / "table.jsonl").write_text(texts["small"])

    def put(name: str) -> None:
        replace(directory / "new", texts[name], directory / "table.jsonl")

    first, second = _ways()
    many = f"{hosts:,}"
    with _asked(directory, "{file: table.jsonl}", setting) as asker:
        for what, ways in ((f"file: {many} hosts come", first), (f"file: {many} others come", second)):
            done = asker.loads(what, put, ways)
            setting.tell(f"{WORD}: {done.what}: p99 {done.asked.percentile(0.99) * 1e3:.2f} ms")
            yield done


# For the reader


def page(phases: Sequence[Phase], hosts: int) -> Page:
    head = ["meanwhile", "times", "s each", "questions", "a second", "p50 ms", "p99 ms", "p99.9 ms", "most ms"]
    title = f"Mesh answers at {RATE:,} questions a second while tables of {hosts:,} hosts load"
    return Page(title, WORD, [head, *map(_row, phases)], list(notes(phases, hosts)))


def _row(phase: Phase) -> list[str]:
    asked = phase.asked
    return [
        phase.what + (" (!)" if phase.waited > _WAITED or asked.lost else ""),
        str(phase.times),
        "" if phase.load is None else f"{phase.load:.1f}",
        f"{len(asked.took):,}",
        f"{asked.rate:,.0f}",
        *(f"{asked.percentile(share) * 1e3:.2f}" for share in (0.5, 0.99, 0.999, 1.0)),
    ]


def notes(phases: Sequence[Phase], hosts: int) -> Iterator[str]:
    """The bars, and the rows that should not be trusted."""
    for phase in phases:
        if phase.bar:
            found = phase.asked.percentile(0.99)
            yield f"{phase.what}: p99 below {BAR * 1e3:.0f} ms: {verdict(found, BAR)}, {found * 1e3:.2f} ms"
    if hosts < BAR_HOSTS:
        yield f"the bars are meant for {BAR_HOSTS:,} hosts"
    for phase in phases:
        if phase.asked.lost:
            yield f"(!) {phase.what}: {phase.asked.lost:,} questions were not answered"
        if phase.waited > _WAITED:
            yield f"(!) {phase.what}: others had the agent's core for {phase.waited:.0%} of the time"
