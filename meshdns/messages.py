"""Vocabulary: DNS answers made as bytes, for the client that asked.

A `Query` and records enter, the answer's bytes leave: with names compressed, the question as it was asked, OPT where the
client sent one, and no more octets than it can take. An upstream's message is dressed for a client by patching its
bytes (`relay`), or taken apart into records where other records must stand in front of them (`records`).
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from meshdns import wire
from meshdns.wire import Body, Edns, Query, Spot

UDP_SIZE = 1232  # what our OPT offers: fits into one IPv6 packet on any path (DNS flag day 2020)
TCP_LIMIT = 65535
_HINFO_RFC8482 = b"\x07RFC8482\x00"
_FIXED = struct.Struct("!HHIH")
# Where RDATA holds names that a message may compress: octets in front of them, and how many follow (RFC 3597 section 4).
_NAMES_IN = {
    wire.NS: (0, 1), wire.CNAME: (0, 1), wire.PTR: (0, 1), wire.DNAME: (0, 1), wire.TYPES["MD"]: (0, 1),
    wire.TYPES["MF"]: (0, 1), wire.TYPES["MB"]: (0, 1), wire.TYPES["MG"]: (0, 1), wire.TYPES["MR"]: (0, 1),
    wire.SOA: (0, 2), wire.TYPES["MINFO"]: (0, 2), wire.TYPES["RP"]: (0, 2), wire.MX: (2, 1), wire.TYPES["AFSDB"]: (2, 1),
    wire.TYPES["RT"]: (2, 1), wire.TYPES["KX"]: (2, 1), wire.SRV: (6, 1), wire.TYPES["PX"]: (2, 2),
}  # fmt: skip
# Those that we compress ourselves: old enough for every client to expect it.
_COMPRESSED = frozenset({wire.NS, wire.CNAME, wire.PTR, wire.SOA, wire.MX})
_MAX_POINTER = 0x3FFF


class Record(NamedTuple):
    """One resource record: wire owner, numbers, and RDATA without compression."""

    owner: bytes
    type: int
    ttl: int
    rdata: bytes
    cls: int = wire.IN


class Sections(NamedTuple):
    """A message's records, OPT left out."""

    answer: Sequence[Record] = ()
    authority: Sequence[Record] = ()
    additional: Sequence[Record] = ()


# RDATA of what the mesh answers


def soa_rdata(mname: bytes, rname: bytes, serial: int, minimum: int) -> bytes:
    """RDATA of an SOA; the timers beside `minimum` matter to secondaries only, of which a mesh zone has none."""
    return mname + rname + struct.pack("!5I", serial & 0xFFFFFFFF, 7200, 1800, 86400, minimum)


def srv_rdata(priority: int, weight: int, port: int, target: bytes) -> bytes:
    return struct.pack("!3H", priority, weight, port) + target


def txt_rdata(text: str) -> bytes:
    """RDATA of a TXT record of one character-string of at most 255 octets."""
    raw = text.encode()[:255]
    return bytes([len(raw)]) + raw


def any_record(owner: bytes, ttl: int) -> Record:
    """The one record that an ANY query gets (RFC 8482 section 4.2)."""
    return Record(owner, wire.HINFO, ttl, _HINFO_RFC8482)


def extended_error(code: int, text: str = "") -> bytes:
    """An EDNS option that says what went wrong (RFC 8914)."""
    raw = text.encode()
    return struct.pack("!3H", 15, 2 + len(raw), code) + raw


# Whole messages


def render(
    query: Query,
    sections: Sections,
    *,
    limit: int,
    rcode: int = 0,
    aa: bool = False,
    ad: bool = False,
    options: bytes = b"",
) -> bytes:
    """The answer to a query, at most `limit` octets: records that do not fit are left out whole and TC is set (rule D5)."""
    flags = wire.QR | wire.RA | query.flags & (wire.RD | wire.CD) | (rcode & 0x0F)
    flags |= (wire.AA if aa else 0) | (wire.AD if ad else 0)
    opt = wire.opt_record(UDP_SIZE, rcode >> 4, query.edns.do, options) if query.edns else b""
    out = bytearray(12) + query.question
    offsets: dict[bytes, int] = {}
    _remember(offsets, query.name, 12)
    counts = [0, 0, 0]
    for section, records in enumerate(sections):
        for record in records:
            before = len(out)
            _write(out, offsets, record)
            if len(out) + len(opt) > limit:
                del out[before:]
                flags |= wire.TC
                break
            counts[section] += 1
        if flags & wire.TC:
            break
    wire.HEADER.pack_into(out, 0, query.id, flags, 1, counts[0], counts[1], counts[2] + bool(opt))
    return bytes(out + opt)


