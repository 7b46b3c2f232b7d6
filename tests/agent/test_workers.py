"""Workers as the main process has them: who stands in when, who is replaced, told and ended. No process, no socket."""

from collections.abc import Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from meshdns.agent.counts import Counts
from meshdns.agent.frames import Word
from meshdns.agent.workers import Workers
from meshdns.defaults import WORKER_LEAVE, WORKER_LOOK, WORKER_REST_LEAST, WORKER_REST_MOST, WORKER_STEADY
from meshdns.table import Table
from tests.agent.test_adoption import many

ADDRESS = ("127.0.0.1", 53)
HOST = "s0.ns1.svc.cluster.local"


@attrs.define(eq=False)
class Socket:
    closed: bool = False

    def close(self) -> None:
        self.closed = True


class Share:
    """The sockets of one worker, that are none."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self.pairs = {address: (Socket(), Socket()) for address in addresses or (ADDRESS,)}
        self.has_left = False

    @property
    def sockets(self) -> list[Any]:
        return [each for pair in self.pairs.values() for each in pair]

    def leave(self) -> None:
        self.has_left = True

    def close(self) -> None:
        for each in self.sockets:
            each.close()

    @property
    def closed(self) -> bool:
        return all(each.closed for each in self.sockets)


class Doors:
    """The main process in a worker's place."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.closed = False

    async def close(self) -> None:
        self.closed = True


class Child:
    """A process that does what the test says."""

    def __init__(self, number: int, share: Share, post: Any, now: float) -> None:
        self.number, self.share, self.post, self.started = number, share, post, now
        self.pid = 1000 + number
        self.counts = Counts()
        self.told: list[Any] = []
        self.looks: list[Deferred[None]] = []

    def tell(self, word: Word, content: bytes = b"") -> None:
        self.told.append((word, content))

    def tell_table(self, table: Table) -> None:
        self.told.append(table)

    def open(self, addresses: Sequence[tuple[str, int]]) -> None:
        self.told.append([*addresses])

    def look(self) -> Deferred[None]:
        self.looks.append(Deferred())
        return self.looks[-1]

    def stop(self) -> None:
        self.told.append("stop")

    def kill(self, why: str) -> None:
        self.told.append("kill")
        self.die()

    # from the test

    def come_up(self) -> None:
        self.post.ready(self)

    def die(self, why: str = "signal 9") -> None:
        self.post.gone(self, why)


class WorkersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.said: list[str] = []
        globalLogPublisher.addObserver(self.hear)
        self.addCleanup(globalLogPublisher.removeObserver, self.hear)
        self.clock = Clock()
        self.children: list[Child] = []
        self.doors: list[Doors] = []
        self.settings = b"first"
        self.refuse = False
        self.workers = Workers(self.stand_in, self.start, lambda: self.settings, self.clock)

    def hear(self, event: LogEvent) -> None:
        self.said.append(formatEvent(event))

    def stand_in(self, share: Share) -> Doors:
        self.doors.append(Doors(share))
        return self.doors[-1]

    def start(self, number: int, share: Share, post: Any) -> Child:
        if self.refuse:
            raise OSError("no such program")
        self.children.append(Child(number, share, post, self.clock.seconds()))
        return self.children[-1]

    def begin(self, *shares: Share) -> None:
        self.workers.place(shares)
        self.workers.start()
        for each in self.children:
            each.come_up()

    @property
    def standing_in(self) -> list[Share]:
        """The shares whose work the main process does."""
        return [each.share for each in self.doors if not each.closed]

    @property
    def states(self) -> list[str]:
        return [each["state"] for each in self.workers.status()]

    def end(self) -> None:
        """Nothing is left that waits for the clock."""
        stopping = Deferred.fromCoroutine(self.workers.stop())
        for each in self.children:
            if "stop" in each.told and each in self.workers._children:
                each.die("status 0")
        self.successResultOf(stopping)
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual([], self.standing_in)

    def test_start(self) -> None:
        """The main process does the work until a worker answers; it is told settings, table and addresses in this order."""
        one, two = Share(), Share()
        self.workers.take(many(1))
        self.workers.place([one, two])
        self.assertEqual([], self.children)
        self.workers.start()
        self.assertEqual([one, two], self.standing_in)
        self.assertEqual([2, 3], [each.number for each in self.children])
        self.assertEqual([(Word.SETTINGS, b"first"), many(1), [ADDRESS]], self.children[0].told)
        self.assertEqual(["starting", "starting"], self.states)
        self.children[1].come_up()
        self.assertEqual([one], self.standing_in)
        self.assertEqual(["starting", "up"], self.states)
        self.end()

    def test_told(self) -> None:
        """All hear of tables and settings; who starts later hears of the last ones."""
        self.begin(Share(), Share())
        self.workers.take(many(2))
        self.settings = b"second"
        self.workers.tell_settings()
        for each in self.children:
            self.assertEqual([many(2), (Word.SETTINGS, b"second")], each.told[-2:])
        self.children[0].die()
        self.clock.advance(0)
        self.assertEqual([(Word.SETTINGS, b"second"), many(2), [ADDRESS]], self.children[2].told)
        self.end()

    def test_dies(self) -> None:
        """Its work is done at once, and another one starts at once."""
        share = Share()
        self.begin(share)
        self.clock.advance(1)
        self.children[0].die()
        self.assertEqual([share], self.standing_in)
        self.clock.advance(0)
        self.assertEqual(2, len(self.children))
        self.children[1].come_up()
        self.assertEqual([], self.standing_in)
        self.assertEqual(1, self.workers.status()[0]["restarts"])
        self.assertIn("worker 2 (process 1002) has died: signal 9; the next one starts at once", self.said[0])
        self.end()

    def test_dies_again(self) -> None:
        """Who dies soon after its start is followed later each time; one that has lived for a while, at once."""
        self.begin(Share())
        rests = []
        for _ in range(9):
            self.children[-1].die()
            before = self.clock.seconds()
            while self.states == ["resting"]:
                self.clock.advance(WORKER_REST_LEAST / 4)
            rests.append(self.clock.seconds() - before)
        expected = [0, *(min(WORKER_REST_LEAST * 2**each, WORKER_REST_MOST) for each in range(8))]
        self.assertEqual(WORKER_REST_MOST, expected[-1])
        for rest, wanted in zip(rests, expected, strict=True):
            self.assertTrue(wanted <= rest <= wanted + WORKER_REST_LEAST / 4, (rests, expected))
        for _ in range(1100):  # a night of it: the next power of two is no number any more
            self.children[-1].die()
            self.clock.advance(WORKER_REST_MOST)
        self.children[-1].come_up()
        self.clock.advance(WORKER_STEADY)
        self.children[-1].die()
        self.clock.advance(0)
        self.assertEqual(["starting"], self.states)
        self.end()

    def test_cannot_start(self) -> None:
        """The main process does the work, and it is tried again."""
        self.refuse = True
        share = Share()
        self.workers.place([share])
        self.workers.start()
        self.assertEqual([share], self.standing_in)
        self.assertIn("worker 2 cannot be started: no such program", self.said[0])
        self.refuse = False
        self.clock.advance(WORKER_REST_LEAST)
        self.children[0].come_up()
        self.assertEqual([], self.standing_in)
        self.end()

    def test_late_word_of_another(self) -> None:
        """What a process says or does that is not wanted any more changes nothing."""
        self.begin(Share())
        old = self.children[0]
        self.workers.place([Share()])
        new = self.children[1]
        old.come_up()
        self.assertEqual(["starting"], self.states)
        new.come_up()
        old.die("status 0")
        self.assertEqual(["up"], self.states)
        self.assertEqual(0, self.workers.status()[0]["restarts"])
        self.end()

    def test_same_sockets(self) -> None:
        """A worker whose sockets stay goes on."""
        share = Share()
        self.begin(share)
        self.workers.place([share])
        self.assertEqual(1, len(self.children))
        self.end()

    def test_other_sockets(self) -> None:
        """Another process takes its place, and sockets that are not wanted any more are closed."""
        old, new = Share(), Share(("127.0.0.2", 53))
        new.pairs[ADDRESS] = old.pairs[ADDRESS]
        gone = Share(ADDRESS, ("127.0.0.3", 53))
        gone.pairs[ADDRESS] = old.pairs[ADDRESS]
        self.begin(gone)
        self.workers.place([new])
        self.assertEqual("stop", self.children[0].told[-1])
        self.assertEqual([new], self.standing_in)
        self.assertEqual([False, False], [each.closed for each in old.sockets])
        self.assertEqual([True, True], [each.closed for each in gone.pairs["127.0.0.3", 53]])
        self.assertEqual([[*new.pairs]], self.children[1].told[-1:])
        self.end()

    def test_fewer(self) -> None:
        """The sockets of one that is not wanted any more get nothing new, are read for a while, and closed."""
        one, two = Share(), Share()
        self.begin(one, two)
        self.workers.place([one])
        self.assertTrue(two.has_left)
        self.assertFalse(one.has_left)
        self.assertEqual("stop", self.children[1].told[-1])
        self.assertEqual([two], self.standing_in)
        self.assertFalse(two.closed)
        self.clock.advance(WORKER_LEAVE)
        self.assertTrue(two.closed)
        self.assertEqual([], self.standing_in)
        self.end()

    def test_left_over(self) -> None:
        """So are those of a process before this one that had more workers; from the start on, when there is a table."""
        one, rest = Share(), Share()
        self.workers.place([one], [rest])
        self.assertFalse(rest.has_left)
        self.workers.start()
        self.assertTrue(rest.has_left)
        self.assertEqual([one, rest], self.standing_in)
        self.assertEqual(1, len(self.children))
        self.clock.advance(WORKER_LEAVE)
        self.assertTrue(rest.closed)
        self.end()

    def test_end_while_leaving(self) -> None:
        one, two = Share(), Share()
        self.begin(one, two)
        self.workers.place([one])
        self.end()
        self.assertTrue(two.closed)

    def test_counts(self) -> None:
        """The sum does not fall when a process ends, however it ends."""
        self.begin(Share(), Share())
        asked = ("udp", "A", "NOERROR", "mesh")
        for each in self.children:
            each.counts = Counts(queries={asked: 5}, cache={"entries": 3, "hits": 2})

        def sums() -> tuple[int, int, int]:
            counts = self.workers.counts
            queries = sum(each.queries.get(asked, 0) for each in counts)
            return (
                queries,
                sum(each.cache.get("hits", 0) for each in counts),
                sum(each.cache.get("entries", 0) for each in counts),
            )

        self.assertEqual((10, 4, 6), sums())
        self.children[0].die()
        self.assertEqual((10, 4, 3), sums())
        self.workers.place([])
        self.children[1].die("status 0")
        self.assertEqual((10, 4, 0), sums())
        self.clock.advance(WORKER_LEAVE)
        self.end()

    def test_look(self) -> None:
        """It ends when all have told their counts, or when one takes too long."""
        self.assertIsNone(self.workers.look())
        self.begin(Share(), Share())
        looking = self.workers.look()
        assert looking is not None
        self.children[0].looks[0].callback(None)
        self.assertNoResult(looking)
        self.children[1].looks[0].callback(None)
        self.successResultOf(looking)
        late = self.workers.look()
        assert late is not None
        self.children[0].looks[1].callback(None)
        self.clock.advance(WORKER_LOOK)
        self.successResultOf(late)
        self.end()

    def test_end(self) -> None:
        """It is the end when every process has ended; one that never answered is not waited for."""
        one, two = Share(), Share()
        self.workers.place([one, two])
        self.workers.start()
        self.children[0].come_up()
        stopping = Deferred.fromCoroutine(self.workers.stop())
        self.assertEqual("kill", self.children[1].told[-1])
        self.assertNoResult(stopping)
        self.children[0].die("status 0")
        self.successResultOf(stopping)
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual(2, len(self.children), "one was started at the end")
