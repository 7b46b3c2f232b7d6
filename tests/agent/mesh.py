"""A mesh for tests, and a resolver on it that is asked with dnspython's messages and without any socket."""

import json
from collections.abc import Callable
from typing import Any

import attrs
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
from twisted.internet.task import Clock

from meshdns import names, table, wire
from meshdns.agent.cache import Cache
from meshdns.agent.flights import Failed, Reply
from meshdns.agent.lifetimes import Limits
from meshdns.agent.lookups import Lookups
from meshdns.agent.resolver import Answered, Place, Resolver

SEARCH = ("ns1.svc.cluster.local", "svc.cluster.local", "cluster.local")
HOSTS: list[dict[str, Any]] = [
    {"host": "productpage.ns1.svc.cluster.local", "ips": ["10.4.0.5"], "registry": "Kubernetes",
     "shortname": "productpage", "namespace": "ns1", "ports": [{"name": "http", "number": 9080, "protocol": "TCP"}]},
    {"host": "reviews.ns2.svc.cluster.local", "ips": ["10.4.0.6", "10.4.0.7", "10.4.0.8"], "registry": "Kubernetes",
     "shortname": "reviews", "namespace": "ns2", "ports": [{"name": "http", "number": 80, "protocol": "TCP"},
                                                           {"name": "", "number": 81, "protocol": "TCP"}]},
    {"host": "dual.ns1.svc.cluster.local", "ips": ["10.4.0.9", "fd00::9"], "registry": "Kubernetes", "ttl": 7},
    {"host": "six.ns1.svc.cluster.local", "ips": ["fd00::6"], "registry": "Kubernetes"},
    {"host": "kubernetes.default.svc.cluster.local", "ips": ["10.4.0.1"], "registry": "Kubernetes"},
    {"host": "mysql.db.svc.cluster.local", "ips": ["10.1.9.1", "10.1.9.2"], "registry": "Kubernetes",
     "pods": ["mysql-0.mysql.db.svc.cluster.local", "mysql-1.mysql.db.svc.cluster.local"],
     "ports": [{"name": "mysql", "number": 3306, "protocol": "TCP"}]},
    {"host": "mysql-0.mysql.db.svc.cluster.local", "ips": ["10.1.9.1"], "registry": "Kubernetes"},
    {"host": "mysql-1.mysql.db.svc.cluster.local", "ips": ["10.1.9.2"], "registry": "Kubernetes"},
    {"host": "docs.ns1.svc.cluster.local", "alias": "docs.example.org", "registry": "Kubernetes"},
    {"host": "front.ns1.svc.cluster.local", "alias": "productpage.ns1.svc.cluster.local", "registry": "Kubernetes"},
    {"host": "lost.ns1.svc.cluster.local", "alias": "gone.ns1.svc.cluster.local", "registry": "Kubernetes"},
    {"host": "ring-a.ns1.svc.cluster.local", "alias": "ring-b.ns1.svc.cluster.local", "registry": "Kubernetes"},
    {"host": "ring-b.ns1.svc.cluster.local", "alias": "ring-a.ns1.svc.cluster.local", "registry": "Kubernetes"},
    {"host": "db1.example.com", "ips": ["240.240.0.1", "2001:2::1"], "registry": "External", "vip": True},
    {"host": "db1.example.com.ns1.svc.cluster.local", "ips": ["10.4.9.9"], "registry": "External"},
    {"host": "*.wild.example.com", "ips": ["240.240.0.2"], "registry": "External"},
    {"host": "*.deep.wild.example.com", "ips": ["240.240.0.3"], "registry": "External"},
    {"host": "shared-b.example.com", "ips": ["10.4.0.6"], "registry": "External"},
    {"host": "twin-b.example.com", "ips": ["198.51.100.7"], "registry": "External"},
    {"host": "twin-a.example.com", "ips": ["198.51.100.7"], "registry": "External"},
]  # fmt: skip


def lines(hosts: list[dict[str, Any]], zones: tuple[str, ...] = ("cluster.local",), ttl: int = 30) -> bytes:
    """A hand-written table file with these hosts."""
    head = {"nametable": 1, "zones": list(zones), "ttl": ttl}
    return "\n".join(json.dumps(line) for line in [head, *hosts]).encode() + b"\n"


