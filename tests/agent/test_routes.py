"""Rule D23: a domain and all below it is asked of servers of its own, the longest match counts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from meshdns import names
from meshdns.agent.facts import problems
from meshdns.agent.measures import measures
from meshdns.agent.routes import Routes, asked_for
from meshdns.agent.servers import Options
from meshdns.agent.steps import Result
from meshdns.metrics import Mean
from meshdns.values import Server, parse_server
from meshdns.wire import Ask
from tests.agent import looking
from tests.agent.looking import facts_of, server
from tests.agent.mesh import Mesh
from tests.agent.scene import ask


@attrs.define(eq=False)
class Servers:
    """A group that keeps what it is told and asked."""

    servers: Sequence[Server] = ()
    others: int = 0
    asked: list[str] = attrs.field(factory=list)
    probes: tuple[bytes, ...] = ()
    inflight: int = 1
    joined: int = 2
    shed: int = 3
    dropped: Mapping[str, int] = attrs.field(factory=lambda: {"case": 1})

    def ask(self, ask: Ask, done: Callable[[Result], None]) -> None:
        self.asked.append(names.text(ask.question[:-4]))

    def replace(self, servers: Sequence[Server], options: Options, others: int = 0) -> None:
        self.servers, self.others = servers, others

    def is_own_probe(self, name: bytes) -> bool:
        return name in self.probes

    def status(self) -> list[dict[str, Any]]:
        return [{"server": str(server)} for server in self.servers]


def domains(**given: str) -> dict[bytes, tuple[Server, ...]]:
    return {
        names.parse(domain.replace("_", ".")): tuple(map(parse_server, servers.split()))
        for domain, servers in given.items()
    }


class RoutesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.routes: Routes[Servers] = Routes(Servers)
        self.replace()

    def replace(self, **given: str) -> None:
        self.routes.replace([Server("192.0.2.1")], domains(**given), Options())

    def asked(self, name: str) -> str:
        """The servers that a name is asked of."""
        self.routes.ask(ask(name), lambda result: None)
        (group,) = [group for group in self.routes.groups if group.asked]
        self.assertEqual([name], group.asked)
        group.asked.clear()
        return " ".join(server.host for server in group.servers)

    def test_none(self) -> None:
        """Without domains there is one group, and every name is asked of it."""
        self.assertEqual("192.0.2.1", self.asked("www.example.com"))
        self.assertEqual(1, len(self.routes.groups))

    def test_domain_and_below(self) -> None:
        self.replace(corp_example_com="10.1.0.53")
        for name in ("corp.example.com", "x.corp.example.com", "a.b.c.corp.example.com"):
            self.assertEqual("10.1.0.53", self.asked(name))
        for name in ("example.com", "com", "xcorp.example.com", "corp.example.com.org"):
            self.assertEqual("192.0.2.1", self.asked(name))

    def test_labels_not_octets(self) -> None:
        """A label that holds the domain's octets is no label of it."""
        self.replace(corp="10.1.0.53")
        self.assertIs(self.routes.main, self.routes.choose(b"\x06x\x04corp\x00"))

    def test_longest_match(self) -> None:
        """Whatever their order."""
        for given in (
            {"com": "10.0.0.1", "example_com": "10.0.0.2", "a_b_example_com": "10.0.0.3"},
            {"a_b_example_com": "10.0.0.3", "example_com": "10.0.0.2", "com": "10.0.0.1"},
        ):
            self.replace(**given)
            self.assertEqual("10.0.0.1", self.asked("x.com"))
            self.assertEqual("10.0.0.2", self.asked("b.example.com"))
            self.assertEqual("10.0.0.3", self.asked("x.a.b.example.com"))

    def test_same_servers_are_one_group(self) -> None:
        self.replace(a="10.0.0.1 10.0.0.2", b="10.0.0.1 10.0.0.2", c="10.0.0.2")
        self.assertEqual(3, len(self.routes.groups))
        self.assertEqual(self.asked("x.a"), self.asked("x.b"))

    def test_sockets_are_shared(self) -> None:
        """Each group knows how many servers the others have."""
        self.replace(a="10.0.0.1 10.0.0.2", b="10.0.0.3")
        self.assertEqual([3, 2, 3], [group.others for group in self.routes.groups])

    def test_reload(self) -> None:
        """A group whose servers stay goes on; one that is not needed is emptied, and is the next one's."""
        self.replace(a="10.0.0.1", b="10.0.0.2")
        one, two = self.routes.choose(names.parse("x.a")), self.routes.choose(names.parse("x.b"))
        self.replace(c="10.0.0.2")
        self.assertIs(two, self.routes.choose(names.parse("x.c")))
        self.assertEqual((), one.servers)
        self.assertEqual("192.0.2.1", self.asked("x.b"))
        self.replace(d="10.0.0.3", c="10.0.0.2")
        self.assertIs(one, self.routes.choose(names.parse("x.d")))
        self.assertIs(two, self.routes.choose(names.parse("x.c")))
        self.assertEqual(3, len(self.routes.groups))
        self.replace()
        self.assertEqual("192.0.2.1", self.asked("x.c"))
        self.assertEqual(["192.0.2.1:53"], [each["server"] for each in self.routes.status()])

    def test_probes_of_every_group(self) -> None:
        """D19: a loop through any server is seen."""
        self.replace(a="10.0.0.1")
        self.routes.groups[1].probes = (b"\x01p\x00",)
        self.assertTrue(self.routes.is_own_probe(b"\x01p\x00"))
        self.assertFalse(self.routes.is_own_probe(b"\x01q\x00"))

    def test_status(self) -> None:
        """All servers of all groups, with their domains."""
        self.replace(a_b="10.0.0.1", c="10.0.0.1", d="192.0.2.1")
        status = [(each["server"], each["domains"]) for each in self.routes.status()]
        expected: list[tuple[str, list[str]]] = [
            ("192.0.2.1:53", []),
            ("10.0.0.1:53", ["a.b", "c"]),
            ("192.0.2.1:53", ["d"]),
        ]
        self.assertEqual(expected, status)
        self.assertEqual((3, 6, 9), (self.routes.inflight, self.routes.joined, self.routes.shed))
        self.assertEqual({"case": 3}, self.routes.dropped)

    def test_measures(self) -> None:
        """A server in two groups is one in the metrics: a scraper refuses what is there twice."""
        held = [{**server(), "domains": []}, {**server(), "domains": ["a.b"]}]
        found = {measure.name: measure for measure in measures(facts_of(Mesh(), upstream=looking.Servers(held)))}
        requests = {("10.0.0.53:53", "ok"): 10, ("10.0.0.53:53", "timeout"): 4}
        self.assertEqual(requests, dict(found["upstream_requests"].samples))
        self.assertEqual([(("10.0.0.53:53",), Mean(10, 0.021))], list(found["upstream_duration_seconds"].samples))

    def test_problems(self) -> None:
        """Each group whose servers are all dead is told."""
        held = [server(), server("10.0.0.2:53", "dead", domains=["a.b", "c"]), server("10.0.0.3:53", domains=["d"])]
        said = problems(facts_of(Mesh(), upstream=looking.Servers(held)))
        self.assertEqual(["No upstream server for a.b, c answers: 10.0.0.2:53 (dead)."], said)

    def test_asked_for(self) -> None:
        """What `explain` tells of a name: the servers it is asked of."""
        self.replace(a_b="10.0.0.1", b="10.0.0.2")
        for name, expected in (("x.a.b", "10.0.0.1:53"), ("x.b", "10.0.0.2:53"), ("x", "192.0.2.1:53")):
            found = asked_for(self.routes.status(), names.parse(name))
            self.assertEqual([expected], [each["server"] for each in found])
