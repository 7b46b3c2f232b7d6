"""Inside: manifests as text -> documents as trees of values, each with its line; or the problem of a document that is none.

YAML of Kubernetes: several documents in a file, anchors, JSON as a part of it. No scalar is guessed at, for each stays the text
that was written (YAML 1.1 takes `no` for False). Bounded in depth and in values. What an alias stands for is shared and never
copied, but counts as often as it is named, for who reads a document goes through it as often. It must never know what a
document is about.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import yaml

from meshdns.defaults import MANIFEST_DEPTH, MANIFEST_VALUES
from meshdns.values import quote

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # only its events are taken: nothing is resolved or made
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
# A line of three hyphens parts documents wherever it stands, in block scalars too (YAML 1.1 section 9.1).
_PART = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_MERGE = "<<"
TWICE = "twice"
# JSON writes what lies beyond U+FFFF as two escapes, of which YAML knows neither; an escaped backslash in front is none.
_PAIR = re.compile(r"(?<!\\)((?:\\\\)*)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)


class BadDocument(ValueError):
    """Why a document cannot be read at all, as a sentence; `line` counts from 1 within it."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


_NO_FIELDS: Mapping[str, "Value"] = {}


@attrs.define(eq=False)
class Value:
    """One value of a document. `kind` is text, nothing (null), list or map, or TWICE: a map has two values for this key, and
    who asks for it must not guess; `plain`: a text without quotes."""

    kind: str
    line: int  # in the document, from 1
    text: str = ""
    plain: bool = False
    items: Sequence["Value"] = ()
    fields: Mapping[str, "Value"] = _NO_FIELDS


@attrs.frozen
class Part:
    """The text of one document of a file, and the line of the file that it begins in."""

    text: str
    line: int


def parts(text: str) -> Iterator[Part]:
    """The documents of a file, those that hold nothing but comments left out."""
    start, line = 0, 1
    for found in [*_PART.finditer(text), None]:
        end = found.start() if found else len(text)
        part = text[start:end]
        if any(row.strip() and not row.lstrip().startswith(("#", "%")) for row in _rows(part)):
            yield Part(part, line)
        line += text.count("\n", start, end)
        # The three hyphens stay with the document that they begin: what stands behind them in their line is part of it.
        start = end


def _rows(part: str) -> Iterator[str]:
    for number, row in enumerate(part.split("\n")):
        yield row.removeprefix("---") if number == 0 else row


def compose(text: str) -> Value:
    """The tree of the one document in a text. Raises BadDocument."""
    try:
        return _Composer().compose(yaml.parse(_paired(text), Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadDocument(mark.line + 1 if mark else 1, f"this is not YAML: {error.problem}") from None
    except yaml.YAMLError as error:  # a character that YAML forbids
        position = getattr(error, "position", 0)
        raise BadDocument(text.count("\n", 0, position) + 1, f"this is not YAML: {_reason(error)}") from None


def _paired(text: str) -> str:
    """JSON with its pairs of escapes (RFC 8259 section 7) as the characters that they mean; other text as it is."""
    escaped = ("\\ud" in text or "\\uD" in text) and text.lstrip().startswith("{")
    return _PAIR.sub(_character, text) if escaped else text


def _character(pair: re.Match[str]) -> str:
    high, low = int(pair[2], 16), int(pair[3], 16)
    return pair[1] + chr(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00)


def _line(event: Any) -> int:
    line: int = event.start_mark.line + 1
    return line


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", error)).split("\n")[0]


class _Composer:
    """A tree out of YAML's events, without recursion."""

    def __init__(self) -> None:
        self._anchors: dict[str, Value] = {}
        self._weights: dict[int, int] = {}  # how many values stand in those with an anchor, by id
        # Maps gather keys and values in turn. Beside them how many values there were before, None without an anchor.
        self._open: list[tuple[Value, list[Value], int | None]] = []
        self._count = 0  # of values, aliases unfolded
        self._documents = 0

    def compose(self, events: Any) -> Value:
        root = Value("nothing", 1)
        for event in events:
            if (found := self._take(event)) is not None:
                root = found
        return root

    def _take(self, event: Any) -> Value | None:
        """What an event completes, if that stands in nothing else."""
        if isinstance(event, yaml.ScalarEvent):  # most are
            plain = not event.style
            kind = "nothing" if plain and event.value in _NULLS else "text"
            return self._put(self._anchored(event, Value(kind, _line(event), event.value, plain)))
        if isinstance(event, yaml.CollectionEndEvent):
            return self._close()
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._bound(_line(event))
            kind = "map" if isinstance(event, yaml.MappingStartEvent) else "list"
            begun = None if event.anchor is None else self._count
            self._open.append((self._anchored(event, Value(kind, _line(event))), [], begun))
        elif isinstance(event, yaml.AliasEvent):
            return self._put_again(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise BadDocument(_line(event), 'a second document begins here; part them with "---"')
        return None

    def _put_again(self, event: Any) -> Value | None:
        """What an alias stands for. All that stands in it counts, too."""
        line, anchor = _line(event), event.anchor
        meant = self._anchors.get(anchor)
        if meant is None:
            raise BadDocument(line, f"the alias {quote(f'*{anchor}')} stands for nothing")
        if meant.kind in ("list", "map"):
            if id(meant) not in self._weights:
                raise BadDocument(line, f"the alias {quote(f'*{anchor}')} stands for a value that it is a part of")
            self._count += self._weights[id(meant)]
        return self._put(meant)

    def _anchored(self, event: Any, value: Value) -> Value:
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        return value

    def _bound(self, line: int) -> None:
        if len(self._open) >= MANIFEST_DEPTH:
            raise BadDocument(line, f"this is deeper than {MANIFEST_DEPTH} levels; no object is")

    def _put(self, value: Value) -> Value | None:
        self._count += 1
        if self._count > MANIFEST_VALUES:
            raise BadDocument(
                value.line, f"there are more than {MANIFEST_VALUES:,} values, aliases unfolded; split the document"
            )
        if not self._open:
            return value
        self._open[-1][1].append(value)
        return None

    def _close(self) -> Value | None:
        value, gathered, begun = self._open.pop()
        if begun is not None:
            self._weights[id(value)] = self._count - begun
        if value.kind == "list":
            value.items = gathered
        else:
            value.fields = _filled(gathered)
        return self._put(value)


def _filled(gathered: list[Value]) -> dict[str, Value]:
    """The map of keys and values; what is merged (`<<`) stands behind what the map says itself."""
    fields: dict[str, Value] = {}
    merged: list[Value] = []
    for key, inner in zip(gathered[::2], gathered[1::2], strict=True):
        if key.kind != "text" and not (key.kind == "nothing" and key.text):
            raise BadDocument(key.line, "a key must be a word")
        if key.text == _MERGE and key.plain:
            merged += inner.items if inner.kind == "list" else [inner]
        elif key.text in fields:
            fields[key.text] = Value(TWICE, key.line)
        else:
            fields[key.text] = inner
    for other in merged:
        if other.kind != "map":
            raise BadDocument(other.line, '"<<" takes a map, or a list of maps')
        for name, inner in other.fields.items():
            fields.setdefault(name, inner)
    return fields
