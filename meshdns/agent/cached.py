"""Inside: what is said of the cache and of the servers behind it when somebody asks why.

A `Case` enters, sentences leave. It must never know how they are shown; the verdict on the whole is `explain.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from meshdns import names, wire
from meshdns.agent.chain import legs
from meshdns.agent.foresight import Glance
from meshdns.agent.looks import Case, left
from meshdns.agent.pursuit import deciding
from meshdns.agent.routes import asked_for
from meshdns.agent.servers import USELESS

_LAST = 1 << 16


def cached(case: Case) -> Iterator[tuple[str, str]]:
    """What the cache holds of each question that the answer needs, and what follows: the name, and a sentence."""
    for glance in case.foresight.glances:
        if not _is_told(case, glance):
            yield names.text(glance.name), _glance_text(glance)
        inward = _inward(case, glance)
        if inward:
            yield inward, f"A CNAME leads to {inward}. That is the mesh's, so the table says the rest (rule D24)."


def _is_told(case: Case, glance: Glance) -> bool:
    """Whether the steps of the walk say it already, or it is nothing that they depend on."""
    walk, end = case.decision.walk, case.foresight.end
    if walk is None or all(step.name != glance.name for step in walk.steps):
        return False
    return glance.type == deciding(case.qtype) or end is None or end.name != glance.name


def _glance_text(glance: Glance) -> str:
    question = f"{names.text(glance.name)} {wire.type_text(glance.type)}"
    if glance.failure:
        return (
            f"Asking for {question} failed a moment ago: {glance.failure.text}. That counts for a few seconds, "
            "so that servers in trouble are left in peace (RFC 9520)."
        )
    if glance.state == "nothing":
        return f"{question} is not in the cache."
    kind = "NOERROR" if glance.exists else "NXDOMAIN"
    if glance.state == "fresh":
        return f"{question} is in the cache ({kind}), {left(glance)} left."
    if glance.asks:
        return (
            f"{question} is in the cache ({kind}), but expired {left(glance)} ago: it is asked for again, and given "
            "only if that fails or takes too long (rule D26)."
        )
    return f"{question} is in the cache ({kind}). It expired {left(glance)} ago, and asking again has just failed (rule D26)."


def _inward(case: Case, glance: Glance) -> str | None:
    """The mesh name that a remembered chain of CNAMEs leads to."""
    authority, walk, end = case.resolver.authority, case.decision.walk, case.foresight.end
    if glance.asks or (walk and (end is None or end.name != glance.name or glance.type != case.qtype)):
        return None
    for target, _ in legs(glance.message) if glance.message else ():
        if authority.zone_of(target) or authority.host(target):
            return names.text(target)
    return None


def servers_text(case: Case, upstreams: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Who is asked for what is to be asked, now or once a failure is forgotten: a sentence for each group of servers."""
    failures = [glance for glance in case.foresight.glances if glance.failure]
    asked = case.foresight.asked or failures
    if not asked:
        return
    if not upstreams:
        yield "There is no upstream server, so this ends in SERVFAIL: look at upstream in the configuration."
        return
    groups: dict[str, list[str]] = {}
    for each in asked:
        question = f"{names.text(each.name)} {wire.type_text(each.type)}"
        groups.setdefault(_asked_of(asked_for(upstreams, each.name)), []).append(question)
    for servers, questions in groups.items():
        after = "" if case.foresight.asked else "After that "
        yield f"{after}{', '.join(questions)} {'is' if len(questions) == 1 else 'are'} asked of {servers}"


def _asked_of(servers: Sequence[Mapping[str, Any]]) -> str:
    """Servers in the order in which they are asked, with state and latency; those to whom it does not come stand last."""
    if not servers:
        return "nobody, since no server is for this name: expect SERVFAIL."
    domains = servers[0].get("domains")
    own = f", by upstream.domains for {', '.join(domains)}" if domains else ""
    turns: dict[int, list[str]] = {}
    for server in servers:
        turns.setdefault(server.get("turn") or _LAST, []).append(f"{server.get('server')} ({_state(server)})")
    listed = ", then ".join(" and ".join(turns[turn]) for turn in sorted(turns))
    useless = all(each.get("state") in USELESS for each in servers)
    return f"{listed}{own}.{' None of them answers at the moment, so expect SERVFAIL.' if useless else ''}"


def _state(server: Mapping[str, Any]) -> str:
    latency = server.get("latency")
    return f"{server.get('state')}, {latency * 1000:.3g} ms" if latency else str(server.get("state"))
