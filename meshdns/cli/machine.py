"""Root: what `meshdns intercept` must know of this machine. Its words and the agent's configuration enter; a plan for the redirect
leaves, and the way to put it up. What stands in the way is raised as `Stop`.
"""

import argparse
import pwd
from collections.abc import Iterable, Sequence

import attrs

from meshdns import defaults
from meshdns.agent.config import AgentConfig
from meshdns.cli import FAILED, USAGE
from meshdns.cli.agent import Stop
from meshdns.host import listeners, redirect, resolvconf
from meshdns.host.netfilter import REDIRECTS, Redirect, Refused
from meshdns.host.redirect import Plan
from meshdns.values import Endpoint, quote

AUTO, RESOLV_CONF = "auto", "resolv-conf"
MODES = (AUTO, *(each.name for each in REDIRECTS), RESOLV_CONF)
DNS_PORT = 53


@attrs.frozen
class Takeover:
    """The way without a redirect: the agent as the first nameserver of resolv.conf."""

    agent: str
    name: str = RESOLV_CONF


Way = Redirect | Takeover


def applications_servers(config: AgentConfig) -> list[str]:
    """Whom the applications of this machine ask: the servers of resolv.conf, and where that names systemd-resolved, whom
    this asks in turn, for those who reach it by other ways than its stub."""
    found: list[str] = []
    paths = [defaults.RESOLV_CONF, config.upstream.resolv_conf]
    for path in dict.fromkeys(paths):
        found += resolvconf.nameservers(path)
    if set(found) & set(defaults.RESOLV_STUBS):
        found += resolvconf.nameservers(defaults.RESOLV_FALLBACKS[0])
    return list(dict.fromkeys(found))


def plan(args: argparse.Namespace, config: AgentConfig) -> Plan:
    """Raises Stop."""
    spared = [_uid(name) for name in args.spare]
    uid = _agents_uid(args)
    resolvers, notes = _resolvers_asked(config, uid)
    try:
        made = redirect.make(
            config.listen, applications_servers(config), uid=uid, spared=[*spared, *resolvers], every=args.all
        )
    except redirect.NoPlan as reason:
        raise Stop(FAILED, str(reason)) from None
    return attrs.evolve(made, notes=(*made.notes, *notes))


def way(args: argparse.Namespace, config: AgentConfig, plan: Plan, *, tries: bool = True) -> tuple[Way, list[str]]:
    """The way that `--mode` names, or the first that this machine has, and sentences on what to know of it; raises Stop.

    `tries`: ask the kernel whether it would take the rules, for which one must be root."""
    reasons: list[str] = []
    try:
        for each in REDIRECTS:
            if args.mode in (AUTO, each.name):
                why = each.missing(plan) if tries else each.absent()
                if not why:
                    return each, [*plan.notes, *_instead(each.name, reasons)]
                reasons.append(why)
    except Refused as refused:
        raise Stop(FAILED, f"{refused}.") from None
    if args.mode in (AUTO, RESOLV_CONF):
        agent = next((each.host for each in config.listen if each.port == DNS_PORT), None)
        if agent is not None:
            return Takeover(agent), _instead(RESOLV_CONF, reasons)
        reasons.append("in resolv.conf nothing but port 53 can be named, and the agent does not listen on it")
    raise Stop(FAILED, f"{_sentences(reasons)} {_advice(args.mode, reasons)}")


def _instead(name: str, reasons: Sequence[str]) -> list[str]:
    return [f"{name} is used, since {'; '.join(reasons)}"] if reasons else []


def _advice(mode: str, reasons: Iterable[str]) -> str:
    if any("not permitted" in reason or "ermission denied" in reason for reason in reasons):
        return "Only root can change them: run this with sudo."
    listen = 'add "127.0.0.1:53" to listen in its configuration'
    return {AUTO: f"Install nftables, or {listen}.", RESOLV_CONF: f"To do so, {listen}."}.get(mode, "Try --mode auto.")


def _sentences(reasons: Sequence[str]) -> str:
    return " ".join(f"{reason.rstrip('.')}." for reason in reasons)


def _agents_uid(args: argparse.Namespace) -> int:
    if args.uid is not None:
        return int(args.uid)
    return _uid(args.user, "; say whose process the agent is, with --user NAME or --uid NUMBER")


def _uid(name: str, advice: str = "") -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise Stop(USAGE, f"there is no user {quote(name)} on this machine{advice}.") from None


def _resolvers_asked(config: AgentConfig, uid: int) -> tuple[list[int], list[str]]:
    """The users of resolvers on this machine that the agent asks: redirected, these would ask it back. And sentences on
    those whose user cannot be told from others."""
    upstream = config.upstream
    asked = [Endpoint(server.host, server.port) for server in upstream.servers]
    asked += [Endpoint(server.host, server.port) for group in upstream.domains.values() for server in group]
    if not upstream.servers:
        chosen = resolvconf.read(upstream.resolv_conf, config.listen)
        asked += [Endpoint(host, DNS_PORT) for host in chosen.conf.nameservers]
    users: set[int] = set()
    notes: list[str] = []
    for each in dict.fromkeys(asked):
        if not listeners.is_own(each.host):
            continue
        found = listeners.users_behind(each) - {uid}
        users |= found - {0}
        if 0 in found:
            notes.append(
                f"the resolver at {each} runs as root, so its own queries cannot be told from others: if it asks a server "
                "that is redirected, it and the agent ask each other; let it run as a user of its own"
            )
    return sorted(users), notes


def told(plan: Plan, way: Way) -> str:
    """One line on what is redirected, where to and how."""
    if isinstance(way, Takeover):
        return f"{defaults.RESOLV_CONF} names the agent first, at {way.agent}, and its old servers after it"
    parts = []
    for family in plan.families:
        if family.servers is None:
            parts.append(f"every server over IPv{family.version} -> {family.agent}")
        elif family.servers:
            parts.append(f"{', '.join(family.servers)} -> {family.agent}")
    users = ", ".join(map(_user, plan.exempt))
    return f"{way.name}: port 53 of {'; '.join(parts) or 'nobody'}, but for {users}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
