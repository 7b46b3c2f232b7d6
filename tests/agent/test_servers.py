"""Which server is asked first, and which besides."""

from twisted.trial.unittest import SynchronousTestCase

from meshdns.agent.flights import Reply
from meshdns.defaults import PROBE_ZONE
from meshdns.wire import NXDOMAIN, REFUSED, SERVFAIL
from tests.agent.scene import ONE, THREE, TWO, Scene, name


class HedgeTests(SynchronousTestCase):
    """D21, policy fastest."""

    def test_hedge(self) -> None:
        """A server that takes longer than its p95 is joined by the next; the first good answer wins, once."""
        scene = Scene(ONE, TWO)
        scene.train(0, 0.04)
        scene.train(1, 0.05)
        (first,) = scene.ask()
        self.assertEqual([], scene.wait(0.039))
        (second,) = scene.wait(0.001)
        self.assertEqual((0, 1), (first.server, second.server))
        self.assertNotEqual(first.message[:2], second.message[:2])
        scene.answer(second)
        scene.answer(first)
        self.assertEqual(1, len(scene.results))

    def test_least_hedge(self) -> None:
        """At least 20 ms."""
        scene = Scene(ONE, TWO)
        scene.train(0, 0.001)
        scene.train(1, 0.002)
        scene.ask()
        self.assertEqual([], scene.wait(0.0199))
        self.assertEqual(1, len(scene.wait(0.0002)))

    def test_failure_behind_a_hedge(self) -> None:
        """The hedge's failure does not end the wait for the first."""
        scene = Scene(ONE, TWO)
        (first,) = scene.ask()
        (second,) = scene.wait(0.2)
        self.assertEqual([], scene.answer(second, SERVFAIL, records=b""))
        self.assertEqual([], scene.results)
        scene.answer(first)
        self.assertIsInstance(scene.result, Reply)

    def test_fastest_first(self) -> None:
        scene = Scene(ONE, TWO, THREE)
        for server, seconds in enumerate((0.05, 0.01, 0.03)):
            scene.train(server, seconds)
        self.assertEqual([1], [sent.server for sent in scene.ask()])

    def test_dead_server(self) -> None:
        """It costs three questions one hedge, no later one anything; and is back within two seconds of its return."""
        scene = Scene(ONE, TWO)
        scene.train(0, 0.001)
        scene.train(1, 0.002)
        slow = []
        for number in range(1000):  # ten seconds, and server 0 says nothing
            began = scene.now
            queue = scene.ask(f"{number}.example")
            while len(scene.results) == number:
                for sent in queue:
                    if sent.server == 1:
                        scene.answer(sent)
                queue = scene.wait(0.001)
            slow.append(scene.now - began)
            scene.wait(0.01)
        self.assertEqual([], [result for _, result in scene.results if not isinstance(result, Reply)])
        self.assertEqual(3, len([seconds for seconds in slow if seconds > 0.002]))
        self.assertLess(max(slow), 0.03)
        self.assertEqual("dead", scene.state(0))
        asked = [name(sent.message) for sent in scene.sent[-700:] if sent.server == 0]  # the last seven seconds
        self.assertLess(len(asked), 13)
        self.assertEqual({PROBE_ZONE}, {text.partition(".")[2] for text in asked})
        # It returns.
        for _ in range(2000):
            for sent in scene.wait(0.001):
                scene.answer(sent, NXDOMAIN, records=b"")
        self.assertEqual("up", scene.state(0))
        scene.train(1, 0.05)
        self.assertEqual([0], [sent.server for sent in scene.ask("back.example")])

    def test_late_answers_keep_a_server_up(self) -> None:
        """Slow now and then is not dead: what comes after the hedge still counts for the server."""
        scene = Scene(ONE, TWO)
        scene.train(0, 0.02)
        scene.train(1, 0.03)
        for number in range(10):
            (first,) = scene.ask(f"{number}.example")
            (second,) = scene.wait(0.02)
            scene.answer(second)
            scene.now += 0.02
            scene.answer(first)
        self.assertEqual("up", scene.state(0))

    def test_all_dead(self) -> None:
        """They are asked nevertheless."""
        scene = Scene(ONE, TWO)
        for peer in scene.flights.peers.values():
            peer.dead = True
        scene.flights._stale = True
        (sent,) = scene.ask()
        scene.answer(sent)
        self.assertIsInstance(scene.result, Reply)
        self.assertEqual("up", scene.state(sent.server))

    def test_others_are_measured(self) -> None:
        """Now and then a question goes to another server besides, so that a slow one can become the fastest."""
        scene = Scene(ONE, TWO)
        scene.train(0, 0.010)
        scene.train(1, 0.020)
        asked = []
        for number in range(2000):
            sent = scene.ask(f"{number}.example")
            asked.append(sent[0].server)
            scene.now += 0.001  # server 1 has become fast
            for step in [step for step in sent if step.server == 1]:
                scene.answer(step)
            scene.now += 0.009
            for step in [step for step in sent if step.server == 0]:
                scene.answer(step)
        self.assertEqual(({0}, {1}), (set(asked[:50]), set(asked[-50:])))

    def test_flood_is_not_doubled(self) -> None:
        """D22: hedges are not sent when as many attempts as two for each question are outstanding."""
        scene = Scene(ONE, TWO, max_inflight=10)
        for number in range(40):
            for step in scene.ask(f"{number}.example"):
                scene.now += 0.001
                scene.wait(0.2)
                scene.answer(next(sent for sent in reversed(scene.sent) if sent.server != step.server))
        self.assertLessEqual(len(scene.flights._attempts.outstanding), 31)


