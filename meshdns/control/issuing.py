"""Outside: `POST /v1/identity`: who shows a certificate gets another one with the same SPIFFE name, for the key in its request.

Requests come in over TLS, which has verified the certificate that they show; certificates go out. So an identity lasts as long as
who has it comes back in time, and a name can never be changed. It must never know what a name may see.
"""

from collections.abc import Callable
from typing import Any, cast

from cryptography import x509
from OpenSSL import crypto
from twisted.logger import Logger
from twisted.web import http
from twisted.web.resource import Resource

from meshdns import certificates, exchange
from meshdns.certificates import Authority
from meshdns.control.identity import Identity, Refusal
from meshdns.defaults import CERTIFICATE_BACKDATE, REQUEST_BYTES
from meshdns.net.site import Request
from meshdns.net.tls import uris
from meshdns.net.trust import TrustProblem
from meshdns.values import time_text
from meshdns.web import Refused

_log = Logger()
Identify = Callable[[tuple[str, ...] | None, str], Identity | Refusal]


def read_authority(certificate: str | None, key: str | None) -> Authority | None:
    """Who signs, out of their files; None where nobody is to. Raises TrustProblem."""
    if certificate is None or key is None:
        return None
    path = certificate
    try:
        with open(path, "rb") as opened:
            issuers = opened.read()
        path = key
        with open(path, "rb") as opened:
            return Authority.read(issuers, opened.read())
    except OSError as error:
        raise TrustProblem(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise TrustProblem(f"{path} {error}") from None


class Issuing(Resource):
    """The resource of /v1/identity; requests for all else go to another one."""

    isLeaf = True

    def __init__(
        self, others: Resource, identify: Identify, authority: Callable[[], Authority | None], now: Callable[[], float],
        serial: Callable[[], int] = x509.random_serial_number,
    ) -> None:  # fmt: skip
        """`authority` reads who signs anew, and may raise TrustProblem; `now` is wall time."""
        super().__init__()
        self.renewed = 0
        self._others = others
        self._identify = identify
        self._authority = authority
        self._now = now
        self._serial = serial

    def render(self, request: Request) -> bytes | int:
        if request.path.decode("latin-1") != exchange.IDENTITY_PATH:
            return cast("bytes | int", self._others.render(request))
        try:
            pem = self._issue(request)
        except Refused as refused:
            peer = request.getClientAddress().host
            _log.warn(
                "{peer} gets no certificate ({status}): {why}", peer=peer, status=refused.code, why=refused.detail
            )
            body = request.refuse(refused)
            if refused.code == http.NOT_ALLOWED:
                request.setHeader(b"Allow", b"POST")
            return body
        request.setHeader(b"Content-Type", exchange.CERTIFICATES.encode())
        return request.whole(pem.encode())

    def _issue(self, request: Request) -> str:
        """Certificate and issuers as PEM. Raises Refused."""
        if request.method != b"POST":
            raise Refused(405, "POST a request for a certificate here.")
        authority = self._signing()
        shown = _shown(request)
        who = self._identify(uris(shown), "")
        if isinstance(who, Refusal):
            raise Refused(who.status, who.detail)
        assert shown is not None  # without one there is no identity but by a token, which nobody was asked for
        if len(request.body) > REQUEST_BYTES:
            raise Refused(413, f"A request for a certificate has no more than {REQUEST_BYTES} octets.")
        try:
            key = certificates.read_request(request.body)
        except ValueError as error:
            raise Refused(400, f"The body {error}.") from None
        old = shown.to_cryptography()
        issued = authority.issue(key, who.how, certificates.subject(old), self._now(), _lasts(old), self._serial())
        self.renewed += 1
        until = time_text(issued.not_valid_after_utc.timestamp())
        _log.info("the certificate of {name} is renewed until {until}", name=who.how, until=until)
        return certificates.text([issued, *authority.behind])

    def _signing(self) -> Authority:
        try:
            authority = self._authority()
        except TrustProblem as problem:
            _log.error("certificates cannot be renewed: {problem}", problem=str(problem))
            raise Refused(
                503, "The authority's key cannot be used just now; the log of this control plane says why."
            ) from None
        if authority is None:
            raise Refused(
                404, "Certificates are not renewed here, for tls.client_ca_key is not set: have a new bundle made."
            )
        return authority


def _lasts(certificate: x509.Certificate) -> float:
    """Seconds that a certificate was meant to last: the next one is as good."""
    span = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return max(span.total_seconds() - CERTIFICATE_BACKDATE, CERTIFICATE_BACKDATE)


def _shown(request: Request) -> crypto.X509 | None:
    """The certificate of this connection's client; None without one, or without TLS."""
    transport = cast(Any, request.channel).transport
    return transport.getPeerCertificate() if hasattr(transport, "getPeerCertificate") else None
