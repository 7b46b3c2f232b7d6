"""Batches of datagrams over real sockets: recvmmsg and the plain loop keep the same promises (rules D1, D2)."""

import ast
import json
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

from cffi import FFI
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from meshdns.agent import mmsg
from meshdns.agent.datagrams import Batched, Single, has_batches, open_datagrams
from meshdns.agent.slots import HOST, NAME, PACKET, SLOT, Datagrams, Origin
from meshdns.defaults import UDP_BATCH, UDP_DATAGRAM
from tests.agent.round_trips import ask, bound, client_of, heard, receive, source, write

ROOT = Path(__file__).resolve().parents[2]


class DeclaredTests(SynchronousTestCase):
    def test_generated(self) -> None:
        """What is kept for cffi is what it makes of the C beside it."""
        declared = FFI()
        declared.cdef(mmsg.DECLARED)
        declared.set_source(mmsg.__name__, None)
        made = Path(self.mktemp())
        declared.emit_python_code(str(made))
        self.assertEqual(described(made.read_text()), described(Path(mmsg.__file__).read_text()))


def described(source: str) -> str:
    """How a module makes its `ffi`, however that is laid out."""
    statements = ast.parse(source).body
    return next(
        ast.dump(each.value) for each in statements if isinstance(each, ast.Assign) and "FFI(" in ast.unparse(each)
    )


class SingleTests(SynchronousTestCase):
    kind: type[Batched | Single] = Single

    def setUp(self) -> None:
        self.door = bound("127.0.0.1")
        self.addCleanup(self.door.close)
        self.datagrams: Datagrams = self.kind(self.door)

    def client(self, host: str = "127.0.0.1") -> socket.socket:
        client = client_of(self.door, host)
        self.addCleanup(client.close)
        return client

    def packets(self, count: int) -> list[bytes]:
        found = []
        for number in range(count):
            start = number * SLOT + PACKET
            found.append(self.datagrams.octets[start : start + self.datagrams.received[number]])
        return found

    def origin(self, host: str, port: int) -> Origin:
        return (host, port), []

    def test_nothing_there(self) -> None:
        self.assertEqual(0, self.datagrams.receive())

    def test_a_batch(self) -> None:
        """Each answer goes where its question came from, whatever lengths stand beside each other."""
        clients = [self.client() for _ in range(5)]
        for number, client in enumerate(clients):
            client.send(b"question" * (number + 1))
        self.assertEqual(5, receive(self.datagrams, self.door))
        self.assertEqual([b"question" * (n + 1) for n in range(5)], self.packets(5))
        for number in range(5):
            write(self.datagrams, number, b"answer" * (5 - number))
        self.assertEqual(0, self.datagrams.answer(0, 5))
        self.assertEqual([b"answer" * (5 - n) for n in range(5)], [heard(client) for client in clients])

    def test_some_of_a_batch(self) -> None:
        """Only the slots named are answered; the others may be answered later."""
        clients = [self.client() for _ in range(4)]
        for client in clients:
            client.send(b"question")
        receive(self.datagrams, self.door)
        origins = [self.datagrams.origin(number) for number in range(4)]
        for number in (1, 2):
            write(self.datagrams, number, b"at once %d" % number)
        self.datagrams.answer(1, 3)
        for client in clients:
            client.send(b"again")  # slots are used again
        receive(self.datagrams, self.door)
        self.assertEqual(0, self.datagrams.send([(b"later 0", origins[0]), (b"later 3" * 100, origins[3])]))
        self.assertEqual([b"later 0", b"at once 1", b"at once 2", b"later 3" * 100], [heard(each) for each in clients])

    def test_more_than_a_batch(self) -> None:
        """What has no room in one batch comes with the next; as much may be sent at once as there is."""
        client = self.client()
        for number in range(UDP_BATCH + 3):
            client.send(struct.pack("!H", number))
        self.assertEqual(UDP_BATCH, receive(self.datagrams, self.door))
        first = self.packets(UDP_BATCH)
        self.assertEqual(3, self.datagrams.receive())
        numbers = [struct.unpack("!H", packet)[0] for packet in first + self.packets(3)]
        self.assertEqual(list(range(UDP_BATCH + 3)), numbers)
        origin = self.datagrams.origin(0)
        outbox = [(b"%d" % number, origin) for number in range(3 * UDP_BATCH + 1)]
        self.assertEqual(0, self.datagrams.send(outbox))
        self.assertEqual([message for message, _ in outbox], [heard(client) for _ in outbox])

    def test_room_is_not_lost(self) -> None:
        """A short datagram, or a short answer, leaves its slot as large as before."""
        client = self.client()
        for size in (12, UDP_DATAGRAM, 12, UDP_DATAGRAM):
            client.send(b"x" * size)
            receive(self.datagrams, self.door)
            self.assertEqual([b"x" * size], self.packets(1))
            write(self.datagrams, 0, b"ok")
            self.datagrams.answer(0, 1)

    def test_too_long(self) -> None:
        """D2: a datagram that is cut says so by its length, and those beside it are whole."""
        client = self.client()
        for size in (UDP_DATAGRAM, UDP_DATAGRAM + 1, 20_000, 12):
            client.send(bytes([size & 255]) * size)
        receive(self.datagrams, self.door)
        sizes = [self.datagrams.received[number] for number in range(4)]
        self.assertEqual([True, False, False, True], [size <= UDP_DATAGRAM for size in sizes])
        self.assertEqual(b"\x0c" * 12, self.datagrams.octets[3 * SLOT + PACKET : 3 * SLOT + PACKET + 12])

    def test_empty(self) -> None:
        self.client().send(b"")
        self.assertEqual(1, receive(self.datagrams, self.door))
        self.assertEqual(0, self.datagrams.received[0])

    def test_what_cannot_be_sent(self) -> None:
        """One message that the kernel refuses costs the others nothing, wherever it stands; it is counted."""
        client = self.client()
        client.send(b"question")
        receive(self.datagrams, self.door)
        good, bad = self.datagrams.origin(0), self.origin("192.0.2.1", 53)  # nothing leaves loopback's own address
        self.assertEqual(3, self.datagrams.send([(b"x", bad), (b"1", good), (b"x", bad), (b"2", good), (b"x", bad)]))
        self.assertEqual([b"1", b"2"], [heard(client), heard(client)])

    def test_who_asks(self) -> None:
        """D3: the octets of an address are the same whatever port it comes from, and another address has others."""
        for host in ("127.0.0.1", "127.0.0.1", "127.0.0.2"):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.addCleanup(client.close)
            client.bind((host, 0))
            client.sendto(b"question", self.door.getsockname())
        receive(self.datagrams, self.door)
        first, again, other = (source(self.datagrams, number)[HOST:NAME] for number in range(3))
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)
        self.assertEqual("127.0.0.2", self.datagrams.host(self.datagrams.origin(2)))

    def test_asked_address(self) -> None:
        """D1: at a wildcard address the answer comes from the one that was asked."""
        for asked in ("127.0.0.1", "127.0.0.5", "127.77.0.1"):
            self.assertEqual([asked, "in place", "later"][1:], ask(self.kind, "0.0.0.0", asked)[1:])
        self.assertEqual(["::1", "in place", "later"], ask(self.kind, "::", "::1"))
        self.assertEqual(["::1", "in place", "later"], ask(self.kind, "::1", "::1"))


