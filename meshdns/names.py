"""Vocabulary: domain names as lower-case wire bytes.

A name is what stands in a DNS message, uncompressed and in lower case, with the root's zero at its end:
`b"\\x03www\\x07example\\x03com\\x00"`. As bytes it is hashed and compared in one step, and its suffixes are plain slices.
Lower-casing a whole name at once is safe: a length octet is at most 63, below the letters.

Text enters and leaves here only; nothing in this module knows of messages, tables or search lists.
"""

import ipaddress
import re
from binascii import unhexlify
from collections.abc import Iterator

ROOT = b"\x00"
MAX_NAME = 255  # octets with the root's zero, RFC 1035 section 2.3.4
MAX_LABEL = 63

_PART = re.compile(rb"\\([0-9]{3})|\\([^0-9])|([^\\.]+)|(\.)")
_PLAIN = re.compile(rb"[^\x00-\x20.\\\x7f-\xff\"();@$]+\Z")


class BadName(ValueError):
    """A text that is no domain name; the message is a sentence for the person who wrote it."""


def parse(text: str) -> bytes:
    """The wire name of a presentation-format text, with or without a final dot ("." is the root).

    `\\.` and `\\DDD` are understood (RFC 1035 section 5.1). Raises BadName.
    """
    try:
        raw = text.encode("ascii").lower()
    except UnicodeEncodeError:
        raise BadName(f'"{text}" is not ASCII: write an internationalised name in its xn-- form') from None
    if raw == b".":
        return ROOT
    labels = _split(raw, text) if b"\\" in raw else (raw[:-1] if raw.endswith(b".") else raw).split(b".")
    for label in labels:
        if not label:
            raise BadName(f'"{text}" has an empty label' if raw else "a name must not be empty")
        if len(label) > MAX_LABEL:
            raise BadName(f'"{text}" has a label of {len(label)} octets; at most {MAX_LABEL} fit')
    name = b"".join(bytes([len(label)]) + label for label in labels) + ROOT
    if len(name) > MAX_NAME:
        raise BadName(f'"{text}" takes {len(name)} octets; a name has at most {MAX_NAME}')
    return name


def _split(raw: bytes, text: str) -> list[bytes]:
    """The labels of a name that holds escapes."""
    labels, label, position = [], b"", 0
    while position < len(raw):
        part = _PART.match(raw, position)
        if part is None or (part[1] and int(part[1]) > 255):
            raise BadName(f'"{text}" has a wrong escape: write \\DDD with DDD up to 255, or \\ and one character')
        position = part.end()
        if part[4]:
            labels.append(label)
            label = b""
        else:
            label += bytes([int(part[1])]).lower() if part[1] else part[2] or part[3]
    return labels if raw.endswith(b".") and not label else [*labels, label]


def text(name: bytes) -> str:
    """The presentation format of a wire name, without final dot; "." for the root."""
    return ".".join(_label_text(label) for label in labels(name)) or "."


def _label_text(label: bytes) -> str:
    if _PLAIN.match(label):
        return label.decode("ascii")
    return "".join(
        chr(octet) if _PLAIN.match(bytes([octet])) else f"\\{chr(octet)}" if 0x20 < octet < 0x7F else f"\\{octet:03d}"
        for octet in label
    )


def labels(name: bytes) -> list[bytes]:
    """The labels of a wire name, leftmost first, without the root."""
    found, position = [], 0
    while length := name[position]:
        found.append(name[position + 1 : position + 1 + length])
        position += 1 + length
    return found


def suffixes(name: bytes) -> Iterator[bytes]:
    """The name itself, its parent, and so on up to and with the root."""
    yield name
    while name != ROOT:
        name = name[1 + name[0] :]
        yield name


def parent(name: bytes) -> bytes:
    """The name without its first label; the root is its own parent."""
    return name[1 + name[0] :] or ROOT


def strip(name: bytes, zone: bytes) -> bytes | None:
    """The labels in front of a zone, as wire bytes without a final zero: b"" when equal, None when not within it."""
    cut = len(name) - len(zone)
    if cut < 0 or not name.endswith(zone):
        return None
    position = 0
    while position < cut:  # a suffix of bytes is a suffix of labels only where a label begins
        position += 1 + name[position]
    return name[:cut] if position == cut else None


def within(name: bytes, zone: bytes) -> bool:
    """Whether the name is the zone or lies below it, label by label."""
    return strip(name, zone) is not None


def join(front: bytes, zone: bytes) -> bytes | None:
    """Labels without final zero, put in front of a name; None when the whole would be too long."""
    return front + zone if len(front) + len(zone) <= MAX_NAME else None


def reverse(address: str) -> bytes:
    """The name that a PTR query for an IPv4 or IPv6 address asks (RFC 1035 section 3.5, RFC 3596 section 2.5)."""
    return parse(ipaddress.ip_address(address).reverse_pointer)


_REVERSE_V4 = parse("in-addr.arpa")
_REVERSE_V6 = parse("ip6.arpa")


def address(name: bytes) -> bytes | None:
    """The packed address (4 or 16 octets) that a whole reverse name stands for, else None."""
    for zone, parts, width in ((_REVERSE_V4, 4, 3), (_REVERSE_V6, 32, 1)):
        front = strip(name, zone)
        if front is None:
            continue
        digits = labels(front + ROOT)[::-1]
        if len(digits) != parts or any(len(digit) > width for digit in digits):
            return None
        try:
            return bytes(map(_octet, digits)) if parts == 4 else unhexlify(b"".join(digits))
        except ValueError:
            return None
    return None


def _octet(label: bytes) -> int:
    """A label of decimal digits as an octet; raises ValueError. A leading zero would make two names of one address."""
    if not label.isdigit() or (len(label) > 1 and label.startswith(b"0")):
        raise ValueError(label)
    return int(label)
