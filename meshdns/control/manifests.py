"""Inside: files of manifests -> one cluster's objects, and what is wrong with them.

A file's content enters whenever it changes; what became of the objects leaves as an `Update`. A document is known by its text,
so that of a file of thousands only those that changed are read again. An object whose document went bad stays as it was; of
one that stands twice the first by file and place counts. It must never know of directories or time.
"""

from collections import Counter
from collections.abc import Generator, Iterable, Iterator

import attrs

from meshdns.control.documents import BadDocument, compose, parts
from meshdns.control.kinds import Read, read
from meshdns.control.model import DUPLICATE, INVALID, Object, Problem, Ref, Update
from meshdns.defaults import MANIFEST_FILE_BYTES, MANIFEST_STEP

Steps = Generator[None, None, Update]  # yields to breathe


@attrs.frozen
class _Document:
    """One document of a file, read: what it holds, and the line of its file that it begins in."""

    text: str
    line: int
    reads: tuple[Read, ...]  # lines within the document


@attrs.define
class _File:
    documents: list[_Document] = attrs.field(factory=list)
    kept: dict[Ref, tuple[int, Object]] = attrs.field(
        factory=dict
    )  # all it gives, by order, the last good ones among them
    problems: list[Problem] = attrs.field(factory=list)
    good: set[Ref] = attrs.field(factory=set)  # given by a document that is right


class Manifests:
    """All files of one cluster."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._files: dict[str, _File] = {}
        self._claims: dict[Ref, list[str]] = {}  # the files that an object stands in, sorted
        self._doubled: set[Ref] = set()  # those that stand in several
        self._given: dict[Ref, Object] = {}

    # from the source and the status page

    @property
    def problems(self) -> list[Problem]:
        """What is wrong now, by file and line."""
        found = [problem for file in self._files.values() for problem in file.problems]
        found += [self._twice(ref, self._claims[ref]) for ref in self._doubled]
        return sorted(found, key=lambda problem: (problem.file, problem.line, problem.reason))

    @property
    def counted(self) -> dict[str, int]:
        """Objects by kind, those of other people's kinds among them."""
        return dict(Counter(each.kind for file in self._files.values() for one in file.documents for each in one.reads))

    def feed(self, path: str, data: bytes) -> Steps:
        """A file's content as it is now."""
        old = self._files.get(path, _File())
        known = {document.text: document.reads for document in old.documents}
        new = _File()
        broken = False
        text = _decoded(data)
        if isinstance(text, str):
            for count, part in enumerate(parts(text), 1):
                reads = known.get(part.text)
                new.documents.append(_Document(part.text, part.line, reads or self._read(part.text)))
                if reads is None and count % MANIFEST_STEP == 0:
                    yield
        else:
            new.problems.append(Problem(INVALID, self._cluster, path, *text))
            broken = True
        for document in new.documents:
            broken |= self._gather(path, document, new, old)
        for ref, (order, kept) in old.kept.items() if broken else ():
            new.kept.setdefault(ref, (order, kept))  # nobody can say which of them the broken document was
        self._files[path] = new
        return self._settle(path, old.kept.keys() | new.kept.keys())

    def drop(self, path: str) -> Update:
        """A file is gone, and its objects with it."""
        old = self._files.pop(path, _File())
        return self._settle(path, old.kept.keys())

    # Reading

    def _read(self, text: str) -> tuple[Read, ...]:
        try:
            return tuple(read(self._cluster, compose(text)))
        except BadDocument as bad:
            return (Read("", bad.line, problems=((bad.line, bad.reason),)),)

    def _gather(self, path: str, document: _Document, new: _File, old: _File) -> bool:
        """What a document gives to its file; whether it is not even told whose it is."""
        nameless = False
        for each in document.reads:
            ref = each.ref
            new.problems += [
                Problem(INVALID, self._cluster, path, document.line + line - 1, str(ref) if ref else each.kind, reason)
                for line, reason in each.problems
            ]
            if ref is None:
                nameless |= bool(each.problems)
            elif each.object is not None:
                line = document.line + each.line - 1
                placed = attrs.evolve(each.object, place=f"{path}:{line}")
                if ref in new.good:
                    told = f"this object stands in line {new.kept[ref][0]} of the file, too, which counts; keep one"
                    new.problems.append(Problem(DUPLICATE, self._cluster, path, line, str(ref), told))
                else:
                    new.good.add(ref)
                    new.kept[ref] = line, placed
            elif ref in old.kept:
                new.kept.setdefault(ref, old.kept[ref])
        return nameless

    # What counts

    def _settle(self, path: str, refs: Iterable[Ref]) -> Update:
        """What became of these objects by a change of one file."""
        changed: list[Object] = []
        gone: list[Ref] = []
        for ref in sorted(refs):
            paths = [each for each in self._claims.get(ref, ()) if each != path]
            if path in self._files and ref in self._files[path].kept:
                paths = sorted([*paths, path])
            before, now = self._given.get(ref), None
            if paths:
                self._claims[ref] = paths
                now = self._given[ref] = self._files[paths[0]].kept[ref][1]
            else:
                self._claims.pop(ref, None)
                self._given.pop(ref, None)
            if len(paths) > 1:
                self._doubled.add(ref)
            else:
                self._doubled.discard(ref)
            if now is None and before is not None:
                gone.append(ref)
            elif now is not None and now != before:
                changed.append(now)
        return Update(tuple(changed), tuple(gone))

    def _twice(self, ref: Ref, paths: list[str]) -> Problem:
        line = self._files[paths[1]].kept[ref][0]
        told = f"this object stands in {paths[0]}:{self._files[paths[0]].kept[ref][0]}, too, which counts; keep one"
        return Problem(DUPLICATE, self._cluster, paths[1], line, str(ref), told)

    def objects(self) -> Iterator[Object]:
        """All that counts now."""
        yield from self._given.values()


def _decoded(data: bytes) -> str | tuple[int, str, str]:
    """A file's text; or line, subject and sentence of the problem."""
    if len(data) > MANIFEST_FILE_BYTES:
        return 1, "", f"the file is larger than {MANIFEST_FILE_BYTES >> 20} MiB; split it"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return data.count(b"\n", 0, error.start) + 1, "", "the file is not UTF-8 text; save it as UTF-8"
    return text.replace("\r\n", "\n")