class BatchedTests(SingleTests):
    kind = Batched

    def setUp(self) -> None:
        if not has_batches():
            raise SkipTest("this platform has no recvmmsg")
        super().setUp()
        self.assertIsInstance(open_datagrams(self.door), Batched)

    def origin(self, host: str, port: int) -> Origin:
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(20)


class NamespaceTests(SynchronousTestCase):
    """Addresses that a test must not give to the host."""

    def test_several_of_ipv6(self) -> None:
        """D1: of several global addresses the one that was asked answers; of a link-local one also the link is kept."""
        if not (shutil.which("unshare") and shutil.which("ip")):
            raise SkipTest("needs unshare and ip")
        if subprocess.run(["unshare", "-rn", "true"], check=False, capture_output=True).returncode:
            raise SkipTest("network namespaces are not allowed here")
        script = (
            "ip link set lo up && ip -6 addr add fd00::5/128 dev lo && ip -6 addr add fd00::6/128 dev lo && "
            "ip link add one type veth peer name two && ip link set one up && ip link set two up && "
            "ip -6 addr add fe80::5/64 dev one nodad && ip -6 addr add fe80::6/64 dev two nodad && "
            'exec "$0" -m tests.agent.round_trips :: fd00::5 fd00::6 fe80::5%one'
        )
        command = ["unshare", "-rn", "sh", "-ec", script, sys.executable]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(("", 0), (done.stderr, done.returncode))
        for _, asked, host, *got in json.loads(done.stdout):
            self.assertEqual((asked, ["in place", "later"]), (host, got))
