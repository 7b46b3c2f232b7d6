"""Authorities and certificates for tests, right and wrong ones."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from meshdns.pins import pin


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """An authority whose certificates go into a folder. `by` has issued it, if it is none of its own."""

    def __init__(self, folder: Path, name: str, by: "Authority | None" = None) -> None:
        self.folder = folder
        self.name = _name(name)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.by = by
        self.certificate = (by or self).sign(self.name, self.key, x509.BasicConstraints(ca=True, path_length=None))
        self.pem = folder / f"{name}.pem"
        self.pem.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    @property
    def pin(self) -> str:
        return pin(self.certificate)

    def sign(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        says: x509.ExtensionType,
        days: tuple[int, int] = (-1, 30),
    ) -> x509.Certificate:
        now, number = datetime.now(UTC), x509.random_serial_number()
        begin, end = now + timedelta(days=days[0]), now + timedelta(days=days[1])
        built = x509.CertificateBuilder(self.name, name, key.public_key(), number, begin, end)
        critical = isinstance(says, x509.BasicConstraints)
        return built.add_extension(says, critical).sign(self.key, hashes.SHA256())

    def issue(self, file: str, *names: str, days: tuple[int, int] = (-1, 30), chain: bool = False) -> "Issued":
        """A certificate for DNS names, addresses and URIs, `file`.pem, and its key `file`.key; `chain` puts us behind it."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.sign(_name(file), key, x509.SubjectAlternativeName([_san(each) for each in names]), days)
        issued = Issued(self.folder / f"{file}.pem", self.folder / f"{file}.key", pin(certificate))
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        if chain:
            pem += self.certificate.public_bytes(serialization.Encoding.PEM)
        form = serialization.PrivateFormat.PKCS8
        secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        issued.key.touch(0o600)
        issued.key.write_bytes(secret)
        issued.pem.write_bytes(pem)
        return issued


class Issued:
    """The files of a certificate and its key, and its pin."""

    def __init__(self, pem: Path, key: Path, pin_of_it: str) -> None:
        self.pem, self.key, self.pin = pem, key, pin_of_it


def _san(text: str) -> x509.GeneralName:
    if "://" in text:
        return x509.UniformResourceIdentifier(text)
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)
