"""Inside: names that only we ask, by which a server that forwards to us gives itself away (rule D19).

Random numbers enter and names leave; names that clients ask enter, and whose probe came back leaves. It must never know
when probes are sent or what was answered.
"""

from meshdns import names
from meshdns.defaults import PROBE_ZONE

_ZONE = names.parse(PROBE_ZONE)
_KEPT = 3  # probes of one server that may still come back


class Probes:
    """Probes under way, by name and by the index of the server asked."""

    def __init__(self) -> None:
        self._out: dict[bytes, int] = {}
        self._returned: set[bytes] = set()

    def name(self, index: int, nonce: int) -> bytes:
        """A new name to ask a server; `nonce` has 64 random bits, so nobody can accuse a server by guessing it."""
        for old in [old for old, server in self._out.items() if server == index][: 1 - _KEPT]:
            del self._out[old]
            self._returned.discard(old)
        name = b"\x10%016x" % nonce + _ZONE
        self._out[name] = index
        return name

    def came_back(self, name: bytes) -> int | None:
        """The index of the server that was asked this lower-case name, which a client of ours now asks us."""
        index = self._out.get(name)
        if index is not None:
            self._returned.add(name)
        return index

    def has_returned(self, name: bytes) -> bool:
        return name in self._returned
