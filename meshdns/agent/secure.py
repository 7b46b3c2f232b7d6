"""Outside: TLS towards upstream servers (DNS over TLS, RFC 7858): who is trusted, and why somebody is not.

A server and the factory for its connection enter; a factory that speaks TLS leaves. Trusted are the authorities that this
machine trusts, or those in the files that SSL_CERT_FILE and SSL_CERT_DIR name. It must never know DNS.
"""

from typing import Any, cast

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import ClientFactory
from twisted.internet.ssl import TLSVersion, optionsForClientTLS, platformTrust
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from meshdns.values import Server

_TRUSTED = 0  # X509_V_OK


class Secure:
    """TLS connections to servers. What is trusted is read once for each of them, which takes some milliseconds."""

    def __init__(self) -> None:
        self._creators: dict[Server, _Creator] = {}

    # from the upstream

    def wrap(self, server: Server, factory: ClientFactory) -> ClientFactory:
        """A factory that brings the server's connections under TLS, its certificate checked (rule D23).

        Raises ValueError when the server's name cannot stand in a certificate.
        """
        creator = self._creators.get(server)
        if creator is None:
            creator = self._creators[server] = _Creator(server)
        return cast(ClientFactory, TLSMemoryBIOFactory(creator, True, factory))

    def distrust(self, server: Server, reason: Failure) -> str | None:
        """Why the server was not trusted, if that is what ended its connection."""
        if reason.check(VerificationError):
            return f"its certificate is for another name than {_subject(server)}"
        creator = self._creators.get(server)
        if creator is None or not reason.check(SSL.Error):
            return None
        return creator.distrust()


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    """Makes TLS's side of connections to one server, and keeps the last to ask it why it failed."""

    def __init__(self, server: Server) -> None:
        self._options = optionsForClientTLS(
            _subject(server), platformTrust(), extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2}
        )
        self._last: SSL.Connection | None = None

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        self._last = self._options.clientConnectionForTLS(tlsProtocol)
        return self._last

    def distrust(self) -> str | None:
        # pyOpenSSL has no public word for it, and "certificate verify failed" alone helps nobody.
        library, ffi = cast(Any, SSL)._lib, cast(Any, SSL)._ffi
        code = library.SSL_get_verify_result(self._last._ssl) if self._last is not None else _TRUSTED
        if code == _TRUSTED:
            return None
        text = ffi.string(library.X509_verify_cert_error_string(code)).decode()
        return f"its certificate was not accepted: {text}"


def _subject(server: Server) -> str:
    """The name or the address that must stand in the certificate."""
    return server.name or server.host.partition("%")[0]
