"""Outside: resolv.conf. Its text enters; nameservers, search list and options leave, as glibc would read them; and of
several such files the one that names real upstream servers is chosen (rule D19).

`parse` and `choose` are pure, `read` opens the files. Nothing here knows what becomes of the servers.
"""

import ipaddress
from collections.abc import Iterator, Sequence

import attrs

from meshdns import defaults, names
from meshdns.values import Endpoint, parse_domain, quote

_PORT = 53  # resolv.conf has no way to say another
# Of the number options: the least that makes sense, and glibc's cap (RES_MAXNDOTS, RES_MAXRETRANS, RES_MAXRETRY).
_NUMBERS = {"ndots": (0, 15), "timeout": (1, 30), "attempts": (1, 5)}
_FLAGS = {
    "rotate": "rotate",
    "edns0": "edns0",
    "use-vc": "use_vc",
    "trust-ad": "trust_ad",
    "no-aaaa": "no_aaaa",
    "single-request": "single_request",
    "single-request-reopen": "single_request_reopen",
}


@attrs.frozen(kw_only=True)
class ResolvConf:
    """What a resolv.conf says. `nameservers` are IP addresses as text, IPv6 with its scope if there was one; `search`
    wire names; `timeout` in seconds. None: nothing was said. `ignored` tells what could not be used, in sentences."""

    nameservers: tuple[str, ...] = ()
    search: tuple[bytes, ...] = ()
    ndots: int | None = None
    timeout: int | None = None
    attempts: int | None = None
    rotate: bool = False
    edns0: bool = False
    use_vc: bool = False
    trust_ad: bool = False
    no_aaaa: bool = False
    single_request: bool = False
    single_request_reopen: bool = False
    ignored: tuple[str, ...] = ()


@attrs.frozen
class Choice:
    """`conf` as it is to be used, `source` the file whose nameservers it has, `notes` what was passed over and why."""

    conf: ResolvConf
    source: str
    notes: tuple[str, ...] = ()


def parse(text: str) -> ResolvConf:
    """The content of a resolv.conf(5). What glibc does not understand is passed over, as glibc does."""
    servers: list[str] = []
    search: list[bytes] = []
    options: dict[str, int | bool] = {}
    ignored: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        # A keyword counts at the very start of a line only; so do the comment signs, which start no keyword.
        keyword, *words = line.split() if line[:1].strip() else [""]
        if keyword == "nameserver" and words:
            _add_server(words[0], number, servers, ignored)
        elif keyword in ("search", "domain") and words:  # the last of these lines wins
            search = list(_domains(words if keyword == "search" else words[:1], number, ignored))
        elif keyword == "options":
            options.update(_options(words))
    return ResolvConf(nameservers=tuple(servers), search=tuple(search), ignored=tuple(ignored), **options)  # type: ignore[arg-type]


def _add_server(word: str, number: int, servers: list[str], ignored: list[str]) -> None:
    address, percent, scope = word.partition("%")
    try:
        found = ipaddress.ip_address(address)
        if found.is_multicast or (percent and (found.version == 4 or not scope)):
            raise ValueError(word)
    except ValueError:
        ignored.append(f"line {number}: {quote(word)} is not the IP address of a nameserver")
        return
    if found.is_unspecified:  # the C libraries' way to say "this host"
        found = ipaddress.ip_address("127.0.0.1" if found.version == 4 else "::1")
    server = f"{found}%{scope}" if scope else str(found)
    if server in servers:
        return
    if len(servers) == defaults.RESOLV_NAMESERVERS:
        ignored.append(f"line {number}: nameserver {server} comes after {defaults.RESOLV_NAMESERVERS} others")
        return
    servers.append(server)


def _domains(words: Sequence[str], number: int, ignored: list[str]) -> Iterator[bytes]:
    seen: set[bytes] = {names.ROOT}  # "search ." says that there is none; X with the root behind it is X
    for word in words:
        try:
            found = names.ROOT if word == "." else parse_domain(word)
        except ValueError as error:
            ignored.append(f"line {number}: {error}")
            continue
        if found not in seen and len(seen) > defaults.RESOLV_SEARCH:
            ignored.append(f"line {number}: {quote(word)} comes after {defaults.RESOLV_SEARCH} other search domains")
        elif found not in seen:
            seen.add(found)
            yield found


def _options(words: Sequence[str]) -> Iterator[tuple[str, int | bool]]:
    for word in words:
        key, colon, value = word.partition(":")
        if key in _NUMBERS and value.isascii() and value.isdecimal():
            low, high = _NUMBERS[key]
            yield key, max(low, min(high, int(value[:9])))
        elif key in _FLAGS and not colon:
            yield _FLAGS[key], True


def choose(files: Sequence[tuple[str, str | None]], own: Sequence[Endpoint] = ()) -> Choice:
    """Of files (path, text; None: there is none) the first that names a real upstream.

    `own` are the agent's listen addresses, which are never an upstream. systemd-resolved's stub is one only where no
    file names another. Search list and ndots are always those of the first file, for they are what the clients have.
    """
    confs = [(path, ResolvConf() if text is None else parse(text)) for path, text in files]
    notes = [f"{files[0][0]} does not exist or cannot be read"] if files and files[0][1] is None else []
    first = confs[0][1] if files and files[0][1] is not None else None
    stubbed: tuple[str, ResolvConf] | None = None
    for path, conf in confs:
        notes += [f"{path}, {sentence}" for sentence in conf.ignored]
        others = tuple(server for server in conf.nameservers if not _is_own(server, own))
        notes += [f"{path}: {server} is this agent itself" for server in conf.nameservers if server not in others]
        if set(others) - set(defaults.RESOLV_STUBS):
            return _chosen(first, path, attrs.evolve(conf, nameservers=others), notes)
        if others:
            notes.append(f"{path} names only systemd-resolved's stub, {' and '.join(others)}")
            stubbed = stubbed or (path, attrs.evolve(conf, nameservers=others))
    if stubbed:
        notes.append(f"no file names another server, so the stub of {stubbed[0]} is asked")
        return _chosen(first, *stubbed, notes)
    notes.append("no nameserver was found; say one in upstream.servers")
    return _chosen(first, files[0][0] if files else "", attrs.evolve(first or ResolvConf(), nameservers=()), notes)


def _chosen(first: ResolvConf | None, path: str, conf: ResolvConf, notes: Sequence[str]) -> Choice:
    if first is not None:
        conf = attrs.evolve(conf, search=first.search, ndots=first.ndots)
    return Choice(conf, path, tuple(notes))


def _is_own(server: str, own: Sequence[Endpoint]) -> bool:
    return any(each.takes(server, _PORT) for each in own)


def read(
    path: str = defaults.RESOLV_CONF,
    own: Sequence[Endpoint] = (),
    fallbacks: Sequence[str] = defaults.RESOLV_FALLBACKS,
) -> Choice:
    """`choose` among a resolv.conf and the files that stand in for it. Never raises: a missing file is a note."""
    return choose([(each, content(each)) for each in (path, *fallbacks)], own)


def nameservers(path: str) -> tuple[str, ...]:
    """Those of one file, as its readers find them; none if there is no such file."""
    return parse(content(path) or "").nameservers


def is_doubtful(held: Choice, found: Choice) -> bool:
    """Whether the files may just be half written: no server is left, or only another file's."""
    lost = not found.conf.nameservers or found.source != held.source
    return lost and bool(held.conf.nameservers)


def content(path: str) -> str | None:
    """What a file says, as far as a resolv.conf can say anything; None: it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(defaults.RESOLV_MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
