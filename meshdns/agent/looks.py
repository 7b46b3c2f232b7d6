"""Inside: every look that the resolver takes at a name until it knows whose it is, told in sentences.

A `Case` enters, the looks leave in the resolver's order, the last of them being the one that decides. It must never know how
they are shown; the verdict on the whole is `explain.py`.
"""

from collections.abc import Iterator, Mapping

import attrs

from meshdns import names, wire
from meshdns.agent.answers import Answer
from meshdns.agent.authority import KUBERNETES, Found, Kind
from meshdns.agent.foresight import Foresight, Glance
from meshdns.agent.nearby import below
from meshdns.agent.resolver import Decision, Resolver
from meshdns.agent.search import Search, Step, Walk
from meshdns.messages import Record
from meshdns.presentation import rdata_text
from meshdns.table import Entry

_SPECIAL = {
    "localhost": "It is localhost or below: this very machine (RFC 6761).",
    "invalid": "Nothing exists below invalid (RFC 6761).",
    "onion": "Names below onion are those of Tor, and none of DNS (RFC 7686).",
}
_ZONE_NAMES = frozenset({Kind.APEX, Kind.NAMESERVER, Kind.VERSION})


@attrs.frozen
class Look:
    """One look: at what, what was seen, and whether that decided; `name` where it is another name than the one asked."""

    check: str
    text: str
    decides: bool = False
    name: str | None = None


@attrs.frozen
class Case:
    """A question of class IN, and what the resolver makes of it.

    `said` is what the mesh says, None where it is for upstreams to say; `decision.found` is also what a walk ends at by what
    the cache tells; `foresight` is what would happen.
    """

    resolver: Resolver
    name: bytes
    qtype: int
    decision: Decision
    said: Answer | None
    foresight: Foresight

    @property
    def text(self) -> str:
        return names.text(self.name)

    @property
    def type(self) -> str:
        return wire.type_text(self.qtype)

    @property
    def zone(self) -> str | None:
        return names.text(self.decision.zone) if self.decision.zone else None

    @property
    def here(self) -> Found | None:
        """What stands at the very name asked."""
        return None if self.decision.walk else self.decision.found

    @property
    def walk(self) -> Walk | None:
        """The walk that is gone, or would be if autopath let upstreams be asked."""
        place = self.resolver.place
        if self.decision.walk or place.autopath == "off":
            return self.decision.walk
        return Search(place.search).walk(self.name, self.resolver.authority)

    @property
    def entries(self) -> Mapping[str, Entry]:
        table = self.resolver.authority.table
        return table.entries if table else {}

    @property
    def expanded(self) -> tuple[str, str] | None:
        """X and Si as texts, for a name that ends in a search domain."""
        search = self.resolver.place.search
        found = Search(search).candidates(self.name)
        return (names.text(found[0]), names.text(search[found[1]])) if found else None


def looks(case: Case) -> Iterator[Look]:
    """The looks at a name, up to the one that decides; the last says why nothing of the mesh was found, if so."""
    if case.decision.rule == "D29":
        yield Look(
            "special use", f"{_SPECIAL[names.text(case.name).split('.')[-1]]} It is never asked for elsewhere.", True
        )
        return
    for take in (_zone, _reverse, _host, _short, _zone_name, _port, _wildcard, _nonterminal):
        look = take(case)
        if look:
            yield look
            if look.decides:
                return
    yield from _search(case)


def what(found: Found, name: bytes) -> str:
    """A clause that says what stands at a name."""
    exact = found.kind is Kind.HOST and found.rule == "D6" and found.canonical == name
    return "is a host of the table" if exact else found.how


def _zone(case: Case) -> Look:
    if case.decision.rule == "D17":
        told = "and no name table has arrived yet: what is not known is SERVFAIL, never NXDOMAIN"
        return Look("zone", f"It is in the mesh zone {case.zone}, {told}.", True)
    if case.zone:
        return Look("zone", f"It is in the mesh zone {case.zone}: its answer comes from here, it never goes upstream.")
    zones = ", ".join(names.text(zone) for zone in case.resolver.authority.zones)
    return Look("zone", f"It is in no mesh zone ({zones}).")


def _reverse(case: Case) -> Look | None:
    address = names.address(case.name) if case.qtype == wire.PTR else None
    if address is None:
        return None
    ip = rdata_text(Record(case.name, wire.A if len(address) == 4 else wire.AAAA, 0, address))
    if case.here and case.here.kind is Kind.POINTER and case.here.entry:
        return Look("reverse name", f"It is the reverse name of {ip}, an address of {case.here.entry.host}.", True)
    return Look("reverse name", f"It is the reverse name of {ip}, which no host of the table has.")


def _host(case: Case) -> Look:
    if case.here and case.here.rule == "D6" and case.here.canonical == case.name:
        return Look("host", "It is a host of the table.", True)
    return Look("host", "It is not itself a host of the table.")


def _short(case: Case) -> Look:
    if case.here and case.here.rule == "D6":
        return Look("short name", f"It {case.here.how}.", True)
    ends = _ends(case)
    for end in ends:
        full = names.join(case.name[:-1], end)
        entry = case.resolver.authority.addresses(full) if full else None
        if entry:
            told = f"but as {entry.registry or 'nothing'}, and only {KUBERNETES} services have short names"
            return Look("short name", f"{entry.host} is in the table, {told}: ask for it in full.")
    listed = f"{', '.join(names.text(end) for end in ends[:-1])} or {names.text(ends[-1])}"
    return Look("short name", f"It is not short for a Kubernetes service: none is found with {listed} behind it.")


