"""Root: the agent's configuration. A file's bytes enter; an `AgentConfig` leaves, or every problem of the file at once.

Each class below is a section of the file, and each attribute a key (contract section 4), which `settings` reads.
"""
# ruff: noqa: RUF009 -- `setting` makes an attrs field

import re
from collections.abc import Iterator, Mapping
from os.path import abspath, dirname

import attrs

from meshdns import defaults, names
from meshdns.clusters import Cluster, apart, cluster
from meshdns.host.configfile import content
from meshdns.settings import (
    Endpoint,
    Reader,
    Server,
    Stated,
    boolean,
    choice,
    domain,
    duration,
    endpoint,
    exactly_one,
    keyed,
    label,
    listed,
    path,
    read,
    scalar,
    section,
    setting,
    size,
    status_page,
    unless,
    whole,
    word,
)
from meshdns.values import duration_text, parse_domain, parse_network, parse_server, quote

_PIN = re.compile(r"sha256/[A-Za-z0-9+/]{43}=")
_URL = re.compile(r"https://([^/?#@]+)/?")


def _allowed(text: str) -> str:
    """A word or network of `allow`, in its usual form."""
    if text in ("loopback", "any"):
        return text
    if not re.search("[0-9:]", text):
        raise ValueError(f"{quote(text)} is none of loopback, any, an address, a network like 10.0.0.0/8")
    return str(parse_network(text))


def _pin(text: str) -> str:
    if not _PIN.fullmatch(text):
        raise ValueError(
            f'{quote(text)} is not a pin; write sha256/ and 44 characters of Base64, as "meshdns pin" prints them'
        )
    return text


def _url(text: str) -> str:
    """The URL of a control plane, without a final slash."""
    found = _URL.fullmatch(text)
    if not found or not text.isprintable() or " " in text:
        raise ValueError(
            f"{quote(text)} is not the URL of a control plane; write it like https://control.example:15012"
        )
    return text.rstrip("/")


def _server_name(text: str) -> str:
    return names.text(parse_domain(text))


_servers = listed(scalar(parse_server))


@attrs.frozen(kw_only=True)
class Workload:
    """Who the agent works for."""

    namespace: str = setting(label)
    cluster: str = setting(word, "")
    network: str = setting(word, "")
    cluster_domain: bytes = setting(domain, names.parse(defaults.CLUSTER_DOMAIN))


@attrs.frozen(kw_only=True)
class ControlPlane:
    """Where tables come from over the network, and who is trusted there. `name` None: certificates bear the hosts of `urls`."""

    urls: tuple[str, ...] = setting(listed(scalar(_url), 1))
    name: str | None = setting(scalar(_server_name), None)
    ca: str | None = setting(path, None)
    pins: tuple[str, ...] = setting(listed(scalar(_pin)), ())
    certificate: str | None = setting(path, None)
    key: str | None = setting(path, None)
    token_file: str | None = setting(path, None)


def _trust(stated: Stated) -> Iterator[tuple[str, str]]:
    if stated.has("ca", "pins") and not stated.values["ca"] and not stated.values["pins"]:
        yield "", "ca or pins is required, to know the control plane by"
    if ("certificate" in stated.lines) != ("key" in stated.lines):
        there, absent = ("certificate", "key") if "certificate" in stated.lines else ("key", "certificate")
        yield there, f"it needs {absent} beside it"


_manifests: Reader[tuple[str | Cluster, ...]] = listed(
    lambda place: (cluster if place.node.kind == "map" else path)(place), 1
)


@attrs.frozen(kw_only=True)
class Table:
    """Where the name table comes from: exactly one of the first three."""

    control_plane: ControlPlane | None = setting(section(ControlPlane, _trust), None)
    manifests: tuple[str | Cluster, ...] | None = setting(_manifests, None)
    file: str | None = setting(path, None)
    snapshot: str | None = setting(path, None)


@attrs.frozen(kw_only=True)
class Mesh:
    """How mesh names are answered. `ttl` (seconds) and `zones` None: what the table says."""

    ttl: int | None = setting(unless("auto", None, whole(0, 86400)), None)
    zones: tuple[bytes, ...] | None = setting(unless("auto", None, listed(domain, 1)), None)


@attrs.frozen(kw_only=True)
class Upstream:
    """Where all other names are asked. No `servers`: those of resolv.conf. `timeout` (seconds) and `attempts` None:
    what the options of resolv.conf say, else UPSTREAM_TIMEOUT and UPSTREAM_ATTEMPTS of `defaults`."""

    resolv_conf: str = setting(path, defaults.RESOLV_CONF)
    servers: tuple[Server, ...] = setting(_servers, ())
    domains: Mapping[bytes, tuple[Server, ...]] = setting(keyed(parse_domain, listed(scalar(parse_server), 1)), {})
    policy: str = setting(choice("fastest", "ordered", "race"), "fastest")
    timeout: float | None = setting(duration(0.01, 60), None)
    attempts: int | None = setting(whole(1, 10), None)
    deadline: float = setting(duration(0.01, 60), defaults.UPSTREAM_DEADLINE)
    max_inflight: int = setting(whole(1, 60_000), defaults.UPSTREAM_MAX_INFLIGHT)


