"""Inside: what somebody may have meant by a name that the mesh does not have.

A name and the hosts of a table enter; a few sentences leave. However large the table, the work is bounded: packets wait
meanwhile. It must never know how a name was decided on.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from itertools import islice

from meshdns import names
from meshdns.defaults import NEARBY_COMPARED, NEARBY_HINTS, NEARBY_SCANNED, NEARBY_SIMILAR
from meshdns.table import Entry

_SVC = b"svc"


def nearby(name: bytes, entries: Mapping[str, Entry], *, strict: bool = False) -> list[str]:
    """Sentences about hosts near to a name that is no host, at most NEARBY_HINTS.

    `strict` where the name may well be somebody else's: then only a likely slip of the finger counts.
    """
    text = names.text(name)
    if wildcard := entries.get(f"*.{text}"):
        return [f"{wildcard.host} of the table covers the names below {text}, but not {text} itself (rule D7)."]
    wanted = _telling(name)
    if not wanted:
        return []
    if not strict or len(wanted) < 3:
        same = _same_service(wanted[0], text, entries)
        if same:
            return same
    return [_meant(entries[host]) for host in _similar(wanted, text, entries)]


def below(name: bytes, entries: Mapping[str, Entry]) -> str | None:
    """A host below a name, if one is met soon."""
    end = f".{names.text(name)}"
    return min((host for host in islice(entries, NEARBY_SCANNED) if host.endswith(end)), default=None)


def _telling(name: bytes) -> list[str]:
    """The labels that tell one service from another: what stands before `svc`, without `_port._proto`."""
    labels = names.labels(name)
    while labels and labels[0].startswith(b"_"):
        labels = labels[1:]
    if _SVC in labels:
        labels = labels[: labels.index(_SVC)]
    return [label.decode("ascii", "replace") for label in labels]


def _same_service(label: str, text: str, entries: Mapping[str, Entry]) -> list[str]:
    """Services of the same name elsewhere."""
    start = f"{label}."
    found = [host for host in islice(entries, NEARBY_SCANNED) if host.startswith(start) and host != text]
    found.sort(key=lambda host: (not entries[host].namespace, host))
    return [_elsewhere(label, entries[host]) for host in found[:NEARBY_HINTS]]


def _elsewhere(label: str, entry: Entry) -> str:
    if entry.namespace:
        return f"{label} exists in {entry.namespace}: {entry.host}."
    return f"The table has {entry.host}."


def _meant(entry: Entry) -> str:
    return f"Did you mean {entry.host}?"


def _similar(wanted: list[str], text: str, entries: Mapping[str, Entry]) -> list[str]:
    """Hosts spelt nearly alike. The first letter must fit: so few are left that comparing them costs nothing."""
    asked, first = ".".join(wanted), wanted[0][0]
    hosts = (host for host in islice(entries, NEARBY_SCANNED) if host[0] == first and host != text)
    fronts = ((_front(host, len(wanted)), host) for host in hosts)
    alike = islice(((front, host) for front, host in fronts if abs(len(front) - len(asked)) <= 2), NEARBY_COMPARED)
    hosts_by_front: dict[str, str] = {}
    for front, host in alike:
        hosts_by_front[front] = min(host, hosts_by_front.get(front, host), key=lambda each: (len(each), each))
    return [hosts_by_front[front] for front in get_close_matches(asked, hosts_by_front, NEARBY_HINTS, NEARBY_SIMILAR)]


def _front(host: str, labels: int) -> str:
    """The first labels of a host."""
    return ".".join(host.split(".", labels)[:labels])
