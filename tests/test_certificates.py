"""Identities: what an authority issues is what TLS and the control plane take (rule X10), and bad files are told in a sentence."""

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

from meshdns import certificates
from meshdns.certificates import Authority
from meshdns.control.identity import Identity, identify
from meshdns.net.tls import uris
from tests import pki

NOW = 1_790_000_000.0
DAY = 86400.0
URI = "spiffe://cluster.local/ns/ns1/sa/web"


def pem_of(key: certificates.Key) -> bytes:
    return certificates.key_text(key).encode()


class CertificatesTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.root = pki.Authority(folder, "root")
        self.authority = Authority.read(self.root.pem.read_bytes(), pem_of(self.root.key))

    def issue(self, now: float = NOW, lasts: float = 30 * DAY, key: certificates.Key | None = None) -> x509.Certificate:
        key = key or ec.generate_private_key(ec.SECP256R1())
        return self.authority.issue(key.public_key(), URI, "vm1", now, lasts, 7)

    def test_issued(self) -> None:
        """The root's signature, the SPIFFE name and nothing but a client's rights."""
        now = datetime.now(UTC).timestamp()
        found = self.issue(now, DAY)
        found.verify_directly_issued_by(self.root.certificate)
        store = crypto.X509Store()
        store.add_cert(crypto.X509.from_cryptography(self.root.certificate))
        crypto.X509StoreContext(store, crypto.X509.from_cryptography(found)).verify_certificate()
        extensions = found.extensions
        self.assertFalse(extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        self.assertEqual([ExtendedKeyUsageOID.CLIENT_AUTH], list(usage))
        who = identify(uris(crypto.X509.from_cryptography(found)), "", "cluster.local", (), NOW)
        self.assertEqual(Identity("ns1", "web", URI), who)

    def test_times(self) -> None:
        """It is valid a little before now, for clocks differ, and never for longer than its authority."""
        now = datetime.now(UTC).timestamp()
        found = self.issue(now, DAY)
        self.assertEqual(int(now + DAY), found.not_valid_after_utc.timestamp())
        self.assertEqual(int(now - 300), found.not_valid_before_utc.timestamp())
        self.assertEqual(self.root.certificate.not_valid_after_utc, self.issue(now, 900 * DAY).not_valid_after_utc)

    def test_every_kind_of_key(self) -> None:
        """Authorities and workloads may have EC, RSA and Ed25519 keys."""
        for key in (
            ec.generate_private_key(ec.SECP384R1()),
            rsa.generate_private_key(65537, 2048),
            ed25519.Ed25519PrivateKey.generate(),
        ):
            asked = certificates.read_request(certificates.request(key, "vm1").encode())
            self.assertEqual(key.public_key(), asked)
            self.root.key = key  # type: ignore[assignment]
            root = x509.CertificateBuilder(
                self.root.name, self.root.name, key.public_key(), 1, datetime.fromtimestamp(NOW, UTC),
                datetime.fromtimestamp(NOW + 99 * DAY, UTC),
            ).add_extension(x509.BasicConstraints(True, None), True)  # fmt: skip
            algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else certificates.hashes.SHA256()
            signed = root.sign(key, algorithm)
            authority = Authority.read(certificates.text([signed]).encode(), pem_of(key))
            authority.issue(asked, URI, "vm1", NOW, DAY, 7).verify_directly_issued_by(signed)

    def test_long_host(self) -> None:
        """A common name has 64 characters at most; a host name may have more."""
        self.authority.issue(self.root.key.public_key(), URI, "a" * 250, NOW, DAY, 7)

    def test_request_is_checked(self) -> None:
        """A request must prove that it holds the key, and a weak key is refused."""
        good = certificates.request(ec.generate_private_key(ec.SECP256R1()), "vm1").encode()
        lines = good.split(b"\n")
        tampered = x509.load_pem_x509_csr(good).public_bytes(serialization.Encoding.DER)
        self.assertIn("no request", self.refused(certificates.read_request, b"nonsense"))
        self.assertIn("no request", self.refused(certificates.read_request, b"\n".join(lines[:3])))
        flipped = tampered[:-1] + bytes([tampered[-1] ^ 1])
        broken = x509.load_der_x509_csr(flipped).public_bytes(serialization.Encoding.PEM)
        self.assertIn("not signed by its own key", self.refused(certificates.read_request, broken))
        weak = certificates.request(rsa.generate_private_key(65537, 1024), "vm1").encode()
        self.assertIn("1024 bits", self.refused(certificates.read_request, weak))

    def test_keys_are_checked(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        locked = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
        odd = x25519.X25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.assertIn("is encrypted", self.refused(certificates.read_key, locked))
        self.assertIn("another kind", self.refused(certificates.read_key, odd))
        self.assertIn("no private key", self.refused(certificates.read_key, b"x"))

    def test_authority_is_checked(self) -> None:
        """The key must be that of a certificate that may sign."""
        other = pem_of(ec.generate_private_key(ec.SECP256R1()))
        root = self.root.pem.read_bytes()
        self.assertIn("not the key", self.refused(Authority.read, root, other))
        leaf = self.root.issue("leaf", "localhost")
        self.assertIn("CA:FALSE", self.refused(Authority.read, leaf.pem.read_bytes(), leaf.key.read_bytes()))

    def test_trusted(self) -> None:
        """The root behind a chain is found, over an intermediate that is presented too, and no stranger's."""
        between = pki.Authority(self.root.folder, "between", by=self.root)
        chain = certificates.read_certificates(between.issue("deep", "localhost", chain=True).pem.read_bytes())
        stranger = pki.Authority(self.root.folder, "stranger").certificate
        self.assertEqual(self.root.certificate, certificates.trusted(chain, [stranger, self.root.certificate]))
        self.assertIsNone(certificates.trusted(chain, [stranger]))

    def refused(self, call: object, *words: object) -> str:
        with self.assertRaises(ValueError) as caught:
            call(*words)  # type: ignore[operator]
        return str(caught.exception)
