"""Vocabulary: DNS messages as bytes: reading questions, checking replies, and the words both are made of.

A packet comes in and a `Query` leaves, or the rcode it must be refused with; an upstream's message comes in and leaves as
"fits the question" or the reason it does not. Bytes first: a record becomes an object only where something must read
it. Making messages is `messages.py`. This module knows nothing of sockets, tables or who asks.
"""

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from meshdns import names

# Header bits, RFC 1035 section 4.1.1 and RFC 4035 section 3.2.
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
OPCODE = 0x7800
DO = 0x8000  # in the OPT record's flags, RFC 3225

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
IN, CH, ANY_CLASS = 1, 3, 255
A, NS, CNAME, SOA, PTR, HINFO, MX, TXT, AAAA, SRV, NAPTR, DNAME, OPT = 1, 2, 5, 6, 12, 13, 15, 16, 28, 33, 35, 39, 41
SVCB, HTTPS, IXFR, AXFR, ANY = 64, 65, 251, 252, 255

TYPES: dict[str, int] = {
    "A": A, "NS": NS, "MD": 3, "MF": 4, "CNAME": CNAME, "SOA": SOA, "MB": 7, "MG": 8, "MR": 9, "NULL": 10, "WKS": 11,
    "PTR": PTR, "HINFO": HINFO, "MINFO": 14, "MX": MX, "TXT": TXT, "RP": 17, "AFSDB": 18, "X25": 19, "ISDN": 20, "RT": 21,
    "SIG": 24, "KEY": 25, "PX": 26, "AAAA": AAAA, "LOC": 29, "SRV": SRV, "NAPTR": NAPTR, "KX": 36, "CERT": 37,
    "DNAME": DNAME, "OPT": OPT, "APL": 42, "DS": 43, "SSHFP": 44, "IPSECKEY": 45, "RRSIG": 46, "NSEC": 47, "DNSKEY": 48,
    "DHCID": 49, "NSEC3": 50, "NSEC3PARAM": 51, "TLSA": 52, "SMIMEA": 53, "HIP": 55, "CDS": 59, "CDNSKEY": 60,
    "OPENPGPKEY": 61, "CSYNC": 62, "ZONEMD": 63, "SVCB": SVCB, "HTTPS": HTTPS, "SPF": 99, "NID": 104, "L32": 105,
    "L64": 106, "LP": 107, "EUI48": 108, "EUI64": 109, "TKEY": 249, "TSIG": 250, "IXFR": IXFR, "AXFR": AXFR, "ANY": ANY,
    "URI": 256, "CAA": 257, "RESINFO": 261,
}  # fmt: skip
_TYPE_TEXTS = {number: word for word, number in TYPES.items()}
_RCODE_TEXTS = {
    0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 6: "YXDOMAIN", 7: "YXRRSET",
    8: "NXRRSET", 9: "NOTAUTH", 10: "NOTZONE", 16: "BADVERS", 23: "BADCOOKIE",
}  # fmt: skip

HEADER = struct.Struct("!6H")
_PAIR = struct.Struct("!2H")
_FIXED = struct.Struct("!HHIH")  # a record's type, class, TTL and RDATA length

# Far more EDNS options than any client sends; a flood of them must not buy CPU (CVE-2026-41292).
_MAX_OPTIONS = 64
_NAME_BITS = (1 << 8 * names.MAX_NAME + 32) - (1 << 32)  # of a question those of its name
_LETTERS = bytes(0x20 if 0x61 <= octet <= 0x7A else 0 for octet in range(256))
# The lengths that RDATA of the address types must have: a short one would be read past its end further on.
_ADDRESS_LENGTH = {A: 4, AAAA: 16}
# Of plain replies, by the question's type: how each record begins (with a pointer to the question's name), its RDATA's length
# as it stands there, and the octets of it all.
_PLAIN_RECORDS = {
    kind.to_bytes(2): (b"\xc0\x0c" + kind.to_bytes(2), length.to_bytes(2), 12 + length)
    for kind, length in _ADDRESS_LENGTH.items()
}
_ROOT_OPT = b"\x00" + OPT.to_bytes(2)
_PLAIN_MOST = 31  # records in a plain reply, which is far above what one host has


class Edns(NamedTuple):
    """What a message's OPT record says (RFC 6891): sizes in octets, options as they stand on the wire."""

    udp_size: int
    version: int
    do: bool
    options: bytes


