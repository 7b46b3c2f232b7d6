"""Vocabulary: settings read strictly. A YAML file's bytes and a description of its keys enter; checked values leave, or
every problem of the file at once, each with its line.

A configuration is described as frozen attrs classes whose attributes are the keys:

    @attrs.frozen(kw_only=True)
    class Upstream:
        timeout: float = setting(duration(0.01, 60), 2.0)
        servers: tuple[Server, ...] = setting(listed(scalar(parse_server)), ())

    read(data, "agent.yaml", section(Upstream))

This module never opens a file, and knows none of the configurations that are described with it.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from os.path import dirname, join
from typing import Any, TypeVar, cast

import attrs

from meshdns.values import Endpoint as Endpoint
from meshdns.values import Network as Network
from meshdns.values import Server as Server
from meshdns.values import (
    duration_text,
    parse_domain,
    parse_duration,
    parse_endpoint,
    parse_label,
    parse_loopback,
    parse_size,
    quote,
    size_text,
)
from meshdns.values import parse_network as parse_network
from meshdns.values import parse_server as parse_server
from meshdns.yamltext import Invalid as Invalid
from meshdns.yamltext import Node, Sheet, tree
from meshdns.yamltext import Problem as Problem

T = TypeVar("T")
K = TypeVar("K")
U = TypeVar("U")
N = TypeVar("N", int, float)

REQUIRED: Any = attrs.NOTHING
_TRUE = frozenset({"true", "True", "TRUE", "yes", "on"})
_FALSE = frozenset({"false", "False", "FALSE", "no", "off"})
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")


class Refused(Exception):
    """Leaves a reader whose problem is already noted; the readers round it go on with what else there is."""


@attrs.frozen
class Place:
    """A value of the file, the dotted key that leads to it, and the line to name in a problem about it."""

    node: Node
    key: str
    line: int
    sheet: Sheet

    def refuse(self, reason: str) -> Refused:
        self.sheet.note(self.line, _about(self.key, reason))
        return Refused()

    def sub(self, name: str) -> str:
        return f"{self.key}.{name}" if self.key else name


def _about(key: str, reason: str) -> str:
    return f"{key}: {reason}" if key else reason


Reader = Callable[[Place], T]


@attrs.frozen
class Stated:
    """What a rule sees of a section: `values` by key (defaults filled in, wrong ones left out), the lines of the keys
    that stand in the file, and the defaults."""

    key: str
    values: Mapping[str, Any]
    lines: Mapping[str, int]
    defaults: Mapping[str, Any]

    def has(self, *keys: str) -> bool:
        return all(key in self.values for key in keys)


Rule = Callable[[Stated], Iterator[tuple[str, str]]]  # yields (key of the section, or "" for itself; sentence)


def read(data: bytes, file: str, reader: Reader[T], base: str | None = None) -> T:
    """The value of a YAML file's content. `file` names it in problems; relative paths start at `base`, by default the
    directory in `file`. Raises Invalid with every problem."""
    sheet = Sheet(file, dirname(file) if base is None else base)
    root = tree(data, sheet)
    try:
        value = reader(Place(root, "", root.line, sheet))
    except Refused:
        raise sheet.invalid() from None
    if sheet.problems:
        raise sheet.invalid()
    return value


def lines(data: bytes) -> dict[str, int]:
    """The line of each dotted key of a file that `read` has accepted."""
    sheet = Sheet("")
    root = tree(data, sheet)
    found: dict[str, int] = {}
    waiting = [Place(root, "", root.line, sheet)]
    while waiting:
        place = waiting.pop()
        found[place.key] = place.line
        if place.node.kind == "map":
            waiting += _entries(place).values()
    return found


# Sections: maps with known keys.


def setting(reader: Reader[T], default: U = REQUIRED) -> T | U:
    """An attribute of a configuration class: how its key is read, and its default; without one the key is required."""
    field: T | U = attrs.field(default=default, metadata={"reader": reader})
    return field


def section(kind: type[T], *rules: Rule) -> Reader[T]:
    """Reads a map into a class whose attributes are `setting`s; the rules look at several keys together. An empty
    section (all its keys commented out) has every default."""
    fields = {field.name: field for field in attrs.fields(cast(Any, kind))}
    preset = {name: field.default for name, field in fields.items() if field.default is not REQUIRED}

    def reader(place: Place) -> T:
        entries = _entries(place)
        for name in (each for each in entries if each not in fields):
            place.sheet.note(entries[name].line, _unknown(place.key, name, list(fields)))
        values = {name: value for name, value in preset.items() if name not in entries}
        for name in (each for each in entries if each in fields):
            with suppress(Refused):
                values[name] = fields[name].metadata["reader"](entries[name])
        for name in (each for each in fields if each not in preset and each not in entries):
            place.sheet.note(place.line, f"{place.sub(name)} is required")
        _apply(rules, place, Stated(place.key, values, {name: entry.line for name, entry in entries.items()}, preset))
        if len(values) < len(fields):
            raise Refused()
        return kind(**values)

    return reader


def _apply(rules: tuple[Rule, ...], place: Place, stated: Stated) -> None:
    for rule in rules:
        for name, reason in rule(stated):
            place.sheet.note(stated.lines.get(name, place.line), _about(place.sub(name) if name else place.key, reason))


def _entries(place: Place) -> dict[str, Place]:
    """The values of a map by key. Notes keys that are there twice (YAML lets the last win silently) or are no words."""
    if place.node.kind == "broken":
        raise Refused()
    if place.node.kind not in ("map", "nothing"):
        raise place.refuse('keys with values are wanted here, like "key: value"')
    found: dict[str, Place] = {}
    for key, value in zip(place.node.items[::2], place.node.items[1::2], strict=True):
        if key.kind == "broken":
            continue
        if key.kind != "text":
            place.sheet.note(key.line, _about(place.key, "a key must be a word"))
        elif key.text in found:
            place.sheet.note(
                key.line, f"{_shown(place, key)} is there twice, first in line {found[key.text].line}; keep one"
            )
        else:
            line = value.line if value.kind == "text" else key.line
            found[key.text] = Place(value, _shown(place, key), line, place.sheet)
    return found


def _shown(place: Place, key: Node) -> str:
    """The dotted key as it may stand in a sentence; odd ones, which only the user's own maps can have, are quoted."""
    return place.sub(key.text if re.fullmatch(r"[A-Za-z0-9_.-]{1,253}", key.text) else quote(key.text))


