"""`meshdns pin`: the pins of rule X9, the same as openssl computes them."""

import json
import shutil
import subprocess
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from meshdns.cli.demo import make_certificates
from tests.cli.test_check import run


def openssl(*words: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *words], input=stdin, capture_output=True, timeout=60, check=True).stdout


class PinTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        make_certificates(self.folder)
        self.server = str(self.folder / "server.pem")

    def test_as_openssl(self) -> None:
        if not shutil.which("openssl"):
            raise SkipTest("openssl is not installed")
        key = openssl("x509", "-in", self.server, "-pubkey", "-noout")
        pin = b64encode(sha256(openssl("pkey", "-pubin", "-outform", "der", stdin=key)).digest()).decode()
        code, out, _ = run("pin", self.server)
        self.assertEqual((0, f"sha256/{pin}  CN=meshdns demo\n"), (code, out))
        self.assertEqual(
            [{"pin": f"sha256/{pin}", "subject": "CN=meshdns demo"}], json.loads(run("pin", self.server, "--json")[1])
        )

    def test_bundle(self) -> None:
        """One line for each certificate."""
        both = self.folder / "both.pem"
        both.write_bytes((self.folder / "root.pem").read_bytes() + Path(self.server).read_bytes())
        lines = run("pin", str(both))[1].splitlines()
        self.assertEqual(["CN=meshdns demo authority", "CN=meshdns demo"], [line.split("  ")[1] for line in lines])

    def test_no_certificate(self) -> None:
        for file in (self.folder / "server.key", self.folder / "missing"):
            code, out, err = run("pin", str(file))
            self.assertEqual((1, ""), (code, out))
            self.assertIn(str(file), err)
