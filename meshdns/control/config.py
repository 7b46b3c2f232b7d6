"""Root: the control plane's configuration. A file's bytes enter; a `ControlConfig` leaves, or every problem of it at once.

Each class below is a section of the file, and each attribute a key (contract section 4), which `settings` reads.
"""
# ruff: noqa: RUF009 -- `setting` makes an attrs field

import re
from collections.abc import Callable, Iterator
from os.path import abspath, dirname, join

import attrs

from meshdns import defaults
from meshdns.clusters import Cluster, apart, cluster
from meshdns.host.configfile import content
from meshdns.settings import (
    Endpoint,
    Network,
    Place,
    Stated,
    domain,
    endpoint,
    label,
    listed,
    path,
    read,
    scalar,
    section,
    setting,
    status_page,
)
from meshdns.values import parse_domain, parse_label, parse_network, quote

_STORE = re.compile(r"sqlite:(.+)")
_EVERYBODY = "*"
_EXPORTS = ("*", ".", "~")


def _export(text: str) -> str:
    """A word of exportTo: `*`, `.`, `~` or a namespace."""
    if text in _EXPORTS:
        return text
    try:
        return parse_label(text)
    except ValueError:
        raise ValueError(f"{quote(text)} is none of *, ., ~ and the name of a namespace") from None


def _range(version: int, narrowest: int) -> Callable[[str], Network]:
    """A network for VIPs, of one IP version; one too narrow could not hold anything."""

    def convert(text: str) -> Network:
        found = parse_network(text)
        if found.version != version:
            raise ValueError(f"{quote(text)} is not an IPv{version} network")
        if found.prefixlen > narrowest:
            raise ValueError(f"{quote(text)} has room for no VIP; /{narrowest} is the narrowest possible")
        return found

    return convert


def _store(place: Place) -> str:
    """`sqlite:FILE`; a relative file starts at the directory of the configuration."""

    def convert(text: str) -> str:
        found = _STORE.fullmatch(text)
        if not found:
            raise ValueError(f"{quote(text)} is no store; write sqlite:FILE")
        return f"sqlite:{join(place.sheet.base, found[1])}"

    return scalar(convert)(place)


@attrs.frozen(kw_only=True)
class Tls:
    """Who the control plane is to agents, and whose certificates it takes from them (none without `client_ca`). With
    `client_ca_key` it also renews these."""

    certificate: str = setting(path)
    key: str = setting(path)
    client_ca: str | None = setting(path, None)
    client_ca_key: str | None = setting(path, None)


def _signs(stated: Stated) -> Iterator[tuple[str, str]]:
    if stated.has("client_ca", "client_ca_key") and stated.values["client_ca_key"] and not stated.values["client_ca"]:
        yield "client_ca_key", "it needs client_ca beside it, whose key it is"


@attrs.frozen(kw_only=True)
class Vips:
    """Where addresses for external services come from, and where they are remembered."""

    ipv4: Network = setting(scalar(_range(4, 30)), parse_network(defaults.VIPS_IPV4))
    ipv6: Network = setting(scalar(_range(6, 126)), parse_network(defaults.VIPS_IPV6))
    store: str = setting(_store, f"sqlite:{defaults.VIPS_STORE}")


@attrs.frozen(kw_only=True)
class ControlConfig:
    """The whole file. `export_to` is what services without a word of their own are seen by; `status` None: off."""

    listen: tuple[Endpoint, ...] = setting(
        listed(endpoint, 1), tuple(Endpoint(*each) for each in defaults.CONTROL_LISTEN)
    )
    tls: Tls = setting(section(Tls, _signs))
    trust_domain: bytes = setting(domain, parse_domain(defaults.CLUSTER_DOMAIN))
    tokens: str | None = setting(path, None)
    clusters: tuple[Cluster, ...] = setting(listed(cluster, 1))
    vips: Vips = setting(section(Vips), Vips())
    root_namespace: str = setting(label, defaults.ROOT_NAMESPACE)
    export_to: tuple[str, ...] = setting(listed(scalar(_export), 1), (_EVERYBODY,))
    status: Endpoint | None = setting(status_page, Endpoint(*defaults.CONTROL_STATUS))


def _identified(stated: Stated) -> Iterator[tuple[str, str]]:
    """Without certificates and tokens nobody could ever be let in: a mistake, and no way to be safe."""
    if stated.has("tls", "tokens") and not stated.values["tls"].client_ca and not stated.values["tokens"]:
        yield "tls", "tls.client_ca or tokens is required, to know agents by; without them every agent is refused"


def _one_word(stated: Stated) -> Iterator[tuple[str, str]]:
    words = stated.values.get("export_to", ())
    if len(words) > 1 and (odd := [each for each in words if each in ("*", "~")]):
        yield "export_to", f"{quote(odd[0])} leaves no room for other words; keep it alone, or take it out"


def _apart(stated: Stated) -> Iterator[tuple[str, str]]:
    listen: tuple[Endpoint, ...] = stated.values.get("listen", ())
    for each in listen:
        if any(other != each and other.takes(each.host, each.port) for other in listen):
            yield "listen", f"{each} is part of the other address with this port; keep one"
    status: Endpoint | None = stated.values.get("status")
    if status and any(each.takes(status.host, status.port) for each in listen):
        where = "status" if "status" in stated.lines else "listen"
        yield where, f"{status} cannot serve both agents and the status page; give one another port"


_control = section(ControlConfig, _identified, _one_word, apart("clusters"), _apart)


def parse(data: bytes, file: str, base: str | None = None) -> ControlConfig:
    """The configuration in a file's content. `file` names it in problems; relative paths start at `base`, by default
    the directory in `file`. Raises settings.Invalid with every problem."""
    return read(data, file, _control, base)


def load(file: str) -> ControlConfig:
    """The configuration in a file; its relative paths become absolute. Raises settings.Invalid."""
    return parse(content(file), file, dirname(abspath(file)))