class Ask(NamedTuple):
    """What is asked upstream; equal ones are asked once.

    `question` is lower-case name, type and class on the wire; `flags` the RD, AD and CD bits of the header with DO as
    0x8000; `options` the EDNS options that pass along.
    """

    question: bytes
    flags: int
    options: bytes


# A NamedTuple's own constructor is a Python function; where one is made for each packet, that tells.
new_ask: Callable[[tuple[bytes, int, bytes]], Ask] = partial(tuple.__new__, Ask)


class Query(NamedTuple):
    """A client's well-formed query: the question as asked and in lower case, and what the answer must respect."""

    id: int
    flags: int
    question: bytes  # name, type and class byte for byte as asked
    name: bytes
    type: int
    cls: int
    edns: Edns | None

    @property
    def ask(self) -> Ask:
        """The question as an upstream is asked it."""
        flags = self.flags & (RD | AD | CD) | (DO if self.edns and self.edns.do else 0)
        return Ask(self.name + self.question[-4:], flags, self.edns.options if self.edns else b"")

    def limit(self, udp_max: int) -> int:
        """The largest UDP answer this client can take, in octets (RFC 6891 section 6.2.3)."""
        return 512 if self.edns is None else min(max(512, self.edns.udp_size), udp_max)


class Spot(NamedTuple):
    """Where one record stands in a message: offsets in octets, its section (1 answer, 2 authority, 3 additional)."""

    section: int
    start: int
    type: int
    cls: int
    ttl: int
    rdata: int
    end: int


class Body(NamedTuple):
    """Where the records of a checked message stand: the offset behind each owner name, the end of the last record, and
    the start of OPT where there is one, else 0."""

    fixed: Sequence[int]
    end: int
    opt: int


class Malformed(ValueError):
    """A message whose bytes do not make sense; the text says where."""


def type_text(number: int) -> str:
    """`A`, or `TYPE65280` for a type without a name here (RFC 3597 section 5)."""
    return _TYPE_TEXTS.get(number) or f"TYPE{number}"


def parse_type(text: str) -> int:
    """The number of `A`, `aaaa` or `TYPE65280`; raises ValueError with a sentence."""
    word = text.upper()
    if word in TYPES:
        return TYPES[word]
    if word.startswith("TYPE") and word[4:].isascii() and word[4:].isdigit() and int(word[4:]) < 65536:
        return int(word[4:])
    raise ValueError(f'"{text}" is no record type: write one like A, AAAA, SRV or TYPE65280')


def rcode_text(number: int) -> str:
    return _RCODE_TEXTS.get(number) or f"RCODE{number}"


def read_query(packet: bytes) -> Query | int | None:
    """The query in a packet; the rcode to refuse it with; or None for what must not be answered at all (rule D2)."""
    if len(packet) < 12:
        return None
    query_id, flags, qdcount, ancount, nscount, arcount = HEADER.unpack_from(packet)
    if flags & QR:
        return None
    if flags & OPCODE:
        return NOTIMP
    if qdcount != 1:
        return FORMERR
    try:
        end = _skip_labels(packet, 12)
        qtype, cls = _PAIR.unpack_from(packet, end)
        end += 4
        edns = _read_edns(packet, end, ancount + nscount, arcount) if len(packet) > end or arcount else None
    except (Malformed, struct.error, IndexError):
        return FORMERR
    if edns and edns.version:
        return BADVERS
    question = packet[12:end]
    return Query(query_id, flags, question, question[:-4].lower(), qtype, cls, edns)


def _skip_labels(packet: bytes, position: int) -> int:
    """The offset behind a question's name; in a query it must stand there uncompressed."""
    start = position
    while length := packet[position]:
        if length > names.MAX_LABEL:
            raise Malformed("a pointer or an unknown label type in the question")
        position += 1 + length
    if position + 1 - start > names.MAX_NAME:
        raise Malformed("a name of more than 255 octets")
    return position + 1


def is_name(octets: bytes) -> bool:
    """Whether these octets are one whole uncompressed name."""
    position = 0
    try:
        while length := octets[position]:
            if length > names.MAX_LABEL:
                return False
            position += 1 + length
    except IndexError:
        return False
    return position + 1 == len(octets) <= names.MAX_NAME


def _read_edns(packet: bytes, position: int, before: int, additional: int) -> Edns | None:
    """The OPT record behind a query's question, of which there may be one and only in the additional section."""
    body = walk(packet, position, before, additional)
    if body.end != len(packet):
        raise Malformed("bytes behind the last record")
    return edns_at(packet, body.opt) if body.opt else None


