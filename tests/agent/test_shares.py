"""Sockets of several workers at one address, real ones: who gets what, and what is refused."""

import socket
from contextlib import ExitStack

from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SynchronousTestCase

from meshdns.agent.shares import Address, Pair, Share, left_over, open_shares
from meshdns.net.supervisor import Passed
from tests.agent.test_doors import free_port

CLIENTS = 60


def nothing(kind: int, host: str, port: int) -> socket.socket | None:
    return None


class SharesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.address = ("127.0.0.1", free_port())

    def own(self, address: Address | None = None) -> dict[Address, Pair]:
        """The main process's sockets, as its doors have opened them."""
        address = address or self.address
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        made = []
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            made.append(self.stack.enter_context(socket.socket(family, kind)))
            made[-1].setblocking(False)
            made[-1].bind(address)
        made[1].listen()
        return {address: (made[0], made[1])}

    def shares(self, own: dict[Address, Pair], count: int, held: list[Share] | None = None) -> list[Share]:
        shares = open_shares(own, held or [], count, nothing)
        for each in shares:
            self.stack.callback(each.close)
        return shares

    def send(self, count: int = CLIENTS, host: str = "127.0.0.1") -> list[socket.socket]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        asking = [self.stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(count)]
        for each in asking:
            each.connect((host, self.address[1]))
            each.send(b"x")
        return asking

    def connect(self, count: int = CLIENTS) -> None:
        for _ in range(count):
            self.stack.enter_context(socket.create_connection(self.address))

    def test_all_get_some(self) -> None:
        """Datagrams and connections are shared among all, each of them once."""
        own = self.own()
        pairs = [own[self.address], *(each.pairs[self.address] for each in self.shares(own, 2))]
        self.send()
        self.connect()
        for kind, counts in (
            ("datagrams", [_read(pair[0]) for pair in pairs]),
            ("connections", [_accept(pair[1]) for pair in pairs]),
        ):
            self.assertEqual(CLIENTS, sum(counts), kind)
            self.assertGreater(min(counts), 0, kind)

    def test_ipv6(self) -> None:
        address = ("::1", self.address[1])
        own = self.own(address)
        (share,) = self.shares(own, 1)
        self.send(host="::1")
        counts = [_read(own[address][0]), _read(share.pairs[address][0])]
        self.assertEqual((CLIENTS, True), (sum(counts), min(counts) > 0))

    def test_none(self) -> None:
        """Without a second worker nothing is done to the main process's sockets."""
        own = self.own()
        self.assertEqual([], self.shares(own, 0))
        self.assertEqual(0, own[self.address][0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))

    def test_stranger(self) -> None:
        """Who does not hold the first socket cannot take the port beside it: neither before it is shared nor after."""
        own = self.own()
        for count in (0, 2):
            self.shares(own, count)
            with socket.socket(type=socket.SOCK_DGRAM) as stranger:
                self.assertRaises(OSError, stranger.bind, self.address)

    def test_kept(self) -> None:
        """Shares that there are keep their sockets; those that are added get new ones."""
        own = self.own()
        first = self.shares(own, 1)
        again = open_shares(own, first, 2, nothing)
        self.stack.callback(again[1].close)
        self.assertEqual(first[0].pairs, again[0].pairs)
        self.assertNotEqual(first[0].pairs, again[1].pairs)

    def test_refused(self) -> None:
        """If a socket cannot be had, those that were opened or taken before it are closed."""
        own, other = self.own(), self.own(("127.0.0.1", free_port()))
        for pair in other.values():
            for each in pair:
                each.close()
        taken: list[socket.socket] = []

        def take(kind: int, host: str, port: int) -> socket.socket | None:
            if (host, port) not in own:
                return None
            taken.append(socket.socket(type=kind))
            return taken[-1]

        self.assertRaises(CannotListenError, open_shares, {**own, **other}, [], 1, take)
        self.assertEqual([-1, -1], [each.fileno() for each in taken])

    def test_take(self) -> None:
        """A door that closes its descriptor leaves the socket open."""
        (share,) = self.shares(self.own(), 1)
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            passed = share.take(kind, *self.address)
            assert passed is not None
            self.assertIsInstance(passed, Passed)
            self.assertEqual(self.address, passed.getsockname())
            passed.close()
        self.assertIsNone(share.take(socket.SOCK_DGRAM, "127.0.0.2", 53))
        self.assertEqual(self.address, share.sockets[0].getsockname())

    def test_leave(self) -> None:
        """A share that left gets no datagram any more, but what waits in it can be read, and be answered."""
        own = self.own()
        share, other = self.shares(own, 2)
        asking = self.send()
        share.leave()
        self.send()
        leaving = share.pairs[self.address][0]
        waited = 0
        while True:
            try:
                _, source = leaving.recvfrom(10)
            except BlockingIOError:
                break
            waited += 1
            leaving.sendto(b"answer", source)
        self.assertTrue(0 < waited < CLIENTS, waited)
        rest = _read(own[self.address][0]) + _read(other.pairs[self.address][0])
        self.assertEqual(2 * CLIENTS, waited + rest)
        answered = 0
        for each in asking:
            each.setblocking(False)
            answered += _read(each)
        self.assertEqual(waited, answered)

    def test_left_over(self) -> None:
        """Sockets of a process that had more workers are found, all of them; those of one kind alone are not used."""
        own = self.own()
        held: dict[int, list[socket.socket]] = {socket.SOCK_DGRAM: [], socket.SOCK_STREAM: []}
        for share in self.shares(own, 3):
            for kind, each in zip(held, share.sockets, strict=True):
                held[kind].append(each)

        def take(kind: int, host: str, port: int) -> socket.socket | None:
            return held[kind].pop(0) if held[kind] else None

        (first,) = open_shares(own, [], 1, take)
        self.assertEqual((2, 2), tuple(map(len, held.values())))
        self.assertEqual(2, len([*left_over(own, take)]))
        self.assertTrue(first.pairs)


def _read(reading: socket.socket) -> int:
    """How many datagrams wait in a socket."""
    count = 0
    while True:
        try:
            reading.recv(10)
        except BlockingIOError:
            return count
        count += 1


def _accept(listening: socket.socket) -> int:
    count = 0
    while True:
        try:
            listening.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1
