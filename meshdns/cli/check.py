"""Root: `meshdns check`. Names of files enter; every problem in them leaves as `file:line: reason`, one in each line.

Configurations of agents and control planes, name tables and manifests are told apart by their content. What a configuration
names, its table file or its manifests, is looked at too; a directory is one of manifests.
"""

import argparse
import errno
import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator

import attrs

from meshdns import defaults, settings, table
from meshdns.agent import config
from meshdns.cli import DONE, FAILED
from meshdns.control import config as control
from meshdns.control.manifests import Manifests
from meshdns.settings import Problem
from meshdns.values import quote, size_text

_KEYS = frozenset(field.name for field in attrs.fields(config.AgentConfig))
_FIRST_KEY = re.compile(rb'\{\s*("?)(\w+)\1\s*:')
_MANIFEST = re.compile(rb'(?:^|[{,])\s*"?apiVersion"?\s*:', re.MULTILINE)
_CONTROL = re.compile(rb'(?:^|[{,])\s*"?(?:clusters|tls|vips|trust_domain)"?\s*:', re.MULTILINE)
_SEEN_FOR_KIND = 4096  # octets that decide what a file is


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="a configuration, a name table, or manifests: a file or a directory"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the problems of `args.files`; a file named twice, or by a configuration too, is read once."""
    seen: set[str] = set()
    problems = [problem for file in args.files for problem in check(file, seen)]
    if args.json:
        print(json.dumps({"files": len(seen), "problems": [attrs.asdict(problem) for problem in problems]}, indent=2))
    else:
        for problem in problems:
            print(_printable(str(problem)))
        print(summary(len(seen), problems), file=sys.stderr)
    return FAILED if problems else DONE


def _printable(text: str) -> str:
    """What any terminal takes: a file may be named in letters that this one has not."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def summary(files: int, problems: list[Problem]) -> str:
    checked = f"{files} file{'' if files == 1 else 's'} checked"
    if not problems:
        return f"{checked}, no problems"
    wrong = len({problem.file for problem in problems})
    return f"{checked}, {len(problems)} problem{'' if len(problems) == 1 else 's'} in {wrong}"


def check(file: str, seen: set[str]) -> Iterator[Problem]:
    """The problems of one file and of those that it refers to. `seen` holds the real paths of files already checked."""
    if os.path.realpath(file) in seen:
        return
    if os.path.isdir(file):
        yield from check_manifests([file], seen)
        return
    seen.add(os.path.realpath(file))
    try:
        data = _content(file)
    except OSError as error:
        yield Problem(file, 1, f"cannot be read: {error.strerror}")
        return
    start = data[:_SEEN_FOR_KIND]
    if _MANIFEST.search(start):
        seen.discard(os.path.realpath(file))
        yield from check_manifests([file], seen)
    elif is_table(data):
        yield from check_table(file, data)
    elif _CONTROL.search(start):
        yield from check_control(file, data, seen)
    else:
        yield from check_config(file, data, seen)


def _content(file: str) -> bytes:
    """A regular file's octets, one more than any may have; raises OSError."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would make open wait for ever
    with open(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file; save what it gives in one")
        return opened.read(defaults.TABLE_FILE_BYTES + 1)


def check_manifests(paths: Iterable[str], seen: set[str]) -> Iterator[Problem]:
    """The problems of one cluster's manifests: files, and directories with all below them."""
    from meshdns.control.sources.files import content, files  # and Twisted with it

    manifests = Manifests("")
    troubles: dict[str, str] = {}
    for path in paths:
        for file, _ in files(path, troubles):
            if os.path.realpath(file) in seen:
                continue
            seen.add(os.path.realpath(file))
            try:
                data = content(file)
            except OSError as error:
                troubles[file] = f"cannot be read: {error.strerror}"
                continue
            for _ in manifests.feed(file, data):
                pass
    for path, told in troubles.items():
        yield Problem(path, 1, told.removesuffix("; what it gave last stays"))
    for each in manifests.problems:
        yield Problem(each.file, each.line, f"{each.subject}: {each.reason}" if each.subject else each.reason)


def check_control(file: str, data: bytes, seen: set[str]) -> Iterator[Problem]:
    try:
        checked = control.parse(data, file)
    except settings.Invalid as error:
        yield from error.problems
        return
    for cluster in checked.clusters:
        if cluster.manifests is not None:
            yield from check_manifests([cluster.manifests], seen)


def is_table(data: bytes) -> bool:
    """Whether a file's content is meant to be a name table: JSON, unless its first key is one of a configuration."""
    start = data[:_SEEN_FOR_KIND].removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start.startswith((b"{", b"[")):
        return False
    first = _FIRST_KEY.match(start)
    if not first:
        return True
    key = first[2].decode("ascii", "replace")
    return key not in _KEYS or (key == "table" and first[1] == b'"')  # Istio's JSON begins with {"table"


def check_table(file: str, data: bytes) -> Iterator[Problem]:
    if len(data) > defaults.TABLE_FILE_BYTES:
        yield Problem(file, 1, f"the file is larger than {size_text(defaults.TABLE_FILE_BYTES)}; is it the right one?")
        return
    try:
        table.read(data)
    except table.BadTable as error:
        yield Problem(file, max(1, error.line), error.reason)


def check_config(file: str, data: bytes, seen: set[str]) -> Iterator[Problem]:
    try:
        checked = config.parse(data, file)
    except settings.Invalid as error:
        yield from error.problems
        return
    for each in checked.table.manifests or ():
        path = each if isinstance(each, str) else each.manifests
        if path is not None:
            yield from check_manifests([path], seen)
    path = checked.table.file
    if path is None or os.path.realpath(path) in seen:
        return
    try:
        content = _content(path)
    except OSError as error:
        line = settings.lines(data)["table.file"]
        yield Problem(file, line, f"table.file: {quote(path)} cannot be read: {error.strerror}")
        return
    seen.add(os.path.realpath(path))
    yield from check_table(path, content)
