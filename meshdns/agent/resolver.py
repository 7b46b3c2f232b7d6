"""Inside: a packet's whole way, as one straight function.

A packet enters and its answer leaves at once, or later through `done` where an upstream must be asked. Tables enter by
`adopt`. It must never know of sockets, timers or files; the upstream is one callable.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import attrs

from meshdns import __version__, messages, names, wire
from meshdns.agent.answers import Answer, Answers
from meshdns.agent.authority import Authority, Found
from meshdns.agent.flights import Failed, Reply
from meshdns.agent.packed import Packed, PackedAnswers
from meshdns.agent.search import Search, Walk
from meshdns.defaults import PACKED_TURNS, PROBE_ZONE
from meshdns.messages import Record, Sections
from meshdns.table import Table
from meshdns.wire import Ask, Query

_PROBES = names.parse(PROBE_ZONE)
_VERSION_NAMES = frozenset({names.parse("version.bind"), names.parse("version.server")})
_TRANSFERS = frozenset({wire.AXFR, wire.IXFR})
_NOT_READY = 14  # EDE code of RFC 8914


class Answered(NamedTuple):
    """An answer for one client, and what the metrics count of it."""

    message: bytes
    source: str  # mesh, upstream or local
    type: int
    rcode: int


Done = Callable[[Answered], None]


class AskUpstream(Protocol):
    def __call__(self, ask: Ask, done: Callable[[Reply | Failed], None], /) -> None: ...


@attrs.frozen
class Place:
    """The workload as its resolver sees it: `autopath` is all, mesh or off; `ttl` None takes the table's."""

    namespace: str
    domain: bytes
    search: Sequence[bytes]
    zones: Sequence[bytes] = ()
    autopath: str = "all"
    udp_max: int = messages.UDP_SIZE
    ttl: int | None = None


@attrs.frozen
class Decision:
    """Whose a name is. `rule` as in the contract; with neither `found` nor `zone` the name is an upstream's."""

    rule: str
    found: Found | None = None
    walk: Walk | None = None
    zone: bytes | None = None


_THEIRS = Decision("D10")


