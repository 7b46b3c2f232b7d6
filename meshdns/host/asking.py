"""Outside: one DNS question put by this process, as an application would, or as another user. A server and a question enter;
the answer's bytes leave, or None if none came."""

import os
import secrets
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from meshdns import names, wire
from meshdns.messages import TCP_LIMIT
from meshdns.values import Endpoint

VERSION = names.parse("version.bind") + struct.pack("!2H", wire.TXT, wire.CH)


def ask(server: Endpoint, question: bytes, *, tcp: bool, wait: float, uid: int | None = None) -> bytes | None:
    """`question` is name, type and class; with `uid` the kernel takes the packets for that user's (needs root)."""
    query = struct.pack("!6H", secrets.randbits(16), wire.RD, 1, 0, 0, 0) + question
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    try:
        with _as_user(uid):
            asking = socket.socket(socket.AF_INET6 if ":" in server.host else socket.AF_INET, kind)
        with asking:
            asking.settimeout(wait)
            asking.connect(_address(server))
            message = _over_tcp(asking, query) if tcp else _over_udp(asking, query)
    except OSError:
        return None
    return message if wire.reply_fits(message, question) is None else None


def version(message: bytes) -> str | None:
    """The text that answers VERSION; None: this server tells none."""
    for spot in wire.spots(message):
        if spot.type == wire.TXT:
            length = message[spot.rdata] if spot.rdata < spot.end else 0
            return message[spot.rdata + 1 : spot.rdata + 1 + length].decode("utf-8", "backslashreplace")
    return None


def _address(server: Endpoint) -> tuple[str, int] | tuple[str, int, int, int]:
    host, _, scope = server.host.partition("%")
    return (host, server.port, 0, socket.if_nametoindex(scope)) if scope else (host, server.port)


def _over_udp(asking: socket.socket, query: bytes) -> bytes:
    asking.send(query)
    while (message := asking.recv(TCP_LIMIT))[:2] != query[:2]:
        pass
    return message


def _over_tcp(asking: socket.socket, query: bytes) -> bytes:
    asking.sendall(struct.pack("!H", len(query)) + query)
    with asking.makefile("rb") as stream:
        return stream.read(int.from_bytes(stream.read(2)))


@contextmanager
def _as_user(uid: int | None) -> Iterator[None]:
    """A socket is its maker's for ever: the kernel looks at who opened it."""
    if uid is None or uid == os.geteuid():
        yield
        return
    before = os.geteuid()
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before)
