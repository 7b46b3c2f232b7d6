"""Inside: how a batch of datagrams lies in memory, for the one who puts it there and the one who answers it.

Slot n begins at n * SLOT with the sender's address as the kernel writes it, and at PACKET behind that stands the datagram.
Whoever finds an answer writes it over the question, where the id stands already.
"""

from collections.abc import MutableSequence, Sequence
from typing import Any, Protocol

from meshdns.defaults import UDP_DATAGRAM

NAME = 28  # octets of an address: struct sockaddr_in6, the longer one
HOST = 4  # where in it the address without family and port begins; a shorter one ends in zeros
PACKET = 32
# No power of two, or all slots would contend for the same few lines of the CPU's cache.
SLOT = PACKET + UDP_DATAGRAM + 32

Origin = Any  # where a datagram came from, and which of our addresses it came to; its address and port alone if it came as `one`


class Octets(Protocol):
    """The memory: a slice of it is bytes, and bytes of the same length are put into it."""

    def __getitem__(self, where: slice, /) -> bytes: ...
    def __setitem__(self, where: slice, octets: bytes, /) -> None: ...


class Datagrams(Protocol):
    """The batches of one socket."""

    octets: Octets
    received: Sequence[int]  # how long each datagram was; above UDP_DATAGRAM: the rest of it is lost
    leaving: MutableSequence[int]  # how long the answers are that were written over them

    def receive(self) -> int:
        """Take a batch; how many have come, which may be none."""

    def answer(self, first: int, end: int, /) -> int:
        """Send the answers that stand in these slots back; how many could not be sent."""

    def send(self, outbox: Sequence[tuple[bytes, Origin]], /) -> int:
        """Send messages to where their questions came from; how many could not be sent."""

    def origin(self, number: int, /) -> Origin:
        """Whereto `send` shall answer the datagram in a slot."""

    def host(self, origin: Origin, /) -> str:
        """The sender's address as people write it."""

    has_one: bool  # whether datagrams may also be taken and sent one by one, which the following two do

    def one(self, size: int, /) -> tuple[bytes, Origin]:
        """Take one, of which what is beyond so many octets is lost. Raises OSError where there is none."""

    def send_one(self, message: bytes, origin: Origin, /) -> int:
        """Send one to where such a one came from. Raises OSError."""
