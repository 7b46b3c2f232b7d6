"""The counts of several processes as one: sums, and of an upstream server the word of who has asked it most."""

from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from meshdns.agent.counts import Counts, pack, summed, unpack
from meshdns.agent.ledger import SOURCES, Histogram, Ledger
from meshdns.agent.resolver import Answered
from tests.agent.looking import Servers, facts_of
from tests.agent.mesh import Mesh

_NUMBERS = ("answers", "outstanding", "sockets", "max_sockets")


def server(label: str, ok: int, state: str = "up", **more: Any) -> dict[str, Any]:
    """A row of Upstream.status()."""
    numbers = {"answers": ok, "seconds": ok / 4, "outstanding": 1, "sockets": 2, "max_sockets": 512}
    return {"server": label, "state": state, "requests": {"ok": ok, "timeout": 1}, **numbers, **more}


def counts(queries: int, **more: Any) -> Counts:
    """Those of a process that has answered so many from the mesh."""
    durations = {source: Histogram() for source in SOURCES}
    durations["mesh"].add(0.25, queries)
    asked = {("udp", "A", "NOERROR", "mesh"): queries}
    cache = {"entries": 1, "bytes": 10, "max_bytes": 100, "hits": 2, "misses": 3}
    upstream = {"inflight": 1, "joined": 2, "shed": 3}
    told = {"autopath": 1, "dropped": {"bug": 1}, "cache": cache, "upstream": upstream, **more}
    return Counts(queries=asked, durations=durations, **told)


class SumTests(SynchronousTestCase):
    def test_sum(self) -> None:
        one = counts(3, upstreams=[server("a", 5, "dead"), server("b", 0)])
        other = counts(4, dropped={"send": 2}, upstreams=[server("a", 7, "up"), server("b", 2)])
        total = summed([one, other])
        self.assertEqual({("udp", "A", "NOERROR", "mesh"): 7}, total.queries)
        self.assertEqual((7, 1.75), (sum(total.durations["mesh"].buckets), total.durations["mesh"].total))
        self.assertEqual({"bug": 1, "send": 2}, total.dropped)
        self.assertEqual({"entries": 2, "bytes": 20, "max_bytes": 200, "hits": 4, "misses": 6}, total.cache)
        self.assertEqual({"inflight": 2, "joined": 4, "shed": 6}, total.upstream)
        first, second = total.upstreams
        self.assertEqual(("a", "up", {"ok": 12, "timeout": 2}), (first["server"], first["state"], first["requests"]))
        self.assertEqual((12, 3.0, 2, 4, 1024), tuple(first[key] for key in list(server("a", 0))[3:]))
        self.assertEqual("b", second["server"])

    def test_groups_are_apart(self) -> None:
        """A server for some domains is another row than the same server for all names."""
        rows = [server("a", 1, domains=[]), server("a", 2, domains=["x.example"])]
        total = summed([counts(1, upstreams=rows), counts(1, upstreams=rows)])
        self.assertEqual([2, 4], [each["answers"] for each in total.upstreams])

    def test_one_alone(self) -> None:
        one = counts(3)
        self.assertIs(one, summed([one]))

    def test_ended(self) -> None:
        """Of a process that has ended its counts stay, but not what was so at the moment."""
        left = counts(3, upstreams=[server("a", 5)]).ended()
        self.assertEqual({"entries": 0, "bytes": 0, "max_bytes": 0, "hits": 2, "misses": 3}, left.cache)
        self.assertEqual({"inflight": 0, "joined": 2, "shed": 3}, left.upstream)
        self.assertEqual(
            (5, 0, 0, 0), tuple(left.upstreams[0][key] for key in ("answers", "outstanding", "sockets", "max_sockets"))
        )
        self.assertEqual(3, sum(left.queries.values()))

    def test_over_the_pipe(self) -> None:
        mesh, ledger = Mesh(), Ledger()
        ledger.answered("tcp", Answered(b"", "upstream", 1, 0), 0.01)
        ledger.drop("bug")
        found = Counts.of(mesh.resolver, ledger, Servers())
        self.assertEqual(found, unpack(pack(found)))
        self.assertEqual({"bug": 1, "upstream-question": 2}, found.dropped)

    def test_facts(self) -> None:
        """What a status page tells is the sum; a server that is not asked any more is not told of."""

        @attrs.define
        class Others:
            counts: list[Counts]

            def status(self) -> list[dict[str, Any]]:
                return [{"number": 2, "state": "starting", "restarts": 4, "queries": 3, "pid": 77}]

        own = [server("a", 1)]
        facts = facts_of(
            Mesh(), upstream=Servers(own), others=Others([counts(3, upstreams=[server("a", 2), server("old", 9)])])
        )
        self.assertEqual([("a", 3)], [(each["server"], each["answers"]) for each in facts.counts.upstreams])
        self.assertEqual(3, sum(facts.counts.queries.values()))
        self.assertEqual([1, 2], [each["number"] for each in facts.workers])