def _remember(offsets: dict[bytes, int], name: bytes, start: int) -> None:
    """Note where each suffix of a name just written begins, for later names to point at."""
    position = 0
    while name[position] and start + position <= _MAX_POINTER:
        offsets.setdefault(name[position:], start + position)
        position += 1 + name[position]


def _write_name(out: bytearray, offsets: dict[bytes, int], name: bytes) -> None:
    key = name.lower()
    position = 0
    while name[position]:
        target = offsets.get(key[position:])
        if target is not None:
            _remember_front(offsets, key, position, len(out))
            out += name[:position] + struct.pack("!H", 0xC000 | target)
            return
        position += 1 + name[position]
    _remember(offsets, key, len(out))
    out += name


def _remember_front(offsets: dict[bytes, int], name: bytes, end: int, start: int) -> None:
    """As `_remember`, for the labels in front of a pointer."""
    position = 0
    while position < end and start + position <= _MAX_POINTER:
        offsets.setdefault(name[position:], start + position)
        position += 1 + name[position]


def _write(out: bytearray, offsets: dict[bytes, int], record: Record) -> None:
    _write_name(out, offsets, record.owner)
    out += _FIXED.pack(record.type, record.cls, record.ttl, len(record.rdata))
    if record.type not in _COMPRESSED:
        out += record.rdata
        return
    start = len(out)
    front, count = _NAMES_IN[record.type]
    out += record.rdata[:front]
    position = front
    for _ in range(count):
        name, position = _plain_name(record.rdata, position)
        _write_name(out, offsets, name)
    out += record.rdata[position:]
    struct.pack_into("!H", out, start - 2, len(out) - start)


def _plain_name(rdata: bytes, position: int) -> tuple[bytes, int]:
    """The uncompressed name at an offset of RDATA, and the offset behind it."""
    start = position
    while rdata[position]:
        position += 1 + rdata[position]
    return rdata[start : position + 1], position + 1


def refuse(packet: bytes, rcode: int) -> bytes:
    """The answer to a packet that is no query for us (rule D2): header, question where it can be read, OPT for BADVERS."""
    query_id, flags = wire.HEADER.unpack_from(packet)[:2]
    head = flags & (wire.OPCODE | wire.RD | wire.CD) | wire.QR | wire.RA | rcode & 0x0F
    question = opt = b""
    if rcode not in (wire.FORMERR, wire.NOTIMP):
        end = wire.skip_name(packet, 12) + 4
        question = packet[12:end]
    if rcode == wire.BADVERS:
        opt = wire.opt_record(UDP_SIZE, rcode >> 4, False, b"")
    return wire.HEADER.pack(query_id, head, bool(question), 0, 0, bool(opt)) + question + opt


# What an upstream said


def relay(query: Query, message: bytes, limit: int, body: Body | None = None) -> bytes:
    """An upstream's whole reply to the query's question, for this client: bytes unchanged but for what rule D18 names.

    The id, the question's case, RD, CD, RA and AA are patched; OPT is dropped, added or made ours; what does not fit
    into `limit` octets is cut record by record, with TC set. `body` is where its records stand, where that is known.
    """
    body = body or wire.body(message)
    if body.opt and body.fixed[-1] != body.opt + 1:
        return _relay_rebuilt(query, message, body.opt, limit)
    return dress(query.id.to_bytes(2), query.flags, query.question, query.edns, message, limit, body)


def dress(
    query_id: bytes, flags: int, question: bytes, edns: Edns | None, message: bytes, limit: int, body: Body
) -> bytes:
    """`relay` for a query known by its parts, and a reply in which OPT is the last record, if it is there."""
    fixed, end, opt = body
    end = opt or end
    ours = _our_opt(edns, message, opt) if edns is not None else b""
    head = _dressed_head(message[2:12], flags & (wire.RD | wire.CD), (1 if ours else 0) - (1 if opt else 0))
    if end + len(ours) > limit:
        end, counts, additional = _cut(message, fixed[:-1] if opt else fixed, limit - len(ours))
        head = bytes((head[0] | 0x02, head[1])) + counts + (additional + bool(ours)).to_bytes(2)
    return query_id + head + question + message[12 + len(question) : end] + ours


