"""Who starts services on a machine: found by its files, told by its own commands; what it says against it comes back."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from meshdns.host import services


class FindTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.tools = self.root / "tools"
        self.tools.mkdir(parents=True)
        self.patch(services, "which", lambda name: str(self.tools / name) if (self.tools / name).exists() else None)

    def put(self, place: str) -> None:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o755)

    def test_image_with_unit(self) -> None:
        """In an image it is enabled offline, wherever the unit stands."""
        self.put("tools/systemctl")
        for folder in ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"):
            self.put(f"{folder}/meshdns.service")
            found = services.find("meshdns", str(self.root))
            assert found is not None
            self.assertEqual(
                ("systemctl", "--root", str(self.root), "--quiet", "enable", "meshdns.service"), found.enable
            )
            (self.root / folder / "meshdns.service").unlink()

    def test_image_without(self) -> None:
        """No unit, or no systemctl here, or only a script, which an image's tools would have to enable: nobody."""
        self.put("tools/systemctl")
        self.put("etc/init.d/meshdns")
        self.assertIsNone(services.find("meshdns", str(self.root)))
        self.put("usr/lib/systemd/system/meshdns.service")
        self.assertIsNone(services.find("other", str(self.root)))
        (self.tools / "systemctl").unlink()
        self.assertIsNone(services.find("meshdns", str(self.root)))

    def test_this_machine_without(self) -> None:
        self.assertIsNone(services.find("meshdns-that-is-not-there"))


class RunTests(SynchronousTestCase):
    def test_done(self) -> None:
        self.assertEqual("", services.run(("true",)))

    def test_failed(self) -> None:
        """What it says, else its status."""
        self.assertEqual("no luck today", services.run(("sh", "-c", "echo 'no luck\n  today' >&2; exit 3")))
        self.assertEqual("on stdout", services.run(("sh", "-c", "echo on stdout; exit 3")))
        self.assertEqual("it ended with 3", services.run(("sh", "-c", "exit 3")))
        self.assertIn("No such file", services.run(("meshdns-no-such-command",)))

    def test_hangs(self) -> None:
        self.patch(services, "SERVICE_WAIT", 0.2)
        self.assertIn("no end in", services.run(("sleep", "60")))
