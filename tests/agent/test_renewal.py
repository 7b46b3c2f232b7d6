"""When an identity is renewed, and what is taken for one (rules X9, X10): by plain calls, with time and control plane made up."""

import os
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from meshdns import certificates
from meshdns.agent.renewal import Renewal
from meshdns.certificates import Authority
from tests import pki

NOW = 1_790_000_000.0
DAY = 86400.0
URI = "spiffe://cluster.local/ns/ns1/sa/web"


class RenewalTests(SynchronousTestCase):
    """`self.asked` are the requests; `self.answer` makes an answer of a request."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        root = pki.Authority(folder, "root")
        self.authority = Authority(_long_lived(root), root.key)
        self.path = folder / "identity.pem"
        self.clock = Clock()
        self.asked: list[bytes] = []
        self.kept: list[bytes] = []
        self.answer: Any = lambda request: (200, "", self.issue(request))
        self.start()

    def start(self, lasts: float = 30 * DAY) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self.write(
            certificates.key_text(key).encode() + self.issue(certificates.request(key, "vm1").encode(), lasts=lasts)
        )
        self.renewal = Renewal(str(self.path), self.keep, self.clock, self.now, lambda: 1.0)

    def now(self) -> float:
        return NOW + self.clock.seconds()

    def issue(self, request: bytes, uri: str = URI, lasts: float = 30 * DAY) -> bytes:
        key = certificates.read_request(request)
        return certificates.text([self.authority.issue(key, uri, "vm1", self.now(), lasts, 7)]).encode()

    def write(self, content: bytes) -> None:
        self.path.write_bytes(content)

    def keep(self, content: bytes) -> None:
        self.kept.append(content)
        self.write(content)

    async def post(self, request: bytes) -> tuple[int, str, bytes]:
        self.asked.append(request)
        answer = self.answer(request)
        return await answer if isinstance(answer, Awaitable) else answer

    def pass_by(self, seconds: float, step: float = 600.0) -> None:
        self.clock.pump([step] * int(seconds / step))

    def told(self) -> list[str]:
        return [each["why"] for each in self._observer if "why" in each]

    def test_at_two_thirds(self) -> None:
        """Not before, and then once; the new key fits the new certificate, the name is the same."""
        before = self.path.read_bytes()
        self.renewal.start(self.post)
        self.pass_by(20 * DAY - 3600)
        self.assertEqual([], self.asked)
        self.pass_by(7200)
        self.assertEqual(1, len(self.asked))
        (kept,) = self.kept
        certificate = certificates.read_certificates(kept)[0]
        self.assertTrue(certificates.fits(certificate, certificates.read_key(kept)))
        self.assertNotEqual(
            certificates.key_text(certificates.read_key(before)), certificates.key_text(certificates.read_key(kept))
        )
        self.assertEqual([URI], certificates.spiffe_names(certificate))
        self.pass_by(19 * DAY)
        self.assertEqual(1, len(self.asked))
        self.pass_by(2 * DAY)
        self.assertEqual(2, len(self.asked))

    def test_short_lived(self) -> None:
        """A certificate of a minute is renewed each 40 s, not all the time: the backdating is no part of its life."""
        self.start(lasts=60)
        self.answer = lambda request: (200, "", self.issue(request, lasts=60))
        self.renewal.start(self.post)
        self.pass_by(200, 1)
        self.assertIn(len(self.asked), (4, 5))

    def test_clock_stepped(self) -> None:
        """A clock that is set forward is noticed within the hour."""
        self.renewal.start(self.post)
        self.now = lambda: NOW + 25 * DAY  # type: ignore[method-assign]
        self.renewal._now = self.now
        self.pass_by(3600)
        self.assertEqual(1, len(self.asked))

    def test_failures(self) -> None:
        """What is not a good answer leaves the old identity, is told once, and is tried again in ten minutes."""
        stranger = certificates.request(ec.generate_private_key(ec.SECP256R1()), "vm1").encode()
        before = self.path.read_bytes()
        for answer, told in (
            (lambda request: (404, "not here", b""), "refuses it (404): not here"),
            (lambda request: (200, "", b"<html>"), "holds no certificate"),
            (lambda request: (200, "", self.issue(stranger)), "for another key or another name"),
            (lambda request: (200, "", self.issue(request, uri=URI + "x")), "for another key or another name"),
            (lambda request: _raise(OSError(111, "Connection refused")), "Connection refused"),
            (lambda request: _raise(RuntimeError("no luck")), "cannot be asked: no luck"),
        ):
            self.answer = answer
            self.asked.clear()
            renewal = Renewal(str(self.path), self.keep, self.clock, lambda: NOW + 21 * DAY, lambda: 1.0)
            renewal.start(self.post)
            self.assertEqual(1, len(self.asked))
            self.clock.advance(599)
            self.assertEqual(1, len(self.asked))
            self.clock.advance(1)
            self.assertEqual(2, len(self.asked))
            self.assertIn(told, renewal._told)
            renewal.stop()
            self.assertEqual([], self.clock.getDelayedCalls())
            self.assertEqual(before, self.path.read_bytes())

    def test_disk_full(self) -> None:
        def full(content: bytes) -> None:
            raise OSError(28, "No space left on device")

        renewal = Renewal(str(self.path), full, self.clock, lambda: NOW + 21 * DAY, lambda: 1.0)
        renewal.start(self.post)
        self.assertEqual("No space left on device", renewal._told)

    def test_hurry(self) -> None:
        """Near the end it is tried more often than each ten minutes."""
        self.answer = lambda request: (503, "later", b"")
        renewal = Renewal(str(self.path), self.keep, self.clock, lambda: NOW + 30 * DAY - 80, lambda: 1.0)
        renewal.start(self.post)
        self.pass_by(100, 1)
        self.assertGreater(len(self.asked), 9)

    def test_file_gone(self) -> None:
        """TLS tells of it; here it is looked at again later."""
        os.unlink(self.path)
        self.renewal.start(self.post)
        self.start()
        self.pass_by(21 * DAY)
        self.assertEqual([], self.asked[1:])

    def test_stopped(self) -> None:
        """Nothing is left, whether it waits or asks."""
        from twisted.internet.defer import Deferred

        self.renewal.start(self.post)
        self.renewal.stop()
        self.assertEqual([], self.clock.getDelayedCalls())
        pending: Deferred[Any] = Deferred()
        self.answer = lambda request: pending
        renewal = Renewal(str(self.path), self.keep, self.clock, lambda: NOW + 21 * DAY, lambda: 1.0)
        renewal.start(self.post)
        renewal.stop()
        self.assertEqual([], self.clock.getDelayedCalls())


def _raise(error: Exception) -> Any:
    raise error


def _long_lived(root: pki.Authority) -> Any:
    """The same root, as if it had been valid in the time of these tests."""
    from datetime import UTC, datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    begin, end = (datetime.fromtimestamp(NOW + days * DAY, UTC) for days in (-9, 999))
    built = x509.CertificateBuilder(root.name, root.name, root.key.public_key(), 1, begin, end)
    return built.add_extension(x509.BasicConstraints(True, None), True).sign(root.key, hashes.SHA256())
