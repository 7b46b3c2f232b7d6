"""The long poll itself, over connections in memory and with time at will (rules X3, X5 to X8, X10, C8)."""

import gzip
import tracemalloc
from typing import Any
from unittest import mock

from twisted.logger import globalLogPublisher

from meshdns.control import longpoll
from meshdns.defaults import (
    DEBOUNCE_MOST,
    DEBOUNCE_QUIET,
    POLL_MOST,
    POLL_TOLD,
    STATUS_REQUEST,
    VIEW_GENERATIONS,
)
from meshdns.table import Table
from tests.control.double import BUFFER, Client, Double, MemoryCase
from tests.control.world import entry, service

A = "a.ns1.svc.cluster.local"


class Case(MemoryCase):
    def setUp(self) -> None:
        super().setUp()
        self.control = self.replica(service("a"), entry("x", "x.example.com"))
        self.heard: list[str] = []
        globalLogPublisher.addObserver(self._hear)
        self.addCleanup(globalLogPublisher.removeObserver, self._hear)

    def _hear(self, event: dict[str, Any]) -> None:
        if event.get("log_namespace", "").startswith("meshdns"):
            self.heard.append(event["log_format"].format(**event))

    def parked(self, generation: str, *rows: str, wait: int = 55, port: int = 15012) -> Client:
        client = self.client(port)
        client.park(generation, *rows, wait=wait)
        return client

    def held(self) -> Table:
        return self.client().get().table()


class AnswerTests(Case):
    def test_whole_table(self) -> None:
        """X5: who names nothing, or nothing that is known, gets all of it."""
        client = self.client()
        found = client.get()
        self.assertEqual((200, {A, "x.example.com"}), (found.status, found.table().entries.keys()))
        self.assertEqual(found.table().generation, found.generation)
        unknown = client.get(f'If-None-Match: "{"0" * 32}"', "Prefer: wait=55", "A-IM: meshdns-delta")
        self.assertEqual((200, found.body), (unknown.status, unknown.body))

    def test_nothing_new(self) -> None:
        """X5: 304 at once where nobody waits, with the ETag; of several generations named one is enough."""
        client, generation = self.client(), self.held().generation
        for named in (f'"{generation}"', f'W/"{generation}"', f'"{"0" * 32}", "{generation}"'):
            found = client.get(f"If-None-Match: {named}")
            self.assertEqual((304, generation, b""), (found.status, found.generation, found.body))

    def test_wait_ends(self) -> None:
        """X5: parked for as long as it says, then 304; the connection serves the next poll."""
        client = self.parked(self.held().generation, wait=7)
        self.network.wait(6.9)
        self.assertIsNone(client.answer())
        self.network.wait(0.1)
        found = client.answer()
        assert found is not None
        self.assertEqual((304, 0), (found.status, self.control.polls.parked))
        self.assertEqual(200, client.get().status)

    def test_longest_wait(self) -> None:
        """X5: nobody is parked for longer than we like."""
        client = self.parked(self.held().generation, wait=999_999)
        self.network.wait(POLL_MOST - 0.1)
        self.assertIsNone(client.answer())
        self.network.wait(0.1)
        self.assertEqual(304, getattr(client.answer(), "status", None))

    def test_delta(self) -> None:
        """X3, X5: news comes as 226 from just the generation named, or whole to who does not know deltas; gzip, too."""
        base = self.held()
        asks = {"delta": (), "gzip": ("Accept-Encoding: gzip",)}
        clients = {name: self.parked(base.generation, *rows) for name, rows in asks.items()}
        clients["whole"] = self.client()
        clients["whole"].ask(f'If-None-Match: "{base.generation}"', "Prefer: wait=55")
        self.control.change(service("a", ip="10.4.0.9"), service("b"))
        self.control.east.drop(entry("x", "x.example.com"))
        self.network.wait(DEBOUNCE_QUIET)
        answers = {name: client.answer() for name, client in clients.items()}
        delta, packed, whole = (answers[name] for name in ("delta", "gzip", "whole"))
        assert delta and packed and whole
        self.assertEqual(
            [(226, "meshdns-delta"), (226, "meshdns-delta"), (200, None)],
            [(each.status, each.headers.get("im")) for each in (delta, packed, whole)],
        )
        self.assertEqual(delta.body, gzip.decompress(packed.body))
        self.assertEqual(whole.table(), delta.table(base))
        self.assertEqual(["10.4.0.9"], delta.table(base).entries[A].ips)

    def test_far_behind(self) -> None:
        """X5: a delta also over many changes; beyond what is remembered the whole table."""
        base = self.held()
        for number in range(VIEW_GENERATIONS):
            self.control.change(service("a", ip=f"10.4.1.{number + 1}"))
        client = self.client()
        client.park(base.generation)
        found = client.answer()
        assert found is not None
        self.assertEqual((226, ["10.4.1.64"]), (found.status, found.table(base).entries[A].ips))
        self.control.change(service("a", ip="10.4.2.1"))
        client.park(base.generation)
        self.assertEqual(200, getattr(client.answer(), "status", None))

    def test_change_that_leads_back(self) -> None:
        """X2: what is again as it was is no news."""
        client = self.parked(self.held().generation)
        self.control.east.put(service("a", ip="10.4.0.9"))
        self.control.change(service("a"))
        self.assertIsNone(client.answer())

    def test_not_for_everybody(self) -> None:
        """C6: who may not see what has changed is not woken."""
        ours, theirs = self.client(), self.client()
        ours.park(ours.get().generation)
        theirs.ask(token="other")
        held = theirs.answer()
        assert held is not None
        theirs.ask(f'If-None-Match: "{held.generation}"', "Prefer: wait=55", token="other")
        self.control.change(entry("own", "own.example.com", exportTo=["."]))
        self.assertEqual((226, None), (getattr(ours.answer(), "status", None), theirs.answer()))

    def test_nobody_gets_a_half_read_mesh(self) -> None:
        """X6: 503 with Retry-After until every source has been read once; who is told so early never sees a part."""
        other = self.replica(service("a"), port=15013, synced=False)
        other.east.sync()
        self.network.wait(DEBOUNCE_MOST)
        found = self.client(15013).get()
        self.assertEqual((503, "1"), (found.status, found.headers["retry-after"]))
        self.assertIn("Not every source has been read once", found.detail)
        other.west.put(service("b", ip="10.8.0.1"))
        other.west.sync()
        self.network.wait(DEBOUNCE_QUIET)
        self.assertEqual({A, "b.ns1.svc.cluster.local"}, self.client(15013).get().table().entries.keys())

    def test_acknowledged(self) -> None:
        """X7: the generation named is what the agent holds, and /v1/agents knows it."""
        client = self.client()
        generation = client.get().generation
        self.assertEqual([""], [each.known for each in self.control.polls.agents.values()])
        client.park(generation)
        self.assertEqual(
            [(generation, True)], [(each.known, each.parked) for each in self.control.polls.agents.values()]
        )