def nothing(query: dns.message.Message) -> dns.message.Message:
    """What an upstream says that knows no name at all."""
    reply = dns.message.make_response(query)
    reply.set_rcode(dns.rcode.NXDOMAIN)
    reply.authority.append(dns.rrset.from_text(".", 60, "IN", "SOA", "a. b. 1 2 3 4 5"))
    return reply


@attrs.define
class Mesh:
    """A resolver whose upstream is a list of the questions it was asked and a function that replies; None: it never does."""

    search: tuple[str, ...] = SEARCH
    autopath: str = "all"
    hosts: list[dict[str, Any]] | None = attrs.field(factory=lambda: HOSTS)
    zones: tuple[str, ...] = ("cluster.local",)
    namespace: str = "ns1"
    reply: Callable[[dns.message.Message], dns.message.Message | Failed] | None = nothing
    asked: list[wire.Ask] = attrs.field(factory=list)
    probes: set[bytes] = attrs.field(factory=set)
    clock: Clock = attrs.field(factory=Clock)
    lookups: Lookups = attrs.field(init=False)
    resolver: Resolver = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        search = [names.parse(domain) for domain in self.search]
        place = Place(self.namespace, names.parse("cluster.local"), search, autopath=self.autopath)
        self.lookups = Lookups(Cache(Limits()), self._ask, self._later)
        self.resolver = Resolver(place, self.lookups, self.probes.__contains__)
        if self.hosts is not None:
            self.adopt(self.hosts)

    def adopt(self, hosts: list[dict[str, Any]], ttl: int = 30) -> None:
        self.resolver.adopt(table.read(lines(hosts, self.zones, ttl)))

    def adopt_delta(self, hosts: list[dict[str, Any]]) -> None:
        """The same by a delta from the table in force."""
        held = self.resolver.authority.table
        loader = table.Loader(held)
        for line in table.diff(held, table.read(lines(hosts, self.zones))):
            loader.feed(line.encode())
        self.resolver.adopt(loader.finish())

    def _ask(self, ask: wire.Ask, done: Callable[[Reply | Failed, float], None]) -> None:
        self.asked.append(ask)
        if self.reply is None:
            return
        said = self.reply(dns.message.from_wire(wire.upstream_query(ask, 1, ask.question, 1232)))
        done(said if isinstance(said, Failed) else Reply(said.to_wire(), "192.0.2.53", 0.001), self.now)

    def _later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        delayed = self.clock.callLater(seconds, call)
        return lambda: delayed.cancel() if delayed.active() else None

    @property
    def now(self) -> float:
        return self.clock.seconds()

    def packet(self, packet: bytes, *, tcp: bool = False) -> list[Answered]:
        """The answers to a packet: none, or one."""
        got: list[Answered] = []
        self.resolver.answer(packet, tcp=tcp, now=self.now, done=got.append)
        return got

    def is_relayed(self, name: str, rdtype: str = "A") -> bool:
        """Whether just this question goes upstream first."""
        before = len(self.asked)
        query = dns.message.make_query(name, rdtype)
        self.packet(query.to_wire())
        question = query.to_wire()[12:]
        return [ask.question for ask in self.asked[before : before + 1]] == [question]

    def ask(self, name: str, rdtype: str = "A", *, tcp: bool = False, **options: Any) -> dns.message.Message:
        """The answer to a question, read by dnspython, which also checks that it answers this question."""
        query = dns.message.make_query(name, rdtype, **options)
        (answered,) = self.packet(query.to_wire(), tcp=tcp)
        message = dns.message.from_wire(answered.message)
        assert query.is_response(message), (str(query), str(message))
        return message

    def say(self, name: str, rdtype: str = "A", **options: Any) -> tuple[str, list[str], list[str]]:
        """An answer as (rcode, answer lines, types in authority), for comparing whole."""
        message = self.ask(name, rdtype, **options)
        return (
            dns.rcode.to_text(message.rcode()),
            [line for rrset in message.answer for line in rrset.to_text().split("\n")],
            [dns.rdatatype.to_text(rrset.rdtype) for rrset in message.authority],
        )
