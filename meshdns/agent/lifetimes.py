"""Inside: for how long an upstream's answer may be given again, and its bytes as they are kept and grow older.

An Ask and a whole message enter; what it is worth leaves, and the message made nobody's own: without id, without the case
it was asked in, without OPT but for extended errors. It must never know what else is kept.
"""

import struct
from itertools import pairwise
from typing import NamedTuple

import attrs

from meshdns import messages, wire
from meshdns.defaults import CACHE_MAX_BYTES, CACHE_MAX_TTL, CACHE_NEGATIVE_TTL, CACHE_SERVE_STALE
from meshdns.wire import Ask, Body

_FIXED = struct.Struct("!HHIH")  # a record's type, class, TTL and RDATA length
_TTL = struct.Struct("!I")
_TYPE = struct.Struct("!H")
_READ_TTL, _WRITE_TTL = _TTL.unpack_from, _TTL.pack_into
_LEAST_SOA = 22  # octets of RDATA: two names and five numbers
_EXTENDED_ERROR = b"\x00\x0f"  # option code, RFC 8914


@attrs.frozen(kw_only=True)
class Limits:
    """What may be kept, in octets, and for how long, in seconds (rules D25 to D27)."""

    max_bytes: int = CACHE_MAX_BYTES
    min_ttl: float = 0.0
    max_ttl: float = CACHE_MAX_TTL
    serve_stale: float = CACHE_SERVE_STALE
    prefetch: bool = True


class Worth(NamedTuple):
    """What an answer is worth: for how many seconds it may be given (0: this once only), and the TTL that no record of it
    may exceed; its smallest TTL as it came; whether it denies the whole name and not just one type; whether some TTL
    exceeds the cap."""

    seconds: float
    cap: int
    smallest: int
    no_name: bool
    exceeds: bool


def worth(ask: Ask, message: bytes, body: Body, limits: Limits) -> Worth | None:
    """What a well-formed reply is worth; None when it is no answer to this question that could be kept or outdate another:
    a truncated one, one to another question, a failure (rule D25)."""
    rcode = message[3] & 0x0F | (message[body.opt + 5] << 4 if body.opt else 0)
    if rcode not in (wire.NOERROR, wire.NXDOMAIN) or wire.is_truncated(message) or not _is_to(ask.question, message):
        return None
    answers, authorities = wire.HEADER.unpack_from(message)[3:5]
    smallest, largest, minimum, reached = _read(ask.question, message, body, answers, answers + authorities)
    if rcode == wire.NOERROR and reached:
        # A TTL with its top bit set reads as a large one, and ends at the cap (RFC 8767 section 4).
        seconds = min(max(smallest, limits.min_ttl), limits.max_ttl)
        cap = int(limits.max_ttl)
        return Worth(seconds, cap, smallest, False, largest > cap)
    no_name = rcode == wire.NXDOMAIN and not answers
    if minimum is None:
        # Without SOA it might go round between two servers for ever (RFC 2308 section 5); or it is a referral.
        return Worth(0, 0, 0, no_name, True)
    seconds = min(smallest, minimum, CACHE_NEGATIVE_TTL, limits.max_ttl)
    return Worth(seconds, int(seconds), smallest, no_name, largest > int(seconds))


def _is_to(question: bytes, message: bytes) -> bool:
    asked = message[12 : 12 + len(question)]
    return asked[:-4].lower() + asked[-4:] == question


def _read(question: bytes, message: bytes, body: Body, answers: int, before: int) -> tuple[int, int, int | None, bool]:
    """What the records of a message say: their smallest and largest TTL; the smallest SOA minimum of the authority section;
    whether the answer section holds the type asked.

    `answers` records stand in the answer section, `before` in it and authority together. The answer section holds nothing
    but the chain from the question (rule D24), so a record of the type asked is its end.
    """
    (asked,) = _TYPE.unpack_from(question, len(question) - 4)
    smallest, largest, minimum, reached = 0xFFFFFFFF, 0, None, False
    for number, position in enumerate(body.fixed):
        rtype, _, ttl, length = _FIXED.unpack_from(message, position)
        if rtype == wire.OPT:
            continue
        if ttl < smallest:
            smallest = ttl
        if ttl > largest:
            largest = ttl
        if number < answers:
            reached |= rtype == asked or asked == wire.ANY
        elif rtype == wire.SOA and number < before and length >= _LEAST_SOA:
            (stated,) = _READ_TTL(message, position + 10 + length - 4)
            minimum = stated if minimum is None else min(minimum, stated)
    return smallest, largest, minimum, reached


# The bytes


def nobodys(question: bytes, message: bytes, body: Body, cap: int | None) -> tuple[bytes, Body] | None:
    """The message as it is kept, and where its records stand: id 0, the question in lower case, no TTL above the cap, of OPT
    nothing but extended errors: cookies and the like were between the upstream and us. None when that cannot be had.

    `cap` None: no TTL is too high.
    """
    fixed, opt = list(body.fixed), body.opt
    behind = 12 + len(question)
    if (
        opt and fixed[-1] == opt + 1 and message[opt + 9 : opt + 11] == b"\x00\x00"
    ):  # mostly: OPT comes last and is empty
        fixed.pop()
        additional = (message[10] << 8 | message[11]) - 1
        whole = b"".join((b"\x00\x00", message[2:10], additional.to_bytes(2), question, message[behind:opt]))
        opt = 0
    else:
        whole = b"".join((b"\x00\x00", message[2:12], question, message[behind : body.end]))
    if not opt and cap is None:
        return whole, Body(fixed, len(whole), 0)
    out = bytearray(whole)
    if opt:
        options = wire.edns_at(message, opt).options
        kept = extended_errors(options)
        if fixed[-1] == opt + 1:
            out[opt:] = wire.opt_record(messages.UDP_SIZE, 0, False, kept) if kept else b""
            if not kept:
                del fixed[-1]
                opt = 0
                _TYPE.pack_into(out, 10, (message[10] << 8 | message[11]) - 1)
        elif kept != options:
            return None  # names behind it may point past it
    for position in fixed if cap is not None else ():
        if position != opt + 1 and _READ_TTL(out, position + 4)[0] > cap:
            _WRITE_TTL(out, position + 4, cap)
    return bytes(out), Body(fixed, len(out), opt)


def extended_errors(options: bytes) -> bytes:
    """Of EDNS options those that are extended errors (RFC 8914). Raises wire.Malformed."""
    if not options:
        return options
    every = (options[start:end] for start, end in pairwise(wire.option_starts(options)))
    return b"".join(option for option in every if option.startswith(_EXTENDED_ERROR))


def older(message: bytes, body: Body, seconds: int) -> bytes:
    """The message with each TTL so many seconds lower, none below 0."""
    out = bytearray(message)
    opt = body.opt + 1
    for position in body.fixed:
        if position != opt:
            position += 4
            ttl = _READ_TTL(message, position)[0] - seconds
            _WRITE_TTL(out, position, ttl if ttl > 0 else 0)
    return bytes(out)


def with_ttl(message: bytes, body: Body, ttl: int) -> bytes:
    """The message with the same TTL in each record."""
    out = bytearray(message)
    for position in body.fixed:
        if position != body.opt + 1:
            _WRITE_TTL(out, position + 4, ttl)
    return bytes(out)


def without_ad(message: bytes) -> bytes:
    """The message with its AD bit clear, as one gets it who set neither AD nor DO (RFC 6840 section 5.8)."""
    return message[:3] + bytes((message[3] & ~wire.AD & 0xFF,)) + message[4:]
