"""Outside: TLS between agents and control planes: certificates read again when they change, and who is trusted (rule X9).

Paths of PEM files, pins and names enter; TLS connections for Twisted leave, and sentences on why somebody was refused. One
callback judges certificate chain, pin and name together: two would undo each other. It must never know what is said
over a connection.
"""

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, cast

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import VerificationError, hazmat
from service_identity.hazmat import verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from meshdns.net.trust import TrustProblem
from meshdns.pins import pin

_log = Logger()
# What is wrong with a chain only because nobody has named its authority: a pin may stand in for that (X509_V_ERR_*).
_NO_AUTHORITY = frozenset({18, 19, 20, 21, 27})
_OUT_OF_TIME = frozenset({9, 10})  # not valid yet, not valid any more
_OK = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT


def _stamps(paths: Sequence[str | None]) -> tuple[tuple[int, ...], ...]:
    found: list[tuple[int, ...]] = []
    for path in filter(None, paths):
        try:
            seen = os.stat(path)
        except OSError as error:
            found.append((error.errno or 0,))
        else:
            found.append((seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns))
    return tuple(found)


class _Kept:
    """A context made of files, and made anew when they have changed; one that cannot be leaves the old one in force."""

    def __init__(self, paths: Sequence[str | None], make: Callable[[], SSL.Context]) -> None:
        """Raises TrustProblem."""
        self._paths = paths
        self._make = make
        self._seen = _stamps(paths)
        self._context = make()
        self.problem = ""

    def context(self) -> SSL.Context:
        now = _stamps(self._paths)
        if now != self._seen:
            self._seen = now
            try:
                self._context, self.problem = self._make(), ""
                _log.info("certificates were read again: {paths}", paths=", ".join(filter(None, self._paths)))
            except TrustProblem as problem:
                self.problem = str(problem)
                _log.error("certificates stay as they were: {problem}", problem=self.problem)
        return self._context


def _context(method: int, certificate: str | None, key: str | None) -> SSL.Context:
    """A context for TLS 1.2 and newer, with our own certificate if there is one."""
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    # A session that is resumed shows no certificate, and an agent's connection lasts for hours.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # thousands of connections are idle most of the time
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    if certificate and key:
        _named(certificate, lambda: context.use_certificate_chain_file(certificate), "holds no certificate as PEM")
        _named(key, lambda: context.use_privatekey_file(key), f"is not the key of {certificate}, as PEM")
    return context


def _trust(context: SSL.Context, ca: str) -> None:
    _named(ca, lambda: context.load_verify_locations(ca), "holds no certificate as PEM")


def _named(path: str, act: Callable[[], object], otherwise: str) -> None:
    """Do something with a file; raises TrustProblem with its name."""
    try:
        with open(path, "rb"):
            pass
        act()
    except OSError as error:
        raise TrustProblem(f"{path} cannot be read: {error.strerror}") from None
    except SSL.Error:
        raise TrustProblem(f"{path} {otherwise}") from None


# A control plane to its agents


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """TLS for who listens. Clients may show a certificate; one that `client_ca` has not issued ends the connection."""

    def __init__(self, certificate: str, key: str, client_ca: str | None) -> None:
        """Raises TrustProblem."""

        def make() -> SSL.Context:
            context = _context(SSL.TLS_SERVER_METHOD, certificate, key)
            if client_ca:
                _trust(context, client_ca)
                context.set_client_ca_list(_subjects(client_ca))
                context.set_verify(SSL.VERIFY_PEER, lambda _connection, _certificate, _code, _depth, ok: bool(ok))
            return context

        self._kept = _Kept((certificate, key, client_ca), make)

    @property
    def problem(self) -> str:
        """Why changed files are of no use, "" when all is well."""
        return self._kept.problem

    def become(self, other: "ServerTls") -> None:
        """Use the files of another from now on, for connections to come."""
        self._kept = other._kept

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(self._kept.context(), None)


def _subjects(path: str) -> list[crypto.X509Name]:
    with open(path, "rb") as opened:
        found = x509.load_pem_x509_certificates(opened.read())
    return [crypto.X509.from_cryptography(each).get_subject() for each in found]


