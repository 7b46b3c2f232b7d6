"""Inside: the pages of the status address, as values: what is asked enters, a `Page` or a `Refused` leaves.

`Facts` are looked at and never changed. Of HTTP it knows methods, paths, parameters and three headers; of sockets nothing.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from urllib.parse import quote

import attrs

from meshdns import __version__, names, wire
from meshdns.agent.facts import Facts, explained, overview, unready
from meshdns.defaults import STATUS_PIECE
from meshdns.table import Entry, Table, dump, to_istio

LINES, JSON, TEXT = "application/jsonl", "application/json", "text/plain; charset=utf-8"
METHODS = ("GET", "HEAD")
_SHOWN = 300  # characters of what was asked that a sentence repeats


@attrs.frozen
class Asked:
    """A request: method, path, parameters, the Host and Accept headers as they came, and the address it came to."""

    method: str
    path: str
    parameters: Mapping[str, str]
    hosts: Sequence[str]
    accept: str
    address: str


@attrs.frozen
class Page:
    """What is said: the whole of it, or pieces made as they are sent. `etag` is quoted, as the header has it."""

    type: str
    content: bytes | Iterator[bytes]
    etag: str | None = None


class Refused(Exception):
    """Why there is no page: a status code, and a sentence that says what to do."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@attrs.frozen
class _Path:
    """What a path says, one line about it, and the parameters it takes."""

    show: Callable[[Facts, Asked], Page]
    about: str
    parameters: tuple[str, ...] = ()


def find(facts: Facts, asked: Asked, metrics: Callable[[], Page]) -> Page:
    """The page that is asked for; `metrics` gives that of /metrics. Raises Refused."""
    for host in asked.hosts:
        _check_host(host, asked.address)
    if asked.method not in METHODS:
        raise Refused(405, "Only GET and HEAD are understood: there is nothing to change here.")
    path = _PATHS.get(asked.path)
    if path is None:
        raise Refused(404, f"There is no {quote(asked.path[:_SHOWN])} here: / lists what there is.")
    for name in asked.parameters:
        if name not in path.parameters:
            takes = " and ".join(path.parameters) or "none"
            raise Refused(400, f'"{quote(name[:_SHOWN])}" is no parameter of {asked.path}, which takes {takes}.')
    return metrics() if asked.path == "/metrics" else path.show(facts, asked)


def _check_host(said: str, own: str) -> None:
    """Against DNS rebinding: a page of evil.example may make its own name mean 127.0.0.1, and read what we say."""
    host = said[1:].partition("]")[0] if said.startswith("[") else said.partition(":")[0]
    if host.lower() in ("", "localhost"):
        return
    try:
        ip_address(host)
    except ValueError:
        raise Refused(403, f"Ask for this page by address, as in http://{own}/, or as localhost.") from None


# The pages


def _index(facts: Facts, asked: Asked) -> Page:
    lines = [f"{path:12} {each.about}" for path, each in _PATHS.items()]
    return _text("\n".join([f"meshdns {__version__}", "", *lines]))


def _healthz(facts: Facts, asked: Asked) -> Page:
    return _text("ok")


def _readyz(facts: Facts, asked: Asked) -> Page:
    if reason := unready(facts):
        raise Refused(503, reason)
    return _text("ready")


def _status(facts: Facts, asked: Asked) -> Page:
    return _json(overview(facts))


def _table(facts: Facts, asked: Asked) -> Page:
    held = facts.held
    if held is None:
        raise Refused(503, unready(facts) or "")
    istio = _wants_istio(asked.accept)
    if "host" in asked.parameters:
        only = _entry(held, asked.parameters["host"])
        return Page(
            JSON if istio else LINES, b"".join(istio_pieces({only.host: only}) if istio else pieces([only.line]))
        )
    if istio:
        # The same table in other words: a weak tag, since a strong one would promise the same bytes.
        return Page(JSON, istio_pieces(held.entries), f'W/"{held.generation}"')
    return Page(LINES, pieces(dump(held)), f'"{held.generation}"')


def _entry(held: Table, host: str) -> Entry:
    asked = host.lower().removesuffix(".")
    if entry := held.entries.get(asked):
        return entry
    shown = quote(asked[:_SHOWN], safe="*")
    raise Refused(404, f"{shown} is no host of the table: /v1/explain?name={shown} says what the mesh makes of it.")


def _explain(facts: Facts, asked: Asked) -> Page:
    name = asked.parameters.get("name")
    if not name:
        raise Refused(400, "Say which name, as in /v1/explain?name=productpage&type=A.")
    try:
        question = names.parse(name), wire.parse_type(asked.parameters.get("type", "A"))
    except ValueError as error:
        raise Refused(400, f"{str(error)[: 2 * _SHOWN]}.") from None
    return _json(explained(facts, *question))


_PATHS = {
    "/": _Path(_index, "this list"),
    "/healthz": _Path(_healthz, "200 as long as the agent runs"),
    "/readyz": _Path(_readyz, "200 once a name table is held, else 503 with the reason"),
    "/metrics": _Path(_index, "metrics for Prometheus"),
    "/v1/status": _Path(_status, "the state of the agent"),
    "/v1/table": _Path(_table, "the name table; ?host=NAME for one entry of it", ("host",)),
    "/v1/explain": _Path(_explain, "?name=NAME&type=A for why the name is answered as it is", ("name", "type")),
}


def _text(text: str) -> Page:
    return Page(TEXT, f"{text}\n".encode())


def _json(value: object) -> Page:
    return Page(JSON, json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n")


def _wants_istio(accept: str) -> bool:
    """Whether the client takes JSON, and has not said that it takes our lines, too."""
    taken = {one.partition(";")[0].strip().lower() for one in accept.split(",")}
    return JSON in taken and LINES not in taken


def pieces(lines: Iterable[str]) -> Iterator[bytes]:
    """Lines in pieces of some that are made quickly."""
    piece: list[str] = []
    for line in lines:
        piece.append(line + "\n")
        if len(piece) >= STATUS_PIECE:
            yield "".join(piece).encode()
            piece.clear()
    yield "".join(piece).encode()


def istio_pieces(entries: Mapping[str, Entry]) -> Iterator[bytes]:
    """Istio's own JSON of entries, in pieces (rule X4)."""
    hosts = sorted(entries)
    comma = ""
    yield b'{"table": {'
    for start in range(0, len(hosts), STATUS_PIECE):
        part = Table({host: entries[host] for host in hosts[start : start + STATUS_PIECE]}, (), 0, "")
        if inner := json.dumps(to_istio(part)["table"], ensure_ascii=False)[1:-1]:
            yield f"{comma}{inner}".encode()
            comma = ",\n"
    yield b"}}\n"
