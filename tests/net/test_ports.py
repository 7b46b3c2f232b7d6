"""Ports under TLS whose answers leave at once (rule X8)."""

import hashlib
import socket
import ssl
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor as twisted_reactor
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from meshdns.net.ports import tls_port
from meshdns.net.tls import ServerTls
from tests.pki import Authority

PIECES = 400
PIECE = bytes(range(256)) * 64  # 16 KiB


class _Talker(Protocol):
    """Says what it is asked for."""

    transport: ITransport

    def dataReceived(self, data: bytes) -> None:
        if data == b"much":
            for number in range(PIECES):
                self.transport.write(b"%08d" % number + PIECE)
            self.transport.loseConnection()
        else:
            self.transport.write(b"at once")
            time.sleep(0.3)  # nothing else is done meanwhile, as while thousands are told
            self.transport.write(b", and later")


class PortTests(TestCase):
    def setUp(self) -> None:
        reactor: Any = twisted_reactor
        folder = Path(self.mktemp())
        folder.mkdir()
        root = Authority(folder, "root")
        served = root.issue("server", "localhost")
        self.trust = ssl.create_default_context(cafile=str(root.pem))
        port = tls_port(
            ("127.0.0.1", 0), ServerTls(str(served.pem), str(served.key), None), Factory.forProtocol(_Talker), reactor
        )
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port

    def ask(self, what: bytes, buffer: int = 0) -> ssl.SSLSocket:
        plain = socket.socket()
        self.addCleanup(plain.close)
        if buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        plain.settimeout(10)
        plain.connect(("127.0.0.1", self.port))
        client = self.trust.wrap_socket(plain, server_hostname="localhost")
        self.addCleanup(client.close)
        client.sendall(what)
        return client

    async def test_at_once(self) -> None:
        """X8: what is written is on its way before the reactor has another turn."""

        def timed() -> tuple[bytes, float, bytes]:
            client = self.ask(b"little")
            first, came = client.recv(100), time.monotonic()
            rest = client.recv(100)
            return first, time.monotonic() - came, rest

        first, apart, rest = await deferToThread(timed)
        self.assertEqual((b"at once", b", and later"), (first, rest))
        self.assertGreater(apart, 0.2)

    async def test_slow_reader(self) -> None:
        """What the socket does not take waits, in its order, and is there before the end."""

        def read() -> tuple[int, str]:
            client = self.ask(b"much", 4096)
            digest, length = hashlib.sha256(), 0
            while data := client.recv(65536):
                digest.update(data)
                length += len(data)
            return length, digest.hexdigest()

        wanted = b"".join(b"%08d" % number + PIECE for number in range(PIECES))
        self.assertEqual((len(wanted), hashlib.sha256(wanted).hexdigest()), await deferToThread(read))

    async def test_gone(self) -> None:
        """Who hangs up in the middle disturbs nobody."""

        def hang_up() -> None:
            self.ask(b"much", 4096).close()

        await deferToThread(hang_up)
        await self.test_at_once()
