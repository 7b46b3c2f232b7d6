"""Outside: datagrams in and out of one UDP socket, as many with one system call as there are.

`Batched` does it by recvmmsg and sendmmsg, which Linux has; `Single` one by one, where there is nothing better. At a wildcard
address the kernel tells which of ours a question was sent to, and the answer leaves from there: a client takes it from no
other. It must never know what a datagram says.
"""

import socket
import struct
import sys
from collections.abc import MutableSequence, Sequence
from mmap import mmap
from typing import Any

from meshdns.agent.mmsg import ffi as _ffi
from meshdns.agent.slots import HOST, NAME, PACKET, SLOT, Datagrams, Octets, Origin
from meshdns.defaults import UDP_BATCH, UDP_DATAGRAM

_WILDCARDS = frozenset({"0.0.0.0", "::"})
_RECEIVE = int(socket.MSG_DONTWAIT | socket.MSG_TRUNC)  # MSG_TRUNC: say how long a datagram was that had no room

# What the kernel says beside a datagram: a cmsghdr, and in it which of our addresses it was sent to.
_IP_PKTINFO = 8  # of linux/in.h, for which Python has no name
_CONTROL = 64  # octets of room for a cmsghdr and the longer one of the two, in6_pktinfo
_LINK_LOCAL = (b"\xfe\x80", b"\xff\x02")

_libc: Any = _ffi.dlopen(None)
# Held by names of our own: a look at the library for each packet is dear when packets come one by one.
_recvmmsg: Any = getattr(_libc, "recvmmsg", None)
_sendmmsg: Any = getattr(_libc, "sendmmsg", None)
_NULL: Any = _ffi.NULL
_DONTWAIT = int(socket.MSG_DONTWAIT)


def open_datagrams(bound: socket.socket) -> Datagrams:
    """The best that this platform has, for a socket that is bound."""
    return Batched(bound) if has_batches() else Single(bound)


def has_batches() -> bool:
    return sys.platform == "linux" and None not in (_recvmmsg, _sendmmsg)


class _Slots:
    """Memory for one batch. Pages that were never needed take none."""

    def __init__(self, bound: socket.socket) -> None:
        self.octets: Octets = mmap(-1, UDP_BATCH * SLOT)
        self._socket = bound
        self._is_six = bound.family == socket.AF_INET6
        self._is_wild = bound.getsockname()[0] in _WILDCARDS and _tell_addresses(bound)
        self.has_one = not self._is_wild  # there is nothing beside datagrams to be told then
        self.one, self.send_one = bound.recvfrom, bound.sendto

    def host(self, origin: Origin) -> str:
        if not isinstance(origin, bytes):
            address = origin if isinstance(origin[0], str) else origin[0]
            return str(address[0]) + (_link(address[3]) if self._is_six else "")
        if not self._is_six:
            return socket.inet_ntop(socket.AF_INET, origin[4:8])
        return socket.inet_ntop(socket.AF_INET6, origin[8:24]) + _link(struct.unpack_from("=I", origin, 24)[0])


def _tell_addresses(bound: socket.socket) -> bool:
    """Have the kernel say to which of our addresses each datagram was sent; whether it will."""
    if sys.platform != "linux":
        return False
    if bound.family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    return True


def _link(scope: int) -> str:
    """What an address that means something on one link alone ends in."""
    if not scope:
        return ""
    try:
        return f"%{socket.if_indextoname(scope)}"
    except OSError:  # gone since
        return f"%{scope}"


class _Messages:
    """An array of mmsghdr for all slots of some memory. Views of it are quicker than its fields."""

    def __init__(self, memory: Octets, is_six: bool, control: Octets | None) -> None:
        start = _ffi.from_buffer(memory)
        self._iovecs = _ffi.new("struct iovec[]", UDP_BATCH)
        self.headers = _ffi.new("struct mmsghdr[]", UDP_BATCH)
        beside = None if control is None else _ffi.from_buffer(control)
        self._kept = start, beside  # cffi does not
        for number in range(UDP_BATCH):
            header, iovec = self.headers[number].msg_hdr, self._iovecs + number
            iovec.iov_base, iovec.iov_len = start + number * SLOT + PACKET, UDP_DATAGRAM
            header.msg_name, header.msg_namelen = start + number * SLOT, NAME if is_six else 16
            header.msg_iov, header.msg_iovlen = iovec, 1
            if beside is not None:
                header.msg_control, header.msg_controllen = beside + number * _CONTROL, _CONTROL
        self.lengths = _field(self.headers, "I", "msg_len")
        self.sizes = _field(self._iovecs, "N", "iov_len")
        self.controls = _field(self.headers, "N", "msg_hdr", "msg_controllen")


