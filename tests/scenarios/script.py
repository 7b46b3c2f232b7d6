"""Scenario scripts, read: text in testbound's format enters; values leave."""

import re
from collections.abc import Iterator

import attrs
import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

DEFAULT_TTL = 3600  # of a record that says none
SECTIONS = ("ANSWER", "AUTHORITY", "ADDITIONAL")
_NOISE = re.compile(r"(?:^|\s);.*")
_WORDS = frozenset({"MATCH", "ADJUST", "REPLY", "SECTION"})


class BadScript(ValueError):
    """A sentence with the line."""


@attrs.define
class Entry:
    """A message, as far as the script says: words to match, to adjust, flags and rcode; records by section."""

    match: list[str] = attrs.field(factory=list)
    adjust: list[str] = attrs.field(factory=list)
    reply: list[str] = attrs.field(factory=list)
    name: dns.name.Name | None = None
    rdtype: dns.rdatatype.RdataType = dns.rdatatype.A
    sections: dict[str, list[dns.rrset.RRset]] = attrs.field(factory=lambda: {name: [] for name in SECTIONS})

    def value(self, word: str) -> str | None:
        """What stands behind `word=`."""
        found = (each.partition("=")[2] for each in (*self.match, *self.adjust) if each.startswith(f"{word}="))
        return next(found, None)


@attrs.define
class Range:
    """What one server, or each, says while steps of these numbers are under way."""

    first: int
    last: int
    address: str | None = None
    entries: list[Entry] = attrs.field(factory=list)


@attrs.define
class Step:
    """`words` stand behind the kind, `body` are the lines of a table."""

    number: int
    kind: str
    words: list[str] = attrs.field(factory=list)
    entry: Entry | None = None
    body: list[str] = attrs.field(factory=list)

    def option(self, name: str) -> str | None:
        """The word behind another one."""
        return self.words[self.words.index(name) + 1] if name in self.words else None


@attrs.define
class Script:
    """`rule` is the first comment, `config` the lines before CONFIG_END."""

    rule: str = ""
    title: str = ""
    config: list[str] = attrs.field(factory=list)
    ranges: list[Range] = attrs.field(factory=list)
    steps: list[Step] = attrs.field(factory=list)


def read(text: str) -> Script:
    """Raises BadScript."""
    first = text.partition("\n")[0]
    script = Script(first.lstrip("; ").strip() if first.startswith(";") else "")
    lines = iter(list(enumerate(text.splitlines(), 1)))
    for _, line in lines:
        if line.strip() == "CONFIG_END":
            break
        script.config.append(line)
    for number, line in lines:
        try:
            _top(script, _clean(line), lines)
        except (ValueError, IndexError, dns.exception.DNSException) as problem:
            raise BadScript(f"line {number}, or what it begins: {problem}") from problem
    script.steps.sort(key=lambda step: step.number)
    return script


def _clean(line: str) -> str:
    return _NOISE.sub("", line).strip()


def _top(script: Script, line: str, lines: Iterator[tuple[int, str]]) -> None:
    word, _, rest = line.partition(" ")
    if word == "SCENARIO_BEGIN":
        script.title = rest
    elif word == "RANGE_BEGIN":
        script.ranges.append(_range(rest.split(), lines))
    elif word == "STEP":
        number, kind, *words = rest.split()
        script.steps.append(Step(int(number), kind, words))
        if kind == "TABLE":
            script.steps[-1].body = list(_until("TABLE_END", lines))
    elif word == "ENTRY_BEGIN":
        script.steps[-1].entry = _entry(lines)
    elif word not in ("", "SCENARIO_END"):
        raise ValueError(f"{word} is not known here")


def _until(end: str, lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    for _, line in lines:
        if _clean(line) == end:
            return
        if _clean(line):
            yield _clean(line)
    raise ValueError(f"{end} is missing")


def _range(words: list[str], lines: Iterator[tuple[int, str]]) -> Range:
    made = Range(int(words[0]), int(words[1]))
    for line in _until("RANGE_END", lines):
        if line.startswith("ADDRESS"):
            made.address = line.split()[1]
        elif line == "ENTRY_BEGIN":
            made.entries.append(_entry(lines))
        else:
            raise ValueError(f"{line} is not known in a range")
    return made


def _entry(lines: Iterator[tuple[int, str]]) -> Entry:
    entry, section = Entry(), ""
    for line in _until("ENTRY_END", lines):
        word, *rest = line.split()
        if word == "SECTION":
            section = rest[0]
        elif word in _WORDS:
            getattr(entry, word.lower()).extend(rest)
        elif section == "QUESTION":
            entry.name = dns.name.from_text(word)
            entry.rdtype = dns.rdatatype.from_text(rest[-1])
        else:
            entry.sections[section].append(_record(line))
    return entry


def _record(line: str) -> dns.rrset.RRset:
    """`owner [TTL] [IN] TYPE rdata`, names with or without the final dot."""
    owner, *rest = line.split()
    ttl = int(rest.pop(0)) if rest[0].isdigit() else DEFAULT_TTL
    if rest[0] == "IN":
        rest.pop(0)
    rdtype = dns.rdatatype.from_text(rest.pop(0))
    rdata = dns.rdata.from_text(dns.rdataclass.IN, rdtype, " ".join(rest), dns.name.root, relativize=False)
    return dns.rrset.from_rdata(dns.name.from_text(owner), ttl, rdata)