@lru_cache(256)  # nearly all are alike
def _dressed_head(theirs: bytes, flags: int, more: int) -> bytes:
    """An upstream's header behind the id as the client gets it: RA, not AA, RD and CD as asked, so many records more."""
    high = theirs[0] & 0xFA | flags >> 8
    low = theirs[1] & 0xEF | 0x80 | flags & 0x10
    return bytes((high, low)) + theirs[2:8] + ((theirs[8] << 8 | theirs[9]) + more).to_bytes(2)


def _our_opt(client: Edns, message: bytes, opt: int) -> bytes:
    """The OPT record of a relayed answer: our size, the client's DO, the upstream's options and upper rcode bits."""
    if not opt:
        return wire.opt_record(UDP_SIZE, 0, client.do, b"")
    options = message[opt + 11 : opt + 11 + (message[opt + 9] << 8 | message[opt + 10])]
    return wire.opt_record(UDP_SIZE, message[opt + 5], client.do, options)


def _cut(message: bytes, fixed: Sequence[int], room: int) -> tuple[int, bytes, int]:
    """Where the last record ends that fits into the room, and the counts up to there, those of additional apart."""
    ends = [position + 10 + (message[position + 8] << 8 | message[position + 9]) for position in fixed]
    starts = [wire.skip_name(message, 12) + 4, *ends]
    kept = max((n for n, start in enumerate(starts) if start <= room), default=0)
    _, _, _, answers, authorities, _ = wire.HEADER.unpack_from(message)
    counts = min(kept, answers), max(0, min(kept - answers, authorities))
    return starts[kept], struct.pack("!3H", 1, *counts), kept - sum(counts)


def _relay_rebuilt(query: Query, message: bytes, opt: int, limit: int) -> bytes:
    """As `relay`, for the rare message whose OPT is not last: names behind it may point past it, so all is written anew."""
    rcode = message[opt + 5] << 4 | message[3] & 0x0F
    options = wire.edns_at(message, opt).options
    out = render(query, records(message), limit=limit, rcode=rcode, ad=bool(message[3] & wire.AD), options=options)
    return out[:2] + bytes([out[2] | message[2] & wire.TC >> 8]) + out[3:]


def records(message: bytes) -> Sections:
    """The records of a well-formed message, uncompressed, with the case they came in; raises wire.Malformed."""
    found: tuple[list[Record], list[Record], list[Record]] = ([], [], [])
    for spot in wire.spots(message):
        if spot.type == wire.OPT:
            continue
        owner = wire.read_name(message, spot.start)[0]
        found[spot.section - 1].append(Record(owner, spot.type, spot.ttl, _rdata(message, spot), spot.cls))
    return Sections(*found)


def _rdata(message: bytes, spot: Spot) -> bytes:
    """A record's RDATA with its names uncompressed."""
    if spot.type == wire.NAPTR:
        front, count = _naptr_front(message, spot), 1
    elif spot.type in _NAMES_IN:
        front, count = _NAMES_IN[spot.type]
    else:
        return message[spot.rdata : spot.end]
    position = spot.rdata + front
    parts = [message[spot.rdata : position]]
    for _ in range(count):
        if position >= spot.end:
            raise wire.Malformed("a name in RDATA is cut short")
        name, position = wire.read_name(message, position)
        parts.append(name)
    if position > spot.end:
        raise wire.Malformed("a name runs past its RDATA")
    return b"".join((*parts, message[position : spot.end]))


def _naptr_front(message: bytes, spot: Spot) -> int:
    """The octets in front of a NAPTR's replacement: two numbers and three character-strings (RFC 3403 section 4.1)."""
    position = spot.rdata + 4
    for _ in range(3):
        if position >= spot.end:
            raise wire.Malformed("a character-string is cut short")
        position += 1 + message[position]
    return position - spot.rdata


def rebuilt(message: bytes, body: Body, sections: Sections) -> bytes:
    """A checked message with other records: its id, flags, question and OPT stay."""
    end = wire.skip_name(message, 12) + 4
    out = bytearray(message[:end])
    offsets: dict[bytes, int] = {}
    _remember(offsets, message[12 : end - 4].lower(), 12)
    for section in sections:
        for record in section:
            _write(out, offsets, record)
    counts = [len(section) for section in sections]
    if body.opt:
        length = message[body.opt + 9] << 8 | message[body.opt + 10]
        out += message[body.opt : body.opt + 11 + length]
        counts[2] += 1
    struct.pack_into("!3H", out, 6, *counts)
    return bytes(out)
