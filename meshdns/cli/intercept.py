"""Root: `meshdns intercept`. The words say what to do with this machine's redirect; it is done, and what was done leaves."""

import argparse
import os
import signal
import time
from collections.abc import Sequence
from threading import Event

from meshdns import defaults
from meshdns.agent.config import AgentConfig
from meshdns.cli import DONE, FAILED, agent, machine, proof
from meshdns.cli.agent import Stop
from meshdns.cli.screen import complain, say, show_json
from meshdns.host import resolvconf, resolvfile
from meshdns.host.netfilter import REDIRECTS, Refused
from meshdns.host.redirect import Plan
from meshdns.values import Endpoint

_ACTIONS = {
    "print": "show what up would do",
    "up": "put the redirect up, or bring it up to date",
    "down": "take it away again, whatever put it up",
    "verify": "prove with real queries that it works, or say which step does not",
    "hold": "up, and then follow resolv.conf until told to end; what it put up stays",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Redirect the DNS queries of this machine's applications to the agent."
    actions = "; ".join(f"{action}: {what}" for action, what in _ACTIONS.items())
    parser.add_argument("action", choices=tuple(_ACTIONS), help=actions)
    parser.add_argument("--all", action="store_true", help="queries to every server, not only to those of resolv.conf")
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument(
        "--user",
        default=defaults.INTERCEPT_USER,
        help="whose process the agent is; its queries are never redirected (default: %(default)s)",
    )
    whose.add_argument("--uid", type=_uid, metavar="NUMBER", help="the same, as a number")
    parser.add_argument(
        "--spare", action="append", default=[], metavar="USER", help="a further user whose queries are not redirected"
    )
    parser.add_argument(
        "--mode", choices=machine.MODES, default=machine.AUTO, help="how (default: the first that this machine allows)"
    )


def _uid(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or int(text) >= (1 << 32) - 1:
        raise argparse.ArgumentTypeError(f'"{text}" is not the number of a user')
    return int(text)


def run(args: argparse.Namespace) -> int:
    if args.action == "hold":
        return _Hold(args).run()
    if args.action == "down":  # a broken configuration must not keep the redirect up
        try:
            return _down()
        except Stop as stop:
            complain(stop.sentence)
            return stop.code
    return agent.run({"print": _print, "up": _up, "verify": proof.verify}[args.action], args)


def _print(args: argparse.Namespace, config: AgentConfig) -> int:
    plan = machine.plan(args, config)
    way, notes = machine.way(args, config, plan, tries=not os.geteuid())
    text = _text(way, plan)
    if args.json:
        show_json({"mode": way.name, "notes": notes, "rules": text})
        return DONE
    for note in notes:
        complain(note)
    say(f"# {machine.told(plan, way)}")
    print(text, end="")
    return DONE


def _text(way: machine.Way, plan: Plan) -> str:
    if isinstance(way, machine.Takeover):
        return resolvfile.preview(defaults.RESOLV_CONF, defaults.INTERCEPT_KEPT, way.agent)
    return way.text(plan)


def _up(args: argparse.Namespace, config: AgentConfig) -> int:
    plan = machine.plan(args, config)
    way, notes = machine.way(args, config, plan)
    for note in (*notes, *_put_up(way, plan)):
        complain(note)
    say(machine.told(plan, way))
    if not proof.answers(config.listen):
        complain("the agent does not answer yet; until it does, all queries go where they are sent")
    return DONE


def _put_up(way: machine.Way, plan: Plan) -> Sequence[str]:
    """Put one way up and take the others down -> sentences on what is left out. Raises Stop."""
    try:
        if isinstance(way, machine.Takeover):
            notes: Sequence[str] = ()
            resolvfile.put(defaults.RESOLV_CONF, defaults.INTERCEPT_KEPT, way.agent)
        else:
            notes = way.up(plan)
            resolvfile.restore(defaults.RESOLV_CONF, defaults.INTERCEPT_KEPT)
        for other in REDIRECTS:
            if other is not way:
                other.down()
        return notes
    except (Refused, OSError) as error:
        raise Stop(FAILED, f"{error}.") from None


def _down() -> int:
    """Nothing new comes to the agent; what is under way has a moment to be answered; then all is as it was."""
    try:
        closed = [each for each in REDIRECTS if each.close()]
        if closed:
            Event().wait(defaults.INTERCEPT_DRAIN)
        taken = [each.name for each in REDIRECTS if each.down()]
        if resolvfile.restore(defaults.RESOLV_CONF, defaults.INTERCEPT_KEPT):
            taken.append(defaults.RESOLV_CONF)
    except (Refused, OSError) as error:
        raise Stop(FAILED, f"{error}.") from None
    say(f"taken away: {', '.join(taken)}" if taken else "nothing was up")
    return DONE


class _Hold:
    """Keeps the redirect true to resolv.conf and to the configuration, which may both change at any time."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._held: Plan | None = None  # in force
        self._way: machine.Way | None = None
        self._doubted: float | None = None  # since when resolv.conf names no server any more
        self._seen: list[str | None] = []  # what the files said
        self._looked = 0.0
        self._complained = ""

    def run(self) -> int:
        ends = {signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        while True:
            self._turn(time.monotonic())
            if signal.sigtimedwait(ends, defaults.HOLD_TURN) is not None:
                return DONE

    def _turn(self, now: float) -> None:
        seen = [
            resolvconf.content(path) for path in (self._args.config, defaults.RESOLV_CONF, *defaults.RESOLV_FALLBACKS)
        ]
        attends = isinstance(self._way, machine.Takeover) or self._way is None
        if seen == self._seen and now < self._looked + defaults.HOLD_LOOK and not attends:
            return
        try:
            self._look(now)
            self._seen, self._looked, self._complained = seen, now, ""
        except Stop as stop:
            if stop.sentence != self._complained:
                complain(f"the redirect stays as it is: {stop.sentence}")
            self._complained = stop.sentence

    def _look(self, now: float) -> None:
        config = agent.configuration(self._args.config)
        plan = machine.plan(self._args, config, self._held)
        if self._is_doubtful(plan, now):
            return
        way, notes = machine.way(self._args, config, plan)
        same, self._way = way == self._way, way
        if self._gives_back(way) or (same and plan == self._held and _stands(way)):
            return
        for note in (*notes, *_put_up(way, plan)):
            complain(note)
        self._held = plan
        say(machine.told(plan, way))

    def _gives_back(self, way: machine.Way) -> bool:
        """Whether resolv.conf must be as it was: no kernel looks whether the agent answers, so we do."""
        if not isinstance(way, machine.Takeover) or proof.answers([Endpoint(way.agent, machine.DNS_PORT)]):
            return False
        self._held = None
        try:
            if resolvfile.restore(defaults.RESOLV_CONF, defaults.INTERCEPT_KEPT):
                say("the agent does not answer: resolv.conf is as it was")
        except OSError as error:
            raise Stop(FAILED, f"{error}.") from None
        return True

    def _is_doubtful(self, plan: Plan, now: float) -> bool:
        """Whether resolv.conf may just be being written: it names nobody, and did a moment ago."""
        lost = self._held is not None and any(family.servers for family in self._held.families)
        if not lost or any(family.servers != () for family in plan.families):
            self._doubted = None
            return False
        self._doubted = now if self._doubted is None else self._doubted
        return now < self._doubted + defaults.RESOLV_DOUBT


def _stands(way: machine.Way) -> bool:
    try:
        return resolvfile.stands(defaults.RESOLV_CONF) if isinstance(way, machine.Takeover) else way.is_up()
    except Refused as refused:
        raise Stop(FAILED, f"{refused}.") from None
