"""Outside: the sockets that workers read: for each address one of each kind, beside the main process's own, so that the kernel
shares out what arrives (SO_REUSEPORT).

The main process's sockets enter, those of one worker more leave. They stay open in the main process, whoever reads them: what
waits in one outlives its worker. It must never know what is read.
"""

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from twisted.internet.error import CannotListenError

from meshdns.defaults import TCP_BACKLOG, UDP_BACKLOG
from meshdns.net.supervisor import Passed

Address = tuple[str, int]
Pair = tuple[socket.socket, socket.socket]  # UDP, TCP
TakePassed = Callable[[int, str, int], socket.socket | None]
_KINDS = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
_AWAY = 9  # a port: the discard service's


class Share:
    """The sockets of one worker, by address."""

    def __init__(self, pairs: Mapping[Address, Pair]) -> None:
        self.pairs = dict(pairs)

    @property
    def sockets(self) -> list[socket.socket]:
        """In the order of the addresses, UDP first."""
        return [each for pair in self.pairs.values() for each in pair]

    def take(self, kind: int, host: str, port: int) -> socket.socket | None:
        """The same socket once more, for a door that may close it."""
        pair = self.pairs.get((host, port))
        return Passed(fileno=os.dup(pair[_KINDS.index(kind)].fileno())) if pair else None

    def leave(self) -> None:
        """Get no packet any more. What waits can still be read, and be answered."""
        for (host, _), (datagrams, _) in self.pairs.items():
            with suppress(OSError):
                datagrams.connect((host, _AWAY))  # the kernel passes over sockets that are somebody's alone

    def close(self) -> None:
        for each in self.sockets:
            each.close()


def open_shares(own: Mapping[Address, Pair], held: Sequence[Share], count: int, take_passed: TakePassed) -> list[Share]:
    """So many shares of all the main process's addresses, made of those that there are; a socket of the process before this one is
    taken where there is one. Raises CannotListenError, with all as it was.

    SO_REUSEPORT is set on the main process's own sockets only once they are bound: so a port that anybody else has, another
    agent of the same user too, was refused.
    """
    opened: list[socket.socket] = []
    shares: list[Share] = []
    for number in range(count):
        known = held[number].pairs if number < len(held) else {}
        pairs: dict[Address, Pair] = {}
        for address, first in own.items():
            try:
                pairs[address] = known.get(address) or _beside(address, first, take_passed, opened)
            except OSError as error:
                for each in opened:
                    each.close()
                raise CannotListenError(*address, error) from None
        shares.append(Share(pairs))
    return shares


def left_over(own: Mapping[Address, Pair], take_passed: TakePassed) -> Iterator[Share]:
    """The sockets of a process before this one that had more workers."""
    while True:
        pairs: dict[Address, Pair] = {}
        for address in own:
            datagrams, streams = (take_passed(kind, *address) for kind in _KINDS)
            if datagrams and streams:
                pairs[address] = datagrams, streams
        if not pairs:
            return
        yield Share(pairs)


def _beside(address: Address, first: Pair, take_passed: TakePassed, opened: list[socket.socket]) -> Pair:
    found = []
    for kind, own in zip(_KINDS, first, strict=True):
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.append(take_passed(kind, *address) or _open(own))
        opened.append(found[-1])
    return found[0], found[1]


def _open(first: socket.socket) -> socket.socket:
    """Another one at the same address."""
    made = socket.socket(first.family, first.type)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if made.type == socket.SOCK_DGRAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_BACKLOG)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(first.getsockname())
        if made.type == socket.SOCK_STREAM:
            made.listen(TCP_BACKLOG)
    except OSError:
        made.close()
        raise
    return made
