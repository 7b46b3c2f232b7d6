"""What `explain` says where the cache has part in the answer: never more than a client would get, and nothing changed by it."""

from typing import Any

import dns.message
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshdns import messages, names, wire
from meshdns.agent.steps import Failed
from meshdns.presentation import record_text
from tests.agent.looking import zone
from tests.agent.mesh import SEARCH, Mesh, nothing
from tests.agent.test_explain import CORP, LABELS, steps, told


class CacheTests(SynchronousTestCase):
    def told(self, mesh: Mesh, name: str, qtype: str = "A") -> dict[str, Any]:
        """Nothing is counted, moved or asked by it."""
        cache = mesh.lookups.cache
        before = cache.hits, cache.stale, cache.misses, cache.entries, list(mesh.asked)
        said = told(mesh, name, qtype)
        self.assertEqual(before, (cache.hits, cache.stale, cache.misses, cache.entries, list(mesh.asked)))
        self.assertLessEqual(sum(step["decides"] for step in said["steps"]), 1)
        return said

    def test_cold(self) -> None:
        """D10: not in the cache: which servers are asked, in order, with state and latency."""
        servers = [
            {"server": "10.0.0.53:53", "state": "up", "latency": 0.0021, "turn": 1},
            {"server": "b", "state": "slow", "turn": 2},
        ]
        said = told(Mesh(), "www.example.org", upstreams=servers)
        self.assertEqual(steps(said, "cache"), ["www.example.org A is not in the cache."])
        self.assertEqual(
            steps(said, "upstream"), ["www.example.org A is asked of 10.0.0.53:53 (up, 2.1 ms), then b (slow)."]
        )

    def test_fresh(self) -> None:
        """D25: the records with the TTLs that they would be given with, and how long it lasts."""
        mesh = Mesh(reply=zone("www.example.org. A 192.0.2.1"))
        mesh.ask("www.example.org.")
        mesh.clock.advance(36.5)
        said = self.told(mesh, "www.example.org")
        self.assertEqual(
            said["verdict"],
            "Answered from the cache, 24 s left (rule D10): www.example.org is in no mesh zone, and not in the table.",
        )
        self.assertEqual((said["source"], said["rcode"], said["upstream"]), ("cache", "NOERROR", None))
        self.assertEqual([record["text"] for record in said["answer"]], ["www.example.org. 23 IN A 192.0.2.1"])
        state = {"name": "www.example.org", "type": "A", "state": "fresh", "rcode": "NOERROR"}
        self.assertEqual(said["cache"], [state | {"seconds": 23.5, "failure": None}])
        self.assertEqual(mesh.say("www.example.org.")[1], ["www.example.org. 23 IN A 192.0.2.1"])

    def test_stale(self) -> None:
        """D26: expired: asked first, and given only if that fails; then given at once for a while."""
        mesh = Mesh(reply=zone("www.example.org. A 192.0.2.1"))
        mesh.ask("www.example.org.")
        mesh.clock.advance(72)
        said = self.told(mesh, "www.example.org")
        self.assertEqual((said["source"], said["rcode"]), ("upstream", None))
        self.assertIn("expired 12 s ago: it is asked for again, and given only if that fails", steps(said, "cache")[0])
        mesh.reply = lambda _: Failed("timeout", 22, "gave no answer in 2 s")
        mesh.ask("www.example.org.")
        said = self.told(mesh, "www.example.org")
        self.assertIn("Answered from the cache, though it expired 12 s ago (rule D10)", said["verdict"])
        self.assertEqual((said["source"], said["answer"][0]["ttl"]), ("stale", 30))

    def test_failure(self) -> None:
        """RFC 9520: a failure is remembered for some seconds."""
        mesh = Mesh(reply=lambda _: Failed("timeout", 22, "10.0.0.53:53 gave no answer in 2 s"))
        mesh.ask("www.example.org.")
        said = self.told(mesh, "www.example.org")
        self.assertEqual((said["rcode"], said["cache"][0]["state"]), ("SERVFAIL", "failure"))
        self.assertIn("failed a moment ago: 10.0.0.53:53 gave no answer in 2 s.", steps(said, "cache")[0])
        self.assertEqual(steps(said, "upstream"), ["After that www.example.org A is asked of 10.0.0.53:53 (up)."])
        mesh.clock.advance(10)
        self.assertIsNone(self.told(mesh, "www.example.org")["rcode"])

    def test_cold_walk(self) -> None:
        """D8: each candidate with what the table says, and which are asked upstream."""
        said = self.told(Mesh(search=CORP), "wiki.ns1.svc.cluster.local")
        cold = {"state": "nothing", "exists": None}
        self.assertEqual(
            [(step["name"], step["verdict"], step["cache"]) for step in said["search"]["walk"]],
            [
                ("wiki.ns1.svc.cluster.local", "absent", None),
                ("wiki.svc.cluster.local", "absent", None),
                ("wiki.cluster.local", "absent", None),
                ("wiki.corp.example.com", "upstream", cold),
                ("wiki", "upstream", cold),
            ],
        )
        walked = steps(said, "step")
        self.assertIn("wiki.svc.cluster.local does not exist: it is in a mesh zone, and not in the table.", walked)
        self.assertEqual(walked[-1], "wiki is not the mesh's and not in the cache: an upstream server is asked.")
        self.assertIn("the first of these names that exists is the answer", steps(said, "search")[-1])
        self.assertEqual(said["upstream"]["questions"], ["wiki.corp.example.com A", "wiki A"])

    def test_short_form_that_was_passed(self) -> None:
        """D8: SERVICE.svc.ZONE does not exist, though the bare SERVICE would be short for a host; that is explained."""
        said = self.told(Mesh(), "productpage.svc.cluster.local")
        self.assertEqual((said["rule"], said["rcode"]), ("D8", None))
        self.assertEqual(
            steps(said, "step")[-1],
            "productpage is short for productpage.ns1.svc.cluster.local (+ ns1.svc.cluster.local), which does not count: "
            "your resolver asks for that before it asks for this name. Otherwise it is not the mesh's and not in the cache: "
            "an upstream server is asked.",
        )

    def test_warm_walk(self) -> None:
        """D8: where the walk ends, by what the cache knows; A and AAAA alike."""
        mesh = Mesh(search=CORP, reply=zone("www.python.org. A 192.0.2.7"))
        name = "www.python.org.ns1.svc.cluster.local"
        mesh.ask(f"{name}.")
        said = self.told(mesh, name)
        self.assertEqual(
            said["verdict"],
            "Answered from the cache, 60 s left (rule D8): your resolver appended the search domain ns1.svc.cluster.local "
            "to www.python.org, which exists.",
        )
        self.assertEqual(
            steps(said, "step")[-2:],
            [
                "www.python.org.corp.example.com does not exist, as the cache knows for 5 s more.",
                "www.python.org exists, as the cache knows for 60 s more. The search ends here.",
            ],
        )
        self.assertEqual([step["name"] for step in said["steps"] if step["decides"]], ["www.python.org"])
        self.assertEqual(
            [record["text"] for record in said["answer"]],
            [f"{name}. 30 IN CNAME www.python.org.", "www.python.org. 60 IN A 192.0.2.7"],
        )
        self.assertEqual((said["upstream"], said["hints"]), (None, []))
        mesh.ask(f"{name}.", "AAAA")
        said = self.told(mesh, name, "AAAA")
        self.assertIn("Answered from the cache, without records", said["verdict"])
        self.assertIn("www.python.org exists", steps(said, "step")[-1])
        self.assertIn("www.python.org AAAA is in the cache (NOERROR)", steps(said, "cache")[-1])

    def test_order(self) -> None:
        """D8: a step that must be asked about comes before one that is known to exist."""
        mesh = Mesh(search=CORP, reply=zone("wiki. A 192.0.2.7"))
        mesh.ask("wiki.")
        said = self.told(mesh, "wiki.ns1.svc.cluster.local")
        self.assertEqual((said["source"], said["rcode"]), ("upstream", None))
        self.assertEqual(said["upstream"]["questions"], ["wiki.corp.example.com A"])
        self.assertEqual(steps(said, "step")[-1], "wiki exists, as the cache knows for 60 s more.")

    def test_walk_to_nothing(self) -> None:
        """D8: every step is known not to exist."""
        mesh = Mesh(search=CORP)
        mesh.ask("wiki.ns1.svc.cluster.local.")
        said = self.told(mesh, "wiki.ns1.svc.cluster.local")
        self.assertEqual((said["rule"], said["rcode"], said["upstream"]), ("D8", "NXDOMAIN", None))
        self.assertIn("to wiki, and none of the names to be tried exists.", said["verdict"])
        self.assertEqual(steps(said, "search")[-1], "None of them exists, so the answer is NXDOMAIN (rule D8).")

    def test_walk_to_a_failure(self) -> None:
        """D8: a step that cannot be asked about is not left out."""
        mesh = Mesh(search=CORP, reply=lambda _: Failed("timeout", 22, "gave no answer in 2 s"))
        mesh.ask("wiki.ns1.svc.cluster.local.")
        said = self.told(mesh, "wiki.ns1.svc.cluster.local")
        self.assertEqual(said["rcode"], "SERVFAIL")
        self.assertIn("and asking for wiki.corp.example.com failed a moment ago.", said["verdict"])
        (step,) = [step for step in said["steps"] if step["decides"]]
        self.assertIn("No step may be left out", step["text"])

    def test_walk_to_a_host(self) -> None:
        """D8: a mesh host behind a step that is known not to exist: its entry is shown as ever."""
        mesh = Mesh(search=("corp.example.com", *SEARCH))
        mesh.ask("reviews.ns2.corp.example.com.")
        said = self.told(mesh, "reviews.ns2.corp.example.com")
        self.assertEqual((said["source"], said["answer_rule"]), ("mesh", "D11"))
        self.assertIn("and reviews.ns2.svc.cluster.local is a host of the table.", said["verdict"])
        self.assertEqual(said["entry"]["host"], "reviews.ns2.svc.cluster.local")

    def test_chain_into_the_mesh(self) -> None:
        """D24: where a remembered chain enters the mesh, the table answers."""
        host = "productpage.ns1.svc.cluster.local"
        mesh = Mesh(reply=zone(f"www.example.org. CNAME {host}."))
        mesh.ask("www.example.org.")
        said = self.told(mesh, "www.example.org")
        self.assertIn(f"A CNAME leads to {host}. That is the mesh's", steps(said, "cache")[-1])
        self.assertEqual([record["data"] for record in said["answer"]], [f"{host}.", "10.4.0.5"])

    def test_alias(self) -> None:
        """D14: an ExternalName whose target is known."""
        mesh = Mesh(reply=zone("docs.example.org. A 192.0.2.9"))
        mesh.ask("docs.")
        said = self.told(mesh, "docs")
        self.assertIn("Answered from the mesh, completed from the cache, 60 s left (rule D6)", said["verdict"])
        self.assertEqual([record["data"] for record in said["answer"]][-1], "192.0.2.9")

    @given(
        st.lists(st.sampled_from(LABELS), min_size=1, max_size=4),
        st.sampled_from(["", *CORP]),
        st.sampled_from(["A", "AAAA", "MX"]),
        st.sets(st.sampled_from(LABELS), max_size=8),
    )
    def test_is_what_clients_get(self, labels: list[str], domain: str, qtype: str, known: set[str]) -> None:
        """D8, D25: once the cache knows, what is told is what a client gets then."""
        mesh = Mesh(
            search=CORP,
            reply=lambda query: answer(query) if query.question[0].name[0].decode() in known else nothing(query),
        )
        answer = zone(*(f"{label}. A 192.0.2.1" for label in LABELS))
        name = ".".join([*labels, domain]).rstrip(".")
        cold = self.told(mesh, name, qtype)
        packet = dns.message.make_query(name, qtype).to_wire()
        mesh.packet(packet, tcp=True)
        asked = {names.text(ask.question[:-4]) for ask in mesh.asked}
        self.assertEqual(bool(asked), cold["upstream"] is not None)
        said = self.told(mesh, name, qtype)
        (answered,) = mesh.packet(packet, tcp=True)
        self.assertEqual((said["source"], said["rcode"]), (answered.source, wire.rcode_text(answered.rcode)))
        for section, records in messages.records(answered.message)._asdict().items():
            self.assertEqual(sorted(record["text"] for record in said[section]), sorted(map(record_text, records)))
