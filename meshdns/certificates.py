"""Vocabulary: identities of workloads as X.509: requests for certificates, and certificates with a SPIFFE name signed for them.

Keys, PEM texts and times enter, PEM texts leave. Chance comes in as well: keys and serial numbers are made by who calls. It must
never know who may have which name.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshdns.defaults import CERTIFICATE_BACKDATE, RSA_BITS

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
_PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
_PEM = serialization.Encoding.PEM
_COMMON_NAME = 64  # characters, the most that X.520 lets a common name have


def spiffe(domain: str, namespace: str, account: str) -> str:
    """The name of a service account's workloads (rule X10)."""
    return f"spiffe://{domain}/ns/{namespace}/sa/{account}"


def key_text(key: Key) -> str:
    """A private key as PEM, not encrypted."""
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def read_key(pem: bytes) -> Key:
    """A private key of a kind that TLS can use here. Raises ValueError with the end of a sentence on the file."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError:
        raise ValueError(
            "is encrypted; take the password away, as with `openssl pkey -in FILE -out FILE.plain`"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("holds no private key as PEM (-----BEGIN PRIVATE KEY-----)") from None
    if not isinstance(key, Key):
        raise ValueError("holds a key of another kind than EC, RSA and Ed25519")
    return key


def read_certificates(pem: bytes) -> list[x509.Certificate]:
    """One certificate at least. Raises ValueError with the end of a sentence on the file."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError("holds no certificate as PEM (-----BEGIN CERTIFICATE-----)") from None


def text(certificates: Sequence[x509.Certificate]) -> str:
    """Certificates as PEM."""
    return "".join(each.public_bytes(_PEM).decode() for each in certificates)


def fits(certificate: x509.Certificate, key: Key) -> bool:
    """Whether a key is the certificate's."""
    return certificate.public_key() == key.public_key()


def names(certificate: x509.Certificate) -> list[str]:
    """The DNS names and addresses that a server's certificate is for."""
    try:
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [*said.get_values_for_type(x509.DNSName), *map(str, said.get_values_for_type(x509.IPAddress))]


def spiffe_names(certificate: x509.Certificate) -> list[str]:
    """The SPIFFE names that a client's certificate is for."""
    try:
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [each for each in said.get_values_for_type(x509.UniformResourceIdentifier) if each.startswith("spiffe://")]


def subject(certificate: x509.Certificate) -> str:
    """Its common name, for people; "" without one."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def trusted(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> x509.Certificate | None:
    """Of some authorities the one that a server's chain leads to, as it is presented: itself first, then its issuers."""
    for each in chain:
        for root in roots:
            try:
                each.verify_directly_issued_by(root)
            except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
                continue
            return root
    return None


# Requests


def request(key: Key, host: str) -> str:
    """A request for a certificate as PEM (PKCS #10). Who signs it decides on the name; the host is for people."""
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return x509.CertificateSigningRequestBuilder(_subject(host)).sign(key, digest).public_bytes(_PEM).decode()


def read_request(pem: bytes) -> _PublicKey:
    """The public key of a request, which has proved that it holds the private one. Raises ValueError with the end of a sentence."""
    try:
        asked = x509.load_pem_x509_csr(pem)
        key = asked.public_key()
        proved = asked.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        raise ValueError("holds no request for a certificate as PEM (-----BEGIN CERTIFICATE REQUEST-----)") from None
    if not proved:
        raise ValueError("holds a request that is not signed by its own key")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_BITS:
        raise ValueError(f"asks for an RSA key of {key.key_size} bits; {RSA_BITS} are the least")
    if not isinstance(key, _PublicKey):
        raise ValueError("asks for a key of another kind than EC, RSA and Ed25519")
    return key


# Authorities


@attrs.frozen
class Authority:
    """Who signs: a certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @classmethod
    def read(cls, certificates: bytes, key: bytes) -> "Authority":
        """Of several certificates the one whose key this is. Raises ValueError with the end of a sentence on the key's file."""
        signing = read_key(key)
        found = next((each for each in read_certificates(certificates) if fits(each, signing)), None)
        if found is None:
            raise ValueError("is not the key of that certificate")
        if not _is_authority(found):
            raise ValueError("is the key of a certificate that may not sign others (CA:FALSE)")
        return cls(found, signing)

    @property
    def behind(self) -> list[x509.Certificate]:
        """What who was issued a certificate presents behind it: itself, unless it is a root."""
        return [] if self.certificate.issuer == self.certificate.subject else [self.certificate]

    def issue(self, key: _PublicKey, uri: str, host: str, now: float, lasts: float, serial: int) -> x509.Certificate:
        """A client's certificate for `lasts` seconds, or until the authority's own ends. `uri` is its SPIFFE name."""
        mine = self.certificate
        begin = max(_when(now - CERTIFICATE_BACKDATE), mine.not_valid_before_utc)
        end = min(_when(now + lasts), mine.not_valid_after_utc)
        built = x509.CertificateBuilder(mine.subject, _subject(host), key, serial, begin, end)
        for said, critical in (
            (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), False),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_SIGNS, True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
            (x509.SubjectKeyIdentifier.from_public_key(key), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False),
        ):
            built = built.add_extension(said, critical)
        digest = None if isinstance(self.key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        return built.sign(self.key, digest)


_SIGNS = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _subject(host: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:_COMMON_NAME])] if host else [])


def _when(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
