"""Vocabulary: the name table: which host has which addresses as one workload may see it, and the generation of that.

Lines of JSON (contract section 2.1), whole or as a delta, or Istio's own JSON enter; a `Table` leaves, or a `BadTable`
and nothing half done. Tables leave as lines, as the lines between two of them, and as Istio's JSON. It must never
know who asks, where a table came from, or when.
"""

import json
import re
from array import array
from collections import defaultdict
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import attrs

from meshdns import istio
from meshdns.defaults import TABLE_LINE, TABLE_STEP, TABLE_TTL
from meshdns.entries import (
    MAX_TTL,
    BadTable,
    Entry,
    Port,
    canonical,
    entry,
    parse,
    parse_document,
    parse_loosely,
    shown,
    total_text,
    weigh,
    weigh_head,
    weighed,
    whole_number,
    wire_host,
)
from meshdns.plain import plain_entry
from meshdns.splitdict import SplitDict

__all__ = [
    "BadTable",
    "Entry",
    "Loader",
    "Port",
    "Table",
    "canonical",
    "diff",
    "dump",
    "entry",
    "generation",
    "read",
    "read_in_steps",
    "to_istio",
    "total_text",
    "weigh",
    "weigh_head",
]

FORMAT = 1
_GENERATION = re.compile(r"[0-9a-f]{32}").fullmatch
_WHITE = " \t\r\n"  # what JSON takes for space, and no more


@attrs.frozen
class Table:
    """A whole table: entries by host, mesh zones sorted, the TTL in seconds, the generation as 32 hex digits.

    One that came as a delta also tells `base`, the generation that it came from, and `changed`, all hosts that may differ since.
    """

    entries: SplitDict[str, Entry]
    zones: tuple[str, ...]
    ttl: int
    generation: str
    base: str = attrs.field(default="", eq=False, repr=False)
    changed: Collection[str] = attrs.field(default=(), eq=False, repr=False)

    @classmethod
    def of(cls, entries: Iterable[Entry], zones: Iterable[str] = (), ttl: int = TABLE_TTL) -> "Table":
        """The table with these entries; of several for one host the last one stands."""
        held = SplitDict((entry.host, entry) for entry in entries)
        zones = tuple(sorted(zones))
        return cls(held, zones, ttl, generation(held.values(), zones, ttl))


def generation(entries: Iterable[Entry], zones: Sequence[str], ttl: int) -> str:
    """The content hash of a table, whatever the order of its entries (rule X2)."""
    return total_text(sum((weigh(entry.line) for entry in entries), weigh_head(zones, ttl)))


# Lines in


@attrs.frozen
class _Header:
    """The first line; None for what it does not say."""

    base: str | None
    generation: str | None
    hosts: int | None
    zones: tuple[str, ...] | None
    ttl: int | None

    @classmethod
    def of(cls, obj: dict[str, object]) -> "_Header":
        if "nametable" not in obj:
            raise BadTable(0, f'the header is missing: let the first line be {{"nametable": {FORMAT}}}')
        if type(obj["nametable"]) is not int or obj["nametable"] != FORMAT:
            raise BadTable(
                0, f"the table has format {shown(obj['nametable'])}, only {FORMAT} is understood: upgrade meshdns"
            )
        return cls(
            _generation(obj, "base"),
            _generation(obj, "generation"),
            whole_number(obj, "hosts", 2**31) if "hosts" in obj else None,
            _zones(obj["zones"]) if "zones" in obj else None,
            whole_number(obj, "ttl", MAX_TTL) if "ttl" in obj else None,
        )


def _generation(obj: dict[str, object], key: str) -> str | None:
    value = obj.get(key)
    if key in obj and (type(value) is not str or not _GENERATION(value)):
        raise BadTable(0, f'has {shown(value)} as "{key}": a generation is 32 hex digits in lower case')
    return value if type(value) is str else None


def _zones(value: object) -> tuple[str, ...]:
    if type(value) is not list:
        raise BadTable(0, f'has {shown(value)} as "zones": write a list of domains')
    for zone in value:
        if type(zone) is not str:
            raise BadTable(0, f'has {shown(zone)} in "zones": write a domain')
        wire_host(zone)
    if len(set(value)) != len(value):
        raise BadTable(0, 'has a domain twice in "zones": keep one of them')
    return tuple(sorted(value))