class TimeTests(Case):
    """X8: news reaches who waits within a debounce."""

    def test_quiet(self) -> None:
        """X8: 100 ms after the last of a burst of changes, as one answer."""
        client = self.parked(self.held().generation)
        for number in range(3):
            self.control.east.put(service("a", ip=f"10.4.1.{number + 1}"))
            self.network.wait(0.09)
            self.assertIsNone(client.answer())
        self.network.wait(0.01)
        found = client.answer()
        assert found is not None
        self.assertIn(b"10.4.1.3", found.body)
        self.assertEqual(1, self.control.polls.responses["delta"])

    def test_never_quiet(self) -> None:
        """X8: 1 s after the first change at most, though others follow all the time."""
        client, began = self.parked(self.held().generation), self.network.seconds()
        while not client.data:
            self.control.east.put(service("a", ip=f"10.4.1.{round(self.network.seconds() * 100) % 250}"))
            self.network.wait(0.05)
        self.assertTrue(DEBOUNCE_MOST <= self.network.seconds() - began <= DEBOUNCE_MOST + 0.05)

    def test_others_get_a_turn(self) -> None:
        """X8: a crowd is answered some at a time, and packets have their turn in between."""
        self.patch(longpoll, "POLL_WAKE", 20)
        generation = self.held().generation
        crowd = [self.parked(generation) for _ in range(50)]
        left: list[int] = []

        def look() -> None:
            left.append(self.control.polls.parked)
            if left[-1]:
                self.network.callLater(0, look)

        self.control.east.put(service("a", ip="10.4.0.9"))
        self.network.callLater(DEBOUNCE_QUIET, look)
        self.network.wait(DEBOUNCE_QUIET)
        self.assertEqual([50, 30, 10, 0], left)
        self.assertTrue(all(client.answer() for client in crowd))

    def test_packed_once(self) -> None:
        """X5: what a hundred wait for is made and packed once."""
        base = self.held()
        crowd = [self.parked(base.generation, "Accept-Encoding: gzip") for _ in range(100)]
        with mock.patch.object(longpoll.gzip, "compress", side_effect=gzip.compress) as compress:
            self.control.change(service("a", ip="10.4.0.9"))
        bodies = {answer.body for client in crowd if (answer := client.answer())}
        self.assertEqual((1, 1), (len(bodies), compress.call_count))


