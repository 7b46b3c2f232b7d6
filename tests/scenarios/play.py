"""Scenario scripts, played: `Play` goes through the steps of a script in a world, `Clocked` or `Wired`."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import attrs
import dns.message
import dns.rcode
import yaml

from tests.scenarios import said
from tests.scenarios.script import Entry, Script, Step

SERVER = "192.0.2.1"
_PROBES = b"\x04loop\x07meshdns\x07example\x00"


@attrs.define(eq=False)
class Asked:
    """A question that went upstream. `open`: the server has not answered yet; `looked_at`: by a step of the script."""

    address: str
    message: bytes
    tcp: bool
    back: Any  # how the world finds the way back
    open: bool = True
    looked_at: bool = False


@attrs.frozen
class Given:
    """An answer that a client got."""

    message: dns.message.Message

    def is_to(self, entry: Entry) -> bool:
        return said.is_about(entry, self.message)


class Hears(Protocol):
    """The script's side of the servers: what they do with a question that has just come."""

    def __call__(self, asked: Asked, /) -> None: ...


class World(Protocol):
    """Where an agent stands between clients and servers."""

    given: list[Given]
    slack: int  # seconds by which TTLs may be lower, where time passes by itself

    def start(self) -> None: ...

    def ask(self, packet: bytes, tcp: bool) -> None: ...

    def say(self, asked: Asked, message: bytes, *, elsewhere: bool, later: float) -> None: ...

    def fail(self, asked: Asked) -> None: ...

    def time_passes(self, seconds: float) -> None: ...

    def adopt(self, hosts: list[dict[str, Any]]) -> None: ...

    def until(self, true: Callable[[], bool]) -> None:
        """Waits for what must come, where the world has a time of its own."""

    def turn(self) -> None:
        """Carries what is there."""

    def settle(self) -> None:
        """Waits until nothing comes any more."""


@attrs.define
class Differs:
    """What a script written for others demands otherwise of us: `steps` are not compared, with the reason; `rcodes` are of
    answers that nobody looks at; `only_answer`: of records only those in the answer section are compared, at the steps
    given or at all; `do_is_edns`: DO stands for EDNS; `rd`: every query has RD."""

    steps: dict[int, str] = attrs.field(factory=dict)
    rcodes: dict[str, str] = attrs.field(factory=dict)
    only_answer: Sequence[int] | bool = False
    do_is_edns: bool = False
    rd: bool = False


