"""What a machine is given beside the code: units, scripts, manual page and completion say what is so."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from meshdns import __version__, cli, defaults

ROOT = Path(__file__).resolve().parents[1]
ETC = ROOT / "etc"


def said(*words: str | Path, **environment: str) -> str:
    """What a program prints, errors and all; one that fails fails the test."""
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
        env=environment or None,
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(f"{words} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


class UnitTests(SynchronousTestCase):
    def test_sandbox(self) -> None:
        """At most 2.0 where queries of others are read (issue 6); systemd's own judgement."""
        if not shutil.which("systemd-analyze"):
            self.skipTest("systemd is not installed")
        for unit in ("meshdns", "meshdns-control"):
            said("systemd-analyze", "security", "--offline=true", "--threshold=20", ETC / f"systemd/{unit}.service")

    def test_paths(self) -> None:
        """They name the files that the code looks for."""
        for unit in ("meshdns", "meshdns-intercept"):
            text = (ETC / f"systemd/{unit}.service").read_text()
            self.assertIn(f"--config {defaults.CONFIG_FILE}", text)
        self.assertIn(f"--config {defaults.CONTROL_CONFIG_FILE}", (ETC / "systemd/meshdns-control.service").read_text())
        self.assertIn(f"u {defaults.USER} ", (ETC / "sysusers.d/meshdns.conf").read_text())
        self.assertIn(f"d {defaults.STATE} 0700", (ETC / "tmpfiles.d/meshdns.conf").read_text())

    def test_shell(self) -> None:
        """Every script is one that its shell can read."""
        for script in ("init.d/meshdns", "debian/postinst", "debian/prerm", "debian/postrm", "default/meshdns"):
            self.assertEqual("", said("sh", "-n", ETC / script))
        for script in ("debian/package", "bash-completion/meshdns"):
            self.assertEqual("", said("bash", "-n", ETC / script))


class ManualTests(SynchronousTestCase):
    text = (ETC / "man/meshdns.8").read_text()

    def test_every_command(self) -> None:
        plain = self.text.replace("\\", "")
        for command in cli.COMMANDS:
            self.assertRegex(plain, rf'(?m)^\.B[RI]? "?{command}\b', command)

    def test_version(self) -> None:
        self.assertIn(f'"meshdns {__version__}"', self.text)

    def test_well_formed(self) -> None:
        """groff has nothing to say."""
        if not shutil.which("man"):
            self.skipTest("man-db is not installed")
        shown = said(
            "man", "--warnings", "-l", ETC / "man/meshdns.8", PATH="/usr/bin:/bin", MANWIDTH="100", LC_ALL="C.UTF-8"
        )
        self.assertNotIn("warning", shown)
        self.assertIn("bundle install FILE", shown)


class CompletionTests(SynchronousTestCase):
    """What bash offers is what the command takes."""

    def complete(self, *words: str) -> set[str]:
        """The offers for the last word."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        command = folder / "meshdns"
        run = "import sys; from meshdns.cli import main; sys.exit(main())"
        command.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec {sys.executable} -c "{run}" "$@"\n')
        command.chmod(0o755)
        line = " ".join(f"'{word}'" for word in ("meshdns", *words))
        script = f'. {ETC}/bash-completion/meshdns; COMP_WORDS=({line}) COMP_CWORD={len(words)}; _meshdns; echo "${{COMPREPLY[@]}}"'
        return set(said("bash", "-c", f"cd {folder}; {script}", PATH=f"{folder}:/usr/bin:/bin").split())

    def test_commands(self) -> None:
        self.assertEqual(set(cli.COMMANDS), self.complete(""))
        self.assertEqual({"query"}, self.complete("q"))

    def test_actions(self) -> None:
        self.assertEqual({"create", "install", "request"}, self.complete("bundle", ""))
        self.assertEqual({"verify"}, self.complete("intercept", "v"))

    def test_options(self) -> None:
        self.assertEqual({"--digest", "--dry-run"}, self.complete("bundle", "install", "--d"))
        self.assertEqual({"--config"}, self.complete("status", "--c"))

    def test_files(self) -> None:
        """Where the command itself offers nothing, files are."""
        self.assertEqual({"meshdns"}, self.complete("check", "mesh"))


class PackageTests(SynchronousTestCase):
    def test_conffiles(self) -> None:
        """Each file below /etc that the package brings is kept when its owner has changed it."""
        brought = re.findall(r" (etc/\S+)$", (ETC / "debian/package").read_text(), re.MULTILINE)
        self.assertEqual({f"/{each}" for each in brought}, set((ETC / "debian/conffiles").read_text().split()))
