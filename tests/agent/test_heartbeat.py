"""The agent asks itself: real sockets, a clock of our own; the query is answered and not counted."""

import socket

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from meshdns import wire
from meshdns.agent.heartbeat import Heartbeat
from meshdns.agent.pulse import QUERY, QUESTION
from meshdns.defaults import HEARTBEAT


class HeartbeatTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.heartbeat = Heartbeat(self.clock)
        self.door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.door.close)
        self.door.bind(("127.0.0.1", 0))
        self.door.settimeout(0)
        self.port = self.door.getsockname()[1]

    def tearDown(self) -> None:
        self.heartbeat.stop()
        self.assertEqual([], self.clock.getDelayedCalls())

    def beats(self) -> int:
        count = 0
        while True:
            try:
                packet, client = self.door.recvfrom(512)
            except BlockingIOError:
                return count
            self.assertEqual(QUERY, packet)
            self.door.sendto(packet, client)
            count += 1

    def test_query(self) -> None:
        """A query like others, which no client sends: its bytes are known at the door."""
        query = wire.read_query(QUERY)
        assert isinstance(query, wire.Query)
        self.assertEqual((wire.TXT, wire.CH, 0), (query.type, query.cls, query.flags))
        self.assertEqual(QUERY[2:], QUESTION)

    def test_beats(self) -> None:
        """At once, and then in every turn."""
        self.heartbeat.start([("127.0.0.1", self.port)])
        self.assertEqual(1, self.beats())
        self.clock.pump([HEARTBEAT] * 5)
        self.assertEqual(5, self.beats())
        self.heartbeat.stop()
        self.clock.advance(10)
        self.assertEqual(0, self.beats())

    def test_wildcard(self) -> None:
        """Reached over loopback."""
        self.heartbeat.start([("0.0.0.0", self.port)])
        self.assertEqual(1, self.beats())

    def test_absent_address(self) -> None:
        """An address that this machine has not takes nothing from the others."""
        self.heartbeat.start([("2001:db8::1", self.port), ("192.0.2.1", self.port), ("127.0.0.1", self.port)])
        self.assertEqual(1, self.beats())

    def test_shut_door(self) -> None:
        """It goes on, and is heard when there is a door again."""
        self.door.close()
        self.heartbeat.start([("127.0.0.1", self.port)])
        self.clock.pump([HEARTBEAT] * 5)
        self.door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.door.close)
        self.door.bind(("127.0.0.1", self.port))
        self.door.settimeout(0)
        self.clock.pump([HEARTBEAT] * 2)
        self.assertGreater(self.beats(), 0)

    def test_other_addresses(self) -> None:
        """A new configuration: the old address is asked no more."""
        self.heartbeat.start([("127.0.0.1", self.port)])
        self.heartbeat.start([])
        self.beats()
        self.clock.pump([HEARTBEAT] * 3)
        self.assertEqual(0, self.beats())
