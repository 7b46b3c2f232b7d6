"""What an agent beside an application takes that nobody asks anything: resident memory, and the time from its start to its first
right answer.

Memory is compared with that of a process that imports the same libraries and does nothing else.
"""

import socket
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import dns.rdatatype

from benchmarks import client, machine, plane, processes, source, world
from benchmarks.job import Done, Setting
from benchmarks.processes import CannotMeasure, free_port, last_words
from benchmarks.report import Page, Spread, verdict
from benchmarks.servers import Server, agent
from meshdns.agent import snapshot
from meshdns.cli.demo import make_certificates

WORD = "footprint"
STARTS = 5  # of each kind
HOSTS = 1000
NAMESPACES = 10  # of the control plane's mesh
MANY = 100_000  # hosts of the snapshot
SETTLE = 2.0  # seconds for an agent to come to rest
BAR_ABOVE = 6e6  # octets above the bare imports
_PATIENCE = 60.0  # seconds for a first answer
_ANSWER = 0.2  # seconds for an answer before it is asked again
_LOOK = 0.002  # seconds between two looks whether there is one
_WAITED = 0.02  # share of the time that others may have the agent's core before a row is called disturbed

# The libraries of an agent, as what it imports brings them along, without its own modules.
_USED = """\
import sys
from twisted.scripts.twistd import runApp
from twisted.scripts._twistd_unix import ServerOptions
list(ServerOptions().subCommands)
from meshdns import daemon
daemon.small_reactor()
import meshdns.agent.service, {more}
print(*(name for name in sys.modules if name.partition(".")[0] not in ("meshdns", "__main__")))
"""
_BARE = """\
import sys
from importlib import import_module
wanted = sys.stdin.read().split()
sys.modules["OpenSSL"] = None  # until its turn comes: Twisted's reactor would have it at once
for name in wanted:
    if name == "OpenSSL":
        del sys.modules["OpenSSL"]
    try:
        import_module(name)
    except ModuleNotFoundError:  # another module brings it along
        pass
print(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
"""


@attrs.frozen
class Kind:
    """One kind of agent: where its tables come from, in a word and in some; what of our own it imports beyond what every
    agent does; and the bars with so many hosts: octets resident, and seconds to the first right answer."""

    word: str
    what: str
    more: str
    hosts: int
    memory: float | None
    seconds: float


FILE = Kind("file", "a table file", "meshdns.agent.tablefile", HOSTS, 42e6, 0.6)
_TLS = "meshdns.agent.poller, meshdns.agent.subscription, meshdns.net.tls"
CONTROL_PLANE = Kind("control", "a control plane", _TLS, HOSTS, 56e6, 0.6)
SNAPSHOT = Kind("snapshot", "a snapshot, no control plane there", _TLS, MANY, None, 1.5)


@attrs.frozen
class Start:
    """One start: seconds to the first right answer and CPU seconds of them, resident octets once it is at rest, and the share of
    the time in which others had the core."""

    seconds: float
    cpu: float
    memory: int
    waited: float


@attrs.frozen
class Found:
    """All starts of a kind, with so many hosts; `bare` is octets resident of a process that imports what these agents use."""

    kind: Kind
    hosts: int
    starts: Sequence[Start]
    bare: int

    @property
    def seconds(self) -> Spread:
        return Spread.of([each.seconds for each in self.starts])

    @property
    def memory(self) -> float:
        return statistics.median(each.memory for each in self.starts)

    @property
    def waited(self) -> float:
        return statistics.median(each.waited for each in self.starts)


def duration(options: Namespace) -> float:
    return float((2 * STARTS + 3) * (SETTLE + 1) + STARTS * 2 + 15)


def run(setting: Setting) -> Done:
    with machine.on(setting.used.load):
        found = [
            _measured(FILE, _table_file, HOSTS, setting),
            _measured(CONTROL_PLANE, _control_plane, HOSTS, setting),
            _measured(SNAPSHOT, _snapshot, setting.options.snapshot_hosts, setting),
        ]
    return Done(page(found), {"case": WORD, "found": [attrs.asdict(each) for each in found]})


@attrs.frozen
class Table:
    """What an agent's configuration says as `table`, and a host of it with its address. `fresh` is called before each start."""

    said: str
    host: str
    address: str
    fresh: Callable[[], object] = lambda: None


Tables = Callable[[Path, int, Setting], AbstractContextManager[Table]]


def _measured(kind: Kind, tables: Tables, hosts: int, setting: Setting) -> Found:
    directory = setting.directory / kind.word
    directory.mkdir()
    with tables(directory, hosts, setting) as table:
        server = _as_installed(agent(directory, table.said))
        starts = [_started(server, table, setting.used.server) for _ in range(1 + STARTS)][1:]  # the first one compiles
    found = Found(kind, hosts, starts, _bare(kind))
    setting.tell(f"{WORD}: {kind.what}: {found.memory / 1e6:.1f} MB, {found.seconds.text('.2f')} s")
    return found


def _as_installed(server: Server) -> Server:
    """What a user starts: not the checkout, for which Twisted reads all plugins each time; and its status page is open."""
    configuration = server.configuration.replace("status: off", f"status: 127.0.0.1:{free_port()}")
    (server.directory / "agent.yaml").write_text(configuration)
    return attrs.evolve(server, configuration=configuration, environment=None)


