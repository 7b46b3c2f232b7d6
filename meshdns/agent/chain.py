"""Inside: the chain of CNAME and DNAME records that an upstream's answer goes along (rule D24).

A checked message enters and leaves with nothing in its answer section but the chain from the question and its end; where
such a chain leads is told. It must never know the mesh nor who asked.
"""

from collections.abc import Iterator, Sequence

from meshdns import messages, names, wire
from meshdns.messages import Record
from meshdns.wire import Body

_CNAME = b"\x00\x05"
_ALIASES = frozenset({_CNAME, b"\x00\x27"})  # and DNAME
_HOPS = 32  # more links than any chain that means something; loops end here


def trim(message: bytes, body: Body, behind: int) -> tuple[bytes, Body]:
    """The message without the answer records that do not belong to the chain from its question, which ends at `behind`.

    Raises wire.Malformed where a name inside RDATA makes no sense. Most messages pass unchanged and unparsed.
    """
    if is_plain(message, body, behind):
        return message, body
    sections = messages.records(message)
    kept = _belonging(sections.answer, message)
    if len(kept) == len(sections.answer):
        return message, body
    message = messages.rebuilt(message, body, sections._replace(answer=kept))
    return message, wire.body(message)


def is_plain(message: bytes, body: Body, behind: int) -> bool:
    """Whether every answer record stands at the question's own name, and has its type or signs it."""
    asked = message[behind - 4 : behind - 2]
    for position in body.fixed[: message[6] << 8 | message[7]]:
        # All of the owner: the pointer may also stand behind labels, in the name of a stranger below the question's.
        if message[behind:position] != b"\xc0\x0c":
            return False
        behind = position + 10 + (message[position + 8] << 8 | message[position + 9])
        rtype = message[position : position + 2]
        if rtype != asked and rtype != b"\x00\x2e":
            return False
    return True


def has_alias(message: bytes, body: Body) -> bool:
    """Whether the answer leads on to another name. Every record is looked at: a signature may stand before the alias, or the
    chain's end."""
    return any(message[at : at + 2] in _ALIASES for at in body.fixed[: message[6] << 8 | message[7]])


def _belonging(answer: Sequence[Record], message: bytes) -> list[Record]:
    """The records whose owner the chain passes."""
    return _of(_stations(answer, message), answer)


def _of(stations: Sequence[bytes], answer: Sequence[Record]) -> list[Record]:
    """The records at these names, and the DNAMEs that made aliases of them."""
    owners = set(stations)
    above = {record.owner.lower() for record in answer if record.type == wire.DNAME}
    for name in stations if above else ():
        owners |= above.intersection(names.suffixes(names.parent(name)))
    return [record for record in answer if record.owner.lower() in owners]


def _stations(answer: Sequence[Record], message: bytes) -> list[bytes]:
    """The names that the chain from the question comes to, in its order: a server may tell it in any."""
    name, end = wire.read_name(message, 12)
    stations = [name.lower()]
    if message[end : end + 2] == _CNAME:
        return stations  # asked for itself it leads nowhere
    aliases = {record.owner.lower(): record.rdata.lower() for record in answer if record.type == wire.CNAME}
    while len(stations) < _HOPS and stations[-1] in aliases and aliases[stations[-1]] not in stations:
        stations.append(aliases[stations[-1]])
    return stations


def legs(message: bytes) -> Iterator[tuple[bytes, list[Record]]]:
    """Where the chain of a whole message leads, name by name: that in lower case, and the records that lead there."""
    answer = messages.records(message).answer
    stations = _stations(answer, message)
    for number, name in enumerate(stations[1:], 1):
        yield name, _of(stations[:number], answer)