def _patient(stated: Stated) -> Iterator[tuple[str, str]]:
    if not stated.has("timeout", "deadline"):
        return
    timeout, deadline = stated.values["timeout"], stated.values["deadline"]
    if timeout is not None and deadline < timeout:
        ends = duration_text(deadline) if "deadline" in stated.lines else f"{duration_text(deadline)} (its default)"
        where = "deadline" if "deadline" in stated.lines else "timeout"
        yield where, f"the deadline of {ends} is shorter than the timeout of one server, {duration_text(timeout)}"


@attrs.frozen(kw_only=True)
class Cache:
    """What upstreams said, kept. Octets and seconds."""

    max_bytes: int = setting(size(0, 64 << 30), defaults.CACHE_MAX_BYTES)
    min_ttl: float = setting(duration(0, 86400), 0.0)
    max_ttl: float = setting(duration(0, 7 * 86400), defaults.CACHE_MAX_TTL)
    serve_stale: float = setting(duration(0, 7 * 86400), defaults.CACHE_SERVE_STALE)
    prefetch: bool = setting(boolean, True)


def _ordered_ttls(stated: Stated) -> Iterator[tuple[str, str]]:
    if stated.has("min_ttl", "max_ttl") and stated.values["min_ttl"] > stated.values["max_ttl"]:
        low, high = duration_text(stated.values["min_ttl"]), duration_text(stated.values["max_ttl"])
        yield ("min_ttl" if "min_ttl" in stated.lines else "max_ttl"), f"min_ttl {low} is longer than max_ttl {high}"


@attrs.frozen(kw_only=True)
class Log:
    """What is logged beyond starts, ends and changes."""

    queries: bool = setting(boolean, False)


@attrs.frozen(kw_only=True)
class AgentConfig:
    """The whole file. `allow` holds loopback, any, and networks as text; `search` None: the search list of resolv.conf;
    `status` None: off; `workers` None: as many as there are processors for us."""

    workload: Workload = setting(section(Workload))
    listen: tuple[Endpoint, ...] = setting(listed(endpoint, 1), tuple(Endpoint(*each) for each in defaults.LISTEN))
    allow: tuple[str, ...] = setting(listed(scalar(_allowed), 1), ("loopback",))
    search: tuple[bytes, ...] | None = setting(listed(domain), None)
    autopath: str = setting(choice("all", "mesh", "off"), "all")
    udp_max: int = setting(whole(512, 4096), defaults.UDP_MAX)
    workers: int | None = setting(unless("auto", None, whole(1, defaults.WORKERS_MOST)), 1)
    table: Table = setting(section(Table, exactly_one("control_plane", "manifests", "file"), apart("manifests")))
    mesh: Mesh = setting(section(Mesh), Mesh())
    upstream: Upstream = setting(section(Upstream, _patient), Upstream())
    cache: Cache = setting(section(Cache, _ordered_ttls), Cache())
    status: Endpoint | None = setting(status_page, Endpoint(*defaults.STATUS))
    log: Log = setting(section(Log), Log())


def _apart(stated: Stated) -> Iterator[tuple[str, str]]:
    """The agent's own addresses: one for each thing, and none of them an upstream (rule D19)."""
    listen: tuple[Endpoint, ...] = stated.values.get("listen", ())
    for each in listen:
        if any(other != each and other.takes(each.host, each.port) for other in listen):
            yield "listen", f"{each} is part of the other address with this port; keep one"
    status: Endpoint | None = stated.values.get("status")
    if status and any(each.takes(status.host, status.port) for each in listen):
        where = "status" if "status" in stated.lines else "listen"
        yield where, f"{status} cannot serve both DNS and the status page; give one another port"
    upstream = stated.values.get("upstream", Upstream())
    for server in (*upstream.servers, *(each for group in upstream.domains.values() for each in group)):
        if any(each.takes(server.host, server.port) for each in listen):
            yield "upstream", f"{server} is where this agent listens, and would make it ask itself; take it out"


_agent = section(AgentConfig, _apart)


def parse(data: bytes, file: str, base: str | None = None) -> AgentConfig:
    """The configuration in a file's content. `file` names it in problems; relative paths start at `base`, by default
    the directory in `file`. Raises settings.Invalid with every problem."""
    return read(data, file, _agent, base)


def load(file: str) -> AgentConfig:
    """The configuration in a file; its relative paths become absolute. Raises settings.Invalid."""
    return parse(content(file), file, dirname(abspath(file)))
