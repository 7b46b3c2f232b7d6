"""Inside: a packet's whole way, as one straight function.

A packet enters and its answer leaves at once, or later through `done` where an upstream must be asked. Tables enter by
`adopt`, large ones in steps. It must never know of sockets, timers or files; the upstream is one callable.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from copy import copy
from functools import partial
from typing import NamedTuple

import attrs

from meshdns import __version__, messages, names, wire
from meshdns.agent import packs
from meshdns.agent.answers import Answer, Answers
from meshdns.agent.authority import Authority, Found, let_go
from meshdns.agent.cache import Hit
from meshdns.agent.chain import has_alias, legs
from meshdns.agent.lifetimes import extended_errors
from meshdns.agent.lookups import Lookups, Word
from meshdns.agent.packed import PackedAnswers
from meshdns.agent.packs import Packs
from meshdns.agent.pursuit import End, Pursuit
from meshdns.agent.search import Search, Walk
from meshdns.agent.special import Special
from meshdns.agent.steps import Failed, Result
from meshdns.defaults import CHAIN_RECORDS, FOREIGN_PARENTS, PACKED_TURNS, PROBE_ZONE, SEARCH_TTL
from meshdns.messages import Record, Sections
from meshdns.table import Table
from meshdns.wire import Ask, Query

_PROBES = names.parse(PROBE_ZONE)
_NONE, _SOME, _ALL = range(3)
_UNDERSCORE = ord("_")
_REVERSE = (names.parse("in-addr.arpa"), names.parse("ip6.arpa"))  # an address may be the mesh's
_VERSION_NAMES = frozenset({names.parse("version.bind"), names.parse("version.server")})
_TRANSFERS = frozenset({wire.AXFR, wire.IXFR})
_NOT_READY = 14  # EDE code of RFC 8914
_STALE = messages.extended_error(3)
_CACHED = messages.extended_error(13)
_ERROR_BASE = 12 + 11 + 6  # octets of a header, of OPT, and of an extended error without text


class Answered(NamedTuple):
    """An answer for one client, and what the metrics count of it."""

    message: bytes
    source: str  # mesh, cache, stale, upstream or local
    type: int
    rcode: int


Done = Callable[[Answered], None]


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


class _Client(NamedTuple):
    """One who waits for an upstream's word: how many octets fit, and whom to tell.

    `store` is None where an equal packet need not get the same answer a moment later.
    """

    query: Query
    limit: int
    done: Done
    store: PackedAnswers | None = None
    packet: bytes = b""


class Resolver:
    """One workload's resolver."""

    def __init__(
        self, place: Place, lookups: Lookups, is_own_probe: Callable[[bytes], bool], special: Special | None = None
    ) -> None:
        """`is_own_probe` says of an arriving name below PROBE_ZONE whether it is a question of ours that came back."""
        self.packs = Packs()
        self.serial = 0
        self.autopath_answers = 0
        self.lookups = lookups
        self._is_own_probe = is_own_probe
        self._special = special or Special()
        self._turns: dict[tuple[str, int], int] = {}
        self._use(place, Authority(None, *_frame(place)))

    def adopt(self, table: Table) -> None:
        """Answer from this table, from the very next packet on (rule D28)."""
        for _ in self.adopt_in_steps(table):
            pass

    def adopt_in_steps(self, table: Table) -> Iterator[None]:
        """The same, stopping to breathe; until the new table is whole the old one is answered from, and then goes."""
        old = self.authority.table
        same = old is not None and old.ttl == table.ttl and not any(host.startswith("*") for host in table.changed)
        del old  # nothing here may keep it
        if self.authority.follow(table):
            self.serial += 1
            if same:
                self._answers = self._new_answers()
                self._claims.clear()
                self.packs.forget_about(table.changed)
            else:
                self._use(self.place, self.authority)
            return
        built = yield from self._authority(table)
        self.serial += 1
        parts = self.authority.parts()
        self._use(self.place, built)
        yield from let_go(parts)

    def move(self, place: Place) -> None:
        """Answer as the workload at another place sees the same table, from the very next packet on."""
        same = _frame(place) == _frame(self.place)
        self._use(place, self.authority if same else Authority(self.authority.table, *_frame(place)))

    def _authority(self, table: Table) -> Generator[None, None, Authority]:
        """The workload may move in the middle of it."""
        while True:
            frame = _frame(self.place)
            built = yield from Authority.in_steps(table, *frame)
            if frame == _frame(self.place):
                return built

    def _use(self, place: Place, authority: Authority) -> None:
        self.place = place
        self._search = Search(place.search if place.autopath != "off" else ())
        self.authority = authority
        self._answers = self._new_answers()
        self._turns.clear()
        self._claims: dict[bytes, int] = {}  # by parent
        self.packs.forget()

    def _new_answers(self) -> Answers:
        place, table = self.place, self.authority.table
        ttl = place.ttl if place.ttl is not None else table.ttl if table else 0
        return Answers(self.authority, ttl=ttl, serial=self.serial)

    # A packet's way

    def answer(self, packet: bytes, *, tcp: bool, now: float, done: Done) -> bool:
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
            store = self.packs.store(query, tcp) if decision.walk is None else None  # a walk hangs on several words
            self._upstream(_Client(query, limit, done, store, packet), decision, now)
        elif said.follow is not None:
            self._follow(_Client(query, limit, done), list(said.sections.answer), said.follow, now)
        else:
            message = self._render(query, limit, said)
            if said.turns <= PACKED_TURNS and (store := self.packs.store(query, tcp)) is not None:
                tails = self._tails(query, limit, said, message, decision.found)
                store.keep(packet[2:], packs.of_mesh(query, tails, said, decision.found))
            done(Answered(message, "mesh", query.type, said.rcode))
        return True

    def resume(self, packet: bytes, ask: Ask, result: Result, now: float, done: Done) -> None:
        """Go on with an upstream's result for a packet that took the short way, where `answer` would be with it."""
        query = wire.read_query(packet)
        assert isinstance(query, Query)  # the short way is for no others
        client = _Client(query, query.limit(self.place.udp_max), done)
        self.lookups.heard(ask, partial(self._give, client, []), result, now)

    def go_on(self, packet: bytes, ask: Ask, kept: Hit | Failed | None, now: float, done: Done) -> None:
        """Go on with what the cache keeps for such a packet."""
        query = wire.read_query(packet)
        assert isinstance(query, Query)
        client = _Client(query, query.limit(self.place.udp_max), done, self.packs.datagrams, packet)
        self.lookups.go_on(ask, kept, now, partial(self._give, client, []))

    def is_foreign(self, name: bytes) -> bool:
        """Whether these octets are a name that is surely an upstream's; False: `answer` must look.

        Mostly the parent tells, which is remembered.
        """
        first = name[0]
        parent = name[1 + first :]
        claims = self._claims.get(parent)
        if claims is None:
            if len(self._claims) >= FOREIGN_PARENTS:
                self._claims.clear()
            claims = self._claims[parent] = self._claim(parent)
        # A label that begins with an underscore may be a named port of whatever host.
        if (
            claims == _ALL
            or first > names.MAX_LABEL
            or not first
            or name[1] == _UNDERSCORE
            or len(name) > names.MAX_NAME
        ):
            return False
        return claims == _NONE or not self.authority.is_claimed(name)

    def _claim(self, parent: bytes) -> int:
        """Of the names right below this one, which mesh, search list and special uses may claim: _NONE, _SOME or _ALL."""
        child = b"\x01x" + parent
        if not wire.is_name(parent) or parent == names.ROOT or parent.endswith(_REVERSE) or len(child) > names.MAX_NAME:
            return _ALL
        if child.endswith(_PROBES) or self._special.concerns(child) or self._search.candidates(child) is not None:
            return _ALL
        if self.decide(child, wire.A) is not _THEIRS:
            return _ALL
        return _SOME if self.authority.is_parent(parent) else _NONE

    def _said(self, decision: Decision, query: Query) -> Answer | None:
        """What the mesh says, None when the question is for an upstream."""
        if decision.found:
            self.autopath_answers += decision.walk is not None
            turn = self._next_turn(decision.found, query.type)
            return self._answers.answer(decision.found, query.name, query.type, turn)
        if decision.zone and decision.walk is None:
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
        if walk and walk.undecided and self.place.autopath == "all":
            return Decision("D8", None, walk, zone)
        # A name inside a mesh zone never leaves; the client goes on with its own search after this NXDOMAIN.
        return Decision("D9", zone=zone) if zone else _THEIRS

    def _local(self, query: Query, limit: int) -> Answered | None:
        """What is answered before all else: other classes, zone transfers, our own probes come back, special-use names."""
        if query.cls == wire.CH and query.name in _VERSION_NAMES and query.type in (wire.TXT, wire.ANY):
            version = Record(query.name, wire.TXT, 0, messages.txt_rdata(f"meshdns {__version__}"), wire.CH)
            return self._say(query, limit, "local", Sections([version]))
        foreign = query.cls != wire.IN and query.cls != wire.ANY_CLASS
        if foreign or query.type in _TRANSFERS or (query.name.endswith(_PROBES) and self._is_own_probe(query.name)):
            return self._say(query, limit, "local", Sections(), wire.REFUSED)
        special = self._special.say(query.name, query.type)
        if special is not None and self.authority.locate(query.name) is None and not self.authority.zone_of(query.name):
            return self._say(query, limit, "local", special.sections, special.rcode)
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

    def _tails(self, query: Query, limit: int, said: Answer, message: bytes, found: Found | None) -> list[bytes]:
        """The answer behind its id in every order of its addresses, this one last."""
        tails = [message[2:]]
        if found and found.entry and said.turns > 1:
            now = self._turns[found.entry.host, query.type]
            later = (self._answers.answer(found, query.name, query.type, now + n) for n in range(1, said.turns))
            tails[:0] = [self._render(query, limit, answer)[2:] for answer in later]
        return tails

    def _render(self, query: Query, limit: int, said: Answer) -> bytes:
        return messages.render(query, said.sections, limit=limit, rcode=said.rcode, aa=True)

    # What upstreams add

    def _upstream(self, client: _Client, decision: Decision, now: float) -> None:
        """A name that only upstreams know, or that the search list may lead to."""
        if decision.walk is None:
            self.lookups.find(client.query.ask, now, partial(self._give, client, []))
        else:
            end = partial(self._arrive, client, decision.zone)
            Pursuit(decision.walk, client.query.ask, self.lookups, end).start(now)

    def _follow(self, client: _Client, front: list[Record], target: bytes, now: float) -> None:
        """Ask for the records of the name that the records so far lead to."""
        ask = client.query.ask._replace(question=target + client.query.question[-4:])
        self.lookups.find(ask, now, partial(self._give, client, front))

    def _arrive(self, client: _Client, zone: bytes | None, end: End, now: float) -> None:
        """The end of a walk, told to the client as `asked CNAME end` and what stands there (rules D8, D12)."""
        query = client.query
        self.autopath_answers += end.exists and end.name != query.name
        said = None
        if end.found is not None:
            said = self._answers.answer(end.found, query.name, query.type, self._next_turn(end.found, query.type))
        elif zone and not end.exists and not isinstance(end.word, Failed):
            said = self._answers.absent(query.name, zone)
        if said is not None:
            return self._say_mesh(client, said, now, aa=True)
        assert end.word is not None  # a walk without any upstream step is decided by the table
        front = [Record(query.name, wire.CNAME, SEARCH_TTL, end.name)] if end.exists and end.name != query.name else []
        return self._give(client, front, end.word, now, exists=end.exists)

    def _say_mesh(self, client: _Client, said: Answer, now: float, *, aa: bool) -> None:
        """What the mesh says, with what an upstream must add."""
        if said.follow is not None:
            return self._follow(client, list(said.sections.answer), said.follow, now)
        message = messages.render(client.query, said.sections, limit=client.limit, rcode=said.rcode, aa=aa)
        return client.done(Answered(message, "mesh", client.query.type, said.rcode))

    def _give(
        self, client: _Client, front: list[Record], word: Word | Failed, now: float, *, exists: bool = False
    ) -> None:
        """Give an upstream's word to the client, behind the records that lead to it.

        `exists`: it is no NXDOMAIN, whatever the word says of this one type.
        """
        if isinstance(word, Failed):
            source, options = "cache" if word.cached else "upstream", _why(client, word)
            return client.done(self._say(client.query, client.limit, source, Sections(), wire.SERVFAIL, options))
        try:
            return self._give_word(client, front, word, now, exists)
        except wire.Malformed as problem:  # in RDATA, which nobody reads unless records must stand in front of it
            text = f"an upstream sent a broken answer: {problem}"
            return client.done(self._failed(client.query, client.limit, "upstream", 0, text))

    def _give_word(self, client: _Client, front: list[Record], word: Word, now: float, exists: bool) -> None:
        """`_give` for an answer. Raises wire.Malformed before anybody is told anything."""
        leads_on = has_alias(word.message, word.body)
        if leads_on and (inward := self._inward(word)) is not None:
            return self._enter(client, [*front, *inward[0]], inward[1], now)
        options = _STALE if word.source == "stale" else b""
        if not front and not options and not (exists and word.rcode == wire.NXDOMAIN):
            message = messages.relay(client.query, word.message, client.limit, word.body)
            if client.store is not None and now < word.until:
                query = client.query
                client.store.keep(
                    client.packet[2:], packs.of_word(query.name, query.type, message, word.until, leads_on)
                )
            return client.done(Answered(message, word.source, client.query.type, message[3] & 0x0F))
        rcode = wire.NOERROR if exists else word.rcode
        added = messages.records(word.message)
        sections = Sections([*front, *added.answer], added.authority, () if front else added.additional)
        aa = bool(front) and self.authority.host(front[-1].owner) is not None  # only if the mesh itself leads there
        message = messages.render(client.query, sections, limit=client.limit, rcode=rcode, aa=aa, options=options)
        return client.done(Answered(message, word.source, client.query.type, rcode))

    def _inward(self, word: Word) -> tuple[Sequence[Record], bytes] | None:
        """Where a chain of CNAMEs enters the mesh: the records up to there, and the mesh name (rule D24)."""
        for target, records in legs(word.message):
            if self.authority.zone_of(target) or self.authority.host(target):
                return records, target
        return None

    def _enter(self, client: _Client, front: list[Record], target: bytes, now: float) -> None:
        """An upstream never speaks for a mesh name: the table does."""
        if len(front) > CHAIN_RECORDS:
            text = "the chain of CNAMEs does not end"
            return client.done(self._failed(client.query, client.limit, "upstream", 0, text))
        return self._say_mesh(client, self._answers.onward(front, target, client.query.type), now, aa=False)

    # from explain

    def preview(self, decision: Decision, name: bytes, qtype: int) -> Answer | None:
        """What the mesh would say, nothing counted or turned by it; None when the question is for an upstream."""
        if decision.found:
            return self._answers.answer(decision.found, name, qtype)
        if decision.zone and decision.walk is None and decision.rule != "D17":
            return self._answers.absent(name, decision.zone)
        return None

    def rehearse(self, packet: bytes, lookups: Lookups, now: float) -> Answered | None:
        """The answer to a packet as `lookups`, which ask nobody, let it be known; None: an upstream would be asked first.

        A copy of this resolver gives it, which counts and turns for itself.
        """
        double = copy(self)
        double.lookups, double._turns = lookups, {}
        double.packs = Packs()
        double._is_own_probe = _is_nobodys
        told: list[Answered] = []
        double.answer(packet, tcp=True, now=now, done=told.append)
        return told[0] if told else None


def _frame(place: Place) -> tuple[str, bytes, tuple[bytes, ...]]:
    """What an `Authority` hangs on beside its table."""
    return place.namespace, place.domain, tuple(place.zones)


def _why(client: _Client, failed: Failed) -> bytes:
    """Extended errors: ours, whether it is one of a moment ago, and those of the last server that answered (rule D18), as far
    as they fit."""
    room = client.limit - _ERROR_BASE - len(client.query.question) - len(_CACHED)
    text = failed.text.encode()[: max(room, 0)].decode(errors="ignore")
    options = messages.extended_error(failed.ede, text) + (_CACHED if failed.cached else b"")
    opt = wire.body(failed.reply).opt if failed.reply else 0
    theirs = extended_errors(wire.edns_at(failed.reply, opt).options) if failed.reply and opt else b""
    return options + theirs if len(options) + len(theirs) <= room else options


def _is_nobodys(name: bytes) -> bool:
    """Of a probe's name that a person asks about: it did not come back."""
    return False