def _unknown(within: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name[:40].lower().replace("-", "_"), known, 1)
    advice = f'did you mean "{close[0]}"?' if close else f"the keys here are {', '.join(known)}"
    return _about(within, f"unknown key {quote(name)}; {advice}")


def exactly_one(*keys: str) -> Rule:
    """A rule: one of these keys is stated, and no second."""

    def rule(stated: Stated) -> Iterator[tuple[str, str]]:
        there = sorted((key for key in keys if key in stated.lines), key=stated.lines.__getitem__)
        if not there:
            yield "", f"one of {', '.join(keys)} is required"
        for key in there[1:]:
            yield key, f"{there[0]} is there too; keep one of {', '.join(keys)}"

    return rule


# Readers of one value.


def scalar(convert: Callable[[str], T], quoted: bool = True) -> Reader[T]:
    """Reads a text by a function that raises ValueError with a sentence. `quoted=False`: quotes are refused."""

    def reader(place: Place) -> T:
        text = _text(place, quoted)
        try:
            return convert(text)
        except ValueError as error:
            raise place.refuse(str(error)) from None

    return reader


def _text(place: Place, quoted: bool = True) -> str:
    node = place.node
    if node.kind == "broken":
        raise Refused()
    if node.kind == "nothing":
        raise place.refuse("has no value; write one, or take the line out for the default")
    if node.kind != "text":
        raise place.refuse(f"one value is wanted here, not {'a list' if node.kind == 'list' else 'keys with values'}")
    if not node.plain and not quoted:
        raise place.refuse(f"{quote(node.text)} is quoted text; leave the quotes out")
    return node.text


def _within(convert: Callable[[str], N], low: N, high: N, show: Callable[[N], str]) -> Callable[[str], N]:
    def ranged(text: str) -> N:
        value = convert(text)
        if not low <= value <= high:
            raise ValueError(f"{quote(text)} is out of range; {show(low)} to {show(high)} is possible")
        return value

    return ranged


