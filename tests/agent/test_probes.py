"""Servers that forward to us."""

from twisted.trial.unittest import SynchronousTestCase

from meshdns import names
from meshdns.agent.flights import Failed, Send
from meshdns.wire import NXDOMAIN, REFUSED, SERVFAIL
from tests.agent.scene import ONE, TWO, Scene, name, question


class LoopTests(SynchronousTestCase):
    """D19: a server that forwards to us."""

    def looped(self) -> Scene:
        scene = Scene(ONE, TWO, answered=False)
        scene.answer(scene.probes[1], NXDOMAIN, records=b"")
        self.assertTrue(self.comes_back(scene, scene.probes[0]))
        return scene

    def comes_back(self, scene: Scene, probe: Send) -> bool:
        ours, steps = scene.flights.own_probe(question(probe.message)[:-4].lower(), scene.now)
        scene.play(steps)
        return ours

    def test_probe(self) -> None:
        """TXT of sixteen random hex digits below our own name, to each server at the start."""
        scene = Scene(ONE, TWO, answered=False)
        self.assertEqual([0, 1], [probe.server for probe in scene.probes])
        nonces = {name(probe.message).partition(".")[0] for probe in scene.probes}
        self.assertEqual((2, {16}), (len(nonces), {len(nonce) for nonce in nonces}))
        self.assertEqual({"loop.meshdns.example"}, {name(probe.message).partition(".")[2] for probe in scene.probes})
        self.assertEqual({b"\x00\x10\x00\x01"}, {question(probe.message)[-4:] for probe in scene.probes})

    def test_loop_is_refused_with_one_line(self) -> None:
        scene = self.looped()
        self.comes_back(scene, scene.probes[0])
        (line,) = scene.notices
        self.assertIn("192.0.2.1:53", line)
        self.assertIn("upstream.servers", line)
        self.assertEqual("loop", scene.state(0))
        scene.answer(scene.probes[0], REFUSED, records=b"")  # our own refusal, on its way back
        self.assertEqual({1}, {scene.ask(f"{n}.example")[0].server for n in range(10)})

    def test_every_server_loops(self) -> None:
        scene = self.looped()
        self.comes_back(scene, scene.probes[1])
        scene.ask()
        assert isinstance(scene.result, Failed)
        self.assertIn("back to this agent", scene.result.text)

    def test_taken_back(self) -> None:
        """Sixty seconds later it is probed again; a probe that does not come back ends it."""
        scene = self.looped()
        scene.answer(scene.probes[0], REFUSED, records=b"")
        self.assertEqual([], scene.wait(59.9))
        (probe,) = scene.wait(0.2)
        self.comes_back(scene, probe)
        scene.answer(probe, REFUSED, records=b"")
        self.assertEqual(("loop", 1), (scene.state(0), len(scene.notices)))
        (probe,) = scene.wait(60)
        scene.answer(probe, NXDOMAIN, records=b"")
        self.assertEqual(("up", 2), (scene.state(0), len(scene.notices)))

    def test_foreign_names(self) -> None:
        """Nobody can accuse a server with a name that is not out."""
        scene = Scene(ONE)
        for text in ("0123456789abcdef.loop.meshdns.example", "loop.meshdns.example", "."):
            self.assertEqual((False, []), scene.flights.own_probe(names.parse(text), scene.now))
        self.assertEqual("up", scene.state(0))

    def test_question_under_way_leaves_the_loop_alone(self) -> None:
        scene = Scene(ONE, TWO, policy="ordered", answered=False)
        (sent,) = scene.ask()
        (second,) = scene.answer(sent, SERVFAIL, records=b"")
        self.comes_back(scene, scene.probes[0])
        (third,) = scene.answer(second, SERVFAIL, records=b"")
        self.assertEqual(1, third.server)

    def test_silent_probe_is_repeated(self) -> None:
        """Once a second until it is answered or the server is heard otherwise: loss must not hide a loop."""
        scene = Scene(ONE, answered=False)
        self.assertEqual(5, len(scene.wait(5.1)))
