"""What is asked of control planes next, and after how long (rules X3, X7, X8)."""

from twisted.trial.unittest import SynchronousTestCase

from meshdns.agent.subscription import Next, Subscription
from meshdns.exchange import Answer

ONE, TWO = "https://one.example:15012", "https://two.example:15012"
TABLE, DELTA = Answer(kind="table", status=200), Answer(kind="delta", status=226)
UNREADY = Answer(kind="refused", status=503, retry_after=2.0)
FORBIDDEN = Answer(kind="refused", status=403)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.subscription = Subscription((ONE,), "east", "net")

    def delays(self, count: int, chance: float) -> list[float]:
        return [self.subscription.unreachable("x", chance).delay for _ in range(count)]


class PollTests(Case):
    def test_first(self) -> None:
        """X8: without a table nothing is waited for."""
        first = self.subscription.first()
        self.assertEqual(
            (ONE, 0.0, (), 0.0, False), (first.url, first.delay, first.poll.known, first.poll.wait, first.poll.deltas)
        )

    def test_acknowledges(self) -> None:
        """X7: the next poll names what is held, and waits for news at once."""
        now = self.subscription.adopted(TABLE, "g1")
        self.assertEqual((("g1",), 55.0, True, 0.0), (now.poll.known, now.poll.wait, now.poll.deltas, now.delay))
        self.assertEqual(now, self.subscription.confirmed())

    def test_misfit(self) -> None:
        """X3: where a delta does not fit the whole table is asked for; what is held stays."""
        self.subscription.adopted(TABLE, "g1")
        now = self.subscription.misfit("hash", 0.0)
        self.assertEqual(((), False), (now.poll.known, now.poll.deltas))
        self.assertIn("the table of generation g1 stays in force", now.notice)
        self.assertEqual(("g2",), self.subscription.adopted(TABLE, "g2").poll.known)


class BackOffTests(Case):
    """X8: jittered, exponential, 0.5 s to 30 s."""

    def test_grows(self) -> None:
        self.assertEqual([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0], self.delays(7, 1.0))

    def test_full_jitter(self) -> None:
        """A fleet that lost its control plane together must not come back together."""
        self.assertEqual([0.5] * 4, self.delays(4, 0.0))
        self.assertEqual(0.5 + 0.5 * (16 - 0.5), self.delays(1, 0.5)[0])

    def test_success_starts_anew(self) -> None:
        self.delays(5, 1.0)
        self.subscription.confirmed()
        self.assertEqual([1.0], self.delays(1, 1.0))

    def test_retry_after(self) -> None:
        self.assertEqual(2.0, self.subscription.refused(UNREADY, "x", 0.0).delay)

    def test_closed_connection(self) -> None:
        """X8: at once when a connection that had worked is closed, but not again and again."""
        self.subscription.adopted(TABLE, "g1")
        self.assertEqual(
            Next(ONE, self.subscription.first().poll, 0.0), self.subscription.unreachable("x", 1.0, worked=True)
        )
        self.assertLess(0.5, self.subscription.unreachable("x", 1.0, worked=True).delay)

    def test_several_urls(self) -> None:
        """X8: in turn, and a wait only when all have failed; the one that serves is kept."""
        self.subscription = Subscription((ONE, TWO), "", "")
        turns = [self.subscription.unreachable("x", 1.0) for _ in range(4)]
        self.assertEqual([(TWO, 0.0), (ONE, 1.0), (TWO, 0.0), (ONE, 2.0)], [(each.url, each.delay) for each in turns])
        self.subscription.unreachable("x", 1.0)
        self.assertEqual([TWO, TWO], [self.subscription.adopted(DELTA, "g").url, self.subscription.confirmed().url])


class NoticeTests(Case):
    def test_once(self) -> None:
        """One line when trouble begins, none for each retry, one when it ends."""
        notices = [self.subscription.refused(FORBIDDEN, "no", 0.0).notice for _ in range(3)]
        self.assertEqual([f"control plane {ONE} refuses us (403): no; there is no table yet", "", ""], notices)
        self.assertIn("cannot", self.subscription.unreachable("cannot be reached", 0.0).notice)
        self.assertIn("can be used again", self.subscription.confirmed().notice)
        self.assertEqual(("", ""), (self.subscription.confirmed().notice, self.subscription.trouble))

    def test_counts(self) -> None:
        self.subscription.adopted(TABLE, "g")
        self.subscription.adopted(DELTA, "g")
        self.subscription.confirmed()
        self.subscription.misfit("x", 0.0)
        self.subscription.refused(UNREADY, "x", 0.0)
        self.subscription.refused(FORBIDDEN, "x", 0.0)
        self.subscription.unreachable("x", 0.0)
        self.subscription.unreachable("x", 0.0, untrusted=True)
        self.assertEqual([1] * 8, list(self.subscription.polls.values()))
