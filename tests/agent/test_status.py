"""The status page over real sockets: every path, what is refused, and what no client can do to it (contract section 4)."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

import dns.message
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.python.threadable import isInIOThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from meshdns import __version__, defaults, table
from meshdns.agent import pages
from meshdns.agent.facts import overview
from meshdns.agent.ledger import BOUNDS, SAMPLE, SOURCES
from meshdns.agent.status import Facts, StatusPage
from meshdns.agent.steps import Failed
from meshdns.net import site
from tests.agent.looking import Servers, Source, facts_of, server
from tests.agent.mesh import HOSTS, Mesh

WAIT = 10.0
# Contract section 4, but for the control plane, which this version has not.
METRICS = {
    "queries_total": {"transport", "type", "rcode", "source"},
    "query_duration_seconds": {"source"},
    "cache_entries": set(),
    "cache_bytes": set(),
    "cache_evictions_total": set(),
    "upstream_requests_total": {"server", "outcome"},
    "upstream_duration_seconds": {"server"},
    "table_generation_info": {"generation"},
    "table_hosts": set(),
    "table_age_seconds": set(),
    "table_updates_total": {"kind"},
    "autopath_answers_total": set(),
    "dropped_total": {"reason"},
}

# What the contract does not name.
MORE = (
    *(f"cache_{what}_total" for what in ("hits", "stale", "misses", "prefetches")),
    "upstream_shed_total",
    "upstream_inflight",
    "workers",
    "worker_restarts_total",
)


class Answer:
    """A whole HTTP response."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.code = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def type(self) -> str | None:
        return self.headers["Content-Type"]

    @property
    def detail(self) -> str:
        """The sentence of problem JSON, which it must be."""
        problem = json.loads(self.body)
        assert self.type == "application/problem+json"
        assert problem.keys() == {"type", "title", "status", "detail"} and problem["status"] == self.code
        return str(problem["detail"])


class PageTests(TestCase):
    """A status page on a free port, and a plain HTTP client in a thread."""

    hosts: list[dict[str, Any]] | None = HOSTS

    def setUp(self) -> None:
        self.mesh = Mesh(hosts=self.hosts)
        self.page = StatusPage(self.make_facts(), reactor)
        self.page.listen(("127.0.0.1", 0))
        self.port = self.page.port
        self.addCleanup(lambda: Deferred.fromCoroutine(self.page.close()))
        self.logged: list[Any] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def make_facts(self, **changes: Any) -> Facts:
        return facts_of(self.mesh, **changes)

    def request(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    async def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        answer: Answer = await deferToThread(self.request, path, method, **headers)
        return answer

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), WAIT)
        self.addCleanup(connection.close)
        return connection

    def exchange(self, *data: bytes) -> bytes:
        """All that the server says to these octets until it closes."""
        connection = self.connect()
        for piece in data:
            connection.sendall(piece)
        return b"".join(iter(lambda: connection.recv(65536), b""))


