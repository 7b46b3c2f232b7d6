"""Ids, sockets and case of what is sent upstream, and servers that do not keep the case."""

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from meshdns.agent.flights import Failed, Flights, Reply, Send
from meshdns.agent.servers import Options
from meshdns.wire import NXDOMAIN
from tests.agent.scene import ONE, Scene, ask, name, question, reply


class ChanceTests(SynchronousTestCase):
    """D20: ids, sockets and case that nobody can predict."""

    def test_ids_and_sockets(self) -> None:
        scene = Scene(ONE)
        sent = [scene.ask(f"host{number}.example.com")[0] for number in range(1000)]
        self.assertGreater(len({step.message[:2] for step in sent}), 980)
        slots = {step.slot for step in sent}
        self.assertGreater(len(slots), 400)
        self.assertEqual((True, True), (min(slots) >= 0, max(slots) < 512))

    def test_no_two_alike(self) -> None:
        """D20: id and socket of one outstanding question are never given to another one."""
        flights = Flights(Random(1).getrandbits)
        flights.replace([ONE], Options(max_inflight=4000), 1, 0.0)
        ids = set()
        for number in range(4000):
            (sent,) = flights.ask(ask(f"{number}.example"), None, 0.0)
            assert isinstance(sent, Send)
            ids.add(sent.message[:2])
        self.assertEqual(4000, len(ids))

    def test_case(self) -> None:
        """D20: 0x20, another pattern each time, in the name alone."""
        scene = Scene(ONE)
        sent = [scene.answer(*scene.ask()) or scene.sent[-1] for _ in range(50)]
        questions = {question(step.message) for step in sent}
        self.assertGreater(len(questions), 45)
        self.assertEqual({ask().question}, {asked.lower() for asked in questions})

    def test_sockets_are_replaced(self) -> None:
        """D20: a socket is opened when its slot is first used, and again after 128 to 255 questions."""
        flights = Flights(Random(1).getrandbits)
        (probe,) = flights.replace([ONE], Options(), 1, 0.0)
        assert isinstance(probe, Send)
        flights.received(0, 0, reply(probe.message), 0.0)
        since, uses = 0, []
        for _ in range(2000):
            (sent,) = flights.ask(ask(), None, 0.0)
            assert isinstance(sent, Send)
            if sent.fresh:
                uses.append(since)
                since = 0
            since += 1
            flights.received(0, 0, reply(sent.message), 0.0)
        self.assertGreater(len(uses), 6)
        self.assertEqual([], [count for count in uses[1:] if not 128 <= count < 256])

    def test_busy_socket_is_not_replaced(self) -> None:
        """D20: a socket on which an answer is awaited stays, however often it was used."""
        flights = Flights(Random(1).getrandbits)
        flights.replace([ONE], Options(), 1, 0.0)
        fresh = []
        for number in range(600):
            (sent,) = flights.ask(ask(f"{number}.example"), None, 0.0)
            assert isinstance(sent, Send)
            fresh.append(sent.fresh)
        self.assertEqual(0, sum(fresh))  # the probe opened it

    def test_no_descriptor(self) -> None:
        """D20: when no socket can be opened, the message takes one that is open; without any the server fails."""
        scene = Scene(ONE)
        (first,) = scene.ask("first.example")
        (second,) = scene.ask("second.example")
        (again,) = scene.play(scene.flights.no_socket(second, scene.now))
        self.assertIn(again.slot, {first.slot, scene.probes[0].slot})
        self.assertFalse(again.fresh)
        self.assertEqual("second.example", name(again.message))
        scene.answer(again)
        self.assertIsInstance(scene.result, Reply)
        for _ in range(50):
            (sent,) = scene.ask("third.example")
            self.assertFalse(sent.fresh)
            scene.answer(sent)

    def test_no_descriptor_at_all(self) -> None:
        scene = Scene(ONE, answered=False, attempts=1)
        scene.play(scene.flights.no_socket(scene.probes[0], scene.now))
        (sent,) = scene.ask()
        scene.play(scene.flights.no_socket(sent, scene.now))
        assert isinstance(scene.result, Failed)
        self.assertEqual(("network", 23), (scene.result.reason, scene.result.ede))
        self.assertIn("no file descriptor", scene.result.text)


class CaseTests(SynchronousTestCase):
    """D20: 0x20 with servers that do not keep the case."""

    def test_lower_case_server(self) -> None:
        """The mismatch is dropped; after the hedge the server is asked in lower case, and from then on always."""
        scene = Scene(ONE)
        (sent,) = scene.ask()
        scene.answer(sent, asked=ask().question)
        self.assertEqual(([], 1), (scene.results, scene.flights.dropped["case"]))
        (again,) = scene.wait(0.2)
        self.assertEqual(ask().question, question(again.message))
        scene.answer(again)
        self.assertIsInstance(scene.result, Reply)
        (later,) = scene.ask("Other.example.com")
        self.assertEqual(question(later.message).lower(), question(later.message))

    def test_upper_case_server(self) -> None:
        """Of a server known not to keep the case any case is taken; what leaves is byte for byte as asked."""
        scene = Scene(ONE)
        scene.flights.peers[0].cased = False
        (sent,) = scene.ask()
        scene.answer(sent, asked=ask().question[:-4].upper() + ask().question[-4:])
        assert isinstance(scene.result, Reply)
        self.assertEqual(reply(sent.message), scene.result.message)

    def test_wait_goes_on(self) -> None:
        """A forged mismatch neither fails the question nor makes the server lose its 0x20."""
        scene = Scene(ONE)
        (sent,) = scene.ask()
        for _ in range(3):
            scene.answer(sent, asked=ask().question)
        scene.now += 0.1
        scene.answer(sent)
        self.assertIsInstance(scene.result, Reply)
        self.assertTrue(scene.flights.peers[0].cased)
        self.assertEqual([], scene.wait(10))

    def test_one_more_question_only(self) -> None:
        """However many mismatches come, the server is asked once more, not once for each."""
        scene = Scene(ONE)
        (sent,) = scene.ask()
        again = []
        for _ in range(20):
            scene.answer(sent, asked=ask().question)
            again += scene.wait(0.05)
        self.assertEqual(1, len(again))

    def test_truth_restores(self) -> None:
        """Both were answered: the server keeps the case after all, so the mismatch was a forgery."""
        scene = Scene(ONE)
        (sent,) = scene.ask()
        scene.answer(sent, asked=ask().question)
        (again,) = scene.wait(0.2)
        scene.answer(again)
        self.assertFalse(scene.flights.peers[0].cased)
        scene.answer(sent)
        self.assertTrue(scene.flights.peers[0].cased)

    def test_probe_finds_out(self) -> None:
        """The probe at the start tells already, so that no client waits for it."""
        scene = Scene(ONE, answered=False)
        (probe,) = scene.probes
        scene.answer(probe, NXDOMAIN, asked=question(probe.message).lower(), records=b"")
        (again,) = scene.wait(0.2)
        scene.answer(again, NXDOMAIN, records=b"")
        self.assertFalse(scene.flights.peers[0].cased)