def duration(low: float, high: float) -> Reader[float]:
    """Seconds, written `500ms`, `2s`, `5m`, `1h`."""
    return scalar(_within(parse_duration, low, high, duration_text))


def size(low: int, high: int) -> Reader[int]:
    """Octets, written `64KiB`, `16MiB`."""
    return scalar(_within(parse_size, low, high, size_text))


def whole(low: int, high: int) -> Reader[int]:
    """A whole number, decimal."""
    return scalar(_within(_parse_whole, low, high, str), quoted=False)


def _parse_whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{quote(text)} is not a whole number")
    return int(text)


def _parse_boolean(text: str) -> bool:
    if text not in _TRUE | _FALSE:
        raise ValueError(f"{quote(text)} is neither true nor false")
    return text in _TRUE


def _parse_word(text: str) -> str:
    if len(text) > 253 or not text.isprintable() or " " in text:
        raise ValueError(f"{quote(text)} is not one word; at most 253 characters without spaces are possible")
    return text


boolean: Reader[bool] = scalar(_parse_boolean, quoted=False)
word: Reader[str] = scalar(_parse_word)  # free, may be empty
label: Reader[str] = scalar(parse_label)
domain: Reader[bytes] = scalar(parse_domain)
endpoint: Reader[Endpoint] = scalar(parse_endpoint)


def choice(*words: str) -> Reader[str]:
    """One of some words. Tools of YAML 1.1 write `off` back as `false`, so that is understood where "off" is a word."""

    def convert(text: str) -> str:
        if text in words:
            return text
        if "off" in words and text.lower() == "false":
            return "off"
        raise ValueError(f"{quote(text)} is not one of {', '.join(words)}")

    return scalar(convert)


def path(place: Place) -> str:
    """A file or directory; a relative one starts at the directory of the configuration file."""
    text = _text(place)
    if not text:
        raise place.refuse("the path is empty")
    return join(place.sheet.base, text)


def unless(same_as: str, value: U, otherwise: Reader[T]) -> Reader[T | U]:
    """Reads one word as a value of its own, and everything else as `otherwise` does."""
    same = choice(same_as)

    def reader(place: Place) -> T | U:
        if place.node.kind == "text":
            quiet = attrs.evolve(place, sheet=Sheet(""))
            with suppress(Refused):
                same(quiet)
                return value
        return otherwise(place)

    return reader


status_page: Reader[Endpoint | None] = unless("off", None, scalar(parse_loopback))


# Readers of many values.


def listed(item: Reader[T], least: int = 0) -> Reader[tuple[T, ...]]:
    """Reads a list, without repeats, of at least so many values."""

    def reader(place: Place) -> tuple[T, ...]:
        if place.node.kind == "broken":
            raise Refused()
        if place.node.kind != "list":
            example = place.node.text if place.node.kind == "text" and len(place.node.text) <= 60 else "..."
            raise place.refuse(f"a list is wanted here; write [{quote(example)}]")
        if len(place.node.items) < least:
            raise place.refuse("the list is empty; put a value in, or take the line out for the default")
        found: dict[T, str] = {}
        for index, node in enumerate(place.node.items):
            each = Place(node, f"{place.key}[{index}]", node.line, place.sheet)
            try:
                value = item(each)
            except Refused:
                continue
            if found.setdefault(value, each.key) != each.key:
                each.refuse(f"the same as {found[value]}; keep one")
        if len(found) < len(place.node.items):
            raise Refused()
        return tuple(found)

    return reader


def keyed(key: Callable[[str], K], item: Reader[T]) -> Reader[Mapping[K, T]]:
    """Reads a map whose keys are the user's own; `key` raises ValueError with a sentence."""

    def reader(place: Place) -> Mapping[K, T]:
        entries = _entries(place)
        found: dict[K, T] = {}
        for text, each in entries.items():
            try:
                converted = key(text)
                if converted in found:
                    each.refuse("another key means the same; keep one")
                found[converted] = item(each)
            except ValueError as error:
                each.sheet.note(each.line, _about(place.key, str(error)))
            except Refused:
                pass
        if len(found) < len(place.node.items) // 2:
            raise Refused()
        return found

    return reader
