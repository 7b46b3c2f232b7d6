"""The life of upstream questions: joining, what counts as the answer, the next server, TCP, other servers."""

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from meshdns import names
from meshdns.agent.flights import Failed, Flights, Reply, Send
from meshdns.agent.servers import STREAM, Options
from meshdns.defaults import UPSTREAM_WAITERS
from meshdns.values import Server
from meshdns.wire import FORMERR, NOTIMP, NXDOMAIN, RD, REFUSED, SERVFAIL
from tests.agent.scene import ADDRESS, ONE, TC, THREE, TWO, Scene, ask, name, question, reply


class AnswerTests(SynchronousTestCase):
    """One server, and what comes back."""

    def test_answer(self) -> None:
        """D18: the message leaves as it came, with its server and how long it took."""
        scene = Scene(ONE)
        (sent,) = scene.ask()
        scene.now += 0.25
        message = reply(sent.message)
        scene.hear(sent, message)
        self.assertEqual([("client", Reply(message, "192.0.2.1:53", 0.25))], scene.results)
        self.assertEqual(0, scene.flights.inflight)
        self.assertIsNone(scene.flights.next_wake())

    def test_nxdomain_is_an_answer(self) -> None:
        """D21: only failures go to the next server."""
        scene = Scene(ONE, TWO)
        (sent,) = scene.ask()
        scene.answer(sent, NXDOMAIN, records=b"")
        self.assertIsInstance(scene.result, Reply)

    def test_own_edns(self) -> None:
        """D18: whatever the client said, an upstream may send 1,232 octets."""
        (sent,) = Scene(ONE).ask()
        self.assertEqual(b"\x00\x00\x29\x04\xd0" + bytes(6), sent.message[-11:])

    def test_second_answer_is_dropped(self) -> None:
        """D20: a question is answered once."""
        scene = Scene(ONE)
        (sent,) = scene.ask()
        scene.answer(sent)
        scene.answer(sent)
        self.assertEqual((1, 1), (len(scene.results), scene.flights.dropped["unexpected"]))

    def test_nobody_to_ask(self) -> None:
        """D19: without servers a question fails at once, with a sentence that says what to do."""
        scene = Scene()
        self.assertEqual([], scene.ask())
        assert isinstance(scene.result, Failed)
        self.assertEqual(("none", 22), (scene.result.reason, scene.result.ede))
        self.assertIn("upstream.servers", scene.result.text)


class SpoofTests(SynchronousTestCase):
    """D20, D24: what does not fit is counted and dropped, and the wait for the true answer goes on."""

    def lies(self, query: bytes) -> dict[str, list[bytes]]:
        """Reason -> datagrams, each with the right id."""
        good = reply(query)
        other = names.parse("evil.example.com") + b"\x00\x01\x00\x01"
        loop = b"\xc0" + bytes([len(good) - len(ADDRESS)]) + ADDRESS[2:]
        return {
            "short": [query[:2] + b"\x81", query[:2] + b"\xff" * 7, query[:2], query[:2] + bytes(9)],
            "not-a-reply": [query, good[:2] + b"\x01\x80" + good[4:]],
            "opcode": [good[:2] + b"\xa1\x80" + good[4:]],
            "question": [
                reply(query, asked=other),
                good[:4] + bytes(2) + good[6:],
                good[:4] + b"\x00\x02" + good[6:],
                reply(query, asked=question(query)[:-4] + b"\x00\x1c\x00\x01"),
                reply(query, asked=question(query)[:-4] + b"\x00\x01\x00\x03"),
            ],
            "malformed": [good[:-2], reply(query, records=loop), good[:-10], good[:7] + b"\x09" + good[8:]],
        }

    def test_every_lie(self) -> None:
        """D24: every row of the lying upstream, then the truth."""
        for reason in self.lies(Scene(ONE).ask()[0].message):
            scene = Scene(ONE)
            (sent,) = scene.ask()
            lies = self.lies(sent.message)[reason]
            for lie in lies:
                scene.hear(sent, lie)
                self.assertEqual([], scene.results, f"{reason} {lie!r}")
            scene.now += 0.05
            scene.answer(sent)
            self.assertIsInstance(scene.result, Reply, reason)
            self.assertEqual({reason: len(lies)}, dict(scene.flights.dropped))

    def test_wrong_id(self) -> None:
        """D20: another id."""
        scene = Scene(ONE)
        (sent,) = scene.ask()
        good = reply(sent.message)
        scene.hear(sent, bytes([good[0] ^ 1]) + good[1:])
        self.assertEqual(([], 1), (scene.results, scene.flights.dropped["unexpected"]))

    def test_wrong_socket(self) -> None:
        """D20: the right answer on another socket, or from another server."""
        scene = Scene(ONE, TWO)
        (sent,) = scene.ask()
        for other in (sent._replace(slot=sent.slot ^ 1), sent._replace(server=sent.server ^ 1)):
            scene.hear(other, reply(sent.message))
        self.assertEqual(([], 2), (scene.results, scene.flights.dropped["unexpected"]))

    def test_empty(self) -> None:
        """D24: datagrams too short for an id."""
        scene = Scene(ONE)
        (sent,) = scene.ask()
        scene.hear(sent, b"")
        scene.hear(sent, b"\x01")
        self.assertEqual(([], 2), (scene.results, scene.flights.dropped["short"]))


