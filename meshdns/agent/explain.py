"""Inside: why a name is answered as it is, in sentences for whoever wonders.

A question and the resolver enter, with what the upstreams are like; a dictionary ready for JSON leaves: the verdict in one
sentence, every look that led to it, the entry, the records. Nothing is asked, counted or turned by it. It must never know
how its sentences are shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from meshdns import messages, names, wire
from meshdns.agent.authority import Kind
from meshdns.agent.cached import cached, servers_text
from meshdns.agent.foresight import Glance, foresee
from meshdns.agent.looks import Case, looks, what
from meshdns.agent.nearby import nearby
from meshdns.agent.resolver import Decision, Resolver
from meshdns.agent.routes import asked_for
from meshdns.agent.search import Step, Walk
from meshdns.agent.steps import Failed
from meshdns.messages import Record, Sections
from meshdns.presentation import class_text, name_text, rdata_text, record_text
from meshdns.table import Entry

_TRANSFERS = frozenset({wire.AXFR, wire.IXFR})
_SERVICE_BINDINGS = frozenset({wire.HTTPS, wire.SVCB})


def explain(
    resolver: Resolver,
    name: bytes,
    qtype: int,
    *,
    now: float,
    upstreams: Sequence[Mapping[str, Any]] = (),
    table: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything about one question, of class IN and with RD. `upstreams` as their `status()` has them; `table` what is to be
    told of it (generation, hosts, age)."""
    case = _case(resolver, name, qtype, now)
    told = _refusal(case) if qtype in _TRANSFERS else _decision(case, upstreams)
    return {
        "name": case.text,
        "type": case.type,
        **told,
        "search": _search(case),
        "table": dict(table) if table else None,
    }


def _case(resolver: Resolver, name: bytes, qtype: int, now: float) -> Case:
    decision = resolver.decide(name, qtype)
    foresight = foresee(resolver, decision, name, qtype, now)
    if foresight.told and foresight.told.source == "local" and decision.rule != "D17":
        decision = Decision("D29")
    elif foresight.end and foresight.end.found:
        decision = attrs.evolve(decision, found=foresight.end.found)
    return Case(resolver, name, qtype, decision, resolver.preview(decision, name, qtype), foresight)


def _refusal(case: Case) -> dict[str, Any]:
    verdict = f"Refused (rule D2): {case.type} asks for a whole zone, which is not transferred."
    steps = [_step("transfer", "The names of the mesh come from the name table: see `meshdns table`.", True)]
    told = {
        "verdict": verdict,
        "rule": "D2",
        "answer_rule": None,
        "source": "local",
        "rcode": "REFUSED",
        "steps": steps,
    }
    return told | {"hints": [], "zone": case.zone, "entry": None, "cache": [], "upstream": None} | _sections(Sections())


