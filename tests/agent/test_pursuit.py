"""Walks of the search list that need upstreams (rule D8): the order of steps, whatever the order of words."""

from collections.abc import Callable
from typing import Any

import attrs
import dns.message
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from meshdns import names, table, wire
from meshdns.agent.authority import Authority
from meshdns.agent.cache import Cache
from meshdns.agent.lifetimes import Limits
from meshdns.agent.lookups import Lookups, Word
from meshdns.agent.pursuit import End, Pursuit, deciding
from meshdns.agent.search import Search, Walk
from meshdns.agent.steps import Failed, Reply
from meshdns.wire import Ask
from tests.agent.mesh import HOSTS, SEARCH, lines
from tests.agent.saying import NXDOMAIN, TIMEOUT, ask, reply

CORP, LAB = "corp.example.com", "lab.example.com"
BARE = "www.python.org"
Done = Callable[[Reply | Failed, float], None]


@attrs.define
class Chase:
    """A pursuit of one name, its upstream, and where it ended."""

    name: str = f"{BARE}.ns1.svc.cluster.local"
    rdtype: str = "A"
    domains: tuple[str, ...] = (*SEARCH, CORP, LAB)
    asked: dict[tuple[str, str], Done] = attrs.field(factory=dict)
    ends: list[End] = attrs.field(factory=list)
    now: float = 7.0
    reply: Callable[[Ask], Reply | Failed] | None = None

    def start(self) -> "Chase":
        hosts = Authority(table.read(lines(HOSTS)), namespace="ns1", domain=names.parse("cluster.local"), zones=())
        walk = Search([names.parse(domain) for domain in self.domains]).walk(names.parse(self.name), hosts)
        assert isinstance(walk, Walk)
        lookups = Lookups(Cache(Limits()), self._ask, lambda seconds, call: Clock().callLater(seconds, call).cancel)
        Pursuit(walk, ask(self.name, self.rdtype), lookups, self._end).start(self.now)
        return self

    def _end(self, end: End, now: float) -> None:
        assert now == self.now
        self.ends.append(end)

    def _ask(self, asked: Ask, done: Done) -> None:
        if self.reply is not None:
            done(self.reply(asked), self.now)
        name = names.text(asked.question[:-4])
        self.asked[name, wire.type_text(int.from_bytes(asked.question[-4:-2]))] = done

    def hear(self, name: str, *answer: str, rdtype: str | None = None, **how: Any) -> None:
        kind = rdtype or self.rdtype
        said = reply(ask(name, kind), *(f"{name}. 60 {kind} {rdata}" for rdata in answer), **how)
        self.asked.pop((name, kind))(Reply(said, "192.0.2.53", 0.01), self.now)

    def fail(self, name: str, rdtype: str | None = None) -> None:
        self.asked.pop((name, rdtype or self.rdtype))(TIMEOUT, self.now)

    @property
    def told(self) -> tuple[str, bool, str]:
        """Where it ended, whether that exists, and what is said of it."""
        (end,) = self.ends
        word = end.word
        if isinstance(word, Failed):
            return names.text(end.name), end.exists, word.reason
        return names.text(end.name), end.exists, "mesh" if end.found else wire.rcode_text(word.rcode if word else 0)


def at(domain: str) -> str:
    return f"{BARE}.{domain}"