def _ends(case: Case) -> tuple[bytes, ...]:
    """What rule D6 puts behind a short name."""
    place = case.resolver.place
    services = b"\x03svc" + place.domain
    return names.parse(place.namespace)[:-1] + services, services, place.domain


def _zone_name(case: Case) -> Look | None:
    here = case.here
    return Look("zone name", f"It {here.how}.", True) if here and here.kind in _ZONE_NAMES else None


def _port(case: Case) -> Look | None:
    if case.name[1:2] != b"_":
        return None
    here = case.here
    if here and here.entry and here.kind is Kind.SERVICE:
        ports = ", ".join(f"{port.number}/{port.protocol}" for port in here.ports)
        return Look("port", f"It {here.how}: {ports}.", True)
    if here and here.entry and here.kind is Kind.NONTERMINAL:
        return Look("port", f"It {here.how} of {here.entry.host}: put _PORT. in front of it.", True)
    host = case.name
    while host[1:2] == b"_":
        host = names.parent(host)
    owner = case.resolver.authority.locate(host)
    if owner is None or owner.entry is None:
        return Look("port", f"It is no named port: {names.text(host)} is no host of the mesh.")
    named = [f"_{port.name}._{port.protocol.lower()}" for port in owner.entry.ports if port.name]
    has = ", ".join(named) if named else "no named ports"
    return Look("port", f"It is no named port of {names.text(owner.canonical)}, which has {has}.")


def _wildcard(case: Case) -> Look:
    if case.here and case.here.rule == "D7":
        return Look("wildcard", f"It {case.here.how}.", True)
    return Look("wildcard", "No wildcard of the table covers it.")


def _nonterminal(case: Case) -> Look | None:
    if case.here is None:
        return None
    example = below(case.name, case.entries)
    such = f" ({example} is one)" if example else ""
    return Look(
        "above others", f"Nothing stands at it, but names exist below it{such}: so it exists, and is empty.", True
    )


# The search list


def _search(case: Case) -> Iterator[Look]:
    place, expanded = case.resolver.place, case.expanded
    if not place.search:
        yield Look("search", "The search list is empty, so there is no search domain to take off.")
        return
    if expanded is None:
        listed = " ".join(names.text(domain) for domain in place.search)
        yield Look("search", f"It ends in no search domain ({listed}), so it counts as it stands.")
        return
    bare, domain = expanded
    start = f"It ends in the search domain {domain}, as if your resolver had appended that to {bare}"
    walk = case.walk
    if walk is None:
        yield Look("search", f"{start}. The agent is told not to walk the search list (autopath: off).")
        return
    yield Look("search", f"{start}. The agent goes on as your resolver would:")
    for step in walk.steps:
        look = _walked(case, walk, step)
        yield look
        if look.decides:
            return
        if step.verdict == "upstream" and case.decision.walk is None:
            break  # autopath: mesh
    yield Look("search", _open_end(case))


def _walked(case: Case, walk: Walk, step: Step) -> Look:
    text, end = names.text(step.name), case.foresight.end
    glance = case.foresight.of(step.name, case.qtype)
    decides = step.found is not None and step.found is case.decision.found
    if step.found:
        whole = step.name == walk.bare and case.resolver.authority.zone_of(step.name)
        why = "Nobody owns names made of a whole mesh name and a search domain." if whole else "The search ends here."
        told = f"{what(step.found, step.name)}. {why}"
    elif step.verdict == "absent":
        told = f"{_passed(case, step)}does not exist: it is in a mesh zone, and not in the table."
    elif glance is None:
        why = " The search ends here: autopath is mesh." if case.decision.walk is None else ""
        told = f"{_passed(case, step)}is not the mesh's, so only an upstream server could tell.{why}"
    else:
        decides = end is not None and end.name == step.name and (end.exists or glance.failure is not None)
        told = f"{_passed(case, step)}{_remembered(glance)}{' The search ends here.' if decides else ''}"
    return Look("step", f"{text} {told}", decides, names.text(step.name))


def _passed(case: Case, step: Step) -> str:
    """Why a short form that is in the table is none here."""
    passed = case.resolver.authority.locate(step.name)
    if passed is None:
        return ""
    return (
        f"{passed.how}, which does not count: your resolver asks for that before it asks for this name. Otherwise it "
    )


def _remembered(glance: Glance) -> str:
    """What the cache tells of a step, as the rest of a sentence on it."""
    if glance.failure:
        return (
            f"could not be asked for: {glance.failure.text}. No step may be left out, so this fails for a few seconds."
        )
    if glance.state == "nothing":
        return "is not the mesh's and not in the cache: an upstream server is asked."
    exists = "exists" if glance.exists else "does not exist"
    if glance.state == "fresh":
        return f"{exists}, as the cache knows for {left(glance)} more."
    again = (
        "it is asked for again, and that counts if asking fails" if glance.asks else "asking again has failed just now"
    )
    return f"{exists}, as the cache knew until {left(glance)} ago; {again}."


def left(glance: Glance) -> str:
    """The seconds left, or gone since it expired."""
    return f"{abs(glance.seconds or 0):.0f} s"


def _open_end(case: Case) -> str:
    """What comes of a search that ended at none of its steps."""
    if case.foresight.asked and case.decision.walk:
        return (
            "What has to be asked is asked at once, and the first of these names that exists is the answer (rule D8)."
        )
    if case.decision.walk:
        return "None of them exists, so the answer is NXDOMAIN (rule D8)."
    if case.zone:
        return "Nothing of the mesh is found. Your resolver goes on with its own search after this NXDOMAIN."
    return "Nothing of the mesh is found, so the name goes upstream as it stands."