class Loader:
    """A table as it comes in, line by line; nothing of it counts before `finish`.

    A delta needs the table that it starts from, `base`, which stays as it is; a whole table may come all the same.
    """

    def __init__(self, base: Table | None = None) -> None:
        self._base = base
        self._start: Table | None = None  # base, if this is a delta indeed
        self._header: _Header | None = None
        self._end: dict[str, object] | None = None
        self._entries: SplitDict[str, Entry] = SplitDict()
        self._came: SplitDict[str, Any] = self._entries  # the hosts of all lines; of a delta a mapping of their own
        self._total = 0
        self._line = 0
        self._lost: BadTable | None = None
        self._lines: defaultdict[int, array[int]] = defaultdict(partial(array, "L"))  # of what came, by its parts

    def feed(self, line: bytes) -> None:
        """The next line, with or without its line feed. Raises BadTable; then the table is lost."""
        self._line += 1
        try:
            self._take(line)
        except BadTable as error:
            self._lost = BadTable(self._line, error.reason)
            raise self._lost from None

    def _take(self, line: bytes) -> None:
        if len(line) > TABLE_LINE:
            raise BadTable(0, f"has {len(line)} octets, at most {TABLE_LINE} are taken: split the entry or the file")
        try:
            text = line.decode().strip(_WHITE)
        except UnicodeDecodeError as error:
            raise BadTable(0, f"is not UTF-8 (octet {error.start + 1}): save the file as UTF-8") from None
        if not text:
            return
        if self._end is not None:
            raise BadTable(0, "stands behind the end line: nothing may follow it")
        if self._header is None:
            self._begin(_Header.of(parse(text)))
            return
        if plain := plain_entry(text):
            self._add(*plain)
            return
        obj = parse_loosely(text)
        if "host" in obj and "removed" not in obj:
            self._add(*weighed(obj, text))
        elif "host" in obj:
            self._remove(parse(text))
        elif "end" in obj:
            self._end = parse(text)
        else:
            raise BadTable(0, 'is no entry: give it a "host"')

    def _begin(self, header: _Header) -> None:
        if header.base is not None:
            if self._base is None:
                raise BadTable(0, f"is a delta from generation {header.base}: the whole table is needed here")
            if self._base.generation != header.base:
                told = f"is a delta from generation {header.base}, but the table held is {self._base.generation}"
                raise BadTable(0, f"{told}: ask for the whole table")
            self._start = self._base
            self._total = int(header.base, 16) - weigh_head(self._start.zones, self._start.ttl)
            self._entries, self._came = self._start.entries.copy(), SplitDict()
        self._header = header

    def _add(self, came: Entry, weight: int) -> None:
        self._once(came.host)
        self._entries.part(came.host)[came.host] = came
        self._total += weight

    def _remove(self, obj: dict[str, object]) -> None:
        host = obj["host"]
        if obj["removed"] is not True or type(host) is not str:
            raise BadTable(0, 'has "removed": write {"host": "…", "removed": true}')
        if self._start is None:
            raise BadTable(0, f"removes {shown(host)}, which only a delta can: leave the line out")
        if host not in self._start.entries:
            raise BadTable(0, f"removes {shown(host)}, which the table does not have: ask for the whole table")
        self._once(host)
        del self._entries[host]

    def _once(self, host: str) -> None:
        number = SplitDict.number(host)
        came = self._came.parts[number]
        if host in came:
            first = self._lines[number][list(came).index(host)]
            raise BadTable(0, f"has {host} again, which line {first} has: keep one of them")
        self._lines[number].append(self._line)
        if self._start is not None:
            self._came[host] = None
            if old := self._start.entries.get(host):
                self._total -= weigh(old.line)

    def finish(self) -> Table:
        """The table, now that no line follows. Raises BadTable if something is missing or the hash does not fit."""
        header = self._header
        if self._lost is not None:
            raise self._lost
        if header is None:
            raise BadTable(0, f'the table is empty: let its first line be {{"nametable": {FORMAT}}}')
        sealed = header.generation is not None or self._start is not None
        if sealed and self._end is None:
            raise BadTable(self._line, "the table was cut off here, without its end line: get it again")
        if header.hosts is not None and header.hosts != (made := len(self._entries)):
            told = f'the header says "hosts": {header.hosts}, but the lines make {made}'
            raise BadTable(0, f'{told}: get the table again, or mend "hosts" if it is kept by hand')
        zones = header.zones if header.zones is not None else self._start.zones if self._start else ()
        ttl = header.ttl if header.ttl is not None else self._start.ttl if self._start else TABLE_TTL
        found = total_text(self._total + weigh_head(zones, ttl))
        if sealed:
            self._check(found)
        self._end = self._end or {}
        if self._start is None:
            return Table(self._entries, zones, ttl, found)
        return Table(self._entries, zones, ttl, found, self._start.generation, self._came.keys())

    def _check(self, found: str) -> None:
        said = self._header.generation if self._header else None
        end = self._end["end"] if self._end else None
        for place, value in (("header", said or found), ("end line", end)):
            if value != found:
                told = f"the entries add up to generation {found}, but the {place} says {shown(value)}"
                raise BadTable(
                    0, f'{told}: get the table again, or take "generation" out of the header if it is kept by hand'
                )


