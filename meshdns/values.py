"""Vocabulary: the values that people write into settings: durations, times, sizes, addresses, servers,
domains.

A text enters; a value leaves, or ValueError with a sentence that quotes the text and says what to write instead.
It knows nothing of files, keys and YAML, so a command that only needs a `Server` imports no more than this.
"""

import ipaddress
import re
from datetime import UTC, datetime

import attrs

from meshdns import names

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_OCTETS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_SIZE = re.compile(r"(0|[1-9][0-9]{0,14})(|KiB|MiB|GiB)")
_DECIMAL_SIZE = re.compile(r"([0-9]+) ?([kKmMgG])[iI]?[bB]?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DOMAIN = re.compile(r"[A-Za-z0-9_.-]+")
_SCOPE = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # an interface: IFNAMSIZ is 16 with its zero
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_DEFAULT_PORTS = {"udp": 53, "tcp": 53, "tls": 853}  # tls: RFC 7858 section 3.1


@attrs.frozen(order=True)
class Endpoint:
    """An address and port to listen on; prints as it is written, `127.0.0.1:53` or `[::1]:53`."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def takes(self, host: str, port: int) -> bool:
        """Whether what is sent to this address and port surely arrives here; `0.0.0.0` and `::` take loopback too."""
        if port != self.port or host == self.host:
            return port == self.port
        asked, own = ipaddress.ip_address(host.partition("%")[0]), ipaddress.ip_address(self.host.partition("%")[0])
        return own.is_unspecified and asked.is_loopback and own.version in (asked.version, 6)


@attrs.frozen(order=True)
class Server:
    """An upstream server: `transport` is udp, tcp or tls; `name` stands in its certificate (tls; None: its address).

    Prints as it may be written in a configuration.
    """

    host: str
    port: int = 53
    transport: str = "udp"
    name: str | None = None

    def __str__(self) -> str:
        scheme = "" if self.transport == "udp" else f"{self.transport}://"
        return f"{scheme}{Endpoint(self.host, self.port)}{f'?name={self.name}' if self.name else ''}"


def quote(text: str) -> str:
    """A text from a file as it may stand in a sentence: quoted, at most 60 characters, none that moves a terminal."""
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return '"' + "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown) + '"'


def parse_duration(text: str) -> float:
    """Seconds of `500ms`, `2s`, `5m`, `1h`, `1d`, `0`."""
    if text == "0":
        return 0.0
    found = _DURATION.fullmatch(text)
    if found:
        return round(float(found[1]) * _SECONDS[found[2]], 9)
    if re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"{quote(text)} has no unit; write {text}s or {text}ms")
    raise ValueError(f"{quote(text)} is not a duration; write it like 500ms, 2s, 5m or 1h")


def duration_text(seconds: float) -> str:
    """A duration in the largest unit that leaves it whole; `parse_duration` reads it back (to the microsecond)."""
    for unit in ("d", "h", "m", "s", "ms"):
        count = round(seconds / _SECONDS[unit], 6)
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{round(seconds * 1000, 3):g}ms" if seconds else "0s"


def parse_time(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time in UTC."""
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise ValueError(f"{quote(text)} is no time; write it like 2027-01-31T00:00:00Z") from None


def time_text(seconds: float) -> str:
    """Such a time as text."""
    return datetime.fromtimestamp(seconds, UTC).strftime(_TIME)


def parse_size(text: str) -> int:
    """Octets of `64KiB`, `16MiB`, `1GiB` or a plain number."""
    found = _SIZE.fullmatch(text)
    if found:
        return int(found[1]) * _OCTETS[found[2]]
    decimal = _DECIMAL_SIZE.fullmatch(text)
    if decimal and len(text) < 20:
        raise ValueError(f"{quote(text)} is not a size; write {int(decimal[1])}{decimal[2].upper()}iB")
    raise ValueError(f"{quote(text)} is not a size; write it like 64KiB, 16MiB or 1GiB")


def size_text(octets: int) -> str:
    """A size in the largest unit that leaves it whole; `parse_size` reads it back."""
    for unit in ("GiB", "MiB", "KiB"):
        if octets and octets % _OCTETS[unit] == 0:
            return f"{octets // _OCTETS[unit]}{unit}"
    return str(octets)


def parse_address(text: str) -> str:
    """An IPv4 or IPv6 address in its usual form. A link-local one must name its interface (`fe80::1%eth0`)."""
    address, _, scope = text.partition("%")
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        raise ValueError(f"{quote(text)} is not an IP address") from None
    if "%" in text and (found.version == 4 or not _SCOPE.fullmatch(scope)):
        raise ValueError(f"{quote(text)} is not an IP address")
    if found.version == 6 and found.is_link_local and not scope:
        raise ValueError(f"{quote(text)} is link-local and needs its interface; write {found}%eth0")
    return f"{found}%{scope}" if scope else str(found)


def parse_endpoint(text: str) -> Endpoint:
    """`127.0.0.1:15053` or `[::1]:15053`; the port must be there."""
    host, port = _split(text)
    if port is None:
        raise ValueError(f"{quote(text)} has no port; write {_meant(host)}")
    return Endpoint(_host(host, "127.0.0.1:15053"), port)


def _meant(text: str) -> Endpoint:
    """What an address without port, or IPv6 with a port but no brackets, was probably meant to be."""
    host, _, port = text.rpartition(":")
    try:
        return Endpoint(str(ipaddress.IPv6Address(host)), int(port))
    except ValueError:
        return Endpoint(_host(text, "127.0.0.1:15053"), 15053)


def _split(text: str) -> tuple[str, int | None]:
    """Host and port of `1.2.3.4`, `1.2.3.4:53`, `::1`, `[::1]`, `[::1]:53`; the host is not looked at yet."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{quote(text)} is not an address and port; write it like [::1]:53")
        port = rest[1:] if rest else None
    elif text.count(":") > 1:
        return text, None
    else:
        host, colon, after = text.partition(":")
        port = after if colon else None
    if port is None:
        return host, None
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise ValueError(f"{quote(text)} has a wrong port; it must be a number from 1 to 65535")
    return host, int(port)


def _host(text: str, example: str) -> str:
    try:
        return parse_address(text)
    except ValueError as error:
        if re.search("[g-zG-Z]", text) and "%" not in text:  # a host name: looking it up would ask this very agent
            raise ValueError(f"{quote(text)} is a name; an IP address is wanted, like {example}") from None
        raise error


def parse_loopback(text: str) -> Endpoint:
    """An endpoint that only this host can reach: what a status page listens on."""
    found = parse_endpoint(text)
    if not ipaddress.ip_address(found.host.partition("%")[0]).is_loopback:
        near = Endpoint("::1" if ":" in found.host else "127.0.0.1", found.port)
        raise ValueError(
            f"{quote(text)} is not a loopback address, and the page asks nobody for a password; write {near}"
        )
    return found


def parse_server(text: str, default_port: int | None = None) -> Server:
    """An upstream server (rule D23): `1.2.3.4`, `1.2.3.4:5353`, `[::1]:53`, `::1`, `tcp://1.2.3.4`,
    `tls://1.1.1.1?name=cloudflare-dns.com`. Without a port: `default_port`, else 53, with tls 853."""
    scheme = _SCHEME.fullmatch(text)
    transport, rest = (scheme[1].lower(), scheme[2]) if scheme else ("udp", text)
    if transport not in _DEFAULT_PORTS:
        raise ValueError(
            f"{quote(text)}: {transport}:// is unknown; write an address, tcp://ADDRESS or tls://ADDRESS?name=NAME"
        )
    rest, mark, query = rest.partition("?")
    name = _certificate_name(text, transport, query) if mark else None
    host, port = _split(rest)
    address = _host(host, "tls://1.1.1.1?name=cloudflare-dns.com" if transport == "tls" else "10.0.0.53")
    kind = ipaddress.ip_address(address)
    if kind.is_unspecified or kind.is_multicast:
        raise ValueError(f"{quote(text)} is not the address of one server")
    return Server(address, port or default_port or _DEFAULT_PORTS[transport], transport, name)


def _certificate_name(text: str, transport: str, query: str) -> str:
    key, _, value = query.partition("=")
    if transport != "tls":
        raise ValueError(f"{quote(text)}: only tls:// takes ?name=NAME; take it out")
    if key != "name":
        raise ValueError(f"{quote(text)}: after the ? only name=NAME is known, the name in the server's certificate")
    return names.text(parse_domain(value))


def parse_network(text: str) -> Network:
    """`10.0.0.0/8`, `fd00::/8` or one address."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        whole = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{quote(text)} is not an address or a network like 10.0.0.0/8") from None
    raise ValueError(f"{quote(text)} has bits set behind its prefix; write {whole}")


def parse_domain(text: str) -> bytes:
    """A domain as wire bytes (see `names`): letters, digits, "-" and "_" only, and never the root."""
    if not _DOMAIN.fullmatch(text):
        raise ValueError(f'{quote(text)} is not a domain; letters, digits, "-" and "_" between dots are possible')
    if text == ".":
        raise ValueError('"." is the root of all names, which is no domain to write here')
    return names.parse(text)


def parse_label(text: str) -> str:
    """One DNS label as Kubernetes names its namespaces (RFC 1123 section 2.1)."""
    if not _LABEL.fullmatch(text):
        raise ValueError(
            f'{quote(text)} is not a DNS label; lower-case letters, digits and inner "-" are possible, at most 63'
        )
    return text
