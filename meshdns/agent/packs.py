"""Inside: which answers are kept packed, in which store, and on which hosts of the mesh they hang.

Answers of the ordinary path enter, and later the hosts that have changed. What a store does with them is `packed.py`.
"""

from collections.abc import Iterable, Sequence

from meshdns import names, wire
from meshdns.agent.answers import Answer
from meshdns.agent.authority import Found
from meshdns.agent.packed import Packed, PackedAnswers
from meshdns.wire import Query


class Packs:
    """One store for datagrams, and one for streams, where nothing is cut to a datagram's size."""

    def __init__(self) -> None:
        self.datagrams = PackedAnswers()
        self.streams = PackedAnswers("tcp")

    def store(self, query: Query, tcp: bool) -> PackedAnswers | None:
        """Where the answer to such a query may be kept; None: nowhere, since a cookie makes each query new."""
        if query.edns and query.edns.options:
            return None
        return self.streams if tcp else self.datagrams

    @property
    def stores(self) -> tuple[PackedAnswers, PackedAnswers]:
        return self.datagrams, self.streams

    @property
    def cache_hits(self) -> int:
        """Answers out of the cache that were given packed, of which the cache itself knows nothing."""
        return sum(store.cache_hits for store in self.stores)

    def forget(self) -> None:
        """Let go of all: another table is in force, or the workload is elsewhere."""
        for store in self.stores:
            store.forget()

    def forget_about(self, hosts: Iterable[str]) -> None:
        """Let go of what may be another answer since these hosts, none of them a wildcard, came, went or changed.

        Such a host may be the name that was asked, what it is short for, or what stands below it: so the name's first label is
        one of the host's. What hangs on more than that says so itself.
        """
        labels = {label for host in hosts for label in names.labels(names.parse(host))}
        for store in self.stores:
            store.forget_about(labels)


def of_mesh(query: Query, tails: Sequence[bytes], said: Answer, found: Found | None) -> Packed:
    """The mesh's own answer, once for each order of its addresses."""
    # Addresses of one host are all that it may say: an SOA has a serial, and aliases and ports lead to other hosts.
    is_own = said.rule == "D11" and not said.sections.authority and found and found.entry and not found.entry.alias
    return Packed(tails, query.type, said.rcode, alone=bool(is_own) and _is_plain(query.name))


def of_word(name: bytes, qtype: int, message: bytes, until: float, leads_on: bool) -> Packed:
    """A fresh answer out of the cache, as this client got it, which holds `until`. `leads_on`: there is an alias in it."""
    # What an alias leads to, an address has or a port is called may come to be the mesh's.
    alone = not leads_on and qtype != wire.PTR and _is_plain(name)
    return Packed([message[2:]], qtype, message[3] & 0x0F, alone=alone, source="cache", until=until)


def _is_plain(name: bytes) -> bool:
    """Whether a name does not begin with an underscore, as those of named ports do."""
    return name[1:2] != b"_"
