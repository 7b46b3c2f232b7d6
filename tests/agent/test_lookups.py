"""The cache with the upstream behind it: who is asked, who waits, and what becomes of a late answer (rules D22 to D26)."""

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from meshdns import wire
from meshdns.agent.cache import Cache
from meshdns.agent.lifetimes import Limits
from meshdns.agent.lookups import Lookups, Word
from meshdns.agent.steps import Failed, Reply
from meshdns.wire import Ask
from tests.agent.saying import NXDOMAIN, TIMEOUT, A, ask, parsed, reply

NEW = A.replace("192.0.2.1", "192.0.2.9")
Done = Callable[[Reply | Failed, float], None]


class LookupsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[tuple[Ask, Done]] = []
        self.said: list[Word | Failed] = []
        self.lookups = Lookups(Cache(Limits()), lambda asked, done: self.asked.append((asked, done)), self._later)
        self.addCleanup(lambda: self.assertEqual([], self.clock.getDelayedCalls()))

    def _later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        return self.clock.callLater(seconds, call).cancel

    def find(self, asked: Ask | None = None) -> None:
        self.lookups.find(asked or ask(), self.clock.seconds(), lambda word, _: self.said.append(word))

    def hear(self, *answer: str, **how: Any) -> None:
        """The oldest question upstream is answered."""
        asked, done = self.asked.pop(0)
        done(Reply(reply(asked, *answer, **how), "192.0.2.53", 0.01), self.clock.seconds())

    def lose(self, failure: Failed = TIMEOUT) -> None:
        self.asked.pop(0)[1](failure, self.clock.seconds())

    def told(self) -> list[str]:
        """What was said since the last look: source and first address, or the failure's reason."""
        said, self.said = self.said, []
        return [each.reason if isinstance(each, Failed) else f"{each.source} {_first(each)}" for each in said]

    def know(self, *answer: str, **how: Any) -> None:
        self.find()
        self.hear(*answer, **how)
        self.told()


def _first(word: Word) -> str:
    message = parsed(word.message)
    return str(message.answer[0][0]) if message.answer else wire.rcode_text(word.rcode)


class FreshTests(LookupsCase):
    def test_asked_once(self) -> None:
        self.find()
        self.assertEqual(([ask()], []), ([asked for asked, _ in self.asked], self.told()))
        self.hear(A)
        self.find()
        self.assertEqual((["upstream 192.0.2.1", "cache 192.0.2.1"], []), (self.told(), self.asked))

    def test_negative(self) -> None:
        self.know(**NXDOMAIN)
        self.find()
        self.assertEqual((["cache NXDOMAIN"], []), (self.told(), self.asked))

    def test_trimmed_before_anybody_sees_it(self) -> None:
        """D24: also what is kept."""
        self.find()
        self.hear(A, "bank.example.com. 60 A 192.0.2.66")
        self.find()
        for word in self.said:
            assert isinstance(word, Word)
            self.assertEqual(
                ["www.example.net."], [rrset.name.to_text().lower() for rrset in parsed(word.message).answer]
            )
            self.assertEqual(wire.body(word.message), word.body)

    def test_failure_is_kept(self) -> None:
        """D25: for 5 s."""
        self.find()
        self.lose()
        self.clock.advance(4.9)
        self.find()
        self.assertEqual((["timeout", "timeout"], []), (self.told(), self.asked))
        self.clock.advance(0.1)
        self.find()
        self.assertEqual(1, len(self.asked))

    def test_broken_inside(self) -> None:
        """D21, D24: names inside RDATA that make no sense are the server's failure, not ours."""
        self.find()
        asked, done = self.asked.pop()
        message = bytearray(
            reply(asked, "www.example.net. 60 CNAME x.example.net.", "bank.example.com. 60 A 192.0.2.66")
        )
        at = message.index(b"\x01x")
        message[at : at + 2] = b"\xff\xff"
        done(Reply(bytes(message), "192.0.2.53", 0.01), 0.0)
        (failure,) = self.said
        assert isinstance(failure, Failed)
        self.assertIn("192.0.2.53 sent a broken answer", failure.text)

    def test_prefetch_makes_nobody_wait(self) -> None:
        """D26: answered from the cache, while one question goes upstream for nobody."""
        self.know(A)
        self.clock.advance(55)
        self.find()
        self.assertEqual((["cache 192.0.2.1"], 1), (self.told(), len(self.asked)))
        self.hear(NEW)
        self.assertEqual([], self.told())
        self.find()
        self.assertEqual(["cache 192.0.2.9"], self.told())

    def test_failed_prefetch_harms_nobody(self) -> None:
        self.know(A)
        self.clock.advance(55)
        self.find()
        self.lose()
        self.find()
        self.assertEqual((["cache 192.0.2.1", "cache 192.0.2.1"], []), (self.told(), self.asked))


class StaleTests(LookupsCase):
    """D26, RFC 8767."""

    def setUp(self) -> None:
        super().setUp()
        self.know(A)
        self.clock.advance(61)

    def test_new_answer_in_time(self) -> None:
        self.find()
        self.clock.advance(1.7)
        self.assertEqual([], self.told())
        self.hear(NEW)
        self.clock.advance(10)
        self.assertEqual(["upstream 192.0.2.9"], self.told())

    def test_failure(self) -> None:
        self.find()
        self.lose()
        self.assertEqual(["stale 192.0.2.1"], self.told())

    def test_new_nxdomain_is_an_answer(self) -> None:
        self.find()
        self.hear(**NXDOMAIN)
        self.assertEqual(["upstream NXDOMAIN"], self.told())

    def test_out_of_patience(self) -> None:
        """At 1.8 s, once; the late answer is for the next one."""
        self.find()
        self.clock.advance(1.8)
        self.assertEqual(["stale 192.0.2.1"], self.told())
        self.hear(NEW)
        self.assertEqual([], self.told())
        self.find()
        self.assertEqual((["cache 192.0.2.9"], []), (self.told(), self.asked))

    def test_after_patience_nobody_waits(self) -> None:
        """The question is still under way: who comes now is not made to wait for it, nor is it asked again."""
        self.find()
        self.clock.advance(1.8)
        self.find()
        self.assertEqual((["stale 192.0.2.1"] * 2, 1), (self.told(), len(self.asked)))

    def test_late_failure(self) -> None:
        self.find()
        self.clock.advance(1.8)
        self.lose()
        self.assertEqual(["stale 192.0.2.1"], self.told())

    def test_each_who_waits_is_told_once(self) -> None:
        self.find()
        self.clock.advance(1)
        self.find()
        self.clock.advance(0.8)
        self.assertEqual(["stale 192.0.2.1"], self.told())
        self.hear(NEW)
        self.assertEqual([], self.told())
        self.hear(NEW)
        self.assertEqual(["upstream 192.0.2.9"], self.told())

    def test_an_upstream_that_answers_at_once(self) -> None:
        """Nothing is left to wait for: no timer is set."""
        self.lookups = Lookups(self.lookups.cache, lambda asked, done: done(TIMEOUT, self.clock.seconds()), self._later)
        self.find()
        self.assertEqual(["stale 192.0.2.1"], self.told())
