"""Inside: the fields of a document, read by what they must be; every problem of a document at once, each with its line.

A `Fields` stands on one map of a document and gives checked values out of it; what is wrong is noted on the `Sheet` that all
of a document share, and a default goes on in its place. Fields that nobody asks for are of no interest.
"""

import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from typing import TypeVar

import attrs

from meshdns.control.documents import TWICE, Value
from meshdns.control.model import Labels
from meshdns.defaults import MANIFEST_PROBLEMS
from meshdns.values import quote

T = TypeVar("T")
_WHOLE = re.compile(r"0|[1-9][0-9]{0,9}")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PART = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_KINDS = {"text": "a text", "list": "a list", "map": "keys with values", "nothing": "nothing"}
# All that YAML 1.1 takes for a flag, as Kubernetes does.
_TRUE = frozenset(["true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"])
_FALSE = frozenset(["false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N"])


@attrs.define
class Sheet:
    """The problems of one document: (line, sentence)."""

    problems: list[tuple[int, str]] = attrs.field(factory=list)

    def note(self, line: int, reason: str) -> None:
        if len(self.problems) < MANIFEST_PROBLEMS and (line, reason) not in self.problems:
            self.problems.append((line, reason))


@attrs.frozen
class Fields:
    """One map of a document, and the dotted path to it."""

    value: Value
    path: str
    sheet: Sheet

    def _at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _wrong(self, name: str, value: Value, wanted: str) -> None:
        if value.kind == TWICE:
            self.sheet.note(value.line, f"{self._at(name)} is there twice; keep one")
        else:
            self.sheet.note(value.line, f"{self._at(name)}: {wanted} is wanted here, not {_KINDS[value.kind]}")

    def get(self, name: str, kind: str) -> Value | None:
        """The value of a field if it is there, not null, and of this kind."""
        found = self.value.fields.get(name)
        if found is None or found.kind == "nothing":
            return None
        if found.kind != kind:
            self._wrong(name, found, _KINDS[kind])
            return None
        return found

    def line(self, name: str) -> int:
        return self.value.fields[name].line if name in self.value.fields else self.value.line

    def refuse(self, name: str, reason: str) -> None:
        """Note what is wrong with a field."""
        self.sheet.note(self.line(name), f"{self._at(name)}: {reason}")

    # What a field may be

    def map(self, name: str) -> "Fields":
        """A map; an empty one where there is none."""
        return Fields(self.get(name, "map") or Value("map", self.line(name)), self._at(name), self.sheet)

    def maps(self, name: str) -> Iterator["Fields"]:
        """A list of maps."""
        found = self.get(name, "list")
        for index, item in enumerate(found.items if found else ()):
            if item.kind == "map":
                yield Fields(item, f"{self._at(name)}[{index}]", self.sheet)
            else:
                self._wrong(f"{name}[{index}]", item, _KINDS["map"])

    def text(self, name: str, convert: Callable[[str], T], default: T) -> T:
        """A text by a function that raises ValueError with a sentence. An empty one is none, as in Kubernetes."""
        found = self.get(name, "text")
        return self._converted(name, found, convert, default) if found is not None and found.text else default

    def required(self, name: str, convert: Callable[[str], str]) -> str:
        """As `text`, for one that must be there; "" where something is wrong."""
        found = self.value.fields.get(name)
        if found is None or found.kind == "nothing" or (found.kind == "text" and not found.text):
            self.sheet.note(self.value.line, f"{self._at(name)} is required")
            return ""
        return self.text(name, convert, "")

    def texts(self, name: str, convert: Callable[[str], T]) -> tuple[T, ...]:
        """A list of texts."""
        found = self.get(name, "list")
        read: list[T] = []
        for index, item in enumerate(found.items if found else ()):
            if item.kind != "text":
                self._wrong(f"{name}[{index}]", item, _KINDS["text"])
            else:
                value = self._converted(f"{name}[{index}]", item, convert, None)
                if value is not None:
                    read.append(value)
        return tuple(read)

    def flag(self, name: str, default: bool) -> bool:
        found = self.get(name, "text")
        if found is None:
            return default
        if not found.plain or found.text not in _TRUE | _FALSE:
            self.refuse(name, f"{quote(found.text)} is neither true nor false")
            return default
        return found.text in _TRUE

    def number(self, name: str, low: int, high: int, default: int) -> int:
        found = self.get(name, "text")
        if found is None:
            return default
        if not found.plain or not _WHOLE.fullmatch(found.text) or not low <= int(found.text) <= high:
            self.refuse(name, f"{quote(found.text)} is no whole number from {low} to {high}")
            return default
        return int(found.text)

    def labels(self, name: str) -> Labels:
        """A map of texts, sorted."""
        found = self.get(name, "map")
        pairs: dict[str, str] = {}
        for key, value in found.fields.items() if found else ():
            if value.kind in ("text", "nothing"):
                pairs[key] = value.text if value.kind == "text" else ""
            else:
                self._wrong(f"{name}.{key}", value, _KINDS["text"])
        return tuple(sorted(pairs.items()))

    def _converted(self, name: str, value: Value, convert: Callable[[str], T], default: T) -> T:
        try:
            return convert(value.text)
        except ValueError as error:
            self.sheet.note(value.line, f"{self._at(name)}: {error}")
            return default


# Texts


def label(text: str) -> str:
    """The name of a namespace or service (RFC 1123 section 2.1)."""
    if not _LABEL.fullmatch(text):
        raise ValueError(f'{quote(text)} is no DNS label: lower-case letters, digits and inner "-", at most 63')
    return text


def subdomain(text: str) -> str:
    """The name of an object: words with dots between. No DNS name: Kubernetes bounds the whole, and no word of it."""
    if len(text) > 253 or not all(_PART.fullmatch(each) for each in text.split(".")):
        raise ValueError(f"{quote(text)} is no name of an object: lower-case words with dots between, at most 253")
    return text


def address(text: str) -> str:
    """An IP address in its usual form."""
    try:
        if "%" in text:
            raise ValueError
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f"{quote(text)} is not an IP address") from None


def address_or_network(text: str) -> str:
    """An IP address, or a network with its prefix; /32 and /128 are addresses."""
    if "/" not in text:
        return address(text)
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{quote(text)} is not an IP address or a network like 10.0.0.0/8") from None
    return str(network.network_address) if network.num_addresses == 1 else str(network)


_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


def host(text: str) -> str:
    """A host name in lower case without final dot; `*.` may stand in front."""
    found = text.lower().removesuffix(".")
    if len(found) > 253 or not _HOST.fullmatch(found.removeprefix("*.")):
        raise ValueError(f'{quote(text)} is no host name; "*" may only be the whole first label')
    return found


def plain_host(text: str) -> str:
    """A host name without `*`."""
    found = host(text)
    if found.startswith("*"):
        raise ValueError(f'{quote(text)} is no host name: "*" has no place here')
    return found
