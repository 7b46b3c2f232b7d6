"""`meshdns intercept` where something stands in its way: one sentence that says what to do, the right exit code, nothing
changed. What it does to a kernel is for tests/e2e/test_interception.py."""

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from meshdns import defaults
from meshdns.host import netfilter
from tests.cli.test_check import run

RESOLV_CONF = "nameserver 192.0.2.1\nsearch a.example\n"


class InterceptTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "bin").mkdir(parents=True)
        self.resolv_conf = self.folder / "resolv.conf"
        self.resolv_conf.write_text(RESOLV_CONF)
        self.patch(defaults, "RESOLV_CONF", str(self.resolv_conf))
        self.patch(defaults, "INTERCEPT_KEPT", str(self.folder / "kept"))
        self.patch(netfilter, "_SEARCHED", str(self.folder / "bin"))
        self.config = self.configure('["127.0.0.1:15053"]')

    def configure(self, listen: str) -> str:
        file = self.folder / "agent.yaml"
        upstream = f"upstream: {{resolv_conf: {self.resolv_conf}}}"
        file.write_text(f"workload: {{namespace: ns1}}\ntable: {{file: t.jsonl}}\nlisten: {listen}\n{upstream}\n")
        return str(file)

    def program(self, name: str, script: str) -> None:
        """A program that does what its script says."""
        file = self.folder / "bin" / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def intercept(self, *words: str) -> tuple[int, str, str]:
        return run("intercept", *words, "--config", self.config)

    def up(self, *words: str) -> tuple[int, str, str]:
        return self.intercept("up", "--uid", "4321", *words)

    def test_usage(self) -> None:
        for words in (
            (),
            ("sideways",),
            ("up", "--uid", "me"),
            ("up", "--uid", "1", "--user", "root"),
            ("up", "--mode", "magic"),
        ):
            self.assertEqual(2, self.intercept(*words)[0], words)

    def test_nothing_there(self) -> None:
        """Neither nft nor iptables, and an agent that no resolv.conf can name."""
        code, out, err = self.up()
        self.assertEqual((1, ""), (code, out))
        self.assertIn("nft is not installed. iptables is not installed.", err)
        self.assertIn('Install nftables, or add "127.0.0.1:53" to listen', err)

    def test_mode_is_not_there(self) -> None:
        code, _, err = self.up("--mode", "iptables")
        self.assertEqual(1, code)
        self.assertEqual("meshdns: iptables is not installed. Try --mode auto.\n", err)

    def test_last_resort(self) -> None:
        """An agent on port 53 can be named; said with the reason."""
        self.configure('["127.0.0.1:53"]')
        code, out, err = self.up()
        self.assertEqual(0, code)
        self.assertIn("resolv-conf is used, since nft is not installed; iptables is not installed", err)
        self.assertIn("names the agent first, at 127.0.0.1", out)
        self.assertIn("nameserver 127.0.0.1\nnameserver 192.0.2.1\n", self.resolv_conf.read_text())
        self.assertEqual((0, f"taken away: {self.resolv_conf}\n", ""), self.intercept("down"))
        self.assertEqual(RESOLV_CONF, self.resolv_conf.read_text())
        self.assertEqual((0, "nothing was up\n", ""), self.intercept("down"))

    def test_nft_refuses(self) -> None:
        """A kernel without what it takes: its own words, and the next way."""
        self.program("nft", "echo 'Error: Could not process rule: No such file or directory' >&2; exit 1")
        self.configure('["127.0.0.1:53"]')
        code, _, err = self.up()
        self.assertEqual(0, code)
        self.assertIn("nft does not take the rules: Error: Could not process rule: No such file or directory", err)

    def test_no_rights(self) -> None:
        self.program("nft", "echo 'Error: Operation not permitted' >&2; exit 1")
        code, _, err = self.up("--mode", "nftables")
        self.assertEqual(1, code)
        self.assertIn("Only root can change them: run this with sudo.", err)

    def test_nft_hangs(self) -> None:
        """Another program holds the rules: after a while that is said, and nothing waits any longer."""
        self.patch(netfilter, "INTERCEPT_COMMAND", 0.2)
        self.program("nft", "exec sleep 60")
        for action in ("up", "down"):
            code, _, err = self.intercept(action, *(["--uid", "4321"] if action == "up" else []))
            self.assertEqual(1, code)
            self.assertIn("nft did not end within 0.2 s", err)

    def test_nft_is_no_program(self) -> None:
        self.program("nft", "")
        (self.folder / "bin" / "nft").write_bytes(b"\x7fELF nonsense")
        code, _, err = self.up()
        self.assertEqual(1, code)
        self.assertIn("nft cannot be run", err)

    def test_link_local_address(self) -> None:
        self.configure('["[fe80::1%eth0]:53"]')
        code, _, err = self.up()
        self.assertEqual(1, code)
        self.assertIn('write listen: ["127.0.0.1:15053", "[::1]:15053"]', err)

    def test_no_configuration(self) -> None:
        self.config = str(self.folder / "missing.yaml")
        code, _, err = self.up()
        self.assertEqual(1, code)
        self.assertIn("missing.yaml", err)

    def test_unknown_user(self) -> None:
        for words in (("--user", "nosuchuser"), ("--uid", "1", "--spare", "nosuchuser")):
            code, _, err = self.intercept("print", *words)
            self.assertEqual(2, code)
            self.assertIn('there is no user "nosuchuser"', err)

    def test_print(self) -> None:
        """Of the last resort the file that would be written."""
        self.configure('["127.0.0.1:53"]')
        code, out, _ = self.intercept("print", "--uid", "4321", "--json")
        self.assertEqual(0, code)
        said = json.loads(out)
        self.assertEqual("resolv-conf", said["mode"])
        self.assertIn("nameserver 127.0.0.1\nnameserver 192.0.2.1\n", said["rules"])
        self.assertEqual(RESOLV_CONF, self.resolv_conf.read_text())
