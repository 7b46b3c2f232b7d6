"""Vocabulary: records as people read and write them: presentation format (RFC 1035 section 5.1, RFC 3597 section 5).

A `Record` enters, text leaves that a zone file would take. RDATA that is not what its type asks for is shown as bytes,
so that nothing a server sends can make it raise. It knows nothing of messages, tables and terminals.
"""

import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from meshdns import names, wire
from meshdns.messages import Record

_CLASSES = {wire.IN: "IN", wire.CH: "CH"}
_QUOTED = frozenset(b'"\\')


def record_text(record: Record) -> str:
    """`www.example.com. 30 IN A 192.0.2.1`."""
    front = f"{name_text(record.owner)} {record.ttl} {class_text(record.cls)} {wire.type_text(record.type)}"
    return f"{front} {rdata_text(record)}"


def name_text(name: bytes) -> str:
    """A wire name with its final dot, as it stands in records."""
    text = names.text(name)
    return text if text == "." else f"{text}."


def class_text(number: int) -> str:
    """`IN`, or `CLASS255` for a class without a name here (RFC 3597 section 5)."""
    return _CLASSES.get(number) or f"CLASS{number}"


def rdata_text(record: Record) -> str:
    """A record's RDATA, uncompressed; `\\# 3 010203` for types not known here and for what does not fit its type."""
    known = _TEXTS.get(record.type)
    # A record of Chaosnet is not laid out as one of the Internet is, but for text (RFC 1035 section 3.3).
    if known and (record.cls == wire.IN or record.type == wire.TXT):
        try:
            return known(record.rdata)
        except (ValueError, IndexError, struct.error):
            pass
    return f"\\# {len(record.rdata)} {record.rdata.hex()}".rstrip()


def _name(rdata: bytes) -> str:
    return name_text(_names(rdata, 1)[0])


def _names(rdata: bytes, count: int) -> list[bytes]:
    """Just so many names and nothing behind them; raises ValueError."""
    found, position = [], 0
    for _ in range(count):
        name, position = _read_name(rdata, position)
        found.append(name)
    if position != len(rdata):
        raise ValueError("octets behind the last name")
    return found


def _read_name(rdata: bytes, start: int) -> tuple[bytes, int]:
    position = start
    while length := rdata[position]:
        if length > names.MAX_LABEL:
            raise ValueError("no plain label")
        position += 1 + length
        if position >= len(rdata):
            raise ValueError("a name is cut short")
    return rdata[start : position + 1], position + 1


def _mx(rdata: bytes) -> str:
    (preference,) = struct.unpack_from("!H", rdata)
    return f"{preference} {_name(rdata[2:])}"


def _srv(rdata: bytes) -> str:
    priority, weight, port = struct.unpack_from("!3H", rdata)
    return f"{priority} {weight} {port} {_name(rdata[6:])}"


def _soa(rdata: bytes) -> str:
    numbers = struct.unpack("!5I", rdata[-20:])
    mname, rname = _names(rdata[:-20], 2)
    return " ".join((name_text(mname), name_text(rname), *map(str, numbers)))


def _strings(rdata: bytes) -> list[bytes]:
    """The character-strings that RDATA consists of; raises ValueError."""
    found, position = [], 0
    while position < len(rdata):
        end = position + 1 + rdata[position]
        if end > len(rdata):
            raise ValueError("a character-string is cut short")
        found.append(rdata[position + 1 : end])
        position = end
    return found


def _quoted(string: bytes) -> str:
    inner = (f"\\{chr(o)}" if o in _QUOTED else chr(o) if 0x20 <= o < 0x7F else f"\\{o:03d}" for o in string)
    return f'"{"".join(inner)}"'


def _txt(rdata: bytes) -> str:
    if not rdata:
        raise ValueError("no character-string")
    return " ".join(map(_quoted, _strings(rdata)))


def _hinfo(rdata: bytes) -> str:
    cpu, os = _strings(rdata)
    return f"{_quoted(cpu)} {_quoted(os)}"


_TEXTS: dict[int, Callable[[bytes], str]] = {
    wire.A: lambda rdata: str(IPv4Address(rdata)),
    wire.AAAA: lambda rdata: str(IPv6Address(rdata)),
    wire.NS: _name,
    wire.CNAME: _name,
    wire.DNAME: _name,
    wire.PTR: _name,
    wire.SOA: _soa,
    wire.SRV: _srv,
    wire.MX: _mx,
    wire.TXT: _txt,
    wire.HINFO: _hinfo,
}