def uris(certificate: crypto.X509 | None) -> tuple[str, ...] | None:
    """The URI SANs of a client's certificate, None without one."""
    if certificate is None:
        return None
    try:
        names = certificate.to_cryptography().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(names.get_values_for_type(x509.UniformResourceIdentifier))


# An agent to its control planes


class ClientTls:
    """TLS for who connects: `ca`, `pins` or both say whom to trust; `certificate` and `key` who we are."""

    def __init__(self, *, ca: str | None, pins: Sequence[str], certificate: str | None, key: str | None) -> None:
        """Raises TrustProblem."""
        self.refused = ""  # why the last server was, "" when it was not

        def make() -> SSL.Context:
            context = _context(SSL.TLS_CLIENT_METHOD, certificate, key)
            if ca:
                _trust(context, ca)
            return context

        self._has_ca = ca is not None
        self._pins = frozenset(pins)
        self._kept = _Kept((ca, certificate, key), make)
        self._used = self._kept.context()

    @property
    def problem(self) -> str:
        """Why changed files are of no use, "" when all is well."""
        return self._kept.problem

    @property
    def renewed(self) -> bool:
        """Whether files have changed since the last connection was made: it shows who we were, and trusts whom we trusted."""
        return self._kept.context() is not self._used

    def creator(self, host: str) -> "_Client":
        """Connections to a server that is called so in its certificate: a DNS name or an address."""
        return _Client(self, host)

    def judge(self, chain: "_Chain", certificate: crypto.X509, code: int, depth: int, ok: bool) -> bool:
        """One step of OpenSSL's walk down the chain, from an authority to the server's own certificate at depth 0."""
        if not ok and (self._has_ca or code not in _NO_AUTHORITY):
            clocks = "; look at the clocks of both machines, too" if code in _OUT_OF_TIME else ""
            self.refused = f"its certificate was not accepted: {crypto_text(code)}{clocks}"
            return False
        # OpenSSL has built the chain and checks each signature in it, also where it ends at nobody we know.
        if self._pins:
            chain.pins[depth] = pin(certificate.to_cryptography())
        if depth:
            return True
        # The last step may well be one that is not ok: of a lone certificate nothing more is asked, not even its dates.
        if not _is_valid_now(certificate.to_cryptography()):
            self.refused = "its certificate has expired, or is not valid yet: look at the clocks of both machines, too"
            return False
        if self._pins and not self._pins.intersection(chain.pins.values()):
            self.refused = f"none of its pins is ours; its own certificate has {chain.pins[0]}"
            return False
        try:
            verify_service_identity(extract_patterns(certificate), [_service_id(chain.host)], [])
        except VerificationError:
            self.refused = f"its certificate is not for {chain.host}"
            return False
        self.refused = ""
        return True


class _Chain:
    """What has been seen of one connection's certificates."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.pins: dict[int, str] = {}


@implementer(IOpenSSLClientConnectionCreator)
class _Client:
    def __init__(self, tls: ClientTls, host: str) -> None:
        self._tls = tls
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        tls, chain = self._tls, _Chain(self._host)
        tls._used = tls._kept.context()
        connection = SSL.Connection(tls._used, None)
        if not _is_address(self._host):
            connection.set_tlsext_host_name(self._host.encode())
        connection.set_verify(
            _OK, lambda _, certificate, code, depth, ok: tls.judge(chain, certificate, code, depth, bool(ok))
        )
        return connection


def _is_valid_now(certificate: x509.Certificate) -> bool:
    return certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc


def _service_id(host: str) -> Any:
    return hazmat.IPAddress_ID(ip_address(host)) if _is_address(host) else hazmat.DNS_ID(host)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def crypto_text(code: int) -> str:
    """OpenSSL's words for why a certificate does not verify; pyOpenSSL has no public way to them."""
    library, ffi = cast(Any, SSL)._lib, cast(Any, SSL)._ffi
    return cast(bytes, ffi.string(library.X509_verify_cert_error_string(code))).decode()