def edns_at(message: bytes, start: int) -> Edns:
    """What the OPT record that begins at an offset says; it has been walked over. Raises Malformed for its options."""
    _, size, flags, length = _FIXED.unpack_from(message, start + 1)
    options = message[start + 11 : start + 11 + length]
    if options:
        option_starts(options)
    return Edns(size, flags >> 16 & 0xFF, bool(flags & DO), options)


def option_starts(options: bytes) -> list[int]:
    """The offset of each EDNS option and last the offset behind them; raises Malformed."""
    starts = [0]
    while starts[-1] < len(options):
        if len(starts) > _MAX_OPTIONS or starts[-1] + 4 > len(options):
            raise Malformed("too many EDNS options, or one cut short")
        starts.append(starts[-1] + 4 + _PAIR.unpack_from(options, starts[-1])[1])
    if starts[-1] > len(options):
        raise Malformed("an EDNS option is cut short")
    return starts


def walk(message: bytes, position: int, before: int, additional: int) -> Body:
    """Go over the records behind the question, `before` in answer and authority; every one must be whole (rule D24).

    OPT may stand once, among the additional ones, and belongs to the root (RFC 6891 section 6.1.1). Raises Malformed.
    """
    fixed: list[int] = []
    opt, size, unpack = 0, len(message), _FIXED.unpack_from
    for number in range(before + additional):
        start = position
        owner = message[position : position + 2]
        if owner == b"\xc0\x0c":  # most often a pointer to the question's name
            position += 2
        elif owner[:1] == b"\x00":  # or the root, as of OPT
            position += 1
        else:
            position = skip_name(message, position)
        if size - position < 10:
            raise Malformed("fewer records than the header says")
        rtype, _, _, length = unpack(message, position)
        fixed.append(position)
        if rtype == OPT:
            if opt or number < before or position != start + 1:
                raise Malformed("OPT stands twice, in the wrong section or under a name")
            opt = start
        position += 10 + length
        if position > size or _ADDRESS_LENGTH.get(rtype, length) != length:
            raise Malformed("RDATA is cut short or has an impossible length")
    return Body(fixed, position, opt)


def skip_name(message: bytes, position: int) -> int:
    """The offset behind a name that may be compressed, which is followed to its end; raises Malformed."""
    return read_name(message, position)[1]


def read_name(message: bytes, position: int) -> tuple[bytes, int]:
    """A name, uncompressed and with its case, and the offset behind it.

    Pointers must go strictly backwards, so a loop cannot be (RFC 9267 section 2); raises Malformed.
    """
    parts, total, end, floor = [], 1, 0, position
    try:
        while length := message[position]:
            if length >= 0xC0:
                target = (length & 0x3F) << 8 | message[position + 1]
                end = end or position + 2
                if target >= floor or target < 12:
                    raise Malformed("a compression pointer that does not point backwards")
                position = floor = target
                continue
            if length > names.MAX_LABEL:
                raise Malformed("an unknown label type")
            total += 1 + length
            if total > names.MAX_NAME:
                raise Malformed("a name of more than 255 octets")
            parts.append(message[position : position + 1 + length])
            position += 1 + length
    except IndexError:
        raise Malformed("a name is cut short") from None
    parts.append(names.ROOT)
    return b"".join(parts), end or position + 1


def body(message: bytes) -> Body:
    """Where the records of a message with one question stand; raises Malformed."""
    qdcount, ancount, nscount, arcount = HEADER.unpack_from(message)[2:] if len(message) >= 12 else (0, 0, 0, 0)
    if qdcount != 1:
        raise Malformed("not exactly one question")
    return walk(message, skip_name(message, 12) + 4, ancount + nscount, arcount)


def spots(message: bytes) -> list[Spot]:
    """Each record of a message with one question; raises Malformed."""
    found = []
    ancount, nscount = HEADER.unpack_from(message)[3:5] if len(message) >= 12 else (0, 0)
    fixed = body(message).fixed
    start = skip_name(message, 12) + 4
    for number, position in enumerate(fixed):
        rtype, cls, ttl, length = _FIXED.unpack_from(message, position)
        section = 1 if number < ancount else 2 if number < ancount + nscount else 3
        found.append(Spot(section, start, rtype, cls, ttl, position + 10, position + 10 + length))
        start = position + 10 + length
    return found


# Towards upstreams


def flip_case(question: bytes, bits: int) -> bytes:
    """The question with those letters of its name in upper case that random bits choose (the 0x20 of rule D20).

    The last 32 bits would be for type and class, and are not looked at.
    """
    mask = int.from_bytes(question.translate(_LETTERS)) & bits & _NAME_BITS
    return (int.from_bytes(question) ^ mask).to_bytes(len(question))


