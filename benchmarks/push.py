"""From a manifest's rename on disk to the first new answer of an agent, while many others are connected and served as well.

One agent is real, and asked all the time; it starts after the others, which are simulated by `fleet`, in one process.
"""

import random
import socket
import statistics
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import dns.rdatatype

from benchmarks import asking, client, helper, machine, plane, processes, world
from benchmarks.helper import Helper
from benchmarks.job import Done, Setting
from benchmarks.plane import Plane
from benchmarks.processes import CannotMeasure
from benchmarks.report import Page, percentile, verdict
from benchmarks.servers import agent
from meshdns.defaults import DEBOUNCE_QUIET, FILES_POLL

WORD = "push"
POLLERS = (1, 100, 5000)
NAMESPACES, SERVICES = 250, 4  # of the mesh, a file each, and services in each
BAR_POLLERS = 5000
BAR = 0.5 + DEBOUNCE_QUIET  # seconds from rename to answer at most, of 99 in 100, with so many
BAR_MEMORY = 80_000  # octets of a parked poll
_PAUSE = 0.001  # seconds between an answer and the next question
_ANSWER = 1.0  # seconds for an answer
_PATIENCE = 60.0  # seconds for a push to be with everybody
_IDLE = 5.0  # seconds in which it is seen what a control plane takes with nothing to do
_WAITED = 0.02  # share of the time that others may have its core before the turn is called disturbed
_SEED = 20_001


@attrs.frozen
class Pushed:
    """One change: seconds from its rename to the real agent's answer, and until it came in at each of the others; CPU of the
    control plane for it, in seconds."""

    agent: float
    fleet: Sequence[float]
    cpu: float


@attrs.frozen
class Turn:
    """So many pollers. `memory` is what the control plane grew by for each simulated one, in octets; `waited` the share of
    the time in which others had its core."""

    pollers: int
    pushes: Sequence[Pushed]
    memory: float | None
    waited: float

    def agent(self, share: float) -> float:
        return percentile([each.agent for each in self.pushes], share)

    def fleet(self, share: float) -> float | None:
        """Of all that the simulated ones had."""
        found = [came for each in self.pushes for came in each.fleet]
        return percentile(found, share) if found else None

    @property
    def p99(self) -> float:
        """What counts: a real agent may be lucky in its place among so many."""
        return max(self.agent(0.99), self.fleet(0.99) or 0.0)

    def data(self) -> dict[str, object]:
        """Of thousands of simulated ones only some figures for each change."""
        pushes = [
            {"agent": each.agent, "cpu": each.cpu}
            | {f"fleet_p{share * 100:.0f}": percentile(each.fleet, share) for share in (0, 0.5, 0.99, 1) if each.fleet}
            for each in self.pushes
        ]
        return {"pollers": self.pollers, "pushes": pushes, "memory": self.memory, "waited": self.waited}


def renames(options: Namespace, pollers: int) -> int:
    return int(options.renames or (100 if pollers < 1000 else 50))


def duration(options: Namespace) -> float:
    turns = [(pollers, renames(options, pollers)) for pollers in options.pollers or POLLERS]
    return sum(_IDLE + 8 + pollers * 0.004 + many * (1.0 + pollers * 0.0006) for pollers, many in turns)


def run(setting: Setting) -> Done:
    turns = []
    for pollers in setting.options.pollers or POLLERS:
        helper.allow_descriptors(pollers)
        directory = setting.directory / f"with-{pollers}"
        directory.mkdir()
        with machine.on(setting.used.load):
            turns.append(_turn(pollers, renames(setting.options, pollers), attrs.evolve(setting, directory=directory)))
    return Done(page(turns), {"case": WORD, "turns": [each.data() for each in turns]})


def _turn(pollers: int, many: int, setting: Setting) -> Turn:
    manifests = setting.directory / "manifests"
    world.write(manifests, NAMESPACES, SERVICES)
    with ExitStack() as stack:
        control = stack.enter_context(plane.plane(setting.directory / "control", manifests, setting.used.server))
        control.first_table(_PATIENCE)[0].close()  # from now on the table is made
        fleet, memory = None, None
        if pollers > 1:
            before = machine.memory(control.process.pid)
            fleet = stack.enter_context(_fleet(control, pollers - 1, setting))
            memory = (machine.memory(control.process.pid) - before) / (pollers - 1)
        asker = stack.enter_context(_asked(control, setting))
        _await_parked(control, pollers)
        setting.tell(f"{WORD}: {pollers:,} pollers are parked")
        began, waited = time.monotonic(), machine.waited_seconds(control.process.pid)
        pushes = list(_pushes(many, control, fleet, asker, manifests))
        waited = (machine.waited_seconds(control.process.pid) - waited) / (time.monotonic() - began)
    turn = Turn(pollers, pushes, memory, waited)
    setting.tell(
        f"{WORD}: {pollers:,} pollers: p50 {turn.agent(0.5) * 1e3:.0f} ms, p99 {turn.agent(0.99) * 1e3:.0f} ms"
    )
    return turn