class JoinTests(SynchronousTestCase):
    """D22."""

    def test_same_question_is_asked_once(self) -> None:
        scene = Scene(ONE)
        sent = [step for number in range(20) for step in scene.ask(waiter=number)]
        self.assertEqual(1, len(sent))
        scene.answer(sent[0])
        self.assertEqual(list(range(20)), [waiter for waiter, _ in scene.results])
        self.assertEqual(1, len({id(result) for _, result in scene.results}))
        self.assertEqual(19, scene.flights.joined)

    def test_other_flags_are_another_question(self) -> None:
        """D22, D29: CD and DO are part of the question."""
        scene = Scene(ONE)
        self.assertEqual([1, 1, 1], [len(scene.ask(flags=flags)) for flags in (RD, RD | 0x10, RD | 0x8000)])

    def test_inflight_is_bounded(self) -> None:
        """D22: beyond the bound the newest fails at once; the others are not touched."""
        scene = Scene(ONE, max_inflight=3)
        for number in range(3):
            scene.ask(f"{number}.example")
        self.assertEqual([], scene.ask("late.example", "late"))
        ((waiter, result),) = scene.results
        assert isinstance(result, Failed)
        self.assertEqual(("late", "shed", 22), (waiter, result.reason, result.ede))
        self.assertEqual([], scene.ask("1.example", "joins"))
        self.assertEqual((1, 1), (scene.flights.shed, len(scene.results)))

    def test_waiters_are_bounded(self) -> None:
        scene = Scene(ONE)
        for number in range(UPSTREAM_WAITERS + 1):
            scene.ask(waiter=number)
        ((waiter, _),) = scene.results
        self.assertEqual(UPSTREAM_WAITERS, waiter)

    def test_asked_again_when_answered(self) -> None:
        scene = Scene(ONE)
        scene.answer(*scene.ask())
        self.assertEqual(1, len(scene.ask()))