class Resolver:
    """One workload's resolver."""

    def __init__(self, place: Place, ask_upstream: AskUpstream, is_own_probe: Callable[[bytes], bool]) -> None:
        """`is_own_probe` says of an arriving name below PROBE_ZONE whether it is a question of ours that came back."""
        self.packed = PackedAnswers()
        self.serial = 0
        self.autopath_answers = 0
        self._ask_upstream = ask_upstream
        self._is_own_probe = is_own_probe
        self._turns: dict[tuple[str, int], int] = {}
        self._use(place, None)

    def adopt(self, table: Table) -> None:
        """Answer from this table, from the very next packet on (rule D28)."""
        self.serial += 1
        self._use(self.place, table)

    def move(self, place: Place) -> None:
        """Answer as the workload at another place sees the same table, from the very next packet on."""
        self._use(place, self.authority.table)

    def _use(self, place: Place, table: Table | None) -> None:
        self.place = place
        self._search = Search(place.search if place.autopath != "off" else ())
        self.authority = Authority(table, namespace=place.namespace, domain=place.domain, zones=place.zones)
        ttl = place.ttl if place.ttl is not None else table.ttl if table else 0
        self._answers = Answers(self.authority, ttl=ttl, serial=self.serial)
        self._turns.clear()
        self.packed.forget()

    # A packet's way

    def answer(self, packet: bytes, *, tcp: bool, done: Done) -> bool:
        """Answer a client's packet by calling `done` once, now or when an upstream has spoken; False: never (rule D2)."""
        query = wire.read_query(packet)
        if query is None:
            return False
        if isinstance(query, int):
            done(Answered(messages.refuse(packet, query), "local", 0, query))
            return True
        limit = messages.TCP_LIMIT if tcp else query.limit(self.place.udp_max)
        if (refusal := self._local(query, limit)) is not None:
            done(refusal)
            return True
        decision = self.decide(query.name, query.type)
        said = self._said(decision, query)
        if decision.rule == "D17":
            done(self._failed(query, limit, "local", _NOT_READY, "no name table has arrived yet"))
        elif said is None:
            self._relay(query, limit, done)
        elif said.follow is not None:
            self._follow(query, limit, said, done)
        else:
            message = self._render(query, limit, said)
            if decision.found and not tcp:
                self._pack(packet, query, limit, said, message, decision.found)
            done(Answered(message, "mesh", query.type, said.rcode))
        return True

    def _said(self, decision: Decision, query: Query) -> Answer | None:
        """What the mesh says, None when the question is for an upstream."""
        if decision.found:
            self.autopath_answers += decision.walk is not None
            turn = self._next_turn(decision.found, query.type)
            return self._answers.answer(decision.found, query.name, query.type, turn)
        if decision.zone:
            return self._answers.absent(query.name, decision.zone)
        return None

    def decide(self, name: bytes, qtype: int) -> Decision:
        """Whose name it is, in the contract's order (rules D6 to D10)."""
        authority = self.authority
        zone = authority.zone_of(name)
        if zone and authority.table is None:
            return Decision("D17", zone=zone)
        if qtype == wire.PTR and (pointer := authority.pointer(name)):
            return Decision("D13", pointer)
        if (found := authority.locate(name) or (authority.nonterminal(name) if zone else None)) is not None:
            return Decision(found.rule, found, zone=zone)
        walk = self._search.walk(name, authority)
        if walk and walk.found:
            return Decision("D8", walk.found, walk, zone)
        if walk is None and zone is None:
            return _THEIRS
        # A name inside a mesh zone never leaves; the client goes on with its own search after this NXDOMAIN.
        return Decision("D9" if zone else "D10", None, walk, zone)

    def _local(self, query: Query, limit: int) -> Answered | None:
        """What is answered without looking at names: other classes, zone transfers, our own probes come back."""
        if query.cls == wire.CH and query.name in _VERSION_NAMES and query.type in (wire.TXT, wire.ANY):
            version = Record(query.name, wire.TXT, 0, messages.txt_rdata(f"meshdns {__version__}"), wire.CH)
            return self._say(query, limit, "local", Sections([version]))
        foreign = query.cls != wire.IN and query.cls != wire.ANY_CLASS
        if foreign or query.type in _TRANSFERS or (query.name.endswith(_PROBES) and self._is_own_probe(query.name)):
            return self._say(query, limit, "local", Sections(), wire.REFUSED)
        return None

    def _say(
        self, query: Query, limit: int, source: str, sections: Sections, rcode: int = 0, options: bytes = b""
    ) -> Answered:
        return Answered(
            messages.render(query, sections, limit=limit, rcode=rcode, options=options), source, query.type, rcode
        )

    def _failed(self, query: Query, limit: int, source: str, ede: int, text: str) -> Answered:
        options = messages.extended_error(ede, text)
        return self._say(query, limit, source, Sections(), wire.SERVFAIL, options)

    def _next_turn(self, found: Found, qtype: int) -> int:
        """Which of several addresses comes first this time: each in its turn (rule D11)."""
        if found.entry is None:
            return 0
        key = found.entry.host, qtype
        turn = self._turns[key] = self._turns.get(key, -1) + 1
        return turn

    def _pack(self, packet: bytes, query: Query, limit: int, said: Answer, message: bytes, found: Found) -> None:
        """Keep the answer for the same packet to come, in every order of its addresses, this one last.

        A query with EDNS options is not worth it: a cookie makes each one new.
        """
        if said.turns > PACKED_TURNS or (query.edns and query.edns.options):
            return
        tails = [message[2:]]
        if said.turns > 1 and found.entry:
            now = self._turns[found.entry.host, query.type]
            later = (self._answers.answer(found, query.name, query.type, now + n) for n in range(1, said.turns))
            tails[:0] = [self._render(query, limit, answer)[2:] for answer in later]
        self.packed.keep(packet[2:], Packed(tails, query.type, said.rcode))

    def _render(self, query: Query, limit: int, said: Answer) -> bytes:
        return messages.render(query, said.sections, limit=limit, rcode=said.rcode, aa=True)

    # What an upstream adds

    def _relay(self, query: Query, limit: int, done: Done) -> None:
        self._ask_upstream(query.ask, partial(self._relayed, query, limit, done))

    def _relayed(self, query: Query, limit: int, done: Done, result: Reply | Failed) -> None:
        if isinstance(result, Failed):
            return done(self._failed(query, limit, "upstream", result.ede, result.text))
        message = messages.relay(query, result.message, limit, result.body)
        done(Answered(message, "upstream", query.type, message[3] & 0x0F))

    def _follow(self, query: Query, limit: int, said: Answer, done: Done) -> None:
        """Ask an upstream for the records of the name that the mesh's own records lead to."""
        if not said.sections.answer:
            return self._relay(query, limit, done)
        assert said.follow is not None
        ask = query.ask._replace(question=said.follow.lower() + query.question[-4:])
        self._ask_upstream(ask, partial(self._followed, query, limit, said, done))

    def _followed(self, query: Query, limit: int, said: Answer, done: Done, result: Reply | Failed) -> None:
        """The mesh's records, then the upstream's."""
        if isinstance(result, Failed):
            return done(self._failed(query, limit, "upstream", result.ede, result.text))
        try:
            added = messages.records(result.message)
        except wire.Malformed as problem:
            return done(self._failed(query, limit, "upstream", 0, f"{result.server}: {problem}"))
        rcode = wire.rcode(result.message)
        sections = Sections([*said.sections.answer, *added.answer], added.authority)
        message = messages.render(query, sections, limit=limit, rcode=rcode, aa=True)
        done(Answered(message, "upstream", query.type, rcode))

    # from explain

    def preview(self, decision: Decision, name: bytes, qtype: int) -> Answer | None:
        """What the mesh would say, nothing counted or turned by it; None when the question is for an upstream."""
        if decision.found:
            return self._answers.answer(decision.found, name, qtype)
        if decision.zone and decision.rule != "D17":
            return self._answers.absent(name, decision.zone)
        return None
