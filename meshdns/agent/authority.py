"""Inside: the mesh's own names: whose a name is, and where in the table it stands (rules D6, D7, D9, D13, D16, D17).

A `Table` and the workload's place enter, and later the tables that deltas make of it; wire names enter and a `Found` leaves, or
None for "not ours". What a found name answers to which type is `answers.py`; the search list is `search.py`. It must never
know of clients, messages or upstreams.
"""

from collections.abc import Generator, Iterable, Iterator, MutableMapping
from enum import Enum, auto
from typing import Any

import attrs

from meshdns import names
from meshdns.defaults import AUTHORITY_STEP
from meshdns.splitdict import SplitDict
from meshdns.table import Entry, Port, Table

KUBERNETES = "Kubernetes"
NAMESERVER = b"\x02ns\x03dns"  # in front of a zone: the name in its NS record, as CoreDNS has it
_SVC = b"\x03svc"
_VERSION = b"\x0bdns-version"
_UNDERSCORE = ord("_")


class Kind(Enum):
    """What stands at a name."""

    HOST = auto()  # an entry's addresses, or its alias
    SERVICE = auto()  # _PORT._PROTO.HOST
    POINTER = auto()  # a reverse name
    APEX = auto()  # a mesh zone itself
    NAMESERVER = auto()  # ns.dns.ZONE
    VERSION = auto()  # dns-version.ZONE
    NONTERMINAL = auto()  # names exist below it, nothing at it


@attrs.frozen
class Found:
    """A name of the mesh: the rule that makes it one, the canonical name that owns its records, and its entry."""

    rule: str
    how: str  # a clause for `explain`
    kind: Kind
    canonical: bytes
    entry: Entry | None = None
    ports: tuple[Port, ...] = ()


