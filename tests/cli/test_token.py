"""`meshdns token`: what it writes is what the control plane lets in (rule X10)."""

import json
import os
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from meshdns.control.tokens import by_hash, find, parse
from tests.cli.test_check import run


class TokenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp())

    def _token(self, *words: str) -> tuple[int, str, str]:
        return run("token", *words, "--file", str(self.file))

    def test_added(self) -> None:
        """The secret is shown once and stands nowhere; the file is its owner's."""
        code, out, err = self._token("add", "--namespace", "ns1", "--service-account", "web")
        secret = out.strip()
        self.assertEqual(0, code)
        self.assertIn("once only", err)
        text = self.file.read_bytes()
        self.assertNotIn(secret.encode(), text)
        found = find(by_hash(parse(text, "f")), secret)
        assert found is not None
        self.assertEqual(("ns1", "web", None), (found.namespace, found.service_account, found.expires))
        self.assertIsNone(find(by_hash(parse(text, "f")), secret + "x"))
        self.assertEqual(0o600, os.stat(self.file).st_mode & 0o777)

    def test_expires(self) -> None:
        secret = json.loads(self._token("add", "--namespace", "ns1", "--expires", "2h", "--json")[1])["token"]
        found = find(by_hash(parse(self.file.read_bytes(), "f")), secret)
        assert found is not None and found.expires is not None
        self.assertTrue(abs(found.expires - time.time() - 7200) < 60, found.expires)

    def test_listed_and_removed(self) -> None:
        ids = [json.loads(self._token("add", "--namespace", name, "--json")[1])["id"] for name in ("ns1", "ns2")]
        listed = self._token("list")[1]
        self.assertEqual(f"{ids[0]}  ns1/default  without end\n{ids[1]}  ns2/default  without end\n", listed)
        self.assertEqual((0, "", ""), self._token("remove", ids[0]))
        self.assertEqual([ids[1]], [each["id"] for each in json.loads(self._token("list", "--json")[1])])
        code, _, err = self._token("remove", ids[0])
        self.assertEqual(1, code)
        self.assertIn(f"there is no token {ids[0]}", err)

    def test_wrong_words(self) -> None:
        """Usage errors say what to write, and no file comes of them."""
        for words, told in (
            (["add"], "--namespace NAMESPACE"),
            (["add", "--namespace", "A_b"], "A_b"),
            (["add", "--namespace", "ns1", "--expires", "soon"], "soon"),
            (["remove"], "meshdns token remove ID"),
        ):
            code, out, err = self._token(*words)
            self.assertEqual((2, ""), (code, out), words)
            self.assertIn(told, err)
        self.assertFalse(self.file.exists())

    def test_damaged_file(self) -> None:
        """It is not overwritten: tokens would be lost."""
        self.file.write_text("tokens: {nonsense")
        code, out, err = self._token("add", "--namespace", "ns1")
        self.assertEqual((1, ""), (code, out))
        self.assertIn("stays as it is", err)
        self.assertEqual("tokens: {nonsense", self.file.read_text())

    def test_no_directory(self) -> None:
        code, _, err = run("token", "add", "--namespace", "ns1", "--file", "no/such/tokens.yaml")
        self.assertEqual(1, code)
        self.assertIn("No such file or directory", err)
