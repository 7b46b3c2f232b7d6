"""Root: `meshdns intercept verify`. Real queries are put as applications put them; what became of each leaves, step by step."""

import argparse
import os
import struct
import time
from collections.abc import Iterator, Sequence

import attrs

from meshdns import __version__, defaults, names, wire
from meshdns.agent.config import AgentConfig
from meshdns.cli import DONE, FAILED, NOT_RUNNING, agent, machine
from meshdns.cli.screen import complain, say, show_columns, show_json
from meshdns.entries import BadTable, entry, parse
from meshdns.host import resolvfile
from meshdns.host.asking import VERSION, ask, version
from meshdns.host.netfilter import Refused
from meshdns.host.redirect import Family, Plan
from meshdns.values import Endpoint

_TRANSPORTS = ("udp", "tcp")
_OURS = "meshdns "  # how the answer to VERSION begins
_NOBODY = 65534
OK, BROKEN, UNSURE = "ok", "FAILED", "unsure"


@attrs.frozen
class Step:
    """One thing that must hold, whether it does, and a sentence on what was seen."""

    name: str
    outcome: str
    seen: str


def verify(args: argparse.Namespace, config: AgentConfig) -> int:
    plan = machine.plan(args, config)
    way, _ = machine.way(args, config, plan)
    steps = list(_steps(config, plan, way))
    if args.json:
        show_json({"mode": way.name, "steps": [attrs.asdict(step) for step in steps], "notes": [*plan.notes]})
    else:
        for note in plan.notes:
            complain(note)
        show_columns(("", "", ""), [(step.name, step.outcome, step.seen) for step in steps])
        broken = [step for step in steps if step.outcome == BROKEN]
        say(
            f"It does not work: see {broken[0].name}." if broken else "It works.",
            "bold yellow" if broken else "bold green",
        )
    if steps[0].outcome == BROKEN:
        return NOT_RUNNING
    return FAILED if any(step.outcome == BROKEN for step in steps) else DONE


def answers(listen: Sequence[Endpoint]) -> bool:
    """Whether the agent answers at any of its addresses."""
    return any(_asked(Endpoint(agent.near(each.host), each.port), tcp=False) for each in listen)


def _steps(config: AgentConfig, plan: Plan, way: machine.Way) -> Iterator[Step]:
    """In the order in which they depend on each other."""
    yield _agent(config)
    if isinstance(way, machine.Takeover):
        yield _takeover(way)
        server: Endpoint | None = Endpoint(way.agent, 53)
        user = None
        yield from _arrive([Endpoint(way.agent, 53)], "resolv.conf", user)
    else:
        yield _rules(way)
        asked = [Endpoint(host, 53) for family in plan.families for host in _asked_servers(config, family)]
        user = _application(plan)
        yield from _arrive(asked, "redirect", user)
        yield from _escape(asked, plan)
        server = asked[0] if asked else None
    if server is not None:
        yield _mesh_name(config, server, user)


def _application(plan: Plan) -> int | None:
    """As whom to ask what applications ask: root is none where its queries go where they are sent. None: as ourselves."""
    if plan.of_root is None or os.geteuid():
        return None
    return next(uid for uid in range(_NOBODY, 0, -1) if uid not in plan.exempt)


def _asked_servers(config: AgentConfig, family: Family) -> Sequence[str]:
    """To whom the queries go by which a family is proven."""
    if family.servers is not None:
        return family.servers
    return [each for each in machine.applications_servers(config) if (":" in each) == (family.version == 6)]


def _asked(server: Endpoint, *, tcp: bool, uid: int | None = None) -> str | None:
    """What a server says it is: its version, "" if it does not tell; None: no answer."""
    message = ask(server, VERSION, tcp=tcp, wait=defaults.PROOF_WAIT, uid=uid)
    return None if message is None else version(message) or ""