def _started(server: Server, table: Table, core: int) -> Start:
    table.fresh()
    began = time.monotonic()
    with processes.running(server.command, core, server.directory / "log", server.environment) as process:
        _await_answer(server, process, table)
        seconds = time.monotonic() - began
        cpu, waited = machine.cpu_seconds(process.pid), machine.waited_seconds(process.pid) / seconds
        time.sleep(SETTLE)
        return Start(seconds, cpu, machine.memory(process.pid), waited)


def _await_answer(server: Server, process: subprocess.Popen[bytes], table: Table) -> None:
    """Ask until the right address comes."""
    question, deadline = client.query(1, table.host, dns.rdatatype.A), time.monotonic() + _PATIENCE
    with socket.socket(type=socket.SOCK_DGRAM) as asker:
        asker.connect(("127.0.0.1", server.port))
        asker.settimeout(_ANSWER)
        while time.monotonic() < deadline:
            with suppress(OSError):  # nobody is there yet
                asker.send(question)
                if table.address in client.addresses(asker.recv(4096), dns.rdatatype.A):
                    return
            if process.poll() is not None:
                raise CannotMeasure(f"The agent ended at its start:\n{last_words(server.directory / 'log')}")
            time.sleep(_LOOK)
    raise CannotMeasure(f"The agent gave no right answer within {_PATIENCE:.0f} s of its start.")


def _bare(kind: Kind) -> int:
    """Octets resident of a process that imports the libraries which such an agent uses."""
    used = _said(_USED.format(more=kind.more), "")
    return int(_said(_BARE, used)) * 1024


def _said(script: str, to: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd="/",
        input=to,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    if done.returncode:
        raise CannotMeasure(f"The libraries of an agent cannot be imported:\n{done.stderr}")
    return done.stdout


# Where the tables of these agents come from


@contextmanager
def _table_file(directory: Path, hosts: int, setting: Setting) -> Iterator[Table]:
    table = source.tables(hosts)["small"]
    (directory / "table.jsonl").write_bytes(source.text(table))
    yield Table("{file: table.jsonl}", source.host(hosts - 1), source.address(hosts - 1, 0))


@contextmanager
def _control_plane(directory: Path, hosts: int, setting: Setting) -> Iterator[Table]:
    """A real one; the agent keeps a snapshot, and begins without."""
    manifests = directory / "manifests"
    world.write(manifests, NAMESPACES, hosts // NAMESPACES)
    with plane.plane(directory / "control", manifests, setting.used.load) as control:
        control.first_table(_PATIENCE)[0].close()
        said = control.said_to_agents(directory).removesuffix("}") + ", snapshot: snapshot.jsonl}"
        fresh = partial((directory / "snapshot.jsonl").unlink, missing_ok=True)
        yield Table(said, world.host(0, "ns0"), world.address(0, 0), fresh)


@contextmanager
def _snapshot(directory: Path, hosts: int, setting: Setting) -> Iterator[Table]:
    """And nobody to follow."""
    make_certificates(directory)
    snapshot.write(str(directory / "snapshot.jsonl"), source.tables(hosts)["one"])
    said = plane.control_plane(free_port(), directory / "root.pem", "none", directory)
    said = said.removesuffix("}") + ", snapshot: snapshot.jsonl}"
    yield Table(said, source.host(hosts - 1), source.address(hosts - 1, 1))


# For the reader


def page(found: Sequence[Found]) -> Page:
    head = [
        "tables from",
        "hosts",
        "resident MB",
        "bare imports MB",
        "above these MB",
        "first right answer, s",
        "CPU for it, s",
    ]
    return Page("An agent that nobody asks", WORD, [head, *map(_row, found)], list(notes(found)))


def _row(found: Found) -> list[str]:
    return [
        found.kind.what + (" (!)" if found.waited > _WAITED else ""),
        f"{found.hosts:,}",
        f"{found.memory / 1e6:.1f}",
        f"{found.bare / 1e6:.1f}",
        f"{(found.memory - found.bare) / 1e6:.1f}",
        found.seconds.text(".2f"),
        Spread.of([each.cpu for each in found.starts]).text(".2f"),
    ]


def notes(found: Sequence[Found]) -> Iterator[str]:
    """The bars, and the rows that should not be trusted."""
    for each in found:
        what, bar, above = each.kind.what, each.kind.memory, each.memory - each.bare
        if bar is not None:
            yield f"{what}: below {bar / 1e6:.0f} MB: {verdict(each.memory, bar)}, {each.memory / 1e6:.1f} MB"
            yield f"{what}: at most {BAR_ABOVE / 1e6:.0f} MB above its imports: {verdict(above, BAR_ABOVE)}, {above / 1e6:.1f} MB"
        seconds, most = each.seconds.median, each.kind.seconds
        yield f"{what}: first right answer below {most:.1f} s: {verdict(seconds, most)}, {seconds:.2f} s"
        if each.hosts < each.kind.hosts:
            yield f"{what}: the bars are meant for {each.kind.hosts:,} hosts"
        if each.waited > _WAITED:
            yield f"(!) {what}: others had the agent's core for {each.waited:.0%} of the time"
