"""Inside: who is asking (rule X10): out of a client certificate that TLS has verified, or out of a bearer token.

What a connection and a request present enters; an `Identity` leaves, or a `Refusal` with its cause. The namespace comes from
here alone. It must never know of TLS or HTTP.
"""

import re
from collections.abc import Mapping, Sequence

import attrs

from meshdns.control.tokens import Token, find

_SPIFFE = re.compile(r"spiffe://([A-Za-z0-9._-]{1,255})/ns/([a-z0-9-]{1,63})/sa/([A-Za-z0-9._-]{1,253})")
_BEARER = re.compile(r"Bearer +([A-Za-z0-9._~+/=-]{1,512})", re.IGNORECASE)


@attrs.frozen
class Identity:
    """Whose workload asks; `how` says by what that is known, for people."""

    namespace: str
    service_account: str
    how: str


@attrs.frozen
class Refusal:
    """Why somebody is not let in: 401 or 403, a sentence for the client, and the cause for our log."""

    status: int
    detail: str
    cause: str


def identify(
    uris: Sequence[str] | None, authorization: str, trust_domain: str, tokens: Mapping[str, Token], now: float
) -> Identity | Refusal:
    """`uris` are those of the client's verified certificate, None without one; `tokens` stand by hash; `now` is wall time."""
    if authorization:
        return _by_token(authorization, tokens, now)
    if uris is None:
        detail = "Show a client certificate with a SPIFFE name, or bring a token: Authorization: Bearer TOKEN."
        return Refusal(401, detail, "no certificate and no token")
    return _by_certificate(uris, trust_domain)


def _by_token(authorization: str, tokens: Mapping[str, Token], now: float) -> Identity | Refusal:
    found = _BEARER.fullmatch(authorization.strip())
    if not found:
        return Refusal(
            401, "Write the token as Authorization: Bearer TOKEN.", "an Authorization header that is no bearer token"
        )
    token = find(tokens, found[1])
    if token is None:
        return Refusal(401, "This token is not known here: get one by `meshdns token add`.", "an unknown token")
    if token.expires is not None and now >= token.expires:
        return Refusal(
            401, "This token has expired: get another one by `meshdns token add`.", f"the token {token.id}, expired"
        )
    return Identity(token.namespace, token.service_account, f"token {token.id}")


def _by_certificate(uris: Sequence[str], trust_domain: str) -> Identity | Refusal:
    names = [uri for uri in uris if uri.startswith("spiffe://")]
    wanted = f"spiffe://{trust_domain}/ns/NAMESPACE/sa/ACCOUNT"
    if len(names) != 1:
        told = f"Your certificate has {len(names) or 'no'} SPIFFE name{'s' if len(names) > 1 else ''}; it needs just one, {wanted}."
        return Refusal(403, told, f"a certificate with {len(names)} SPIFFE names")
    found = _SPIFFE.fullmatch(names[0])
    if not found or found[1].lower() != trust_domain:
        return Refusal(403, f"Your certificate's name is {names[0]}; {wanted} is wanted.", f"the name {names[0]}")
    return Identity(found[2], found[3], names[0])
