"""Vocabulary: one host of a name table: what may be said of it, and the one text and weight that its content has.

A JSON object enters, an `Entry` or a `BadTable` leaves; of an entry, its canonical JSON and what that adds to a table's
generation (contract section 2.1, rules X1 and X2). It must never know of whole tables: those are `table.py`, which
offers all of this too.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from sys import intern
from typing import NoReturn

import attrs

from meshdns import names
from meshdns.defaults import TABLE_ENTRY_LIST

MAX_TTL = 2**31 - 1  # RFC 2181 section 8
_SHOWN = 80  # characters of a wrong value that a sentence repeats
_OCTETS = {str(octet): octet for octet in range(256)}
_LENGTHS = [bytes([length]) for length in range(names.MAX_LABEL + 1)]
_HOST = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}").fullmatch
_PORT_NAME = re.compile(r"[A-Za-z0-9_-]{0,63}").fullmatch
_PROTOCOLS = frozenset({"TCP", "UDP", "SCTP"})


class BadTable(ValueError):
    """What is wrong with a table, as a sentence which says what to do; `line` counts from 1, and is 0 where unknown."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}" if self.line else self.reason


@attrs.frozen
class Port:
    """A port of a service: name in lower case ("" for none), number 1..65535, protocol TCP, UDP or SCTP."""

    name: str
    number: int
    protocol: str


@attrs.frozen(weakref_slot=False)
class Entry:
    """One host: addresses packed (4 and 16 octets, each once, in the order given), names as wire bytes.

    Of the forms that a value may have, it is kept in the one that takes least memory: a table has a hundred thousand of them.
    """

    host: str  # lower case, no final dot; "*." may stand in front
    name: bytes  # of the host, for a wildcard of what follows "*."
    wildcard: bool
    _v4: bytes  # the addresses end to end
    _v6: bytes
    registry: str
    _shortname: str | None  # None for the host's first label
    namespace: str
    ports: tuple[Port, ...]
    alias: bytes | None
    vip: bool
    ttl: int | None  # seconds
    pods: tuple[bytes, ...]
    raw: str  # the canonical JSON where that is more than `plain` tells, mostly "": it would double a table's memory

    @property
    def v4(self) -> tuple[bytes, ...]:
        return _apart(self._v4, 4)

    @property
    def v6(self) -> tuple[bytes, ...]:
        return _apart(self._v6, 16)

    @property
    def shortname(self) -> str:
        return self.host.partition(".")[0] if self._shortname is None else self._shortname

    @property
    def ips(self) -> list[str]:
        """The addresses as text, IPv4 first."""
        return [".".join(map(str, packed)) for packed in self.v4] + [str(IPv6Address(packed)) for packed in self.v6]

    @property
    def line(self) -> str:
        """The canonical JSON of what was sent, unknown fields and all; the generation is counted over it (rule X2)."""
        return self.raw or _plain(
            self.host,
            self.ips,
            self.namespace,
            _ports_text(self.ports),
            self.registry,
            self.shortname,
            self.ttl,
            self.vip,
        )


def _apart(octets: bytes, size: int) -> tuple[bytes, ...]:
    if len(octets) == size:
        return (octets,)
    if not octets:
        return ()
    return tuple([octets[start : start + size] for start in range(0, len(octets), size)])


# JSON in


def parse_loosely(text: str) -> dict[str, object]:
    """The JSON object that a text is, where a repeated key and NaN still pass; three times as fast. Raises BadTable."""
    return _parse(_loose, text)


def parse(text: str) -> dict[str, object]:
    """The JSON object that a text is; raises BadTable, also where a key stands twice."""
    return _parse(_strict, text)


def parse_document(text: str) -> object:
    """Any JSON value, on any number of lines; raises BadTable with the line where known."""
    try:
        return _strict.decode(text)
    except json.JSONDecodeError as error:
        raise BadTable(error.lineno, f"is not JSON: {error.msg} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise BadTable(0, f"is not usable JSON: {error}") from None


def _parse(decoder: json.JSONDecoder, text: str) -> dict[str, object]:
    try:
        obj, end = decoder.raw_decode(text)
    except json.JSONDecodeError as error:
        raise BadTable(0, f"is not JSON: {error.msg} (column {error.colno}); each line holds one object") from None
    except (ValueError, RecursionError) as error:
        raise BadTable(0, f"is not usable JSON: {error}") from None
    if end != len(text):
        raise BadTable(0, f"goes on behind its JSON object (column {end + 1}): give each object a line of its own")
    if type(obj) is not dict:
        raise BadTable(0, "is no JSON object: each line holds one, in braces")
    return obj


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    obj = dict(pairs)
    if len(obj) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(twice)} stands twice in one object, keep one of them")
    return obj


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


_loose = json.JSONDecoder()
_strict = json.JSONDecoder(object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)