class EachPathTests(PageTests):
    async def test_index(self) -> None:
        answer = await self.get("/")
        self.assertEqual((answer.code, answer.type), (200, "text/plain; charset=utf-8"))
        for path in ("/healthz", "/readyz", "/metrics", "/v1/status", "/v1/table", "/v1/explain"):
            self.assertRegex(answer.body.decode(), rf"(?m)^{path} ")

    async def test_health(self) -> None:
        for path, body in (("/healthz", b"ok\n"), ("/readyz", b"ready\n")):
            answer = await self.get(path)
            self.assertEqual((answer.code, answer.body), (200, body))

    async def test_status(self) -> None:
        self.mesh.ask("productpage.ns1.svc.cluster.local.")
        self.mesh.resolver.packs.datagrams.known[next(iter(self.mesh.resolver.packs.datagrams.known))].hits = 3
        answer = await self.get("/v1/status")
        held = self.page.facts.held
        assert held
        said = json.loads(answer.body)
        self.assertEqual((said["version"], said["ready"], said["problems"]), (__version__, True, []))
        self.assertEqual((said["uptime"], said["config"]), (102.0, "/etc/meshdns/agent.yaml"))
        self.assertEqual(
            said["table"],
            {
                "generation": held.generation,
                "hosts": len(HOSTS),
                "zones": ["cluster.local"],
                "age": 12.0,
                "source": "file /etc/meshdns/nametable.jsonl",
                "updates": 1,
                "failures": 0,
                "trouble": None,
            },
        )
        self.assertEqual(said["queries"], {"total": 3, "sources": {"mesh": 3}, "rcodes": {"NOERROR": 3}, "autopath": 0})
        self.assertEqual(said["upstreams"], [server()])
        self.assertEqual(said["upstream"], {"inflight": 0, "joined": 3, "shed": 1})
        self.assertEqual(said["dropped"], {"upstream-question": 2})

    async def test_explain(self) -> None:
        answer = await self.get("/v1/explain?name=ProductPage&type=aaaa")
        said = json.loads(answer.body)
        self.assertEqual((said["name"], said["type"], said["rule"]), ("productpage", "AAAA", "D6"))
        self.assertEqual((said["table"]["hosts"], said["table"]["age"]), (len(HOSTS), 12.0))
        answer = await self.get("/v1/explain?name=www.example.org")
        self.assertIn("10.0.0.53:53 (up, 2.1 ms)", answer.body.decode())

    async def test_table(self) -> None:
        """Section 2.1: the table is what a table file may hold; its tag is the generation."""
        held = self.page.facts.held
        assert held
        answer = await self.get("/v1/table")
        self.assertEqual((answer.code, answer.type), (200, "application/jsonl"))
        self.assertEqual(answer.headers["ETag"], f'"{held.generation}"')
        self.assertEqual(table.read(answer.body), held)
        again = await self.get("/v1/table", If_None_Match=f'"{held.generation}"')
        self.assertEqual((again.code, again.body), (304, b""))

    async def test_table_of_istio(self) -> None:
        """X4: Accept: application/json gets Istio's own JSON."""
        held = self.page.facts.held
        assert held
        for accept in ("application/json", "text/html, application/JSON;q=0.9"):
            answer = await self.get("/v1/table", Accept=accept)
            self.assertEqual((answer.code, answer.type), (200, "application/json"))
            self.assertEqual(json.loads(answer.body), table.to_istio(held))
            self.assertEqual(answer.headers["ETag"], f'W/"{held.generation}"')
        for accept in ("*/*", "application/jsonl, application/json"):
            answer = await self.get("/v1/table", Accept=accept)
            self.assertEqual((answer.type, answer.headers["Vary"]), ("application/jsonl", "Accept"))

    async def test_one_entry(self) -> None:
        for host in ("db1.example.com", "DB1.example.com.", "*.wild.example.com"):
            answer = await self.get(f"/v1/table?host={host}")
            self.assertEqual((answer.code, answer.type), (200, "application/jsonl"))
            self.assertEqual(json.loads(answer.body)["host"], host.lower().rstrip("."))
            self.assertEqual(answer.body.count(b"\n"), 1)
        answer = await self.get("/v1/table?host=db1.example.com", Accept="application/json")
        self.assertEqual(
            json.loads(answer.body),
            {"table": {"db1.example.com": {"ips": ["240.240.0.1", "2001:2::1"], "registry": "External"}}},
        )
        answer = await self.get("/v1/table?host=productpage")
        self.assertEqual(answer.code, 404)
        self.assertIn("/v1/explain?name=productpage", answer.detail)

    async def test_head(self) -> None:
        """HEAD is GET without the body, the long table included."""
        for path in ("/", "/healthz", "/metrics", "/v1/status", "/v1/table", "/v1/table?host=db1.example.com"):
            whole, head = await self.get(path), await self.get(path, "HEAD")
            self.assertEqual((head.code, head.type, head.body), (200, whole.type, b""))
        self.assertEqual((await self.get("/nothing", "HEAD")).code, 404)

    async def test_replaced_facts(self) -> None:
        """A reload may bring others; the very next request sees them."""
        self.page.facts = self.make_facts(config="/other.yaml")
        self.assertEqual(json.loads((await self.get("/v1/status")).body)["config"], "/other.yaml")

    async def test_keep_alive(self) -> None:
        """Several requests on one connection, the streamed table among them."""

        def ask() -> list[int]:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
            codes = []
            for path in ("/v1/table", "/nothing", "/v1/table", "/healthz"):
                connection.request("GET", path)
                codes.append(Answer(connection.getresponse()).code)
            connection.close()
            return codes

        self.assertEqual(await deferToThread(ask), [200, 404, 200, 200])

    async def test_no_log(self) -> None:
        """Nobody's scrapes fill the log."""
        for path in ("/metrics", "/v1/table", "/nothing", "/v1/explain"):
            await self.get(path)
            await self.get(path, "HEAD")
        await deferToThread(self.exchange, b"rubbish\r\n\r\n")
        self.assertEqual([event for event in self.logged if event["log_level"].name != "debug"], [])