def upstream_query(ask: Ask, query_id: int, question: bytes, udp_size: int | None) -> bytes:
    """The query to send for an Ask: `question` carries the case to send; `udp_size` None leaves OPT out."""
    head = query_id.to_bytes(2) + _query_head(ask.flags & (RD | AD | CD), udp_size is not None) + question
    return head if udp_size is None else head + opt_record(udp_size, 0, bool(ask.flags & DO), ask.options)


@lru_cache(64)
def _query_head(flags: int, has_opt: bool) -> bytes:
    """A query's header behind the id."""
    return HEADER.pack(0, flags, 1, 0, 0, has_opt)[2:]


@lru_cache(64)  # nearly all are alike
def opt_record(udp_size: int, rcode_high: int, do: bool, options: bytes) -> bytes:
    """An OPT record (RFC 6891 section 6.1.2); `rcode_high` is the upper eight bits of a twelve-bit rcode."""
    return b"\x00" + _FIXED.pack(OPT, udp_size, rcode_high << 24 | (DO if do else 0), len(options)) + options


def reply_fits(message: bytes, question: bytes) -> str | None:
    """None for a whole reply to exactly this question, else the reason it is none (rule D24). The id is the caller's."""
    read = read_reply(message, question)
    return read if isinstance(read, str) else None


def read_reply(message: bytes, question: bytes) -> Body | str:
    """Where the records stand in a whole reply to exactly this question, else the reason it is none (rule D24)."""
    if len(message) < 12:
        return "short"
    _, flags, qdcount, ancount, nscount, arcount = HEADER.unpack_from(message)
    if not flags & QR:
        return "not-a-reply"
    if flags & OPCODE:
        return "opcode"
    end = 12 + len(question)
    asked = message[12:end]
    if qdcount != 1 or asked != question:
        return "case" if qdcount == 1 and asked.lower() == question.lower() else "question"
    try:
        read = walk(message, end, ancount + nscount, arcount)
        if read.opt and message[read.opt + 9 : read.opt + 11] != b"\x00\x00":
            edns_at(message, read.opt)  # for its options
    except Malformed:
        return "malformed"
    return read


def read_plain(message: bytes, question: bytes) -> Body | None:
    """As `read_reply`, for replies of the plainest form only: a few addresses at the question's own name, then nothing but perhaps
    OPT without options. None: it is another, or none that fits. The message has at least twelve octets."""
    record = _PLAIN_RECORDS.get(question[-4:-2])
    counts = _plain_counts(message[2:12])
    if record is None or counts is None or not message.startswith(question, 12):
        return None
    begin, length, size = record
    found = _plain_body((12 + len(question)) << 16 | counts << 8 | size)
    fixed, end, opt = found
    if end > len(message) or (
        opt and (message[opt : opt + 3] != _ROOT_OPT or message[opt + 9 : opt + 11] != b"\x00\x00")
    ):
        return None
    for at in fixed:
        if (message[at - 2 : at + 2] != begin or message[at + 8 : at + 10] != length) and at != opt + 1:
            return None
    return found


@lru_cache(256)  # nearly all are alike
def _plain_counts(head: bytes) -> int | None:
    """Of a plain reply's header behind the id: twice the number of answer records, and one more where OPT follows."""
    flags, questions, answers, authorities, additional = map(int, struct.unpack("!5H", head))
    if flags & (QR | OPCODE) != QR or questions != 1 or authorities or additional > 1 or answers > _PLAIN_MOST:
        return None
    return answers << 1 | additional


@lru_cache(1024)  # there are no more than lengths of common names, times few
def _plain_body(shape: int) -> Body:
    """Where the records of a plain reply stand, by where they begin, their counts and the octets of each, packed in one number."""
    position, counts, size = shape >> 16, shape >> 8 & 0xFF, shape & 0xFF
    end = position + (counts >> 1) * size
    fixed = list(range(position + 2, end, size))
    return Body((*fixed, end + 1), end + 11, end) if counts & 1 else Body(tuple(fixed), end, 0)


def is_truncated(message: bytes) -> bool:
    return bool(message[2] & TC >> 8)


def rcode(message: bytes) -> int:
    """The rcode of a well-formed message, all twelve bits where it carries OPT."""
    low = message[3] & 0x0F
    opt = body(message).opt if HEADER.unpack_from(message)[5] else 0
    return message[opt + 5] << 4 | low if opt else low