class PolicyTests(SynchronousTestCase):
    """Whom to ask first."""

    def test_ordered(self) -> None:
        """D21: strictly as written, however slow the first; the next only when it fails."""
        scene = Scene(ONE, TWO, policy="ordered", timeout=2.0)
        scene.train(0, 0.5)
        scene.train(1, 0.001)
        (first,) = scene.ask()
        self.assertEqual([], scene.wait(1.99))
        (second,) = scene.wait(0.02)
        self.assertEqual((0, 1), (first.server, second.server))

    def test_ordered_skips_the_dead(self) -> None:
        scene = Scene(ONE, TWO, policy="ordered", timeout=2.0)
        for number in range(2):
            scene.ask(f"{number}.example")
            (second,) = [sent for sent in scene.wait(2.0) if sent.server == 1]
            scene.answer(second)
        self.assertEqual(("dead", [1]), (scene.state(0), [sent.server for sent in scene.ask("next.example")]))

    def test_race(self) -> None:
        """D21: all at once; the first good answer wins, a bad one does not."""
        scene = Scene(ONE, TWO, THREE, policy="race")
        sent = scene.ask()
        self.assertEqual([0, 1, 2], [step.server for step in sent])
        self.assertEqual([], scene.answer(sent[1], REFUSED, records=b""))
        scene.answer(sent[2])
        self.assertIsInstance(scene.result, Reply)
        self.assertEqual("192.0.2.3:53", scene.result.server)

    def test_race_rounds(self) -> None:
        scene = Scene(ONE, TWO, policy="race", attempts=2)
        first, second = scene.ask()
        scene.answer(first, SERVFAIL, records=b"")
        self.assertEqual([0, 1], [step.server for step in scene.answer(second, SERVFAIL, records=b"")])

    def test_rotate(self) -> None:
        """D19: `options rotate` takes turns among those alive."""
        scene = Scene(ONE, TWO, THREE, rotate=True)
        scene.flights.peers[1].dead = True
        scene.flights._stale = True
        asked = [scene.ask(f"{number}.example")[0].server for number in range(6)]
        self.assertEqual({0: 3, 2: 3}, {server: asked.count(server) for server in set(asked)})