class BoundTests(Case):
    """X5, X6: what clients may hold is bounded."""

    def test_parked_polls(self) -> None:
        """X6: one poll too many is sent to another replica; who does not wait is served all the same, and a place that
        becomes free is given."""
        self.patch(longpoll, "PARKED_POLLS", 3)
        generation = self.held().generation
        some = [self.parked(generation) for _ in range(3)]
        more = self.parked(generation)
        found = more.answer()
        assert found is not None
        self.assertEqual((503, "1", 3), (found.status, found.headers["retry-after"], self.control.polls.parked))
        self.assertIn("ask another replica", found.detail)
        self.assertEqual(200, more.get().status)
        some[0].hang_up()
        more.park(generation)
        self.assertEqual((None, 3), (more.answer(), self.control.polls.parked))

    def test_gone_while_parked(self) -> None:
        """X5: who hangs up leaves nothing behind, neither a place nor a timer."""
        before = len(self.network.getDelayedCalls())
        crowd = [self.parked(self.held().generation) for _ in range(5)]
        for each in crowd:
            each.hang_up()
        self.assertEqual(0, self.control.polls.parked)
        self.network.wait(DEBOUNCE_MOST)
        self.assertEqual(before, len(self.network.getDelayedCalls()) - self._idle())
        self.control.change(service("a", ip="10.4.0.9"))
        self.assertEqual(0, self.control.polls.responses["delta"])

    def _idle(self) -> int:
        """Timers of connections that are open and idle: one each."""
        return len(self.network.connections)

    def test_agents(self) -> None:
        """X7: of those who have gone no more are remembered than may be parked."""
        self.patch(longpoll, "PARKED_POLLS", 4)
        for _ in range(10):
            client = self.client()
            client.get()
            client.hang_up()
        self.assertEqual(4, len(self.control.polls.agents))

    def large(self) -> Double:
        """A table of some 2 MiB."""
        ports = [{"name": f"port-{number}", "port": number} for number in range(1, 101)]
        for number in range(400):
            self.control.east.put(service(f"s{number}", ports=ports))
        self.network.wait(DEBOUNCE_MOST)
        return self.control

    def test_slow_readers(self) -> None:
        """X5: fifty who ask for a large table and do not read it hold one packed body and a socket's buffer each; after a minute
        they are let go of."""
        control = self.large()
        size = len(self.client().get().body)
        self.assertGreater(size, 1 << 20)
        held = self.network.seconds()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before = tracemalloc.get_traced_memory()[0]
        slow = [self.client() for _ in range(50)]
        for client in slow:
            client.transport.pauseProducing()
            client.ask()
        grown = tracemalloc.get_traced_memory()[0] - before
        self.assertLess(grown, 50 * 6 * BUFFER)
        self.assertLess(grown, 20 * size)
        wires = [each.serverIO for each in self.network.connections if not each.clientIO.reads]
        self.assertEqual(50, len(wires))
        self.assertLess(max(each.most for each in wires), 3 * BUFFER)
        control.change(service("a", ip="10.4.0.9"))  # nobody waits for them
        self.assertIn(b"10.4.0.9", self.client().get().body)
        self.network.wait(STATUS_REQUEST - (self.network.seconds() - held) + 1)
        for client in slow:
            client.transport.resumeProducing()
        self.network.wait()
        self.assertTrue(all(client.closed for client in slow))

    def test_slow_but_steady(self) -> None:
        """X3: a table that changes while its body is written is still the one that its ETag names, and the delta from it is the
        next answer."""
        self.large()
        client = self.client()
        client.transport.pauseProducing()
        client.ask()
        client.transport.resumeProducing()
        self.network.connections[-1].pump()
        client.transport.pauseProducing()
        begun = len(client.data)
        self.assertTrue(0 < begun < 1 << 20, begun)
        for number in range(5):
            self.control.change(service("a", ip=f"10.4.1.{number}"), service(f"more{number}"))
            client.transport.resumeProducing()
            self.network.connections[-1].pump()
            client.transport.pauseProducing()
        client.transport.resumeProducing()
        self.network.wait()
        found = client.answer()
        assert found is not None
        base = found.table()
        self.assertEqual((found.generation, ["10.4.0.1"]), (base.generation, base.entries[A].ips))
        client.park(base.generation)
        delta = client.answer()
        assert delta is not None
        self.assertEqual((226, ["10.4.1.4"]), (delta.status, delta.table(base).entries[A].ips))

    def test_hangs_up_within_a_body(self) -> None:
        """X5: the rest of its body is not made for anybody."""
        self.large()
        client = self.client()
        client.transport.pauseProducing()
        client.ask()
        client.hang_up()
        self.network.wait(1)
        self.assertEqual([], self.flushLoggedErrors())
        self.assertEqual(200, self.client().get().status)