@contextmanager
def _fleet(control: Plane, count: int, setting: Setting) -> Iterator[Helper]:
    """The simulated pollers, all parked."""
    words = [control.port, control.ca, control.token, plane.CLUSTER, count]
    with helper.helper("benchmarks.fleet", words, setting.used.load, setting.directory / "fleet.log") as fleet:
        fleet.hear(_PATIENCE + count * 0.02)  # all have the first table
        _await_parked(control, count)
        yield fleet


def _await_parked(control: Plane, count: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while (parked := control.parked()) != count:
        if time.monotonic() > deadline:
            raise CannotMeasure(f"The control plane has {parked:,} parked polls instead of {count:,}.")
        time.sleep(0.1)


def _pushes(many: int, control: Plane, fleet: Helper | None, asker: "_Asker", manifests: Path) -> Iterator[Pushed]:
    idle = control.idle(_IDLE)
    chance = random.Random(_SEED)
    for version in range(1, many + 1):
        before, began = control.cpu(), time.monotonic()
        text = world.namespace_text(0, SERVICES, version)
        renamed = plane.replace(manifests.with_name("new"), text, manifests / "ns0.yaml")
        answered = asker.await_address(world.address(0, version))
        others = [came - renamed for came in fleet.hear(_PATIENCE)["came"]] if fleet else []
        control.rest()  # until all are parked again
        time.sleep(FILES_POLL * chance.random())  # so that looks and renames have no rhythm in common
        cpu = control.cpu() - before - idle * (time.monotonic() - began)
        yield Pushed(answered - renamed, others, cpu)


class _Asker:
    """A client of the real agent, that asks for one host again and again."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.settimeout(_ANSWER)
        self._socket.connect(("127.0.0.1", port))
        self._query = client.query(0, world.host(0, "ns0"), dns.rdatatype.A)[2:]
        self._asked = 0

    def close(self) -> None:
        self._socket.close()

    def await_address(self, wanted: str) -> float:
        """When the first answer with this address came."""
        deadline = time.monotonic() + _PATIENCE
        end = socket.inet_aton(wanted)  # the question asks for no OPT, so the address is the last there is
        while time.monotonic() < deadline:
            reply = self._ask()
            if reply.endswith(end):
                return time.monotonic()
            time.sleep(_PAUSE)
        raise CannotMeasure(f"The agent did not come to answer {wanted} within {_PATIENCE:.0f} s.")

    def _ask(self) -> bytes:
        self._asked = self._asked + 1 & 0xFFFF
        own = self._asked.to_bytes(2)
        try:
            self._socket.send(own + self._query)
            while not (reply := self._socket.recv(4096)).startswith(own):
                pass
        except OSError as error:
            raise CannotMeasure(f"The agent does not answer: {error}") from None
        return reply


@contextmanager
def _asked(control: Plane, setting: Setting) -> Iterator[_Asker]:
    """The real agent, which holds its table, and its client."""
    directory = setting.directory / "agent"
    directory.mkdir()
    server = agent(directory, control.said_to_agents(directory))
    with processes.running(server.command, setting.used.load, directory / "log", server.environment) as process:
        asking.wait_until_up(server, process, world.host(0, "ns0"))
        asker = _Asker(server.port)
        try:
            asker.await_address(world.address(0, 0))
            yield asker
        finally:
            asker.close()


# For the reader


def page(turns: Sequence[Turn]) -> Page:
    head = ["pollers", "changes", "agent p50 ms", "agent p99 ms", "others p50 ms", "others p99 ms", "others most ms"]
    head += ["CPU ms/change", "KB/parked poll"]
    return Page("From a renamed manifest to an agent's answer", WORD, [head, *map(_row, turns)], list(notes(turns)))


def _row(turn: Turn) -> list[str]:
    return [
        f"{turn.pollers:,}{' (!)' if turn.waited > _WAITED else ''}",
        f"{len(turn.pushes)}",
        *(f"{each * 1e3:.0f}" for each in (turn.agent(0.5), turn.agent(0.99))),
        *("" if (came := turn.fleet(share)) is None else f"{came * 1e3:.0f}" for share in (0.5, 0.99, 1.0)),
        f"{statistics.median(each.cpu for each in turn.pushes) * 1e3:.1f}",
        "" if turn.memory is None else f"{turn.memory / 1e3:.1f}",
    ]


def notes(turns: Sequence[Turn]) -> Iterator[str]:
    """The bars, for as many pollers as they are meant for; and what should not be trusted."""
    for turn in turns:
        if turn.pollers >= BAR_POLLERS and turn.memory is not None:
            who = f"with {turn.pollers:,} pollers"
            yield f"{who}, p99 below {BAR * 1e3:.0f} ms: {verdict(turn.p99, BAR)}, {turn.p99 * 1e3:.0f} ms"
            told = verdict(turn.memory, BAR_MEMORY)
            yield f"{who}, a parked poll below {BAR_MEMORY / 1e3:.0f} KB: {told}, {turn.memory / 1e3:.1f} KB"
    if all(turn.pollers < BAR_POLLERS for turn in turns):
        yield f"the bars are meant for {BAR_POLLERS:,} pollers"
    for turn in turns:
        if turn.waited > _WAITED:
            yield f"(!) {turn.pollers:,} pollers: others had the control plane's core for {turn.waited:.0%} of the time"
