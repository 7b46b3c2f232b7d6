"""Root: `meshdns bundle create`. A control plane's configuration and what is said of a VM enter; the VM's bundle leaves."""

import argparse
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TypeVar
from urllib.parse import urlsplit

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from meshdns import __version__, bundles, certificates, defaults, names
from meshdns.agent import config as agent_config
from meshdns.bundles import Bundle
from meshdns.certificates import Authority
from meshdns.cli import DONE, FAILED, USAGE, token
from meshdns.cli.screen import complain
from meshdns.clusters import Cluster
from meshdns.control.config import ControlConfig, load
from meshdns.control.tokens import Token
from meshdns.host.placing import File, place
from meshdns.pins import pin
from meshdns.settings import Invalid
from meshdns.values import parse_duration, parse_label, quote, time_text

T = TypeVar("T")
_ACCOUNT = re.compile(r"[A-Za-z0-9._-]{1,253}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_HEAD = "# Of the bundle for {host}, made {created} by meshdns {version}. The next `meshdns bundle install` replaces this file.\n"


class _Stop(Exception):
    """Why there is no bundle, and whose mistake it is."""

    def __init__(self, sentence: str, code: int = FAILED) -> None:
        super().__init__(sentence)
        self.code = code


@attrs.frozen(kw_only=True)
class _Wish:
    """What is to be made, all of it checked. `lifetime` and `expires` in seconds."""

    host: str
    namespace: str
    account: str
    cluster: Cluster
    control: ControlConfig
    urls: Sequence[str]
    lifetime: float
    expires: float


def run(args: argparse.Namespace) -> int:
    """Writes the bundle, and prints the digest that goes to the VM by another way."""
    try:
        return _make(args, datetime.now(UTC).timestamp())
    except _Stop as stop:
        complain(str(stop))
        return stop.code


def _make(args: argparse.Namespace, now: float) -> int:
    wish = _wish(args)
    files, added, until = _identity(args, wish, now)
    trust = _trust(args, wish)
    files |= {bundles.ROOT: certificates.text(trust)} if trust else {}
    expires = min(now + wish.expires, until)
    files[bundles.CONFIG] = _settings(args, wish, files, trust, now)
    bundle = Bundle(version=__version__, host=wish.host, created=now, expires=expires, files=files)
    data, output = bundles.to_bytes(bundle), args.output or f"{wish.host}.bundle"
    try:
        place([File(path=os.path.abspath(output), content=data, mode=0o600)])
    except OSError as error:
        raise _Stop(f"{output} cannot be written: {error.strerror}") from None
    if added:
        _add(str(wish.control.tokens), added, output)
    _tell(args, bundle, output, bundles.digest(data), until)
    return DONE


def _add(file: str, added: Token, output: str) -> None:
    """Make a token known; a bundle with one that is not is of no use."""
    try:
        token.add(file, added)
    except (OSError, Invalid) as error:
        os.unlink(output)
        why = f"\n{error}" if isinstance(error, Invalid) else f" {error.strerror}"
        raise _Stop(f"the tokens file {file} cannot be used, so there is no bundle:{why}") from None


def _tell(args: argparse.Namespace, bundle: Bundle, output: str, digest: str, until: float) -> None:
    if args.json:
        said = {"file": output, "digest": digest, "expires": time_text(bundle.expires), "identity": time_text(until)}
        print(json.dumps(said, indent=2))
        return
    print(digest)
    complain(
        f"{output} is the bundle for {bundle.host}. Whoever has it has the VM's identity: send it where nobody else reads it, "
        f"and the digest above by another way. On the VM, until {time_text(bundle.expires)}:\n"
        f"  meshdns bundle install {output} --digest {digest}"
    )


# What is asked for


def _wish(args: argparse.Namespace) -> _Wish:
    try:
        control = load(args.control)
    except Invalid as invalid:
        advice = "Name the control plane's configuration with --control FILE."
        raise _Stop(f"the control plane's configuration cannot be used:\n{invalid}\n{advice}") from None
    if not _HOST.fullmatch(args.host) or ".." in args.host:
        raise _Stop(f"{quote(args.host)} is not a host name", USAGE)
    if not _ACCOUNT.fullmatch(args.service_account):
        raise _Stop(f"{quote(args.service_account)} is not the name of a service account", USAGE)
    if args.token and args.csr:
        raise _Stop("--token and --csr are two identities; leave one out", USAGE)
    try:
        return _Wish(
            host=args.host,
            namespace=parse_label(args.namespace),
            account=args.service_account,
            cluster=_cluster(args.cluster, control.clusters),
            control=control,
            urls=[_numeric(each) for each in args.control_plane],
            lifetime=_positive(args.lifetime),
            expires=_positive(args.expires),
        )
    except ValueError as error:
        raise _Stop(str(error), USAGE) from None


def _cluster(name: str | None, clusters: Sequence[Cluster]) -> Cluster:
    found = [each for each in clusters if name in (None, each.name)]
    if len(found) == 1:
        return found[0]
    told = ", ".join(each.name for each in clusters)
    if name is None:
        raise ValueError(f"say which cluster the VM belongs to: --cluster, one of {told}")
    raise ValueError(f"there is no cluster {quote(name)}; there are {told}")


def _numeric(url: str) -> str:
    """A URL whose host is an address: to start, a VM must not need to resolve anything."""
    try:
        host = urlsplit(url).hostname or ""
        ip_address(host)
    except ValueError:
        advice = "write https://ADDRESS:PORT, and the name in its certificate as --name NAME"
        raise ValueError(f"{quote(url)} has no address: {advice}") from None
    return url.rstrip("/")


def _positive(text: str) -> float:
    seconds = parse_duration(text)
    if seconds < 60:
        raise ValueError(f"{quote(text)} is too short: a minute is the least")
    return seconds


# Who the VM is


def _identity(args: argparse.Namespace, wish: _Wish, now: float) -> tuple[dict[str, str], Token | None, float]:
    """Its files, a token to be added to the tokens file, and when it ends."""
    if args.token:
        if not wish.control.tokens:
            raise _Stop(f"{args.control} names no tokens file: the control plane takes no tokens")
        secret, made = token.make(wish.namespace, wish.account, now + wish.lifetime)
        return {bundles.TOKEN: f"{secret}\n"}, made, now + wish.lifetime
    authority = _authority(args, wish.control)
    if args.csr:
        public, secret_text = _read(args.csr, certificates.read_request), ""
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        public, secret_text = key.public_key(), certificates.key_text(key)
    uri = certificates.spiffe(names.text(wish.control.trust_domain), wish.namespace, wish.account)
    made_of = authority.issue(public, uri, wish.host, now, wish.lifetime, x509.random_serial_number())
    until = made_of.not_valid_after_utc.timestamp()
    if until <= now:
        raise _Stop(f"the authority of {wish.control.tls.client_ca} has expired on {time_text(until)}")
    return {bundles.IDENTITY: secret_text + certificates.text([made_of, *authority.behind])}, None, until


def _authority(args: argparse.Namespace, control: ControlConfig) -> Authority:
    key = args.ca_key or control.tls.client_ca_key
    if not control.tls.client_ca:
        raise _Stop(
            f"{args.control} has no tls.client_ca, so no certificate would be taken; make the bundle with --token"
        )
    if not key:
        raise _Stop("say where the key of tls.client_ca is, with --ca-key FILE; or make the bundle with --token")
    issuers = _read(control.tls.client_ca, bytes)
    return _read(key, lambda pem: Authority.read(issuers, pem))


# Whom it trusts


def _trust(args: argparse.Namespace, wish: _Wish) -> list[x509.Certificate]:
    """The authority that has issued the control plane's certificate; [] if it is not known, so that a pin must do."""
    chain = _read(wish.control.tls.certificate, certificates.read_certificates)
    said = certificates.names(chain[0])
    for host in [args.name] if args.name else [urlsplit(each).hostname or "" for each in wish.urls]:
        if host.lower() not in map(str.lower, said):
            told = ", ".join(said) or "nothing"
            raise _Stop(
                f"the control plane's certificate, {wish.control.tls.certificate}, is for {told}, not for {host}: "
                "write one of these as --name NAME, or use an address that is among them"
            )
    path = args.trust or wish.control.tls.client_ca
    root = certificates.trusted(chain, _read(path, certificates.read_certificates)) if path else None
    if args.trust and root is None:
        raise _Stop(f"{args.trust} has not issued {wish.control.tls.certificate}")
    return [root] if root else []


def _settings(
    args: argparse.Namespace, wish: _Wish, files: dict[str, str], trust: Sequence[x509.Certificate], now: float
) -> str:
    """The agent's configuration, which the agent's own reader has found good."""
    more = _read(args.settings, bytes.decode) if args.settings else ""
    leaf = _read(wish.control.tls.certificate, certificates.read_certificates)[0]
    pins = [pin(trust[0] if trust else leaf), *args.pin]
    head = _HEAD.format(host=wish.host, created=time_text(now), version=__version__)
    text = head + "".join(f"{line}\n" for line in _lines(args.name, wish, files, pins)) + more
    try:
        agent_config.parse(text.encode(), args.settings or "agent.yaml")
    except Invalid as invalid:
        raise _Stop(f"the agent could not use this configuration:\n{text}\n{invalid}") from None
    return text


def _lines(name: str | None, wish: _Wish, files: dict[str, str], pins: Sequence[str]) -> Iterator[str]:
    where = {
        "namespace": wish.namespace,
        "cluster": wish.cluster.name,
        "network": wish.cluster.network,
        "cluster_domain": names.text(wish.cluster.domain),
    }
    yield f"workload: {json.dumps(where)}"
    yield "table:"
    yield "  control_plane:"
    yield f"    urls: {json.dumps(list(wish.urls))}"
    if name:
        yield f"    name: {json.dumps(name)}"
    if bundles.ROOT in files:
        yield f"    ca: {bundles.ROOT}"
    yield f"    pins: {json.dumps(list(pins))}"
    if bundles.IDENTITY in files:  # key and certificate in one file, so that both are replaced at once
        yield f"    certificate: {defaults.STATE}/{bundles.IDENTITY}"
        yield f"    key: {defaults.STATE}/{bundles.IDENTITY}"
    else:
        yield f"    token_file: {defaults.STATE}/{bundles.TOKEN}"
    yield f"  snapshot: {defaults.STATE}/table.jsonl"


def _read(path: str, read: Callable[[bytes], T]) -> T:
    """What a file says; raises _Stop with its name."""
    try:
        with open(path, "rb") as opened:
            return read(opened.read(defaults.SETTINGS_MAX_BYTES))
    except OSError as error:
        raise _Stop(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _Stop(f"{path} is no text in UTF-8") from None
    except ValueError as error:
        raise _Stop(f"{path} {error}") from None
