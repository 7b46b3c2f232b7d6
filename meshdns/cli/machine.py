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
from meshdns.cli.agent import Stop, near
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


@attrs.define
class _Resolvers:
    """Those on this machine that the agent asks: redirected, they would ask it back. Their users; the addresses of those that
    are root's, None if none is; sentences on these; and whether one is away, so that nobody knows its user."""

    users: set[int]
    of_root: list[str] | None = None
    notes: list[str] = attrs.Factory(list)
    away: bool = False


def plan(args: argparse.Namespace, config: AgentConfig, before: Plan | None = None) -> Plan:
    """`before` is in force: while a resolver is away, who was spared is spared on, for it may come back. Raises Stop."""
    uid = _agents_uid(args)
    found = _resolvers_asked(config, uid)
    spared = {*map(_uid, args.spare), *found.users}
    of_root: Sequence[str] | None = found.of_root
    if before and found.away:
        spared |= set(before.spared)
        of_root = before.of_root if of_root is None else of_root
    try:
        made = redirect.make(
            config.listen,
            applications_servers(config),
            uid=uid,
            spared=sorted(spared),
            of_root=of_root,
            every=args.all,
        )
    except redirect.NoPlan as reason:
        raise Stop(FAILED, str(reason)) from None
    return attrs.evolve(made, notes=(*made.notes, *found.notes))


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
        agent = next((near(each.host) for each in config.listen if each.port == DNS_PORT), None)
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


def _resolvers_asked(config: AgentConfig, uid: int) -> _Resolvers:
    upstream = config.upstream
    asked = [Endpoint(server.host, server.port) for server in upstream.servers]
    asked += [Endpoint(server.host, server.port) for group in upstream.domains.values() for server in group]
    if not upstream.servers:
        chosen = resolvconf.read(upstream.resolv_conf, config.listen)
        asked += [Endpoint(host, DNS_PORT) for host in chosen.conf.nameservers]
    resolvers = _Resolvers(set())
    for each in dict.fromkeys(asked):
        if not listeners.is_own(each.host):
            continue
        found = listeners.users_behind(each) - {uid}
        resolvers.away |= not found
        resolvers.users |= found - {0}
        if 0 in found:
            others_ask = [each.host] if each.port == DNS_PORT and "%" not in each.host else []
            resolvers.of_root = [*(resolvers.of_root or ()), *others_ask]
            resolvers.notes.append(
                f"the resolver at {each} runs as root, so its own queries cannot be told from others of root's: what root asks "
                "other servers is not redirected; let it run as a user of its own"
            )
    return resolvers


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