class Play:
    """One script in one world. Whatever is not as the script says raises AssertionError with the step."""

    def __init__(self, script: Script, differs: Differs | None = None) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self._differs = differs or Differs()
        self._recent = 0  # asked before the last QUERY
        self._number = script.steps[0].number
        self._queries = 0
        self._world: World | None = None

    @property
    def world(self) -> World:
        assert self._world is not None
        return self._world

    def run(self, world: World) -> None:
        self._world = world
        world.start()
        for step in self.script.steps:
            self._number = step.number
            try:
                self.world.turn()
                self._answer_what_is_open()
                self.world.turn()
                getattr(self, f"_{step.kind.lower()}")(step)
            except AssertionError as problem:
                raise AssertionError(f"STEP {step.number} {step.kind}: {problem}") from problem
        world.settle()
        self._end()

    def _end(self) -> None:
        unexpected = {
            given.message.question[0].name.to_text(omit_final_dot=True): dns.rcode.to_text(given.message.rcode())
            for given in self.world.given
        }
        assert unexpected == self._differs.rcodes, f"answers that no step looked at: {self.world.given}"
        still_open = [
            f"{dns.message.from_wire(asked.message).question[0]} at {asked.address}" for asked in self._open()
        ]
        assert not still_open, f"questions upstream that were never answered: {still_open}"

    def _open(self, address: str | None = None) -> list[Asked]:
        return [asked for asked in self.asked if asked.open and address in (None, asked.address)]

    # from the world

    def hear(self, asked: Asked) -> None:
        """A question has come to a server."""
        if _PROBES in asked.message.lower():
            self._hear_probe(asked)
            return
        self.asked.append(asked)
        self._look_up(asked)

    def _hear_probe(self, asked: Asked) -> None:
        """Whoever says anything answers probes; a server that a range makes silent does not."""
        for entry in self._entries(asked.address):
            if "do_not_answer" in entry.adjust and entry.name is None:
                return
        answer = dns.message.make_response(dns.message.from_wire(asked.message))
        answer.set_rcode(dns.rcode.NXDOMAIN)
        self.world.say(asked, answer.to_wire(), elsewhere=False, later=0.0)

    def _entries(self, address: str) -> list[Entry]:
        ranges = [each for each in self.script.ranges if each.first <= self._number <= each.last]
        return [entry for each in ranges if each.address in (None, address) for entry in each.entries]

    def _look_up(self, asked: Asked) -> None:
        for entry in self._entries(asked.address):
            if said.matches(entry, asked.message, asked.tcp):
                self._say(asked, entry)
                return

    def _answer_what_is_open(self) -> None:
        for asked in self._open():
            if asked.open:
                self._look_up(asked)

    def _say(self, asked: Asked, entry: Entry) -> None:
        asked.open = "do_not_answer" not in entry.adjust and said.is_lie(entry, asked.message)
        if "do_not_answer" not in entry.adjust:
            later = float(entry.value("packet_sleep") or 0.0)
            elsewhere = "wrong_port" in entry.adjust
            self.world.say(asked, said.reply(entry, asked.message), elsewhere=elsewhere, later=later)

    # The steps

    def _query(self, step: Step) -> None:
        assert step.entry is not None
        entry = step.entry
        if self._differs.do_is_edns:
            entry.reply = ["EDNS" if word == "DO" else word for word in entry.reply]
        if self._differs.rd:
            entry.reply = ["RD", *entry.reply]
        self._queries += 1
        self._recent = len(self.asked)
        self.world.ask(said.query(entry, self._queries).to_wire(), "TCP" in entry.match)

    def _check_out_query(self, step: Step) -> None:
        assert step.entry is not None
        address = step.option("ADDRESS")
        self.world.until(lambda: bool(self._unseen(address)))
        unseen = self._unseen(address)
        assert unseen, f"no question went to {address or 'any server'}"
        asked = unseen[0]
        asked.looked_at = True
        told = f"{dns.message.from_wire(asked.message).to_text()}\nwas asked over {'TCP' if asked.tcp else 'UDP'}"
        assert said.matches(step.entry, asked.message, asked.tcp), told

    def _unseen(self, address: str | None = None) -> list[Asked]:
        return [
            asked
            for number, asked in enumerate(self.asked)
            if not asked.looked_at and address in (None, asked.address) and (asked.open or number >= self._recent)
        ]

    def _no_out_query(self, step: Step) -> None:
        self.world.settle()
        unseen = self._unseen(step.option("ADDRESS"))
        assert not unseen, f"asked upstream: {[str(dns.message.from_wire(each.message)) for each in unseen]}"

    def _reply(self, step: Step) -> None:
        assert step.entry is not None
        entry, address = step.entry, step.option("ADDRESS")

        def meant() -> list[Asked]:
            return [asked for asked in self._open(address) if said.matches(entry, asked.message, asked.tcp)]

        self.world.until(lambda: bool(meant()))
        assert meant(), "no question waits for this reply"
        asked = meant()[0]
        asked.looked_at = True
        self._say(asked, entry)

    def _check_answer(self, step: Step) -> None:
        assert step.entry is not None
        entry, differs = step.entry, self._differs
        self.world.until(lambda: any(given.is_to(entry) for given in self.world.given))
        given = next((given for given in self.world.given if given.is_to(entry)), None)
        assert given is not None, f"there is no such answer, but {self.world.given}"
        self.world.given.remove(given)
        if step.number in differs.steps:
            return
        if differs.do_is_edns:
            entry.reply = [word for word in entry.reply if word != "DO"]
        if differs.rd:
            entry.reply = ["RD", *entry.reply]
        few = differs.only_answer if isinstance(differs.only_answer, bool) else step.number in differs.only_answer
        problems = list(said.differences(entry, given.message, only_answer=few, slack=self.world.slack))
        assert not problems, "\n".join([*problems, given.message.to_text()])

    def _no_answer(self, step: Step) -> None:
        self.world.settle()
        assert not self.world.given, f"{self.world.given}"

    def _time_passes(self, step: Step) -> None:
        self.world.time_passes(float(step.option("ELAPSE") or 0))

    def _timeout(self, step: Step) -> None:
        asked = self._open(step.option("ADDRESS"))[0]
        asked.open, asked.looked_at = False, True
        self.world.time_passes(2.0)

    def _error(self, step: Step) -> None:
        waiting = self._open(step.option("ADDRESS"))
        assert waiting, "nothing was asked that could fail"
        waiting[0].open, waiting[0].looked_at = False, True
        self.world.fail(waiting[0])

    def _nothing(self, step: Step) -> None:
        """Something may happen by itself."""

    _traffic = _nothing

    def _table(self, step: Step) -> None:
        self.world.adopt([json.loads(line) for line in step.body])

    def _wall_clock(self, step: Step) -> None:
        """`Clocked` has no wall clock; test_scenarios steps the one that a bad import would read."""
        STEPPED[0] += float(step.words[0])


STEPPED = [0.0]  # by how many seconds the wall clock is wrong


def sections(config: list[str]) -> dict[str, Any]:
    """What a script of ours configures."""
    return yaml.safe_load("\n".join(line for line in config if not line.lstrip().startswith(";"))) or {}
