"""Vocabulary: pins of public keys: `sha256/` and the Base64 of the SHA-256 of a SubjectPublicKeyInfo (as RFC 7469 section 2.4).

Certificates as PEM enter, pins leave. It must never know whom anybody trusts.
"""

import hashlib
from base64 import b64encode
from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def pin(certificate: x509.Certificate) -> str:
    """The pin of a certificate's key: it stays the same when the certificate is renewed with the same key."""
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256/{b64encode(hashlib.sha256(key).digest()).decode()}"


def pins(pem: bytes) -> Iterator[tuple[str, str]]:
    """Pin and subject of every certificate in a PEM text. Raises ValueError with a sentence where there is none."""
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError("holds no certificate as PEM (-----BEGIN CERTIFICATE-----)") from None
    for certificate in found:
        yield pin(certificate), certificate.subject.rfc4514_string() or "(no subject)"
