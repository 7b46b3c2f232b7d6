"""Our own scenarios, one test per script: each names the contract rule that it holds in its first line."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.stage import Stage
from tests.scenarios import play, script
from tests.scenarios.clocked import Clocked
from tests.scenarios.play import SERVER, Play
from tests.scenarios.sockets import Wired

FOLDER = Path(__file__).parent
SCRIPTS = {path.stem: script.read(path.read_text()) for path in sorted(FOLDER.glob("*.rpl"))}
_TIMED = frozenset({"TIME_PASSES", "TIMEOUT", "ERROR", "WALL_CLOCK"})


def needs_no_time(read: script.Script) -> bool:
    """Whether a real agent can play it: no time passes, one server (the order of several depends on how fast they are),
    nothing goes over TCP, and nobody is suspected of changing the case, who would be asked anew a moment later."""
    config = play.sections(read.config)
    entries = [step.entry for step in read.steps if step.entry] + [each for one in read.ranges for each in one.entries]
    words = {word.partition("=")[0] for entry in entries for word in (*entry.match, *entry.adjust)}
    return (
        not _TIMED & {step.kind for step in read.steps}
        and not words & {"TCP", "do_not_answer", "packet_sleep", "wrong_case"}
        and len(config.get("upstream", {}).get("servers", ())) < 2
        and "resolv.conf" not in config
    )


class ScenarioTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(play.STEPPED.__setitem__, 0, 0.0)
        right = time.time
        self.patch(time, "time", lambda: right() + play.STEPPED[0])

    short = True  # plain questions take the short way, as at a real door

    def play(self, read: script.Script) -> None:
        played = Play(read)
        world = Clocked(play.sections(read.config), played.hear, self.short)
        played.run(world)
        self.assertEqual(0, world.inflight)

    def test_each_names_its_rule(self) -> None:
        for name, read in SCRIPTS.items():
            self.assertTrue(re.match(r"(D\d+|Bad days)[,:]", read.rule), f"{name}: {read.rule}")


class OrdinaryWayTests(ScenarioTests):
    """The same without the short way: both give the same answers."""

    short = False


class OverSocketsTests(Stage):
    """Those that need no time to pass, with a real agent between a real client and a UDP server."""

    def play(self, read: script.Script) -> None:
        config = play.sections(read.config)

        def stated(servers: Sequence[str]) -> dict[str, Any]:
            return {**config, "upstream": {"servers": list(servers), **config.get("upstream", {})}}

        played = Play(read)
        played.run(Wired(self, [SERVER], stated, played.hear))


def _add_tests() -> None:
    """One test per script, so that one that fails hides no other."""
    for name, read in SCRIPTS.items():
        for case in (ScenarioTests, OverSocketsTests) if needs_no_time(read) else (ScenarioTests,):

            def test(self: Any, read: script.Script = read) -> None:
                self.play(read)

            test.__name__, test.__doc__ = f"test_{name}", read.rule
            setattr(case, test.__name__, test)


_add_tests()