def _decision(case: Case, upstreams: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found, said, asked = case.decision.found, case.said, case.foresight.asked
    steps = [_step(look.check, look.text, look.decides, look.name) for look in looks(case)]
    steps += [_step("answer", text) for text in _answer_texts(case)]
    steps += [_step("cache", text, name=name) for name, text in cached(case)]
    steps += [_step("upstream", text) for text in servers_text(case, upstreams)]
    return {
        "verdict": f"{_outcome(case)} (rule {case.decision.rule}): {_reason(case)}{_but(case)}.",
        "rule": case.decision.rule,
        "answer_rule": said.rule if said else None,
        "source": _source(case),
        "rcode": _rcode(case),
        "steps": steps,
        "hints": list(_hints(case)),
        "zone": case.zone,
        "entry": entry_dict(found.entry) if found and found.entry else None,
        "cache": [glance_dict(glance) for glance in case.foresight.glances],
        "upstream": _upstream(asked, upstreams) if asked else None,
        **_sections(_known(case)),
    }


def _upstream(asked: Sequence[Glance], upstreams: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    questions = [f"{names.text(each.name)} {wire.type_text(each.type)}" for each in asked]
    servers = {id(server): server for each in asked for server in asked_for(upstreams, each.name)}
    return {"name": names.text(asked[0].name), "questions": questions, "servers": list(servers.values())}


def _known(case: Case) -> Sections:
    """The records that a client would get, or those of them that need no upstream."""
    told = case.foresight.told
    if told is not None:
        return messages.records(told.message)
    return case.said.sections if case.said else Sections()


def _step(check: str, text: str, decides: bool = False, name: str | None = None) -> dict[str, Any]:
    return {"check": check, "text": text, "decides": decides} | ({"name": name} if name else {})


def _sections(sections: Sections) -> dict[str, Any]:
    return {section: list(map(record_dict, records)) for section, records in sections._asdict().items()}


def record_dict(record: Record) -> dict[str, Any]:
    """A record as JSON has it; `text` is the whole of it in presentation format."""
    return {
        "name": name_text(record.owner),
        "ttl": record.ttl,
        "class": class_text(record.cls),
        "type": wire.type_text(record.type),
        "data": rdata_text(record),
        "text": record_text(record),
    }


def glance_dict(glance: Glance) -> dict[str, Any]:
    """What the cache holds of one question, as JSON has it."""
    return {
        "name": names.text(glance.name),
        "type": wire.type_text(glance.type),
        "state": glance.state,
        "rcode": None if glance.rcode is None else wire.rcode_text(glance.rcode),
        "seconds": None if glance.seconds is None else round(glance.seconds, 3),
        "failure": glance.failure.text if glance.failure else None,
    }


def entry_dict(entry: Entry) -> dict[str, Any]:
    """An entry of the table as JSON has it, every field there."""
    return {
        "host": entry.host,
        "ips": entry.ips,
        "registry": entry.registry,
        "namespace": entry.namespace,
        "shortname": entry.shortname,
        "ports": [attrs.asdict(port) for port in entry.ports],
        "alias": names.text(entry.alias) if entry.alias else None,
        "vip": entry.vip,
        "ttl": entry.ttl,
        "pods": [names.text(pod) for pod in entry.pods],
    }


def _search(case: Case) -> dict[str, Any]:
    place, walk = case.resolver.place, case.decision.walk
    bare, domain = case.expanded or (None, None)
    return {
        "list": [names.text(each) for each in place.search],
        "autopath": place.autopath,
        "domain": domain,
        "bare": bare,
        "walk": [_walk_step(case, step) for step in walk.steps] if walk else [],
    }


def _walk_step(case: Case, step: Step) -> dict[str, Any]:
    glance = case.foresight.of(step.name, case.qtype) if step.verdict == "upstream" else None
    cache = {"state": glance.state, "exists": glance.exists} if glance else None
    return {"name": names.text(step.name), "verdict": step.verdict, "cache": cache}


# The verdict


def _source(case: Case) -> str:
    """As the metrics would count it; where an upstream is asked first, which part of the answer is known."""
    if case.foresight.told is not None:
        return case.foresight.told.source
    return "mesh+upstream" if case.said and case.said.sections.answer else "upstream"


def _rcode(case: Case) -> str | None:
    """None where an upstream decides."""
    told = case.foresight.told
    return None if told is None else wire.rcode_text(told.rcode)


def _is_empty(case: Case) -> bool:
    """Whether the name exists, but has nothing of the type (NODATA)."""
    told = case.foresight.told
    if told is None or told.rcode != wire.NOERROR or case.qtype == wire.ANY:
        return False
    return all(record.type != case.qtype for record in _known(case).answer)


def _outcome(case: Case) -> str:
    source, told = _source(case), case.foresight.told
    if told is None:
        if source == "mesh+upstream":
            return "Answered from the mesh, completed by an upstream server"
        return "Decided by upstream servers" if case.decision.walk else "Relayed to an upstream server"
    where = {"mesh": "from the mesh", "local": "on the spot"}.get(source, "from the cache")
    if source in ("cache", "stale") and case.said and case.said.sections.answer:
        where = "from the mesh, completed from the cache"
    rcode = "" if told.rcode == wire.NOERROR else f" with {wire.rcode_text(told.rcode)}"
    return f"Answered {where}{rcode}{', without records' if _is_empty(case) else ''}{_lasting(case)}"


def _lasting(case: Case) -> str:
    """For how long the cache has it."""
    seconds, source = case.foresight.seconds, _source(case)
    if seconds is None or source not in ("cache", "stale"):
        return ""
    return f", {seconds:.0f} s left" if seconds > 0 else f", though it expired {-seconds:.0f} s ago"


def _reason(case: Case) -> str:
    decision = case.decision
    if decision.rule == "D17":
        return f"{case.text} is in the mesh zone {case.zone}, and no name table has arrived yet"
    if decision.rule == "D29":
        return f"{case.text} is a name of special use"
    if decision.walk:
        return f"your resolver appended the search domain {names.text(decision.walk.domain)} to {_end(case, decision.walk)}"
    if decision.found:
        return f"{case.text} {what(decision.found, case.name)}"
    if case.zone:
        return f"{case.text} is in the mesh zone {case.zone}, and not in the table"
    return f"{case.text} is in no mesh zone, and not in the table"


def _end(case: Case, walk: Walk) -> str:
    """Of what the search domain was appended to, and what the search came to."""
    bare, end, found = names.text(walk.bare), case.foresight.end, case.decision.found
    if found:
        tried = walk.steps[-1].name
        return f"{bare}, {'which' if tried == walk.bare else f'and {names.text(tried)}'} {what(found, tried)}"
    if end is None:
        return f"{bare}, and which of the names to be tried exists is to be asked"
    if isinstance(end.word, Failed):
        return f"{bare}, and asking for {names.text(end.name)} failed a moment ago"
    if not end.exists:
        return f"{bare}, and none of the names to be tried exists"
    return f"{bare}, {'which' if end.name == walk.bare else f'and {names.text(end.name)}'} exists"


def _but(case: Case) -> str:
    """What makes the answer another than the reason lets one expect."""
    found, said = case.decision.found, case.said
    if found is None or said is None or found.kind is Kind.NONTERMINAL:
        return ""
    if said.follow is None and said.rcode == wire.SERVFAIL:
        return ", but its aliases lead in a circle"
    if said.follow is None and said.rcode == wire.NXDOMAIN:
        return ", but the name that it stands for is not in the table"
    if said.follow == found.canonical or said.follow == case.name:
        return f", but of {case.type} the mesh says nothing outside its zones"
    return f", but has no {case.type} record" if _is_empty(case) else ""


# What the answer holds


def _answer_texts(case: Case) -> Iterator[str]:
    said, found = case.said, case.decision.found
    if said is None:
        return
    if found is None:
        yield f"NXDOMAIN with the SOA of {case.zone}, so that it is forgotten soon: services come and go."
        return
    owner, entry = names.text(found.canonical), found.entry
    if said.sections.answer and found.canonical != case.name:
        yield f"A CNAME leads to {owner}: clients learn the full name (rule D12)."
    if entry and entry.alias and found.kind is Kind.HOST:
        yield from _alias_texts(case, entry)
    elif case.qtype == wire.ANY:
        yield "ANY gets one HINFO record, so that nobody can make large answers of it (rule D15, RFC 8482)."
    elif _is_empty(case):
        yield _empty_text(case, owner, entry)
    elif entry:
        yield from _address_texts(case, entry)


def _alias_texts(case: Case, entry: Entry) -> Iterator[str]:
    assert entry.alias and case.said
    yield f"{entry.host} stands for {names.text(entry.alias)} (an ExternalName service, rule D14)."
    if case.said.rcode == wire.SERVFAIL:
        yield "Following it comes back to itself, or takes too many hops: mend the services that the table is made of."
    elif case.said.rcode == wire.NXDOMAIN:
        yield "Following it ends in a mesh zone, at a name that is not in the table."


def _empty_text(case: Case, owner: str, entry: Entry | None) -> str:
    if case.said and case.said.rule == "D11" and entry:
        has = f"only {', '.join(entry.ips)}" if entry.ips else "no address"
        return f"{owner} has {has}. NOERROR without records tells clients to use the other address family (rule D11)."
    if case.qtype in _SERVICE_BINDINGS and entry:
        return f"{case.type} is always empty: the addresses in such records would lead past the mesh (rule D15)."
    return f"{owner} exists, but has no {case.type} record: NOERROR without records."


def _address_texts(case: Case, entry: Entry) -> Iterator[str]:
    if case.said and case.said.turns > 1:
        yield f"It has {case.said.turns} addresses: each answer has them all, and each another one first (rule D11)."
    if entry.vip and case.qtype in (wire.A, wire.AAAA):
        yield "The address is a virtual one: the mesh gave it to a host that has none, and its proxy leads connections on."


# What may have been meant


def _hints(case: Case) -> Iterator[str]:
    end = case.foresight.end
    if case.decision.found or case.decision.rule in ("D17", "D29") or (end and end.exists):
        return
    near = nearby(case.name, case.entries, strict=case.zone is None)
    if not near and case.expanded and not case.zone:
        near = nearby(names.parse(case.expanded[0]), case.entries, strict=True)
    yield from near or _absent(case)


def _absent(case: Case) -> Iterator[str]:
    if case.zone is None:
        return
    if b"svc" not in names.labels(case.name):
        yield f"Services have names like SERVICE.NAMESPACE.svc.{case.zone}."
    else:
        yield (
            "If there is such a service: while a headless one has no ready endpoint it has no name, and exportTo or a "
            f"Sidecar may hide it from the namespace {case.resolver.place.namespace}."
        )