class NextServerTests(SynchronousTestCase):
    """D21: what does not answer well is followed by the next."""

    def test_failing_rcodes(self) -> None:
        for rcode in (SERVFAIL, REFUSED):
            scene = Scene(ONE, TWO)
            (first,) = scene.ask()
            (second,) = scene.answer(first, rcode, records=b"")
            self.assertNotEqual(first.server, second.server)
            scene.answer(second)
            self.assertIsInstance(scene.result, Reply)

    def test_rounds(self) -> None:
        """All fail, in as many rounds as `attempts` says; the last failing message is kept."""
        scene = Scene(ONE, TWO, attempts=2)
        (sent,) = scene.ask()
        servers = []
        while not scene.results:
            servers.append(sent.server)
            for step in scene.answer(sent, SERVFAIL, records=b""):
                sent = step
        self.assertEqual([0, 1, 0, 1], servers)
        assert isinstance(scene.result, Failed)
        self.assertEqual(("rcode", 22), (scene.result.reason, scene.result.ede))
        self.assertEqual("192.0.2.1:53 answered SERVFAIL; 192.0.2.2:53 answered SERVFAIL", scene.result.text)
        self.assertEqual(reply(sent.message, SERVFAIL, records=b""), scene.result.reply)

    def test_timeout(self) -> None:
        """One silent server: asked `attempts` times, then EDE 22; the same on the last tick as on the timer's."""
        scene = Scene(ONE, timeout=2.0, attempts=2)
        scene.ask()
        (again,) = scene.wait(2.0)
        self.assertEqual([], scene.results)
        scene.wait(1.9)
        self.assertEqual([], scene.results)
        scene.wait(0.1)
        assert isinstance(scene.result, Failed)
        self.assertEqual(("timeout", 22), (scene.result.reason, scene.result.ede))
        self.assertEqual("192.0.2.1:53 gave no answer in 2 s", scene.result.text)
        self.assertEqual([], scene.hear(again, reply(again.message)))

    def test_deadline(self) -> None:
        """All of it ends at the deadline, whatever is outstanding."""
        scene = Scene(ONE, TWO, THREE, timeout=2.0, attempts=9, deadline=5.0, policy="ordered")
        scene.ask()
        scene.wait(4.99)
        self.assertEqual([], scene.results)
        scene.wait(0.01)
        assert isinstance(scene.result, Failed)
        self.assertEqual("timeout", scene.result.reason)
        self.assertEqual([], [step for step in scene.wait(10) if name(step.message) == "www.example.com"])

    def test_network_error(self) -> None:
        """An ICMP error is the attempt's failure at once; nothing but such errors is EDE 23."""
        scene = Scene(ONE, TWO, attempts=1)
        (first,) = scene.ask()
        (second,) = scene.fail(first, "refuses the question")
        scene.fail(second, "cannot be reached")
        assert isinstance(scene.result, Failed)
        self.assertEqual(("network", 23, None), (scene.result.reason, scene.result.ede, scene.result.reply))
        self.assertEqual("192.0.2.1:53 refuses the question; 192.0.2.2:53 cannot be reached", scene.result.text)

    def test_error_takes_all_on_the_socket(self) -> None:
        """And nothing on other sockets."""
        flights = Flights(Random(1).getrandbits)
        flights.replace([ONE, TWO], Options(policy="ordered"), 2, 0.0)
        sent = [step for n in range(40) for step in flights.ask(ask(f"{n}.example"), n, 0.0)]
        on_slot = [step for step in sent if isinstance(step, Send) and step.slot == 0]
        moved = flights.failed(0, 0, "refused", 0.0)
        self.assertEqual(len(on_slot), len([step for step in moved if isinstance(step, Send) and step.server == 1]))

    def test_formerr_because_of_edns(self) -> None:
        """The same server is asked without OPT, and from then on always."""
        for rcode in (FORMERR, NOTIMP):
            scene = Scene(ONE, TWO)
            (sent,) = scene.ask()
            (again,) = scene.answer(sent, rcode, records=b"")
            self.assertEqual((sent.server, b"\x00\x00"), (again.server, again.message[10:12]))
            scene.answer(again)
            self.assertIsInstance(scene.result, Reply)
            scene.flights.peers[1].dead = True
            scene.flights._stale = True
            (later,) = scene.ask("later.example")
            self.assertEqual(b"\x00\x00", later.message[10:12])

    def test_formerr_of_the_question(self) -> None:
        """It is not EDNS that the server dislikes: the next one, and OPT stays."""
        scene = Scene(ONE, TWO)
        (sent,) = scene.ask()
        (again,) = scene.answer(sent, FORMERR, records=b"")
        (second,) = scene.answer(again, FORMERR, records=b"")
        self.assertEqual((1, True), (second.server, scene.flights.peers[0].edns))

    def test_bare_formerr(self) -> None:
        """D24: a header alone does not answer the question, but after the hedge the server is asked without OPT."""
        scene = Scene(ONE)
        (sent,) = scene.ask()
        scene.hear(sent, sent.message[:2] + b"\x80\x01" + bytes(8))
        self.assertEqual(1, scene.flights.dropped["question"])
        (again,) = scene.wait(0.2)
        self.assertEqual(b"\x00\x00", again.message[10:12])
        scene.answer(again)
        self.assertFalse(scene.flights.peers[0].edns)