class Authority:
    """Every mesh name that one workload may see. A table that differs in a few hosts is followed; for others a new one is made."""

    table: Table | None

    def __init__(self, table: Table | None, namespace: str, domain: bytes, zones: Iterable[bytes] = ()) -> None:
        """`zones` replaces the table's where given; before the first table (None) the workload's own domain stands in."""
        for _ in self._build(table, namespace, domain, tuple(zones)):
            pass

    @classmethod
    def in_steps(
        cls, table: Table | None, namespace: str, domain: bytes, zones: Iterable[bytes] = ()
    ) -> Generator[None, None, "Authority"]:
        """The same, stopping to breathe after each AUTHORITY_STEP hosts, so that packets can be answered in between."""
        built = cls.__new__(cls)
        yield from built._build(table, namespace, domain, tuple(zones))
        return built

    def follow(self, table: Table) -> bool:
        """Become the authority for a table that a small delta has made of the one held; False, and nothing done, for any other."""
        held = self.table
        if held is None or table.base != held.generation or table.zones != held.zones:
            return False
        if len(table.changed) > AUTHORITY_STEP:
            return False
        for host in table.changed:
            if old := held.entries.get(host):
                self._remove(old)
            if new := table.entries.get(host):
                self._add(new)
        self.table = table
        return True

    # Indexes

    def _build(
        self, table: Table | None, namespace: str, domain: bytes, zones: tuple[bytes, ...]
    ) -> Generator[None, None, None]:
        self.table = table
        said = zones or tuple(map(names.parse, table.zones if table else ())) or (domain,)
        self.zones = tuple(sorted(said, key=lambda zone: (-len(zone), zone)))
        services = _SVC + domain
        self._alias_ends = (names.parse(namespace)[:-1] + services, services, domain)
        self._hosts: SplitDict[bytes, Entry] = SplitDict()
        self._parents: SplitDict[bytes, int] = SplitDict()  # of hosts, and of how many
        self._wildcards: dict[bytes, Entry] = {}
        self._nonterminals: dict[bytes, int] = {}  # and how many names stand right below
        self._pointers: SplitDict[bytes, Entry] = SplitDict()
        self._rivals: dict[bytes, dict[str, Entry]] = {}  # who has an address, too, and lost it to a better one
        self._special: dict[bytes, Found] = {}
        for zone in self.zones:
            self._add_zone(zone)
        count = 0
        for part in table.entries.parts if table else ():
            for entry in part.values():
                self._add(entry)
                count += 1
                if count % AUTHORITY_STEP == 0:
                    yield

    def _add_zone(self, zone: bytes) -> None:
        text = names.text(zone)
        for name, rule, kind, how in (
            (zone, "D16", Kind.APEX, f"is the mesh zone {text} itself"),
            (_VERSION + zone, "D15", Kind.VERSION, "is the version record of the Kubernetes DNS specification"),
            (NAMESERVER + zone, "D16", Kind.NAMESERVER, f"is the name server in the NS record of {text}"),
        ):
            self._special[name] = Found(rule, how, kind, name)
        for above in (_SVC + zone, names.parent(NAMESERVER + zone)):
            self._nonterminals[above] = self._nonterminals.get(above, 0) + 1

    def _add(self, entry: Entry) -> None:
        if entry.wildcard:
            self._wildcards[entry.name] = entry
        else:
            self._hosts.part(entry.name)[entry.name] = entry
            parent = names.parent(entry.name)
            parents = self._parents.part(parent)
            parents[parent] = parents.get(parent, 0) + 1
            for address in entry.v4 + entry.v6:
                self._claim(address, entry)
            held = self._nonterminals.get(parent, 0)
            if held and parent not in self._special and entry.name not in self._special:  # as most: one more below it
                self._nonterminals[parent] = held + 1
                return
        for above in self._above(entry):
            held = self._nonterminals.get(above, 0)
            self._nonterminals[above] = held + 1
            if held:  # what is above that one stands already
                break

    def _remove(self, entry: Entry) -> None:
        """As if it had never been added."""
        if entry.wildcard:
            del self._wildcards[entry.name]
        else:
            del self._hosts[entry.name]
            _less(self._parents, names.parent(entry.name))
            for address in entry.v4 + entry.v6:
                self._disclaim(address, entry)
        for above in self._above(entry):
            if _less(self._nonterminals, above):
                break

    def _above(self, entry: Entry) -> Iterable[bytes]:
        """The names between an entry and its mesh zone, the longest first; of a wildcard also what follows its "*."."""
        zone = self.zone_of(entry.name)
        above = entry.name if entry.wildcard else names.parent(entry.name)
        while zone and len(above) > len(zone):
            yield above
            above = names.parent(above)

    def _claim(self, address: bytes, entry: Entry) -> None:
        pointers = self._pointers.part(address)
        held = pointers.get(address)
        if held is None:
            pointers[address] = entry
            return
        better, other = (entry, held) if _pointer_rank(entry) < _pointer_rank(held) else (held, entry)
        pointers[address] = better
        self._rivals.setdefault(address, {})[other.host] = other

    def _disclaim(self, address: bytes, entry: Entry) -> None:
        rivals = self._rivals.get(address, {})
        if self._pointers[address].host != entry.host:
            del rivals[entry.host]
        elif rivals:
            best = min(rivals.values(), key=_pointer_rank)
            self._pointers[address] = rivals.pop(best.host)
        else:
            del self._pointers[address]
        if not rivals:
            self._rivals.pop(address, None)

    def parts(self) -> list[dict[Any, Any]]:
        """What it is made of, for `let_go`, when it is not used any more."""
        entries = self.table.entries.parts if self.table else []
        indexes = self._hosts.parts + self._pointers.parts
        return [*entries, *indexes, *self._parents.parts, self._nonterminals, self._wildcards, self._rivals]

    # Questions about one name

    def zone_of(self, name: bytes) -> bytes | None:
        """The most specific mesh zone that the name lies in."""
        if name.endswith(self.zones):
            for zone in self.zones:
                if names.within(name, zone):
                    return zone
        return None

    def host(self, name: bytes) -> Found | None:
        """A host of the table by its full name, or by a wildcard of it (rules D6, D7); never a short form."""
        if entry := self._hosts.get(name):
            return Found("D6", f"is the host {entry.host} of the table", Kind.HOST, entry.name, entry)
        return self._wildcard(name)

    def locate(self, name: bytes) -> Found | None:
        """What stands at a name by rules D6, D7, D13 and D16, in this order; None when nothing of the mesh does."""
        if entry := self._hosts.get(name):
            return Found("D6", f"is the host {entry.host} of the table", Kind.HOST, entry.name, entry)
        return self._alias(name) or self._special.get(name) or self._service(name) or self._wildcard(name)

    def is_claimed(self, name: bytes) -> bool:
        """Whether a host, an alias or a name that a zone has of itself may stand at just this name. Quick, and says no only
        where `locate` finds nothing but wildcards and services."""
        hosts, front = self._hosts, name[:-1]
        first, second, third = self._alias_ends
        return (
            name in hosts or front + first in hosts or front + second in hosts or front + third in hosts
            or name in self._special or name in self._nonterminals
        )  # fmt: skip

    def is_parent(self, name: bytes) -> bool:
        """Whether hosts, short forms of hosts or names that a zone has of itself may stand right below a name."""
        parents, front = self._parents, name[:-1]
        if name in parents or any(front + end in parents for end in self._alias_ends):
            return True
        return any(names.parent(zone) == name for zone in self.zones)

    def nonterminal(self, name: bytes) -> Found | None:
        """An empty non-terminal of a mesh zone: names exist below it, so it exists too (rule D9, RFC 8020)."""
        if name in self._nonterminals:
            return Found("D9", "is an empty non-terminal: names exist below it", Kind.NONTERMINAL, name)
        return None

    def pointer(self, name: bytes) -> Found | None:
        """The host that carries the address of a reverse name (rule D13)."""
        address = names.address(name)
        entry = self._pointers.get(address) if address else None
        if entry is None:
            return None
        return Found("D13", f"is the reverse name of an address of {entry.host}", Kind.POINTER, name, entry)

    def addresses(self, name: bytes) -> Entry | None:
        """The entry of a full host name, for the addresses of SRV targets."""
        return self._hosts.get(name)

    def _alias(self, name: bytes) -> Found | None:
        for end in self._alias_ends if name != names.ROOT else ():
            entry = self._hosts.get(name[:-1] + end)
            if entry and entry.registry == KUBERNETES:
                return Found("D6", f"is short for {entry.host} (+ {names.text(end)})", Kind.HOST, entry.name, entry)
        return None

    def _service(self, name: bytes) -> Found | None:
        """`_PORT._PROTO.HOST`, and `_PROTO.HOST` above it, which is empty."""
        if len(name) < 3 or name[1] != _UNDERSCORE:
            return None
        first, above = name[2 : 1 + name[0]], names.parent(name)
        if len(above) > 2 and above[1] == _UNDERSCORE:
            host = self._service_host(names.parent(above))
            if host is None or host.entry is None:
                return None
            protocol = above[2 : 1 + above[0]]
            ports = tuple(
                p for p in host.entry.ports if p.name and (_label(p.name), _label(p.protocol)) == (first, protocol)
            )
            front = name[: 2 + name[0] + above[0]]
            how = f"is a named port of {names.text(host.canonical)}"
            return Found("D13", how, Kind.SERVICE, front + host.canonical, host.entry, ports) if ports else None
        host = self._service_host(above)
        if host is None or host.entry is None or first not in {_label(p.protocol) for p in host.entry.ports if p.name}:
            return None
        return Found("D9", "is an empty non-terminal above named ports", Kind.NONTERMINAL, name, host.entry)

    def _service_host(self, name: bytes) -> Found | None:
        if entry := self._hosts.get(name):
            return Found("D6", "", Kind.HOST, entry.name, entry)
        return self._alias(name) or self._wildcard(name)

    def _wildcard(self, name: bytes) -> Found | None:
        if not self._wildcards:
            return None
        for rest in names.suffixes(names.parent(name)):
            if entry := self._wildcards.get(rest):
                return Found("D7", f"is covered by {entry.host}, the closest wildcard", Kind.HOST, name, entry)
        return None


def let_go(parts: list[dict[Any, Any]]) -> Iterator[None]:
    """Give up what an authority was made of, entries last, some at a time: to free a large table at once takes long."""
    yield  # by now nobody else holds it
    left = AUTHORITY_STEP
    while parts:
        values = list(parts.pop().values())
        while values:
            some = min(left, len(values))
            del values[-some:]
            left -= some
            if not left:
                yield
                left = AUTHORITY_STEP


def _less(counts: MutableMapping[bytes, int], name: bytes) -> bool:
    """One less at a name; whether there are others."""
    left = counts[name] - 1
    if left:
        counts[name] = left
    else:
        del counts[name]
    return bool(left)


def _label(text: str) -> bytes:
    return text.lower().encode()


def _pointer_rank(entry: Entry) -> tuple[bool, bool, str]:
    """Who owns an address that several hosts carry: a Kubernetes service, a pod before its headless service, then by name."""
    return (entry.registry != KUBERNETES, bool(entry.pods), entry.host)