class NoTableTests(PageTests):
    hosts = None

    def make_facts(self, **changes: Any) -> Facts:
        source = Source(updates=0, failures=1, last_change=None)
        return super().make_facts(table=source, trouble=lambda: "line 3: is not JSON", **changes)

    async def test_not_ready(self) -> None:
        """D17: 503 until the first table, with the reason."""
        for path in ("/readyz", "/v1/table", "/v1/table?host=x"):
            answer = await self.get(path)
            self.assertEqual((answer.code, answer.headers["Retry-After"]), (503, "1"))
            self.assertEqual(
                answer.detail,
                "No name table is held: file /etc/meshdns/nametable.jsonl: line 3: is not JSON. Until it is, names in "
                "mesh zones get SERVFAIL.",
            )
        self.assertEqual((await self.get("/healthz")).code, 200)

    async def test_status(self) -> None:
        said = json.loads((await self.get("/v1/status")).body)
        self.assertEqual((said["ready"], said["table"]["generation"], said["table"]["hosts"]), (False, None, 0))
        self.assertEqual(len(said["problems"]), 1)

    async def test_metrics(self) -> None:
        names = {sample.name for sample in samples((await self.get("/metrics")).body)}
        self.assertIn("meshdns_table_hosts", names)
        self.assertFalse(names & {"meshdns_table_generation_info", "meshdns_table_age_seconds"})


class ProblemTests(SynchronousTestCase):
    """What counts as degraded."""

    def problems(self, **changes: Any) -> list[str]:
        found: list[str] = overview(facts_of(Mesh(), **changes))["problems"]
        return found

    def test_none(self) -> None:
        self.assertEqual(self.problems(), [])
        self.assertEqual(self.problems(upstream=Servers([server(state="dead"), server(state="slow")])), [])

    def test_old_table(self) -> None:
        (problem,) = self.problems(trouble=lambda: "line 3: is not JSON")
        self.assertIn("The name table is old: file /etc/meshdns/nametable.jsonl: line 3: is not JSON.", problem)

    def test_upstreams(self) -> None:
        (problem,) = self.problems(upstream=Servers([server(state="dead"), server("10.0.0.54:53", "loop")]))
        self.assertIn("10.0.0.53:53 (dead), 10.0.0.54:53 (loop)", problem)
        (problem,) = self.problems(upstream=Servers([]))
        self.assertIn("There is no upstream server", problem)


def samples(body: bytes) -> list[Any]:
    """Every sample of an exposition, as Prometheus' own client library reads it."""
    return [sample for family in text_string_to_metric_families(body.decode()) for sample in family.samples]