# What a content weighs (rule X2)

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def canonical(obj: object) -> str:
    """The one text of a JSON value: keys sorted by code point, no spaces, nothing escaped that need not be.

    Raises BadTable for what has no such text: NaN, infinity, half of a surrogate pair, endless nesting.
    """
    try:
        text = _encode(obj)
        text.encode()
    except UnicodeEncodeError:
        raise BadTable(0, "holds half of a surrogate pair (\\ud800 to \\udfff): write the whole character") from None
    except (ValueError, RecursionError) as error:
        raise BadTable(0, f"holds what JSON cannot say ({error}): take it out") from None
    return text


def weigh(text: str) -> int:
    """What one canonical text adds to a generation: its BLAKE2b-128 as a big-endian number."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def weigh_head(zones: Sequence[str], ttl: int) -> int:
    """What the zones and the TTL of a table add to its generation."""
    return weigh(canonical({"ttl": ttl, "zones": sorted(zones)}))


def total_text(total: int) -> str:
    """A sum of weights as a generation, 32 hex digits. What goes is subtracted from a sum, what comes is added."""
    return f"{total % (1 << 128):032x}"


# One entry (rule X1)


def entry(obj: dict[str, object]) -> Entry:
    """The entry that a JSON object describes. Every field that is known is checked; raises BadTable, with line 0."""
    return weighed(obj)[0]


def weighed(obj: dict[str, object], text: str | None = None) -> tuple[Entry, int]:
    """The entry and its weight. `text` is the line that held the object: mostly that is the canonical text already."""
    host = _text(obj, "host")
    wildcard = host.startswith("*.")
    name = wire_host(host[2:] if wildcard else host)
    v4, v6, ips = _addresses(_list(obj, "ips", host), host) if "ips" in obj else ((), (), ())
    ports, ports_text = _ports(_list(obj, "ports", host), host) if "ports" in obj else ((), "")
    registry = intern(_word(obj, "registry", host)) if "registry" in obj else ""
    shortname = _word(obj, "shortname", host) if "shortname" in obj else ""
    namespace = intern(_word(obj, "namespace", host)) if "namespace" in obj else ""
    vip = _flag(obj, "vip", host) if "vip" in obj else False
    ttl = whole_number(obj, "ttl", MAX_TTL, who=host) if "ttl" in obj else None
    alias = _alias(obj, host) if "alias" in obj else None
    pods = tuple([_pod(pod, host, name) for pod in _list(obj, "pods", host)]) if "pods" in obj else ()
    if "removed" in obj:
        raise BadTable(0, f'{host} is "removed", which stands in a delta only: leave the line out')
    line = raw = ""
    if ips is not None:
        line = _plain(host, ips, namespace, ports_text, registry, shortname, ttl, vip)
    # An escape, a space or a repeated key makes a line longer than its values need: one as long as needed is canonical.
    if line != text:
        full = canonical(obj if text is None else parse(text))
        line, raw = full, "" if full == line else full
    short = None if shortname and host.startswith(f"{shortname}.") and "." not in shortname else shortname
    built = Entry(
        host, name, wildcard, b"".join(v4), b"".join(v6), registry, short, namespace, ports, alias, vip, ttl, pods, raw
    )
    return built, weigh(line)


def _plain(
    host: str,
    ips: Sequence[str],
    namespace: str,
    ports: str,
    registry: str,
    shortname: str,
    ttl: int | None,
    vip: bool,
) -> str:
    """The canonical JSON of an entry with these fields and no others, if nothing in it needs an escape."""
    line = f'{{"host":"{host}"'
    if ips:
        line += ',"ips":["' + '","'.join(ips) + '"]'
    if namespace:
        line += f',"namespace":"{namespace}"'
    line += ports
    if registry:
        line += f',"registry":"{registry}"'
    if shortname:
        line += f',"shortname":"{shortname}"'
    if ttl is not None:
        line += f',"ttl":{ttl}'
    return line + (',"vip":true}' if vip else "}")


# The fields


def wire_host(host: str) -> bytes:
    """The wire name of a host as tables write it: lower case, no final dot, only a-z, 0-9, - and _. Raises BadTable."""
    if _HOST(host) and len(host) < names.MAX_NAME - 1:
        return b"".join([_LENGTHS[len(label)] + label for label in host.encode().split(b".")]) + names.ROOT
    if host != host.lower():
        reason = "write it in lower case"
    elif host.endswith("."):
        reason = "write it without the final dot"
    elif len(host) >= names.MAX_NAME - 1:
        reason = f"it has {len(host)} characters, at most {names.MAX_NAME - 2} fit"
    else:
        reason = 'labels have 1 to 63 of a-z, 0-9, "-" and "_"; a "*" may only be the whole first one'
    raise BadTable(0, f"{shown(host)} is no host name of a table: {reason}")


def pack(ip: str) -> bytes | None:
    """The 4 or 16 octets of an address; None for what is none. Faster than `ipaddress`, and as strict."""
    try:
        packed = bytes([_OCTETS[octet] for octet in ip.split(".")])
    except KeyError:
        try:
            return None if "%" in ip else IPv6Address(ip).packed
        except AddressValueError:
            return None
    return packed if len(packed) == 4 else None


def _addresses(given: list[object], host: str) -> tuple[tuple[bytes, ...], tuple[bytes, ...], Sequence[str] | None]:
    """IPv4, IPv6, and the texts if they are just what `Entry.ips` will say, else None."""
    texts, found = [], {}
    for ip in given:
        if type(ip) is not str or (packed := pack(ip)) is None:
            raise BadTable(0, f'{host} has {shown(ip)} in "ips": write an IPv4 or IPv6 address, without "/" or "%"')
        texts.append(ip)
        found[packed] = ip
    v4 = tuple([packed for packed in found if len(packed) == 4])
    if len(v4) == len(texts):
        return v4, (), texts or None
    v6 = tuple([packed for packed in found if len(packed) == 16])
    told = texts == [found[packed] for packed in v4] + [str(IPv6Address(packed)) for packed in v6]
    return v4, v6, texts if told else None


def _ports(given: list[object], host: str) -> tuple[tuple[Port, ...], str]:
    """The ports, and their part of the canonical JSON if all is well with it."""
    key = []
    for port in given:
        if type(port) is not dict:
            raise BadTable(0, f'{host} has {shown(port)} in "ports": write objects with "name", "number", "protocol"')
        name, protocol = port.get("name", ""), port.get("protocol", "TCP")
        if type(name) is not str or not _PORT_NAME(name):
            raise BadTable(0, f"{host} has a port named {shown(name)}: use letters, digits, - and _")
        if type(protocol) is not str or protocol.upper() not in _PROTOCOLS:
            raise BadTable(0, f"{host} has a port of protocol {shown(protocol)}: write TCP, UDP or SCTP")
        key.append((name.lower(), whole_number(port, "number", 65535, 1, f"a port of {host}"), protocol.upper()))
    return _shared_ports(tuple(key))


@lru_cache(maxsize=4096)  # most services of a mesh have one of few port lists; the bound is for a mesh that means harm
def _shared_ports(key: tuple[tuple[str, int, str], ...]) -> tuple[tuple[Port, ...], str]:
    ports = tuple(Port(*port) for port in key)
    return ports, _ports_text(ports)


def _ports_text(ports: Sequence[Port]) -> str:
    told = [f'{{"name":"{port.name}","number":{port.number},"protocol":"{port.protocol}"}}' for port in ports]
    return f',"ports":[{",".join(told)}]' if told else ""


def _alias(obj: dict[str, object], host: str) -> bytes:
    if obj.get("ips"):
        raise BadTable(0, f'{host} has both "ips" and an "alias": keep one of them')
    try:
        target = names.parse(_text(obj, "alias"))
    except names.BadName as error:
        raise BadTable(0, f'the "alias" of {host} is no name: {shown(str(error))}') from None
    if target == names.ROOT:
        raise BadTable(0, f'the "alias" of {host} is the root: name a host')
    return target


def _pod(pod: object, host: str, name: bytes) -> bytes:
    """The wire name of a pod; without a dot it stands directly below its host."""
    if type(pod) is not str:
        raise BadTable(0, f'{host} has {shown(pod)} in "pods": write host names')
    if "." in pod:
        return wire_host(pod)
    full = names.join(wire_host(pod)[:-1], name)
    if full is None:
        raise BadTable(0, f"the pod {pod} of {host} has too long a full name")
    return full


def _text(obj: dict[str, object], key: str) -> str:
    value = obj.get(key)
    if type(value) is not str:
        raise BadTable(0, f'an entry needs a text as "{key}", not {shown(value)}')
    return value


def _word(obj: dict[str, object], key: str, host: str) -> str:
    value = obj[key]
    if type(value) is not str or not value.isprintable():
        raise BadTable(0, f'{host} has {shown(value)} as "{key}": write a text without control characters')
    return value


def _flag(obj: dict[str, object], key: str, host: str) -> bool:
    value = obj[key]
    if type(value) is not bool:
        raise BadTable(0, f'{host} has {shown(value)} as "{key}": write true or false')
    return value


def _list(obj: dict[str, object], key: str, host: str) -> list[object]:
    value = obj[key]
    if type(value) is not list:
        raise BadTable(0, f'{host} has {shown(value)} as "{key}": write a list')
    if len(value) > TABLE_ENTRY_LIST:
        raise BadTable(0, f'{host} has {len(value)} "{key}": at most {TABLE_ENTRY_LIST} are taken')
    return value


def whole_number(obj: dict[str, object], key: str, greatest: int, least: int = 0, who: str = "") -> int:
    """A field that is a whole number within bounds; raises BadTable."""
    value = obj.get(key)
    if type(value) is not int or not least <= value <= greatest:
        told = f'has {shown(value)} as "{key}": write a whole number from {least} to {greatest}'
        raise BadTable(0, f"{who} {told}".lstrip())
    return value


def shown(value: object) -> str:
    """A wrong value as a sentence may repeat it: on one line, short, in ASCII."""
    if value is None:
        return "nothing"
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    told = json.dumps(value) if isinstance(value, str) or len(repr(value)) < _SHOWN else "a huge number"
    return told if len(told) <= _SHOWN else told[:_SHOWN] + '…"'
