"""Vocabulary: a YAML file's bytes -> a tree of texts, each with its line; or the problems that forbid it.

No scalar is ever guessed at (YAML 1.1 takes `no` for False and `12:30` for 750): each stays the text that was written.
Bounded in size, depth and number of values, for a file may come from anywhere. It never opens a file, and knows no key.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import yaml

from meshdns import defaults
from meshdns.values import quote, size_text

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # only its events are taken: nothing is resolved or made
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
# What YAML forbids, and the line breaks of YAML 1.1 that no editor shows: a key could hide behind one.
_CONTROL = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_TOO_MUCH = "the file has too many values or levels; is it the right one?"
_BREAK = re.compile("\r\n|\r|\n")
_BARE_IPV6 = re.compile(r"[\[ ,][0-9A-Fa-f.]*:[0-9A-Fa-f.]*:")


@attrs.frozen(order=True)
class Problem:
    """One thing wrong in a file; prints as `file:line: reason`. Lines count from 1."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


class Invalid(Exception):
    """A file cannot be used; `problems` holds every one of its problems, by line, and prints one in each line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(map(str, self.problems)))


@attrs.define
class Sheet:
    """One file being read: its name, the directory that its relative paths start from, the problems found so far."""

    file: str
    base: str = ""
    problems: list[Problem] = attrs.Factory(list)
    unsaid: int = 0  # problems beyond the cap

    def note(self, line: int, reason: str) -> None:
        if len(self.problems) < defaults.SETTINGS_MAX_PROBLEMS:
            self.problems.append(Problem(self.file, line, reason))
        else:
            self.unsaid += 1

    def invalid(self) -> Invalid:
        last = max((problem.line for problem in self.problems), default=1)
        more = [Problem(self.file, last, f"... and {self.unsaid} more problems")] if self.unsaid else []
        return Invalid([*self.problems, *more])


@attrs.frozen
class Node:
    """One value of the file. `kind` is text, nothing (null), list, map, or broken (its problem is already noted)."""

    kind: str
    line: int
    text: str = ""
    plain: bool = False  # a text without quotes
    items: Sequence["Node"] = ()  # of a map: key, value, key, value ...


def tree(data: bytes, sheet: Sheet) -> Node:
    """The tree of the one document in the file; lesser problems are noted on the sheet. Raises Invalid when there is
    no sense in reading on: too large, not UTF-8, not YAML, empty, two documents."""
    text = _decoded(data, sheet)
    try:
        return _compose(yaml.parse(text, Loader=_LOADER), sheet)
    except yaml.MarkedYAMLError as error:
        sheet.note(*_syntax(error, text))
        raise sheet.invalid() from None


def _decoded(data: bytes, sheet: Sheet) -> str:
    if len(data) > defaults.SETTINGS_MAX_BYTES:
        sheet.note(1, f"the file is larger than {size_text(defaults.SETTINGS_MAX_BYTES)}; is it the right one?")
        raise sheet.invalid()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        sheet.note(data.count(b"\n", 0, error.start) + 1, "the file is not UTF-8 text; save it as UTF-8")
        raise sheet.invalid() from None
    for found in _CONTROL.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        sheet.note(line, f"the control character U+{ord(found[0]):04X} may not stand in the file; take it out")
        raise sheet.invalid()
    return text


def _syntax(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str]:
    """Line and sentence for a file that is not YAML, with advice for the slips that people make most."""
    mark = error.problem_mark or error.context_mark
    if "maximum nesting depth" in (error.problem or ""):  # libyaml of late counts levels, too
        return mark.line + 1 if mark else 1, _TOO_MUCH
    written_lines = _BREAK.split(text.rstrip())
    line = min(mark.line + 1 if mark else 1, len(written_lines))  # at the end libyaml counts a line that is not there
    written = written_lines[line - 1]
    if "\t" in written[: len(written) - len(written.lstrip())]:
        return line, "this is not YAML: a tab cannot indent; use spaces"
    if _BARE_IPV6.search(written):
        return line, 'this is not YAML: an IPv6 address needs quotes round it, like "[::1]:53"'
    if error.context_mark and "quoted scalar" in (error.context or "") and "end of stream" in (error.problem or ""):
        return error.context_mark.line + 1, "this is not YAML: the quote that opens in this line is never closed"
    began = min(error.context_mark.line + 1, line) if error.context_mark else line
    where = f" ({error.context} of line {began})" if error.context and began < line else ""
    return line, f"this is not YAML: {error.problem}{where}"


def _compose(events: Iterable[Any], sheet: Sheet) -> Node:
    """The tree of a stream of YAML events, without recursion."""
    open_nodes: list[tuple[Node, list[Node]]] = [_opened("list", 1)]
    for count, event in enumerate(events):
        line = event.start_mark.line + 1
        if count > defaults.SETTINGS_MAX_NODES or len(open_nodes) > defaults.SETTINGS_MAX_DEPTH:
            # 64 KiB of "[" keep the parser busy for a minute: leave before it reads on.
            sheet.note(line, _TOO_MUCH)
            raise sheet.invalid()
        if isinstance(event, yaml.DocumentStartEvent) and open_nodes[0][1]:
            sheet.note(line, 'a second document begins here; one file holds one configuration, so take the "---" out')
            raise sheet.invalid()
        _forbidden(event, line, sheet)
        if isinstance(event, yaml.MappingStartEvent):
            open_nodes.append(_opened("map", line))
        elif isinstance(event, yaml.SequenceStartEvent):
            open_nodes.append(_opened("list", line))
        elif isinstance(event, yaml.CollectionEndEvent):
            node, _ = open_nodes.pop()
            open_nodes[-1][1].append(node)
        elif isinstance(event, yaml.NodeEvent):
            open_nodes[-1][1].append(_leaf(event, line))
    found = open_nodes[0][1]
    if not found or found[0].kind == "nothing":
        sheet.note(1, "the file is empty")
        raise sheet.invalid()
    return found[0]


def _opened(kind: str, line: int) -> tuple[Node, list[Node]]:
    items: list[Node] = []
    return Node(kind, line, items=items), items


def _leaf(event: Any, line: int) -> Node:
    if isinstance(event, yaml.AliasEvent):
        return Node("broken", line)
    plain = not event.style
    return Node("nothing" if plain and event.value in _NULLS else "text", line, event.value, plain)


def _forbidden(event: Any, line: int, sheet: Sheet) -> None:
    """Aliases (nine lines of them unfold to a billion values), anchors and tags serve no setting: none is allowed."""
    if isinstance(event, yaml.AliasEvent):
        sheet.note(line, f"the alias {quote(f'*{event.anchor}')} is not allowed; write the value itself")
    elif getattr(event, "anchor", None) is not None:
        sheet.note(line, f"the anchor {quote(f'&{event.anchor}')} is not allowed; take it out")
    if getattr(event, "tag", None) is not None:
        sheet.note(line, f"the tag {quote(event.tag)} is not allowed; take it out")