class TcpTests(SynchronousTestCase):
    """D21: truncated answers, and servers asked over TCP only."""

    def test_truncated(self) -> None:
        scene = Scene(ONE, TWO)
        (sent,) = scene.ask()
        (again,) = scene.answer(sent, flags=TC, records=b"")
        self.assertEqual((sent.server, STREAM), (again.server, again.slot))
        self.assertEqual(ask().question, question(again.message))
        message = reply(again.message, records=ADDRESS * 200)
        scene.hear(again, message)
        assert isinstance(scene.result, Reply)
        self.assertEqual(message, scene.result.message)

    def test_broken_connection(self) -> None:
        """The next server; and when it ends badly, the truncated message is there to be relayed."""
        scene = Scene(ONE, TWO, attempts=1)
        (sent,) = scene.ask()
        truncated = reply(sent.message, flags=TC, records=b"")
        (stream,) = scene.hear(sent, truncated)
        (second,) = scene.fail(stream, "closed its TCP connection")
        self.assertEqual(1, second.server)
        scene.fail(second)
        assert isinstance(scene.result, Failed)
        self.assertEqual(truncated, scene.result.reply)

    def test_idle_connection_closed(self) -> None:
        """RFC 7766 section 6.2.4: a question lost with a connection that had served before is asked again, once."""
        scene = Scene(Server("192.0.2.1", 53, "tcp"), attempts=1)
        (sent,) = scene.ask()
        (again,) = scene.fail(sent, reused=True)
        self.assertEqual([], scene.results)
        scene.fail(again, reused=True)
        self.assertIsInstance(scene.result, Failed)

    def test_broken_message(self) -> None:
        """Over TCP nothing better follows a broken message: the next server."""
        scene = Scene(Server("192.0.2.1", 53, "tcp"), TWO)
        (sent,) = scene.ask()
        (second,) = scene.hear(sent, reply(sent.message)[:-3])
        self.assertEqual(1, second.server)

    def test_tcp_only(self) -> None:
        scene = Scene(Server("192.0.2.1", 53, "tcp"))
        (sent,) = scene.ask()
        self.assertEqual((STREAM, ask().question), (sent.slot, question(sent.message)))


class ReplaceTests(SynchronousTestCase):
    """Other servers while questions are under way."""

    def test_old_questions_finish_on_the_old(self) -> None:
        scene = Scene(ONE)
        (sent,) = scene.ask()
        scene.play(scene.flights.replace([TWO], Options(), 512, scene.now))
        self.assertEqual([], scene.flights.release())
        self.assertEqual({1}, {step.server for step in scene.ask("new.example", "new")})
        scene.answer(sent)
        self.assertEqual([0], scene.flights.release())
        self.assertIsInstance(scene.result, Reply)

    def test_the_next_old_server_is_still_there(self) -> None:
        scene = Scene(ONE, TWO)
        (sent,) = scene.ask()
        scene.play(scene.flights.replace([THREE], Options(), 512, scene.now))
        self.assertEqual([], scene.flights.release())
        (second,) = scene.answer(sent, SERVFAIL, records=b"")
        scene.answer(second)
        self.assertEqual([0, 1], scene.flights.release())

    def test_server_in_both_keeps_what_is_known(self) -> None:
        """And is not probed again."""
        scene = Scene(ONE, TWO)
        scene.train(1, 0.001)
        probes = scene.play(scene.flights.replace([TWO, THREE], Options(), 512, scene.now))
        self.assertEqual([2], [probe.server for probe in probes])
        self.assertEqual(0.001, round(scene.flights.servers[0].smoothed or 0, 3))

    def test_abandon(self) -> None:
        """Everybody who waits hears of the end, and nothing is due any more."""
        scene = Scene(ONE, TWO, answered=False)
        scene.ask("1.example", 1)
        scene.ask("2.example", 2)
        scene.play(scene.flights.abandon())
        self.assertEqual([(1, "stopped"), (2, "stopped")], [(who, what.reason) for who, what in scene.results])
        self.assertIsNone(scene.flights.next_wake())
        self.assertEqual(0, sum(peer.outstanding for peer in scene.flights.peers.values()))


class BoundTests(SynchronousTestCase):
    """D22: nothing grows."""

    def test_wakes_do_not_pile_up(self) -> None:
        """One timer, and memory for what is outstanding, not for what was."""
        scene = Scene(ONE)
        for number in range(20000):
            scene.answer(*scene.ask(f"{number}.example"))
        self.assertLess(len(scene.flights._attempts._wakes), 5000)
        self.assertEqual(0, scene.flights.peers[0].outstanding)

    def test_each_request_has_one_outcome(self) -> None:
        scene = Scene(ONE, TWO)
        chance = Random(3)
        for number in range(500):
            steps = scene.ask(f"{number}.example")
            for step in steps:  # it grows while it is walked
                steps += scene.answer(
                    step, chance.choice([0, NXDOMAIN, SERVFAIL, REFUSED]), flags=chance.choice([0, TC])
                )
        self.assertEqual(500, len(scene.results))
        outcomes = sum(sum(peer.outcomes.values()) for peer in scene.flights.peers.values())
        self.assertEqual(len(scene.sent) - len(scene.probes), outcomes)
