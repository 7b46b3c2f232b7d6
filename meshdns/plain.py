"""Vocabulary: the line of a table that says no more than most do, in the form in which we write it, read in one go.

A text enters; the entry and its weight leave, or None: then `entries` reads it, which knows all that a line may say and what
is wrong with it. Both must come to the same, which a test holds; this takes a third of the time.
"""

import json
import re
from functools import lru_cache
from sys import intern

from meshdns import names
from meshdns.defaults import TABLE_ENTRY_LIST
from meshdns.entries import BadTable, Entry, Port, entry, pack, weigh, wire_host

# Canonical JSON (rule X2) without escapes: of what may stand between the quotes there is no other.
_LINE = re.compile(
    r'\{"host":"(\*\.)?([a-z0-9_-]{1,63})\.([a-z0-9_.-]{1,253})"'
    r'(?:,"ips":\["([0-9.",]+)"\])?'
    r'(?:,"namespace":"([\w.-]+)")?'
    r'(?:,"ports":(\[[^\]]{1,1000}\]))?'
    r'(?:,"registry":"([\w.-]+)")?'
    r'(?:,"shortname":"([\w.-]+)")?'
    r'(,"vip":true)?\}',
    re.ASCII,
).fullmatch
_SHARED = 4096  # names above hosts, and lists of ports, none of them long, that are kept: most hosts have one of few
_LENGTHS = [bytes([length]) for length in range(names.MAX_LABEL + 1)]


def plain_entry(text: str) -> tuple[Entry, int] | None:
    """The entry that a line describes, and its weight; None where more than a glance is needed."""
    found = _LINE(text)
    if found is None:
        return None
    star, label, above, ips, namespace, ports_text, registry, shortname, vip = found.groups()
    parent, v4, ports = _parent(above), _packed(ips) if ips else b"", _ports(ports_text) if ports_text else ()
    host = f"{label}.{above}"
    if parent is None or v4 is None or ports is None or len(host) >= names.MAX_NAME - 1:
        return None
    built = Entry(
        f"*.{host}" if star else host,
        _LENGTHS[len(label)] + label.encode() + parent,
        star is not None,
        v4,
        b"",
        intern(registry) if registry else "",
        (None if shortname == label and not star else shortname) if shortname else "",
        intern(namespace) if namespace else "",
        ports,
        None,
        vip is not None,
        None,
        (),
        "",
    )
    return built, weigh(text)


def _packed(ips: str) -> bytes | None:
    """IPv4 addresses end to end, each once; others have letters or colons in them, and did not pass."""
    if '"' not in ips:
        return pack(ips)
    each = [pack(ip) for ip in ips.split('","')]
    if None in each or len(each) > TABLE_ENTRY_LIST or len(set(each)) != len(each):
        return None
    return b"".join(filter(None, each))


@lru_cache(_SHARED)
def _parent(above: str) -> bytes | None:
    try:
        return wire_host(above)
    except BadTable:
        return None


@lru_cache(_SHARED)
def _ports(text: str) -> tuple[Port, ...] | None:
    try:
        found = entry({"host": "x", "ports": json.loads(text)})
    except ValueError:  # of JSON, or of what it says
        return None
    # What has to be kept as it came, in `raw`, is not plain.
    return found.ports if not found.raw and found.line == f'{{"host":"x","ports":{text}}}' else None
