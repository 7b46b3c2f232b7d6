"""The bundle as a file: what was made is read back whole, and what was damaged, changed or is not for here is refused."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshdns import bundles
from meshdns.bundles import BadBundle, Bundle

NOW = 1_790_000_000.0
DAY = 86400.0
MADE = Bundle(
    version="0.1.0",
    host="vm1.example.com",
    created=NOW,
    expires=NOW + 7 * DAY,
    files={"agent.yaml": "workload: {namespace: ns1}\n", "token": "mdt_ü\n"},
)
DATA = bundles.to_bytes(MADE)


class FormatTests(SynchronousTestCase):
    def refused(self, data: bytes) -> str:
        with self.assertRaises(BadBundle) as caught:
            bundles.read(data, "0.1.0")
        return str(caught.exception)

    def changed(self, **changes: Any) -> bytes:
        """With a checksum that fits again, as somebody makes it who knows how."""
        said = json.loads(DATA) | changes
        said.pop("checksum")
        said["checksum"] = bundles._checksum(said)
        return json.dumps(said).encode()

    def test_read_back(self) -> None:
        self.assertEqual(MADE, bundles.read(DATA, "0.1.0"))

    def test_reformatted(self) -> None:
        """A tool that prints JSON in another way (a cloud's user data) does no harm."""
        self.assertEqual(MADE, bundles.read(json.dumps(json.loads(DATA)).encode(), "0.1.0"))

    def test_tampered(self) -> None:
        for before, after in (
            (b"vm1", b"vm2"),
            (b"ns1", b"ns2"),
            (b"mdt_", b"mdx_"),
            (b'"version": "0', b'"version": "1'),
        ):
            self.assertIn(before, DATA)
            self.assertIn("changed or damaged", self.refused(DATA.replace(before, after)))

    @given(st.integers(0, len(DATA) - 3))
    def test_cut_off(self, length: int) -> None:
        self.assertIn("bundle", self.refused(DATA[:length]))

    @given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
    def test_one_octet(self, where: int, flip: int) -> None:
        """Whatever one octet becomes: the file is refused in a sentence, or says the same (white space)."""
        data = DATA[:where] + bytes([DATA[where] ^ flip]) + DATA[where + 1 :]
        try:
            found = bundles.read(data, "0.1.0")
        except BadBundle as bad:
            self.assertTrue(str(bad))
        else:
            self.assertEqual(MADE, found)

    def test_strangers(self) -> None:
        for data in (b"", b"[]", b"{}", b"\xff", b"-----BEGIN", b'{"nametable": 1}', b'"bundle"'):
            self.assertIn("no bundle", self.refused(data))
        self.assertIn("no bundle", self.refused(b" " * (300 << 10)))

    def test_newer_format(self) -> None:
        """A sentence names the version that made it."""
        told = self.refused(self.changed(bundle=2, version="7.1.0"))
        self.assertIn('meshdns "7.1.0"', told)
        self.assertIn("install that version", told)

    def test_wrong_shape(self) -> None:
        """A checksum that fits is no reason to believe the rest."""
        for changes in (
            {"files": {"agent.yaml": 1}},
            {"files": {"token": "x"}},
            {"files": {"agent.yaml": "x", "../../etc/passwd": "x"}},
            {"files": []},
            {"created": "yesterday"},
            {"expires": 1},
        ):
            self.assertIn("something is missing", self.refused(self.changed(**changes)), changes)

    def test_digest(self) -> None:
        """It protects what the checksum cannot: it is refused though all is consistent."""
        said = bundles.digest(DATA)
        for word in (said, f"sha256:{said}", said.upper(), f" {said}\n"):
            self.assertTrue(bundles.is_digest(DATA, word))
        self.assertFalse(bundles.is_digest(self.changed(host="vm1"), said))
        self.assertIn("64 hex digits", str(self.assertRaises(ValueError, bundles.is_digest, DATA, said[:-1])))


class ObjectionsTests(SynchronousTestCase):
    def objections(self, host: str | None = "vm1", now: float = NOW + 60) -> str:
        return "; ".join(bundles.objections(MADE, host, now))

    def test_fine(self) -> None:
        self.assertEqual("", self.objections())
        self.assertEqual("", self.objections(now=NOW - 299))
        self.assertEqual("", self.objections(now=NOW + 7 * DAY - 1))

    def test_expired(self) -> None:
        told = self.objections(now=NOW + 7 * DAY)
        self.assertIn("has expired on 2026-09-28T", told)
        self.assertIn("new bundle", told)

    def test_clock_behind(self) -> None:
        """A year behind: it says so, instead of a certificate that is not valid yet."""
        told = self.objections(now=NOW - 365 * DAY)
        self.assertIn("clock says 2025-09-21T", told)
        self.assertIn("timedatectl", told)

    def test_clock_ahead(self) -> None:
        """A year ahead looks like an expired bundle: the sentence names both causes."""
        told = self.objections(now=NOW + 365 * DAY)
        self.assertIn("clock says 2027-09-21T", told)
        self.assertIn("timedatectl", told)

    def test_hosts(self) -> None:
        for host in ("vm1", "VM1", "vm1.example.com", "vm1.example.com.", None):
            self.assertEqual("", self.objections(host), host)
        for host in ("vm2", "vm1.example.org", "vm10", "localhost", ""):
            self.assertIn('for the host "vm1.example.com"', self.objections(host), host)
            self.assertIn("--force-host", self.objections(host))
