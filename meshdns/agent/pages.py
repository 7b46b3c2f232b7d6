"""Inside: the pages of the status address, as values: what is asked enters, a `Page` or a `Refused` leaves.

`Facts` are looked at and never changed. Of HTTP it knows methods, paths, parameters and three headers; of sockets nothing.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote

import attrs

from meshdns import __version__, names, wire
from meshdns.agent.explain import explain
from meshdns.agent.facts import Facts, overview, table_summary, unready
from meshdns.defaults import STATUS_PIECE
from meshdns.splitdict import SplitDict
from meshdns.table import Entry, Table, dump, to_istio
from meshdns.web import (
    JSON,
    LINES,
    METHODS,
    SHOWN,
    Asked,
    Page,
    Refused,
    check_host,
    json_page,
    pieces,
    text_page,
)


@attrs.frozen
class _Path:
    """What a path says, one line about it, and the parameters it takes."""

    show: Callable[[Facts, Asked], Page]
    about: str
    parameters: tuple[str, ...] = ()


def find(facts: Facts, asked: Asked, metrics: Callable[[], Page]) -> Page:
    """The page that is asked for; `metrics` gives that of /metrics. Raises Refused."""
    for host in asked.hosts:
        check_host(host, asked.address)
    if asked.method not in METHODS:
        raise Refused(405, "Only GET and HEAD are understood: there is nothing to change here.")
    path = _PATHS.get(asked.path)
    if path is None:
        raise Refused(404, f"There is no {quote(asked.path[:SHOWN])} here: / lists what there is.")
    for name in asked.parameters:
        if name not in path.parameters:
            takes = " and ".join(path.parameters) or "none"
            raise Refused(400, f'"{quote(name[:SHOWN])}" is no parameter of {asked.path}, which takes {takes}.')
    return metrics() if asked.path == "/metrics" else path.show(facts, asked)


# The pages


def _index(facts: Facts, asked: Asked) -> Page:
    lines = [f"{path:12} {each.about}" for path, each in _PATHS.items()]
    return text_page("\n".join([f"meshdns {__version__}", "", *lines]))


def _healthz(facts: Facts, asked: Asked) -> Page:
    return text_page("ok")


def _readyz(facts: Facts, asked: Asked) -> Page:
    if reason := unready(facts):
        raise Refused(503, reason)
    return text_page("ready")


def _status(facts: Facts, asked: Asked) -> Page:
    return json_page(overview(facts))


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
    shown = quote(asked[:SHOWN], safe="*")
    raise Refused(404, f"{shown} is no host of the table: /v1/explain?name={shown} says what the mesh makes of it.")


def _explain(facts: Facts, asked: Asked) -> Page:
    name = asked.parameters.get("name")
    if not name:
        raise Refused(400, "Say which name, as in /v1/explain?name=productpage&type=A.")
    try:
        owner, qtype = names.parse(name), wire.parse_type(asked.parameters.get("type", "A"))
    except ValueError as error:
        raise Refused(400, f"{str(error)[: 2 * SHOWN]}.") from None
    summary = table_summary(facts)
    told = {key: summary[key] for key in ("generation", "hosts", "age", "source")}
    upstreams = facts.upstream.status()
    return json_page(explain(facts.resolver, owner, qtype, now=facts.clock(), upstreams=upstreams, table=told))


_PATHS = {
    "/": _Path(_index, "this list"),
    "/healthz": _Path(_healthz, "200 as long as the agent runs"),
    "/readyz": _Path(_readyz, "200 once a name table is held, else 503 with the reason"),
    "/metrics": _Path(_index, "metrics for Prometheus"),
    "/v1/status": _Path(_status, "the state of the agent"),
    "/v1/table": _Path(_table, "the name table; ?host=NAME for one entry of it", ("host",)),
    "/v1/explain": _Path(_explain, "?name=NAME&type=A for why the name is answered as it is", ("name", "type")),
}
COUNTED = frozenset({"/metrics", "/v1/status"})  # those that tell what the workers have counted


def _wants_istio(accept: str) -> bool:
    """Whether the client takes JSON, and has not said that it takes our lines, too."""
    taken = {one.partition(";")[0].strip().lower() for one in accept.split(",")}
    return JSON in taken and LINES not in taken


def istio_pieces(entries: Mapping[str, Entry]) -> Iterator[bytes]:
    """Istio's own JSON of entries, in pieces (rule X4)."""
    hosts = sorted(entries)
    comma = ""
    yield b'{"table": {'
    for start in range(0, len(hosts), STATUS_PIECE):
        part = Table(SplitDict((host, entries[host]) for host in hosts[start : start + STATUS_PIECE]), (), 0, "")
        if inner := json.dumps(to_istio(part)["table"], ensure_ascii=False)[1:-1]:
            yield f"{comma}{inner}".encode()
            comma = ",\n"
    yield b"}}\n"
