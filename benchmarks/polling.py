"""One who polls a control plane: TLS and HTTP/1.1 on a socket that never blocks, as cheap as Python allows, octets counted."""

import select
import socket
import ssl
import struct
import time
from pathlib import Path

import attrs

from benchmarks.processes import CannotMeasure
from meshdns import exchange
from meshdns.exchange import Answer, Poll

HOST = "127.0.0.1"
_CONNECT = 10.0  # seconds
_PIECE = 1 << 16  # octets read at once
_HEAD_END = b"\r\n\r\n"
_STAMP = struct.Struct("@qq")  # seconds and nanoseconds
_SO_TIMESTAMPNS = 35  # socket(7); Python has no name for it
_ANCILLARY = socket.CMSG_SPACE(_STAMP.size)


def trusting(ca: Path) -> ssl.SSLContext:
    """TLS towards servers of this authority."""
    return ssl.create_default_context(cafile=ca)


@attrs.frozen
class Heard:
    """An answer, its body as it came, and the octets of head and body together."""

    answer: Answer
    body: bytes
    octets: int


class Poller:
    """One connection. Who has it waits until its socket is readable, and calls `arrived`.

    The kernel notes when octets come in, so that it does not count when we have the time to read them.
    """

    def __init__(self, trust: ssl.SSLContext, port: int, token: str, first: Poll) -> None:
        self.received = 0  # octets on the socket, those of TLS with them
        self.last = 0.0  # when the last of them came in, by the wall's clock
        self.socket = socket.create_connection((HOST, port), _CONNECT)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = trust.wrap_bio(self._in, self._out, server_hostname=HOST)
        self._greeted = False
        self._first = request(first, token)
        self._came = bytearray()
        self._head: tuple[Answer, int, int] | None = None  # the answer under way, octets of its head, and of all
        self._shake()

    def close(self) -> None:
        self.socket.close()

    def ask(self, asked: bytes) -> None:
        """Send the next request."""
        self._tls.write(asked)
        self._flush()

    def arrived(self) -> Heard | None:
        """Take what has arrived; the answer, if it is whole now."""
        try:
            data, ancillary, _, _ = self.socket.recvmsg(_PIECE, _ANCILLARY)
        except BlockingIOError:
            return None
        except OSError as error:
            raise CannotMeasure(f"The connection to a control plane broke: {error}.") from None
        if not data:
            raise CannotMeasure("A control plane closed a connection on which it was polled.")
        self.received += len(data)
        for _, _, stamp in ancillary:
            seconds, nanoseconds = _STAMP.unpack(stamp)
            self.last = seconds + nanoseconds / 1e9
        self._in.write(data)
        if not self._greeted:
            self._shake()
            return None
        return self._read()

    def wait(self, patience: float) -> Heard:
        """The next answer, waited for."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.socket], [], [], max(0.0, deadline - time.monotonic()))
            if ready and (heard := self.arrived()) is not None:
                return heard
        raise CannotMeasure(f"A control plane gave no answer within {patience:.0f} s.")

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            raise CannotMeasure(f"A control plane is not trusted: {error}") from None
        else:
            self._greeted = True
            self._tls.write(self._first)
        self._flush()

    def _flush(self) -> None:
        if data := self._out.read():
            self.socket.send(data)  # a request is short: the kernel has room for it

    def _read(self) -> Heard | None:
        try:
            while True:
                self._came += self._tls.read(_PIECE)
        except ssl.SSLWantReadError:
            pass
        if self._head is None and (end := self._came.find(_HEAD_END)) >= 0:
            answer, length = read_head(bytes(self._came[:end]))
            self._head = answer, end + len(_HEAD_END), end + len(_HEAD_END) + length
        if self._head is None or len(self._came) < self._head[2]:
            return None
        (answer, start, stop), self._head = self._head, None
        body = bytes(self._came[start:stop])
        del self._came[:stop]
        return Heard(answer, body, stop)


def request(poll: Poll, token: str) -> bytes:
    """A poll as an agent sends it."""
    headers = {"Host": HOST, **poll.headers, "Authorization": f"Bearer {token}"}
    lines = [f"GET {poll.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_head(head: bytes) -> tuple[Answer, int]:
    """The answer that begins so, and the octets of its body."""
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "transfer-encoding" in headers:
        raise CannotMeasure("A control plane sends an answer in chunks, which these pollers do not read.")
    return exchange.read_answer(int(first.split(" ", 2)[1]), headers), int(headers.get("content-length", 0))