class MetricsTests(PageTests):
    async def read(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        answer = await self.get("/metrics")
        self.assertEqual((answer.code, answer.type), (200, "text/plain; version=0.0.4; charset=utf-8"))
        return {(each.name, frozenset(each.labels.items())): each.value for each in samples(answer.body)}

    async def test_names_and_labels(self) -> None:
        """Section 4: exactly these, none misspelt."""
        self.mesh.ask("productpage.ns1.svc.cluster.local.")
        next(iter(self.mesh.resolver.packs.datagrams.known.values())).hits = 1
        found: dict[str, set[str]] = {}
        for name, labels in await self.read():
            for end in ("_bucket", "_sum", "_count"):
                name = name.removesuffix(end) if "duration" in name else name
            found.setdefault(name, set()).update(label for label, _ in labels if label != "le")
        ours = {name.removeprefix("meshdns_"): labels for name, labels in found.items() if name.startswith("meshdns_")}
        self.assertEqual(ours, {**METRICS, **{name: set() for name in MORE}, "build_info": {"version"}})
        self.assertIn("process_resident_memory_bytes", found)
        self.assertNotIn("python_gc_collections_total", found)

    async def test_numbers(self) -> None:
        ledger = self.page.facts.ledger
        self.mesh.ask("productpage.ns1.svc.cluster.local.")
        next(iter(self.mesh.resolver.packs.datagrams.known.values())).hits = 5
        for answered in self.mesh.packet(b"\0\7\0\0\0\2" + bytes(6)):
            ledger.answered("tcp", answered, 0.003)
        ledger.sampled(0.00003, "mesh", 64)
        ledger.drop("not-a-query")
        found = await self.read()

        def value(name: str, **labels: str) -> float | None:
            return found.get((f"meshdns_{name}", frozenset(labels.items())))

        self.assertEqual(value("queries_total", transport="udp", type="A", rcode="NOERROR", source="mesh"), 5)
        self.assertEqual(value("queries_total", transport="tcp", type="other", rcode="FORMERR", source="local"), 1)
        self.assertEqual(value("query_duration_seconds_count", source="mesh"), SAMPLE)
        self.assertAlmostEqual(value("query_duration_seconds_sum", source="mesh") or 0, SAMPLE * 0.00003)
        self.assertEqual(value("query_duration_seconds_bucket", source="local", le="0.0025"), 0)
        self.assertEqual(value("query_duration_seconds_bucket", source="local", le="0.005"), 1)
        self.assertEqual(value("query_duration_seconds_bucket", source="local", le="+Inf"), 1)
        self.assertEqual(
            len([1 for name, _ in found if name == "meshdns_query_duration_seconds_bucket"]),
            len(SOURCES) * (len(BOUNDS) + 1),
        )
        self.assertEqual(value("upstream_requests_total", server="10.0.0.53:53", outcome="timeout"), 2)
        self.assertEqual(value("upstream_duration_seconds_count", server="10.0.0.53:53"), 5)
        self.assertEqual(value("upstream_duration_seconds_sum", server="10.0.0.53:53"), 0.0105)
        self.assertEqual(value("table_hosts"), len(HOSTS))
        self.assertEqual(value("table_age_seconds"), 12)
        self.assertEqual(value("table_updates_total", kind="whole"), 1)
        self.assertEqual(value("dropped_total", reason="not-a-query"), 1)
        self.assertEqual(value("dropped_total", reason="upstream-question"), 2)
        held = self.page.facts.held
        assert held
        self.assertEqual(value("table_generation_info", generation=held.generation), 1)

    async def test_cache(self) -> None:
        """D25, D26: every source has its count and its durations, and the cache what came of each look into it."""
        mesh, clock = self.mesh, self.mesh.clock
        self.page.facts = facts_of(mesh, clock=clock.seconds)
        ledger = self.page.facts.ledger
        query = dns.message.make_query("www.example.org.", "A").to_wire()

        def ask() -> None:
            for answered in mesh.packet(query):
                ledger.answered("udp", answered, 0.001)

        ask()  # a miss
        ask()  # a hit: NXDOMAIN is kept for 5 s
        clock.advance(6)
        mesh.reply = lambda _: Failed("timeout", 22, "gave no answer in 2 s")
        ask()  # stale
        found = await self.read()
        for source in ("upstream", "cache", "stale"):
            labels = {"transport": "udp", "type": "A", "rcode": "NXDOMAIN", "source": source}
            self.assertEqual(found["meshdns_queries_total", frozenset(labels.items())], 1)
            labels = {"source": source}
            self.assertEqual(found["meshdns_query_duration_seconds_count", frozenset(labels.items())], 1)
        counted = {
            name: found[f"meshdns_cache_{name}", frozenset()] for name in ("hits_total", "stale_total", "misses_total")
        }
        self.assertEqual(counted, {"hits_total": 1, "stale_total": 1, "misses_total": 1})
        self.assertEqual(found["meshdns_cache_entries", frozenset()], 1)
        self.assertEqual(found["meshdns_cache_bytes", frozenset()], mesh.lookups.cache.octets)
        said = json.loads((await self.get("/v1/status")).body)["cache"]
        self.assertEqual(
            {key: said[key] for key in ("entries", "hits", "stale", "misses", "prefetches", "evictions")},
            {"entries": 1, "hits": 1, "stale": 1, "misses": 1, "prefetches": 0, "evictions": 0},
        )

    async def test_nothing_is_left_behind(self) -> None:
        """A new table's generation replaces the old one's."""
        self.mesh.adopt(HOSTS[:3])
        generations = [labels for name, labels in await self.read() if name == "meshdns_table_generation_info"]
        self.assertEqual(len(generations), 1)


class RefusedTests(PageTests):
    """Requests that get a sentence instead of a page."""

    async def test_methods(self) -> None:
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "BREW"):
            answer = await self.get("/v1/status", method)
            self.assertEqual((answer.code, answer.headers["Allow"]), (405, "GET, HEAD"))
            self.assertIn("there is nothing to change here", answer.detail)

    async def test_paths_and_parameters(self) -> None:
        for path, code, sentence in (
            ("/nothing", 404, "There is no /nothing here: / lists what there is."),
            ("/v1/", 404, "/ lists"),
            ("/v1/explain", 400, "Say which name, as in /v1/explain?name=productpage&type=A."),
            ("/v1/explain?name=", 400, "Say which name"),
            ("/v1/explain?name=a..b", 400, "has an empty label."),
            ("/v1/explain?name=%C3%BC.de", 400, "xn--"),
            ("/v1/explain?name=a&type=B", 400, '"B" is no record type'),
            ("/v1/explain?nmae=a", 400, '"nmae" is no parameter of /v1/explain, which takes name and type.'),
            ("/v1/status?x=1", 400, "which takes none."),
            ("/v1/table?host=", 404, "is no host of the table"),
            ("/v1/table?host=%00%ff%0a", 404, "%00"),
        ):
            answer = await self.get(path)
            self.assertEqual(answer.code, code, path)
            self.assertIn(sentence, answer.detail)

    async def test_rebinding(self) -> None:
        """A web page of evil.example whose name was made to mean 127.0.0.1 learns nothing."""
        for host in (
            "evil.example",
            "evil.example:15054",
            "127.0.0.1.evil.example",
            "localhost.evil.example:80",
            "[::1",
        ):
            answer = await self.get("/v1/status", Host=host)
            good = host == "[::1"
            self.assertEqual(answer.code, 200 if good else 403, host)
            if not good:
                self.assertIn(f"http://127.0.0.1:{self.port}/", answer.detail)
        for host in (
            "127.0.0.1",
            "127.0.0.1:15054",
            "localhost",
            "LocalHost:1",
            "[::1]:15054",
            "::1" * 0,
            "10.0.0.1:80",
        ):
            self.assertEqual((await self.get("/v1/status", Host=host)).code, 200, host)
        two = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        self.assertIn(b" 403 ", (await deferToThread(self.exchange, two)).partition(b"\r\n")[0])

    async def test_without_host(self) -> None:
        said = await deferToThread(self.exchange, b"GET /healthz HTTP/1.0\r\n\r\n")
        self.assertTrue(said.endswith(b"\r\n\r\nok\n"), said)

    async def test_rubbish(self) -> None:
        """Long lines, many headers, no HTTP at all: 400 and the end, and nothing kept."""
        for data in (
            b"GET /" + b"x" * 100_000,
            b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 10_000,
            b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: " + b"y" * 5000 + b"\r\n\r\n",
        ):
            try:
                said = await deferToThread(self.exchange, data)
            except ConnectionError:  # closed before it had read all that we sent
                continue
            self.assertTrue(said.startswith(b"HTTP/1.1 400 "), said[:100])
        self.assertEqual((await self.get("/healthz")).code, 200)

    async def test_body(self) -> None:
        """A body is read, forgotten and not answered to."""
        answer = await deferToThread(self.request, "/v1/status", "POST", b"a=b&" * 500_000)
        self.assertEqual(answer.code, 405)

    async def test_our_own_bugs(self) -> None:
        """They are logged, and told without a traceback."""
        self.page.facts = self.make_facts(trouble=lambda: 1 / 0)
        answer = await self.get("/v1/status")
        self.assertEqual((answer.code, answer.detail), (500, "A bug of meshdns; its log says more."))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class LargeTableTests(PageTests):
    hosts = [
        {"host": f"h{n}.ns1.svc.cluster.local", "ips": [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"], "registry": "Kubernetes"}
        for n in range(20_000)
    ]  # fmt: skip

    async def test_in_pieces(self) -> None:
        """While a table goes out, the reactor has time for packets between any two pieces."""
        turns: list[float] = []
        tick: list[Any] = []

        def turn() -> None:
            turns.append(time.monotonic())
            tick[:] = [reactor.callLater(0, turn)]  # type: ignore[attr-defined]

        turn()
        for accept in ("application/jsonl", "application/json"):
            del turns[:]
            answer = await self.get("/v1/table", Accept=accept)
            self.assertGreater(len(turns), 20_000 / defaults.STATUS_PIECE)
            self.assertEqual(table.read(answer.body).entries.keys(), {host["host"] for host in self.hosts})
        tick[0].cancel()

    async def test_client_that_goes(self) -> None:
        """What a client no longer takes is no longer made."""
        self.patch(pages, "dump", lambda held: repeat("x" * 1000))

        def leave() -> None:
            connection = self.connect()
            connection.sendall(b"GET /v1/table HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.recv(1000)
            connection.close()

        await deferToThread(leave)
        await self.settled()

    async def test_client_that_does_not_read(self) -> None:
        """It is waited for, then given up: it may hold an old table in memory."""
        self.patch(pages, "dump", lambda held: repeat("x" * 1000))
        self.patch(site, "STATUS_REQUEST", 0.2)

        def stall() -> bytes:
            connection = self.connect()
            connection.sendall(b"GET /v1/table HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return connection.recv(10)

        self.assertEqual(await deferToThread(stall), b"HTTP/1.1 2")
        await self.settled()

    async def settled(self) -> None:
        """Wait until no connection is open; trial's own time limit ends the wait."""
        done: Deferred[None] = Deferred()

        def look() -> None:
            if self.page._site.site._open:
                reactor.callLater(0.01, look)  # type: ignore[attr-defined]
            else:
                done.callback(None)

        look()
        await done


class ConnectionTests(PageTests):
    async def test_hoarder(self) -> None:
        """At most so many connections; the one idle longest makes room, so others always get in."""
        self.patch(site, "STATUS_CONNECTIONS", 5)

        def hoard() -> list[bytes]:
            connections = [self.connect() for _ in range(12)]
            connections[-5].sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertTrue(connections[-5].recv(1000).endswith(b"ok\n"))
            last = self.request("/healthz")
            self.assertEqual(last.code, 200)
            for connection in connections:
                connection.settimeout(0.2)
            return [closed(connection) for connection in connections]

        ended = await deferToThread(hoard)
        self.assertEqual(ended, [True] * 7 + [False, True, False, False, False])

    async def test_idle(self) -> None:
        """A silent connection is closed without a word in the log."""
        clock = Clock()
        await self.get("/healthz")
        site = self.page._site.site
        self.patch(site, "reactor", clock)
        connection = await deferToThread(self.connect)
        await deferToThread(lambda: connection.sendall(b"GET / HT"))
        await self.until(lambda: bool(clock.getDelayedCalls()))
        clock.advance(defaults.STATUS_IDLE + 1)
        self.assertTrue(await deferToThread(closed, connection))
        self.assertEqual([event for event in self.logged if event["log_level"].name != "debug"], [])

    async def until(self, look: Callable[[], bool]) -> None:
        while not look():
            turn: Deferred[None] = Deferred()
            reactor.callLater(0.005, turn.callback, None)  # type: ignore[attr-defined]
            await turn

    async def test_loaded_once(self) -> None:
        """Nothing is loaded before somebody comes; then once, in another thread, for all who come meanwhile."""
        loaded: list[bool] = []
        go_on, load = threading.Event(), self.page._site._load

        def slow() -> site.Site:
            loaded.append(isInIOThread())
            go_on.wait(WAIT)
            return load()

        self.patch(self.page._site, "_load", slow)
        asked = [Deferred.fromCoroutine(self.get("/healthz")) for _ in range(3)]
        await self.until(lambda: bool(loaded))
        go_on.set()
        self.assertEqual([200] * 3, [(await each).code for each in asked])
        self.assertEqual([False], loaded)

    async def test_not_loaded(self) -> None:
        """Whoever comes is turned away when a part is missing, as the log says; the next one may have more luck."""
        load = self.page._site._load
        self.patch(self.page._site, "_load", lambda: load() if self.logged else 1 / 0)
        with self.assertRaises(ConnectionError):  # RemoteDisconnected is one
            await self.get("/healthz")
        self.assertIn("the status page cannot be loaded", self.logged[-1]["log_format"])
        self.assertEqual(200, (await self.get("/healthz")).code)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    async def test_taken_port(self) -> None:
        """A port that another has: the page stays where it is."""
        taken = socket.socket()
        self.addCleanup(taken.close)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with self.assertRaises(CannotListenError):
            self.page.listen(taken.getsockname())
        self.assertEqual((await self.get("/healthz")).code, 200)

    async def test_move(self) -> None:
        """Another address, the same again, none."""
        self.page.listen(("::1", 0))
        self.assertNotEqual(self.page.port, self.port)
        connection = http.client.HTTPConnection("::1", self.page.port, timeout=WAIT)

        def ask() -> Answer:
            connection.request("GET", "/healthz", headers={"Host": "evil.example"})
            answer = Answer(connection.getresponse())
            connection.close()
            return answer

        self.assertIn(f"http://[::1]:{self.page.port}/", (await deferToThread(ask)).detail)
        port = self.page.port
        self.page.listen(("::1", 0))
        self.assertEqual(self.page.port, port)
        self.page.listen(None)
        self.assertEqual(self.page.port, 0)


def closed(connection: socket.socket) -> bool:
    """Whether the other side has ended it."""
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


class PieceTests(SynchronousTestCase):
    def test_sizes(self) -> None:
        """Pieces are whole lines, and never many of them."""
        for count in (0, 1, defaults.STATUS_PIECE - 1, defaults.STATUS_PIECE, defaults.STATUS_PIECE + 1, 1000):
            lines = [str(n) for n in range(count)]
            found = list(pages.pieces(lines))
            self.assertEqual(b"".join(found), "".join(f"{line}\n" for line in lines).encode())
            self.assertLessEqual(max(piece.count(b"\n") for piece in found), defaults.STATUS_PIECE)

    def test_istio_without_addresses(self) -> None:
        """Whole pieces of entries that Istio's JSON has no place for leave no comma behind."""
        aliases = [{"host": f"a{n:04}.example.com", "alias": "b.example.org"} for n in range(2 * defaults.STATUS_PIECE)]
        for hosts in (aliases, [HOSTS[0], *aliases], [*aliases, {"host": "z.example.com", "ips": ["10.0.0.1"]}], []):
            held = Mesh(hosts=hosts).resolver.authority.table
            assert held
            body = b"".join(pages.istio_pieces(held.entries))
            self.assertEqual(json.loads(body), table.to_istio(held))


class WaitingTests(PageTests):
    """Pages that tell what other processes have counted."""

    def setUp(self) -> None:
        super().setUp()
        self.waiting: list[Deferred[None]] = []
        self.asked: Deferred[None] = Deferred()
        self.page._refresh = self.refresh

    def refresh(self) -> Deferred[None]:
        self.waiting.append(Deferred())
        self.asked.callback(None)
        return self.waiting[-1]

    async def test_waits(self) -> None:
        """They are shown as they are when the others have told theirs; the others do not wait."""
        self.assertEqual(200, (await self.get("/healthz")).code)
        self.assertEqual([], self.waiting)
        coming = deferToThread(self.request, "/v1/status")
        await self.asked
        self.page.facts = self.make_facts(config="/later.yaml")
        self.waiting[0].callback(None)
        answer = await coming
        self.assertEqual((200, "/later.yaml"), (answer.code, json.loads(answer.body)["config"]))

    async def test_gone(self) -> None:
        """Who hangs up meanwhile is not waited for, and nobody is told."""
        connection = self.connect()
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await self.asked
        connection.close()
        assert self.page._site.site is not None
        while self.page._site.site._open:
            await deferLater(reactor, 0.01)
        self.waiting[0].callback(None)
        self.assertEqual([], self.flushLoggedErrors())

    async def test_bug(self) -> None:
        """A bug in a page that was waited for is an answer, too."""
        coming = deferToThread(self.request, "/v1/status")
        await self.asked
        self.page.facts = self.make_facts(trouble=lambda: 1 / 0)
        self.waiting[0].callback(None)
        self.assertEqual(500, (await coming).code)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