class TrustTests(Case):
    """X10: who asks, and who may not."""

    def test_refused(self) -> None:
        """X10: no identity, a wrong one, somebody else's namespace; each with its status, and its cause in the log."""
        client = self.client()
        for token, query, status, cause in (
            ("", "cluster=east", 401, "no certificate and no token"),
            ("wrong", "cluster=east", 401, "an unknown token"),
            ("secret", "namespace=hr", 403, "namespace hr claimed by token one"),
        ):
            found = client.get(token=token, query=query)
            self.assertEqual((status, "application/problem+json"), (found.status, found.headers["content-type"]))
            self.assertEqual([f"192.0.2.77 is refused ({status}): {cause}"], self.heard[-1:])
        self.assertEqual("Bearer", client.get(token="").headers["www-authenticate"])

    def test_told_once_in_a_while(self) -> None:
        """X10: an agent that asks again and again fills no log."""
        client = self.client()
        for _ in range(5):
            client.get(token="wrong")
        self.assertEqual(1, len(self.heard))
        self.network.wait(POLL_TOLD)
        self.client().get(token="wrong")
        self.assertEqual(2, len(self.heard))

    def test_removed(self) -> None:
        """X10: whose token goes while it is parked gets no news any more."""
        client = self.parked(self.held().generation)
        self.control.tokens = ()
        self.control.change(service("a", ip="10.4.0.9"))
        found = client.answer()
        assert found is not None
        self.assertEqual(401, found.status)
        self.assertIn("an unknown token", self.heard[-1])

    def test_removed_without_news(self) -> None:
        """X10: nor does it stay parked beyond its time: the next poll is refused."""
        client = self.parked(generation := self.held().generation, wait=5)
        self.control.tokens = ()
        self.network.wait(5)
        client.answer()
        client.park(generation)
        self.assertEqual(401, getattr(client.answer(), "status", None))


class ReplicaTests(Case):
    """C8: any replica knows what another one has sent."""

    def setUp(self) -> None:
        super().setUp()
        self.objects = [service("a"), entry("x", "x.example.com"), service("b", "ns2"), entry("y", "y.example.com")]
        self.one = self.replica(*self.objects, port=15013)
        self.two = self.replica(*reversed(self.objects), port=15014)

    def test_moves(self) -> None:
        """C8, X2: fed in another order it has the same bytes, and parks who comes from the other."""
        tables = [self.client(port).get() for port in (15013, 15014)]
        self.assertEqual(tables[0].body, tables[1].body)
        client = self.parked(tables[0].generation, port=15014)
        self.assertEqual((None, 1), (client.answer(), self.two.polls.parked))

    def test_moves_over_a_change(self) -> None:
        """C8, X3: who holds what the other one sent before a change gets a delta, and the same one."""
        base = self.client(15013).get()
        clients = [self.parked(base.generation, port=port) for port in (15014, 15013)]
        for each in (self.one, self.two):
            each.change(service("c"), service("a", ip="10.4.0.7"))
        found = [client.answer() for client in clients]
        assert found[0] and found[1]
        self.assertEqual((226, found[0].body), (found[1].status, found[1].body))
        self.assertEqual(self.client(15014).get().table(), found[0].table(base.table()))

    def test_stops(self) -> None:
        """C8: a replica that stops sends who is parked to another one, at once."""
        client = self.parked(self.client(15013).get().generation, port=15013)
        self.one.polls.stop()
        self.network.wait()
        found = client.answer()
        assert found is not None
        self.assertEqual((503, 0), (found.status, self.one.polls.parked))
        self.assertIn("ask another one", found.detail)