def _field(array: Any, form: str, *path: str) -> MutableSequence[int]:
    """One field of every struct in an array."""
    kind = _ffi.typeof(array).item
    size = struct.calcsize(form)
    octets: Any = memoryview(_ffi.buffer(array)).cast("B")
    every: MutableSequence[int] = octets.cast(form)
    return every[_ffi.offsetof(kind, *path) // size :: _ffi.sizeof(kind) // size]


class Batched(_Slots):
    """By recvmmsg and sendmmsg."""

    def __init__(self, bound: socket.socket) -> None:
        super().__init__(bound)
        self._number = bound.fileno()
        self._control: Octets | None = mmap(-1, UDP_BATCH * _CONTROL) if self._is_wild else None
        self._incoming = _Messages(self.octets, self._is_six, self._control)
        self._back = _Messages(self.octets, self._is_six, self._control)
        self._outbox: Octets = mmap(-1, UDP_BATCH * SLOT)
        self._out_control: Octets | None = mmap(-1, UDP_BATCH * _CONTROL) if self._is_wild else None
        self._outgoing = _Messages(self._outbox, self._is_six, self._out_control)
        self._questions, self._answers = self._incoming.headers, self._back.headers
        self.received: Sequence[int] = self._incoming.lengths
        self.leaving = self._back.sizes

    def receive(self) -> int:
        count: int = _recvmmsg(self._number, self._questions, UDP_BATCH, _RECEIVE, _NULL)
        if count <= 0:  # nothing more to read, or an error of something sent before
            return 0
        if self._control is not None:
            self._turn_round(count)
        return count

    def _turn_round(self, count: int) -> None:
        """Of what was said beside datagrams make what is to be said beside their answers."""
        assert self._control is not None
        for number in range(count):
            at, size = number * _CONTROL, self._incoming.controls[number]
            self._incoming.controls[number] = _CONTROL
            self._back.controls[number] = size
            data = slice(at + _CMSG, at + size)
            self._control[data] = _answering(self._control[data])

    def answer(self, first: int, end: int) -> int:
        return self._push(self._answers, first, end)

    def send(self, outbox: Sequence[tuple[bytes, Origin]]) -> int:
        octets, sizes = self._outbox, self._outgoing.sizes
        lost = number = 0
        for message, origin in outbox:
            if not isinstance(origin, bytes):
                lost += self._send_alone(message, origin)
                continue
            at, size = number * SLOT, len(message)
            if self._out_control is not None:
                origin, control = origin[:NAME], origin[NAME:]
                self._out_control[number * _CONTROL : number * _CONTROL + len(control)] = control
                self._outgoing.controls[number] = len(control)
            octets[at : at + NAME] = origin
            octets[at + PACKET : at + PACKET + size] = message
            sizes[number] = size
            number += 1
            if number == UDP_BATCH:
                lost += self._push(self._outgoing.headers, 0, number)
                number = 0
        return lost + self._push(self._outgoing.headers, 0, number)

    def _send_alone(self, message: bytes, origin: Origin) -> int:
        try:
            self.send_one(message, origin)
        except OSError:  # as in _push
            return 1
        return 0

    def _push(self, headers: Any, first: int, end: int) -> int:
        lost = 0
        while first < end:
            sent = _sendmmsg(self._number, headers + first if first else headers, end - first, _DONTWAIT)
            if sent <= 0:  # the buffer is full, or there is no way to this client: it asks again, or it does not care
                sent = 1
                lost += 1
            first += sent
        return lost

    def origin(self, number: int) -> Origin:
        name = self.octets[number * SLOT : number * SLOT + NAME]
        if self._control is None:
            return name
        return name + self._control[number * _CONTROL : number * _CONTROL + self._back.controls[number]]


_CMSG = _ffi.sizeof("struct cmsghdr")


def _answering(info: bytes) -> bytes:
    """The in_pktinfo or in6_pktinfo for an answer: from the address that was asked, by whichever way leads to the client.

    Only where an address means something on one link alone, the interface stays.
    """
    if len(info) < 20:
        return bytes(4) + info[4:]
    return info if info.startswith(_LINK_LOCAL) else info[:16] + bytes(4) + info[20:]


class Single(_Slots):
    """By recvmsg and sendmsg."""

    def __init__(self, bound: socket.socket) -> None:
        super().__init__(bound)
        whole: Any = self.octets
        view = memoryview(whole)
        self._rooms = [view[n * SLOT + PACKET : n * SLOT + PACKET + UDP_DATAGRAM] for n in range(UDP_BATCH)]
        self._sizes = [0] * UDP_BATCH
        self.received: Sequence[int] = self._sizes
        self.leaving: MutableSequence[int] = [0] * UDP_BATCH
        self._origins: list[Origin] = [None] * UDP_BATCH

    def receive(self) -> int:
        for number in range(UDP_BATCH):
            try:
                size, beside, flags, address = self._socket.recvmsg_into(
                    [self._rooms[number]], _CONTROL if self._is_wild else 0, socket.MSG_DONTWAIT
                )
            except OSError:  # nothing more to read, or an error of something sent before
                return number
            self._sizes[number] = UDP_DATAGRAM + 1 if flags & socket.MSG_TRUNC else size
            self._origins[number] = address, [(level, kind, _answering(info)) for level, kind, info in beside]
            self.octets[number * SLOT + HOST : number * SLOT + NAME] = self._name(address)
        return UDP_BATCH

    def _name(self, address: tuple[Any, ...]) -> bytes:
        """As the kernel would write it, from HOST on."""
        host = address[0].partition("%")[0]
        if not self._is_six:
            return socket.inet_pton(socket.AF_INET, host) + bytes(20)
        return bytes(4) + socket.inet_pton(socket.AF_INET6, host) + struct.pack("=I", address[3])

    def answer(self, first: int, end: int) -> int:
        starts = (number * SLOT + PACKET for number in range(first, end))
        messages = [self.octets[at : at + size] for at, size in zip(starts, self.leaving[first:end], strict=True)]
        return self.send(list(zip(messages, self._origins[first:end], strict=True)))

    def send(self, outbox: Sequence[tuple[bytes, Origin]]) -> int:
        lost = 0
        for message, origin in outbox:
            address, beside = (origin, []) if isinstance(origin[0], str) else origin
            try:
                self._socket.sendmsg([message], beside, socket.MSG_DONTWAIT, address)
            except OSError:  # as in Batched
                lost += 1
        return lost

    def origin(self, number: int) -> Origin:
        return self._origins[number]
