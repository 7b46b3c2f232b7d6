"""Vocabulary: the name table as Istio's own JSON has it (contract section 2.1, rule X4).

What `ndsz` pages and xDS dumps print enters, as a JSON value; one object per host as our own lines have it leaves,
merged and cleaned as Istio does it when it serves them. It must never know of generations, lines or our own fields.
"""

import re
from collections.abc import Iterable, Iterator

from meshdns.entries import BadTable, pack, shown, wire_host

WORDS = ("registry", "shortname", "namespace")
_TYPE = "istio.networking.nds.v1.NameTable"
_KUBERNETES = "Kubernetes"


def rows(document: object) -> list[dict[str, object]]:
    """The entries of a document as objects, one per host; raises BadTable, with line 0."""
    return list(_rows(_tables(document)).values())


def _tables(document: object) -> Iterator[dict[str, object]]:
    """The maps of hosts in what Istio prints: one table, or resources that hold one, alone or in lists."""
    waiting, found = [document], False
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += reversed(node)
            continue
        if not isinstance(node, dict):
            raise BadTable(0, f'{shown(node)} stands where Istio\'s JSON has an object with "table"')
        inner = node.get("resources", node.get("resource"))
        if inner is not None:
            waiting.append(inner)
            continue
        table = node.get("table", {} if str(node.get("@type")).endswith(_TYPE) else None)
        if not isinstance(table, dict):
            raise BadTable(0, 'is neither JSON lines nor Istio\'s JSON: the object has no "table" of hosts in it')
        found = True
        yield table
    if not found:
        raise BadTable(0, "is an empty list: Istio had no table for this proxy, turn DNS capture on and print it again")


def _rows(tables: Iterable[dict[str, object]]) -> dict[str, dict[str, object]]:
    """One object per host as our lines have it, merged as Istio does: Kubernetes wins, external addresses unite."""
    real: dict[str, dict[str, object]] = {}
    spoken: dict[str, dict[str, object]] = {}  # short forms that Istio's agent adds to its print, with a final dot
    for table in tables:
        for key, info in table.items():
            host = key.lower().removesuffix(".")
            row = _row(host, info)
            if row is not None:
                echo = key.endswith(".") and row.keys() <= {"host", "ips", "registry"}
                _merge(spoken if echo and row.get("registry") == _KUBERNETES else real, host, row)
    if spoken:
        fronts = {host[:dot] for host in real for dot in (*(m.start() for m in re.finditer(r"\.", host)), len(host))}
        for host in spoken.keys() - fronts:
            real[host] = spoken[host]
    return real


def _row(host: str, info: object) -> dict[str, object] | None:
    """None where Istio serves nothing either: no address that can be read, or no host that could be asked for."""
    if not isinstance(info, dict):
        raise BadTable(0, f'{shown(host)} has {shown(info)} as value: write an object with "ips"')
    ips = info.get("ips") or []
    if not isinstance(ips, list):
        raise BadTable(0, f'{shown(host)} has {shown(ips)} as "ips": write a list')
    good = list(dict.fromkeys(ip for ip in ips if isinstance(ip, str) and pack(ip)))
    try:
        wire_host(host.removeprefix("*."))
    except BadTable:
        return None
    words = {key: info[key] for key in WORDS if info.get(key)}
    return {"host": host, "ips": good, **words} if good else None


def _merge(rows: dict[str, dict[str, object]], host: str, row: dict[str, object]) -> None:
    held = rows.get(host)
    if held is None or (row.get("registry") == _KUBERNETES and held.get("registry") != _KUBERNETES):
        rows[host] = row
    elif held.get("registry") != _KUBERNETES:
        held["ips"] = list(dict.fromkeys([*held["ips"], *row["ips"]]))  # type: ignore[misc]
