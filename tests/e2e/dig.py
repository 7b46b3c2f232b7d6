"""What dig and kdig print, as values."""

import re
import shutil
from unittest import SkipTest

import attrs


def needs_tools() -> None:
    """Skips the test where dig or kdig is missing."""
    if missing := [name for name in ("dig", "kdig") if not shutil.which(name)]:
        raise SkipTest(f"not installed: {', '.join(missing)} (packages bind9-dnsutils, knot-dnsutils)")


@attrs.frozen
class Shown:
    """What dig or kdig shows of one message: records as (owner, type, rdata)."""

    status: str
    opcode: str
    flags: frozenset[str]
    answer: tuple[tuple[str, str, str], ...]
    authority: tuple[tuple[str, str, str], ...]
    additional: tuple[tuple[str, str, str], ...]
    text: str

    @property
    def rdata(self) -> list[str]:
        return [rdata for _, _, rdata in self.answer]

    @property
    def octets(self) -> int:
        """The size of the message."""
        found = re.search(r"MSG SIZE  rcvd: (\d+)|Received (\d+) B", self.text)
        assert found, self.text
        return int(found[1] or found[2])


def read(output: str) -> list[Shown]:
    """Every message in the output of dig or kdig, in the order they came."""
    return [_message(">>HEADER<<" + text) for text in output.split(">>HEADER<<")[1:]]


def _message(text: str) -> Shown:
    head = re.search(r"opcode: (\w+)[,;] status: (\w+)", text)
    flags = re.search(r"(?i)^;; flags:([a-z ]*);", text, re.MULTILINE)
    assert head and flags, text
    answer, authority, additional = (_section(text, name) for name in ("ANSWER", "AUTHORITY", "ADDITIONAL"))
    return Shown(head[2], head[1], frozenset(flags[1].split()), answer, authority, additional, text)


def _section(text: str, name: str) -> tuple[tuple[str, str, str], ...]:
    found = re.search(rf"^;; {name} SECTION:\n(.*?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    records = []
    for line in found[1].splitlines() if found else ():
        owner, _ttl, _class, rtype, rdata = line.split(None, 4)
        records.append((owner, rtype, rdata))
    return tuple(records)
