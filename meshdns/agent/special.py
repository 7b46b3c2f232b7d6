"""Inside: special-use names, of which nobody else needs to be asked (rule D29; RFC 6761 section 6, RFC 7686).

A question enters; what is to be said leaves, or None when the name is no such name. It must never know the mesh: whether a
host there has such a name is the caller's to find out.
"""

from collections.abc import Collection

from meshdns import messages, names, wire
from meshdns.agent.answers import Answer
from meshdns.agent.steps import Reply
from meshdns.defaults import SPECIAL_TTL
from meshdns.messages import Record, Sections
from meshdns.wire import Ask, Query

_LOCALHOST = names.parse("localhost")
_ABSENT = (names.parse("invalid"), names.parse("onion"))
_ALL = (_LOCALHOST, *_ABSENT)
_LOOPBACK = {wire.A: bytes([127, 0, 0, 1]), wire.AAAA: bytes(15) + b"\x01"}


class Special:
    """Names below localhost, invalid and onion, but for those that `forwarded` domains name."""

    def __init__(self, forwarded: Collection[bytes] = ()) -> None:
        """`forwarded`: domains that have servers of their own, as wire names."""
        self.use(forwarded)

    def use(self, forwarded: Collection[bytes]) -> None:
        """Other domains are forwarded from now on."""
        self._forwarded = frozenset(forwarded)

    def concerns(self, name: bytes) -> bool:
        """Whether a lower-case wire name may be one of special use; mostly not, which is told at once."""
        return name.endswith(_ALL)

    def say(self, name: bytes, qtype: int) -> Answer | None:
        """What is to be said to a question for a lower-case wire name."""
        if not name.endswith(_ALL):  # as bytes: most names end in none of them, which is told at once
            return None
        zone = next((zone for zone in _ALL if names.within(name, zone)), None)
        if zone is None or (self._forwarded and not self._forwarded.isdisjoint(names.suffixes(name))):
            return None
        if zone is not _LOCALHOST:
            return Answer("D29", wire.NXDOMAIN, Sections((), [_soa(zone)]))
        types = _LOOPBACK if qtype == wire.ANY else (qtype,)
        found = [Record(name, each, SPECIAL_TTL, _LOOPBACK[each]) for each in types if each in _LOOPBACK]
        return Answer("D29", wire.NOERROR, Sections(found) if found else Sections((), [_soa(zone)]))

    def reply(self, ask: Ask) -> Reply | None:
        """The same as the message of an upstream would say it: for a name that a walk of the search list comes to."""
        name = ask.question[:-4]
        said = self.say(name, int.from_bytes(ask.question[-4:-2]))
        if said is None:
            return None
        query = Query(0, wire.RD, ask.question, name, int.from_bytes(ask.question[-4:-2]), wire.IN, None)
        message = messages.render(query, said.sections, limit=messages.TCP_LIMIT, rcode=said.rcode)
        return Reply(message, "this agent", 0.0)


def _soa(zone: bytes) -> Record:
    """With it the client remembers that there is nothing (RFC 2308)."""
    rdata = messages.soa_rdata(_LOCALHOST, b"\x06nobody\x07invalid\x00", 1, SPECIAL_TTL)
    return Record(zone, wire.SOA, SPECIAL_TTL, rdata)
