"""`meshdns demo`: what it leaves behind is right, and what it must not touch stays."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from meshdns.cli.demo import prepare
from meshdns.control.tokens import by_hash, find, parse
from meshdns.net.tls import ServerTls
from tests.cli.test_check import run


class DemoTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())

    def test_prepared(self) -> None:
        """Both configurations are right, with all that they name; the agent's token is one that the control plane knows."""
        prepare(self.folder)
        code, out, _ = run("check", str(self.folder / "control.yaml"), str(self.folder / "agent.yaml"))
        self.assertEqual((0, ""), (code, out))
        known = parse((self.folder / "tokens.yaml").read_bytes(), "f")
        found = find(by_hash(known), (self.folder / "token").read_text().strip())
        assert found is not None
        self.assertEqual("ns1", found.namespace)
        ServerTls(str(self.folder / "pki" / "server.pem"), str(self.folder / "pki" / "server.key"), None)
        for secret in ("token", "pki/server.key"):
            self.assertEqual(0o600, (self.folder / secret).stat().st_mode & 0o777)

    def test_something_else(self) -> None:
        """A directory that is no demo stays as it is."""
        self.folder.mkdir()
        code, _, err = run("demo", str(self.folder))
        self.assertEqual(1, code)
        self.assertIn("name another directory", err)
        self.assertEqual([], list(self.folder.iterdir()))