# Whole files in


def read(data: bytes) -> Table:
    """The table that a file holds: lines of JSON, or Istio's own JSON (rule X4). Raises BadTable, and nothing else."""
    steps = read_in_steps([data])
    while True:
        try:
            next(steps)
        except StopIteration as done:
            table: Table = done.value
            return table


def read_in_steps(pieces: Iterable[bytes], step: int = TABLE_STEP) -> Generator[None, None, Table]:
    """As `read`, of a file in pieces, stopping to breathe after each `step` lines, so that packets can be answered in between."""
    pieces = iter(pieces)
    head = b""
    for piece in pieces:
        head += piece
        if len(head) > TABLE_LINE or b"\n" in head.lstrip():
            break
    head = head.removeprefix(b"\xef\xbb\xbf")  # what Windows puts in front of UTF-8
    if not _is_lines(head):
        return (yield from _read_istio([head], pieces, step))
    loader = Loader()
    rest = b""
    for piece in chain([head], pieces):
        *lines, rest = (rest + piece).split(b"\n")
        for start in range(0, len(lines), step):
            for line in lines[start : start + step]:
                loader.feed(line)
            yield
        if len(rest) > TABLE_LINE:
            break
    if rest:
        loader.feed(rest)
    return loader.finish()


def _is_lines(data: bytes) -> bool:
    """Whether the first line that is not empty is an object of our own; Istio's JSON may well be one line, too."""
    if not data or data.isspace():
        return True
    start = len(data) - len(data.lstrip())
    first = data[start : (data.find(b"\n", start) + 1 or len(data))]
    if len(first) > TABLE_LINE:
        return False
    try:
        obj = parse_loosely(first.decode().strip(_WHITE))
    except (BadTable, UnicodeDecodeError):
        return False
    return not obj.keys() & {"table", "resource", "resources", "@type"}


def _read_istio(read: list[bytes], pieces: Iterator[bytes], step: int) -> Generator[None, None, Table]:
    for piece in pieces:
        read.append(piece)
        yield
    data = b"".join(read)
    try:
        document = parse_document(data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadTable(line, "is not UTF-8: save the file as UTF-8") from None
    entries = []
    for count, row in enumerate(istio.rows(document), 1):
        entries.append(entry(row))
        if count % step == 0:
            yield
    return Table.of(entries)


# Out


def dump(table: Table) -> Iterator[str]:
    """The lines of a table, without line feeds: header, entries in canonical JSON by host, end."""
    entries = (table.entries[host] for host in sorted(table.entries))
    return whole_lines(table.generation, len(table.entries), table.zones, table.ttl, entries)


def diff(old: Table, new: Table) -> Iterator[str]:
    """The lines of the delta from one table to another, without line feeds (rule X3)."""
    hosts = sorted(old.entries.keys() | new.entries.keys())
    rows = [(host, new.entries.get(host)) for host in hosts if old.entries.get(host) != new.entries.get(host)]
    return delta_lines(old.generation, new.generation, len(new.entries), new.zones, new.ttl, rows)


def whole_lines(generation: str, hosts: int, zones: Sequence[str], ttl: int, entries: Iterable[Entry]) -> Iterator[str]:
    """The lines of a table that is told by its parts; the entries come by host."""
    yield _header(generation, hosts, zones, ttl)
    for each in entries:
        yield each.line
    yield _line({"end": generation})


def delta_lines(
    base: str, generation: str, hosts: int, zones: Sequence[str], ttl: int, rows: Iterable[tuple[str, Entry | None]]
) -> Iterator[str]:
    """The lines of a delta: the hosts that changed since `base`, None for those that are gone; `hosts` counts all there are."""
    yield _header(generation, hosts, zones, ttl, base)
    for host, came in rows:
        yield came.line if came is not None else _line({"host": host, "removed": True})
    yield _line({"end": generation})


def _header(generation: str, hosts: int, zones: Sequence[str], ttl: int, base: str | None = None) -> str:
    start: dict[str, object] = {"nametable": FORMAT} | ({"base": base} if base else {})
    return _line(start | {"generation": generation, "hosts": hosts, "zones": list(zones), "ttl": ttl})


def _line(obj: dict[str, object]) -> str:
    return json.dumps(obj, ensure_ascii=False, separators=(",", ":"))


def to_istio(table: Table) -> dict[str, object]:
    """The table as Istio's own JSON has it (rule X4); what has no address there is left out."""
    return {
        "table": {
            host: {"ips": entry.ips} | {word: getattr(entry, word) for word in istio.WORDS if getattr(entry, word)}
            for host, entry in sorted(table.entries.items())
            if entry.v4 or entry.v6
        }
    }
