"""Inside: what a name of the mesh answers to which type (rules D11 to D16).

A `Found`, the name that was asked and a type enter; an `Answer` leaves: records, rcode, and where the mesh says nothing
more, the name whose records an upstream must add. It must never know of clients' sizes, ids or flags.
"""

import attrs

from meshdns import messages, names, wire
from meshdns.agent.authority import NAMESERVER, Authority, Found, Kind
from meshdns.defaults import ALIAS_HOPS, NEGATIVE_TTL
from meshdns.messages import Record, Sections
from meshdns.table import Entry

_SERVICE_BINDINGS = frozenset({wire.SVCB, wire.HTTPS})
_DNS_VERSION = "1.1.0"  # of the Kubernetes DNS specification that is held


@attrs.frozen
class Answer:
    """What the mesh says: `follow` names what an upstream must still be asked, `turns` counts the orders of the addresses."""

    rule: str
    rcode: int
    sections: Sections
    follow: bytes | None = None
    turns: int = 1


class Answers:
    """The answers of one authority; rotation comes in as a number, so that each answer is a value."""

    def __init__(self, authority: Authority, *, ttl: int, serial: int) -> None:
        """`ttl` in seconds for entries without one of their own; `serial` for the zones' SOA."""
        self._authority = authority
        self._ttl = ttl
        self._serial = serial

    def answer(self, found: Found, asked: bytes, qtype: int, turn: int = 0) -> Answer:
        """The answer for a found name, with `asked CNAME canonical` in front where the two differ (rule D12)."""
        front: list[Record] = []
        if asked != found.canonical:
            front.append(Record(asked, wire.CNAME, self._entry_ttl(found.entry), found.canonical))
            if qtype == wire.CNAME:
                return Answer("D12", wire.NOERROR, Sections(front))
        return self._continue(front, found, qtype, turn, ALIAS_HOPS)

    def absent(self, asked: bytes, zone: bytes, front: list[Record] | None = None) -> Answer:
        """An unknown name inside a mesh zone (rule D9)."""
        return Answer("D9", wire.NXDOMAIN, Sections(front or [], [self._soa(zone)]))

    def nodata(self, rule: str, owner: bytes, front: list[Record] | None = None) -> Answer:
        """A name that exists without records of the type; the SOA is the zone's, or an external host's own."""
        return Answer(rule, wire.NOERROR, Sections(front or [], [self._soa(self._authority.zone_of(owner) or owner)]))

    def _continue(self, front: list[Record], found: Found, qtype: int, turn: int, hops: int) -> Answer:
        owner, entry = found.canonical, found.entry
        if qtype == wire.ANY:
            return Answer("D15", wire.NOERROR, Sections([*front, messages.any_record(owner, self._entry_ttl(entry))]))
        if entry is None:
            return self._zone_name(front, found, qtype)
        if found.kind is Kind.POINTER:
            return self._own(front, "D13", Record(owner, wire.PTR, self._entry_ttl(entry), entry.name))
        if found.kind is Kind.SERVICE:
            return self._service(front, found, qtype)
        if found.kind is Kind.NONTERMINAL:
            return self.nodata("D9", owner, front)
        if entry.alias:
            return self._alias(front, found, qtype, turn, hops)
        if qtype in (wire.A, wire.AAAA):
            return self._addresses(front, owner, entry, qtype, turn)
        if self._authority.zone_of(owner) or qtype in _SERVICE_BINDINGS:
            return self.nodata("D15", owner, front)
        return Answer("D15", wire.NOERROR, Sections(front), follow=owner)

    def _own(self, front: list[Record], rule: str, record: Record) -> Answer:
        return Answer(rule, wire.NOERROR, Sections([*front, record]))

    def _addresses(self, front: list[Record], owner: bytes, entry: Entry, qtype: int, turn: int) -> Answer:
        held = entry.v4 if qtype == wire.A else entry.v6
        if not held:
            return self.nodata("D11", owner, front)
        first = turn % len(held)
        ttl = self._entry_ttl(entry)
        records = [Record(owner, qtype, ttl, address) for address in held[first:] + held[:first]]
        return Answer("D11", wire.NOERROR, Sections(front + records), turns=len(held))

    def _alias(self, front: list[Record], found: Found, qtype: int, turn: int, hops: int) -> Answer:
        """An ExternalName: its CNAME, then the target, from the mesh if it is there, else from upstream (rule D14)."""
        assert found.entry and found.entry.alias
        target = found.entry.alias
        front = [*front, Record(found.canonical, wire.CNAME, self._entry_ttl(found.entry), target)]
        if qtype == wire.CNAME:
            return Answer("D14", wire.NOERROR, Sections(front))
        if any(record.owner == target for record in front) or not hops:
            return Answer("D14", wire.SERVFAIL, Sections())  # aliases in a circle, or a chain that nobody means
        return self.onward(front, target, qtype, turn, hops - 1)

    def onward(self, front: list[Record], target: bytes, qtype: int, turn: int = 0, hops: int = ALIAS_HOPS) -> Answer:
        """Where a chain of CNAMEs goes on at a target: in the mesh if that is there, else upstream (rules D14, D24)."""
        if (found := self._authority.host(target)) is not None:
            return self._continue(front, found, qtype, turn, hops)
        if zone := self._authority.zone_of(target):
            if self._authority.nonterminal(target):
                return self.nodata("D14", target, front)
            return self.absent(target, zone, front)
        return Answer("D14", wire.NOERROR, Sections(front), follow=target)

    def _service(self, front: list[Record], found: Found, qtype: int) -> Answer:
        entry = found.entry
        assert entry
        if qtype != wire.SRV:
            return self.nodata("D13", found.canonical, front)
        host = found.canonical
        for _ in range(2):
            host = names.parent(host)
        targets = entry.pods or (host,)
        weight = max(1, 100 // len(targets))
        ttl = self._entry_ttl(entry)
        records = [
            Record(found.canonical, wire.SRV, ttl, messages.srv_rdata(0, weight, port.number, target))
            for port in found.ports
            for target in targets
        ]
        return Answer("D13", wire.NOERROR, Sections([*front, *records], (), self._glue(targets, entry)))

    def _glue(self, targets: tuple[bytes, ...], service: Entry) -> list[Record]:
        """The addresses of SRV targets; a wildcard's target is no host of the table, so its own entry serves."""
        glue = []
        for target in targets:
            entry = self._authority.addresses(target) or (None if service.pods else service)
            if entry is None:
                continue
            ttl = self._entry_ttl(entry)
            glue += [Record(target, wire.A, ttl, address) for address in entry.v4]
            glue += [Record(target, wire.AAAA, ttl, address) for address in entry.v6]
        return glue

    def _zone_name(self, front: list[Record], found: Found, qtype: int) -> Answer:
        """The names that every mesh zone has of itself (rules D15, D16)."""
        owner = found.canonical
        if found.kind is Kind.VERSION and qtype == wire.TXT:
            return self._own(front, "D15", Record(owner, wire.TXT, self._ttl, messages.txt_rdata(_DNS_VERSION)))
        if found.kind is Kind.APEX and qtype == wire.SOA:
            return self._own(front, "D16", self._soa(owner, self._ttl))
        if found.kind is Kind.APEX and qtype == wire.NS:
            return self._own(front, "D16", Record(owner, wire.NS, self._ttl, NAMESERVER + owner))
        return self.nodata(found.rule, owner, front)

    def _soa(self, zone: bytes, ttl: int = NEGATIVE_TTL) -> Record:
        """A zone's SOA; in authority its TTL is that of the negative answer (RFC 2308 section 3)."""
        home = self._authority.zone_of(zone) or self._authority.zones[-1]
        rdata = messages.soa_rdata(NAMESERVER + home, b"\x0ahostmaster" + home, self._serial, NEGATIVE_TTL)
        return Record(zone, wire.SOA, ttl, rdata)

    def _entry_ttl(self, entry: Entry | None) -> int:
        return self._ttl if entry is None or entry.ttl is None else entry.ttl