def _agent(config: AgentConfig) -> Step:
    silent = [
        f"{each} over {transport.upper()}"
        for each in config.listen
        for transport in _TRANSPORTS
        if _asked(Endpoint(agent.near(each.host), each.port), tcp=transport == "tcp") is None
    ]
    everywhere = ", ".join(map(str, config.listen))
    if not silent:
        return Step("agent", OK, f"it answers at {everywhere}")
    if len(silent) == len(_TRANSPORTS) * len(config.listen):
        return Step("agent", BROKEN, f"it does not answer at {everywhere}: start it, or look into its log")
    return Step("agent", UNSURE, f"it does not answer at {', '.join(silent)}, but it does at its other addresses")


def _rules(way: machine.Way) -> Step:
    assert not isinstance(way, machine.Takeover)
    try:
        if way.is_up():
            return Step("rules", OK, f"they are up, by {way.name}")
        return Step("rules", BROKEN, "they are not up: meshdns intercept up puts them up")
    except Refused as refused:
        return Step("rules", BROKEN, str(refused))


def _takeover(way: machine.Takeover) -> Step:
    if resolvfile.stands(defaults.RESOLV_CONF):
        return Step("rules", OK, f"{defaults.RESOLV_CONF} names the agent first, at {way.agent}")
    return Step("rules", BROKEN, f"{defaults.RESOLV_CONF} is not ours: meshdns intercept up writes it")


def _arrive(servers: Sequence[Endpoint], name: str, user: int | None) -> Iterator[Step]:
    """Whether what an application asks these servers is answered by the agent."""
    if not servers:
        yield Step(name, BROKEN, "resolv.conf names no server, so there is nothing to redirect")
    patience = time.monotonic() + defaults.PROOF_PATIENCE  # the rules may not have seen a sign of the agent yet
    for server in servers:
        for transport in _TRANSPORTS:
            said = _asked(server, tcp=transport == "tcp", uid=user)
            while not (said or "").startswith(_OURS) and time.monotonic() < patience:
                said = _asked(server, tcp=transport == "tcp", uid=user)
            where = f"a query to {server} over {transport.upper()}"
            if said is None:
                yield Step(name, BROKEN, f"{where} is not answered: does a firewall stop it?")
            elif not said.startswith(_OURS):
                yield Step(name, BROKEN, f"{where} is answered by {said or 'somebody else'}, not by the agent")
            else:
                told = "" if said == f"{_OURS}{__version__}" else f" ({said})"
                yield Step(name, OK, f"{where} is answered by the agent{told}")


def _escape(servers: Sequence[Endpoint], plan: Plan) -> Iterator[Step]:
    """Whether what the agent itself asks these servers arrives there."""
    if os.geteuid():
        yield Step("way out", UNSURE, "only root can ask as the agent's user")
        return
    for server in servers:
        said = _asked(server, tcp=False, uid=plan.uid)
        if said is None:
            yield Step("way out", UNSURE, f"{server} does not answer the agent; if it answers nobody else, all is well")
        elif said.startswith(_OURS):
            yield Step("way out", BROKEN, f"what user {plan.uid} asks {server} comes back to the agent")
        else:
            yield Step("way out", OK, f"what the agent asks {server} arrives there")


def _mesh_name(config: AgentConfig, server: Endpoint, user: int | None) -> Step:
    """Whether a host of the table is found, asked as applications ask."""
    try:
        host = _first_host(config)
    except agent.Stop as stop:
        return Step("mesh", UNSURE, f"no name of the mesh is known to ask for: {stop.sentence}")
    if host is None:
        return Step("mesh", UNSURE, "the agent's table has no host yet")
    question = host + struct.pack("!2H", wire.A, wire.IN)
    message = ask(server, question, tcp=False, wait=defaults.PROOF_WAIT, uid=user)
    if message is None or wire.rcode(message):
        why = "no answer" if message is None else wire.rcode_text(wire.rcode(message))
        return Step("mesh", BROKEN, f"{names.text(host)}, asked at {server}: {why}")
    return Step("mesh", OK, f"{names.text(host)} is found, asked at {server}")


def _first_host(config: AgentConfig) -> bytes | None:
    """A host of the agent's table that can be asked for as it stands."""
    rest = b""
    for piece in agent.get(config, "/v1/table"):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            try:
                found = entry(parse(line.decode()))
            except (BadTable, UnicodeDecodeError):
                continue  # the head or the end of the table
            if not found.wildcard:
                return found.name
    return None