class OrderTests(SynchronousTestCase):
    def test_all_steps_are_asked_at_once(self) -> None:
        """Those that the table decides are not asked at all."""
        chase = Chase().start()
        self.assertEqual([(at(CORP), "A"), (at(LAB), "A"), (BARE, "A")], list(chase.asked))
        self.assertEqual([], chase.ends)

    def test_the_first_that_exists(self) -> None:
        """In each order of the words."""
        words = {at(CORP): (), at(LAB): ("192.0.2.2",), BARE: ("192.0.2.3",)}
        for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2), (2, 0, 1), (0, 2, 1)):
            chase = Chase().start()
            for number in order:
                name = list(words)[number]
                chase.hear(name, *words[name], **({} if words[name] else NXDOMAIN))
            self.assertEqual((at(LAB), True, "NOERROR"), chase.told)

    def test_no_data_is_there(self) -> None:
        chase = Chase().start()
        chase.hear(at(CORP), authority=NXDOMAIN["authority"])
        self.assertEqual((at(CORP), True, "NOERROR"), chase.told)

    def test_nothing_exists(self) -> None:
        """What is told of it is the word on the first name asked about."""
        chase = Chase().start()
        for name in (BARE, at(LAB), at(CORP)):
            self.assertEqual([], chase.ends)
            chase.hear(name, **NXDOMAIN)
        self.assertEqual((BARE, False, "NXDOMAIN"), chase.told)
        (end,) = chase.ends
        assert isinstance(end.word, Word)
        self.assertEqual(at(CORP), dns.message.from_wire(end.word.message).question[0].name.to_text(True).lower())

    def test_a_failure_is_not_stepped_over(self) -> None:
        chase = Chase().start()
        chase.hear(at(LAB), "192.0.2.2")
        chase.fail(at(CORP))
        self.assertEqual((at(CORP), False, "timeout"), chase.told)

    def test_a_failure_behind_the_end_means_nothing(self) -> None:
        chase = Chase().start()
        chase.fail(BARE)
        self.assertEqual([], chase.ends)
        chase.hear(at(CORP), "192.0.2.2")
        chase.hear(at(LAB), "192.0.2.2")
        self.assertEqual((at(CORP), True, "NOERROR"), chase.told)

    def test_a_mesh_host_at_the_end(self) -> None:
        """An external service of the mesh, where no earlier step exists; its own name is not asked of anybody."""
        chase = Chase("db1.example.com.svc.cluster.local", domains=(*SEARCH, CORP)).start()
        self.assertEqual([(f"db1.example.com.{CORP}", "A")], list(chase.asked))
        chase.hear(f"db1.example.com.{CORP}", **NXDOMAIN)
        self.assertEqual(("db1.example.com", True, "mesh"), chase.told)

    def test_a_corporate_name_before_a_mesh_host(self) -> None:
        chase = Chase("db1.example.com.svc.cluster.local", domains=(*SEARCH, CORP)).start()
        chase.hear(f"db1.example.com.{CORP}", "192.0.2.2")
        self.assertEqual((f"db1.example.com.{CORP}", True, "NOERROR"), chase.told)

    def test_words_at_once(self) -> None:
        """From a cache, say: once the end is known nothing more is asked."""
        chase = Chase(
            reply=lambda asked: Reply(reply(asked, f"{names.text(asked.question[:-4])}. 60 A 192.0.2.2"), "", 0)
        ).start()
        self.assertEqual((at(CORP), True, "NOERROR"), chase.told)
        self.assertEqual([(at(CORP), "A")], list(chase.asked))


class FamilyTests(SynchronousTestCase):
    """A and AAAA of one name end at the same step, always."""

    def test_what_decides(self) -> None:
        self.assertEqual([wire.A, wire.A, wire.MX], [deciding(each) for each in (wire.A, wire.AAAA, wire.MX)])

    def chase(self) -> Chase:
        """One for AAAA in which only the bare name has an A."""
        chase = Chase(rdtype="AAAA", domains=(*SEARCH, CORP)).start()
        chase.hear(at(CORP), rdtype="A", **NXDOMAIN)
        chase.hear(BARE, "192.0.2.3", rdtype="A")
        return chase

    def test_a_decides(self) -> None:
        chase = self.chase()
        self.assertEqual([], chase.ends)
        while (BARE, "AAAA") in chase.asked:
            chase.hear(BARE, "2001:db8::3", rdtype="AAAA")
        self.assertEqual((BARE, True, "NOERROR"), chase.told)

    def test_denied_for_want_of_aaaa(self) -> None:
        """RFC 4074 section 4.2: it exists nevertheless."""
        chase = self.chase()
        while (BARE, "AAAA") in chase.asked:
            chase.hear(BARE, rdtype="AAAA", **NXDOMAIN)
        self.assertEqual((BARE, True, "NXDOMAIN"), chase.told)

    def test_aaaa_fails(self) -> None:
        chase = self.chase()
        while (BARE, "AAAA") in chase.asked:
            chase.fail(BARE, "AAAA")
        self.assertEqual((BARE, False, "timeout"), chase.told)

    def test_a_fails(self) -> None:
        """AAAA alone does not say where A would have ended."""
        chase = Chase(rdtype="AAAA", domains=(*SEARCH, CORP)).start()
        chase.hear(at(CORP), rdtype="A", **NXDOMAIN)
        if (BARE, "AAAA") in chase.asked:
            chase.hear(BARE, "2001:db8::3", rdtype="AAAA")
        self.assertEqual([], chase.ends)
        chase.fail(BARE, "A")
        self.assertEqual((BARE, False, "timeout"), chase.told)

    def test_other_types_decide_for_themselves(self) -> None:
        chase = Chase(rdtype="MX").start()
        self.assertEqual([(at(CORP), "MX"), (at(LAB), "MX"), (BARE, "MX")], list(chase.asked))
        chase.hear(at(CORP), **NXDOMAIN)
        chase.hear(at(LAB), "10 mail.example.com.")
        self.assertEqual((at(LAB), True, "NOERROR"), chase.told)
