"""resolv.conf in the agent's hands and back (`meshdns intercept --mode resolv-conf`), with real files."""

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from meshdns.host import resolvfile
from meshdns.host.resolvconf import parse, read
from meshdns.values import Endpoint

OLD = """\
# by hand
nameserver 10.0.0.1
nameserver 10.0.0.2
nameserver 10.0.0.3
search a.example
options ndots:5 rotate timeout:9
"""
AGENT = "127.0.0.1"


class ResolvFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "etc").mkdir(parents=True)
        self.file = self.folder / "etc" / "resolv.conf"
        self.file.write_text(OLD)
        self.kept = self.folder / "var" / "resolv.conf"

    def put(self) -> bool:
        return resolvfile.put(str(self.file), str(self.kept), AGENT)

    def restore(self) -> bool:
        return resolvfile.restore(str(self.file), str(self.kept))

    def test_text(self) -> None:
        """The agent first, then as many of the old as glibc takes; a stopped agent costs a second; no `rotate` passes it over."""
        conf = parse(resolvfile.text(OLD, AGENT))
        self.assertEqual((AGENT, "10.0.0.1", "10.0.0.2"), conf.nameservers)
        self.assertEqual((1, 5, False), (conf.timeout, conf.ndots, conf.rotate))
        self.assertEqual(parse(OLD).search, conf.search)
        self.assertEqual((), conf.ignored)

    def test_there_and_back(self) -> None:
        self.assertTrue(self.put())
        self.assertTrue(resolvfile.stands(str(self.file)))
        self.assertEqual(OLD, self.kept.read_text())
        self.assertFalse(self.put())
        self.assertTrue(self.restore())
        self.assertEqual(OLD, self.file.read_text())
        self.assertFalse(self.kept.exists())
        self.assertFalse(self.restore())
        self.assertEqual(["resolv.conf"], os.listdir(self.folder / "etc"))

    def test_readable_by_all(self) -> None:
        mask = os.umask(0o077)
        self.addCleanup(os.umask, mask)
        self.put()
        self.assertEqual(0o644, self.file.stat().st_mode & 0o777)
        self.restore()
        self.assertEqual(0o644, self.file.stat().st_mode & 0o777)

    def test_agent_asks_the_old_servers(self) -> None:
        """D19: from our file or from the kept one, the agent asks the old servers and never itself."""
        self.put()
        own = [Endpoint(AGENT, 53)]
        for path in (self.file, self.kept):
            self.assertEqual("10.0.0.1", read(str(path), own, ()).conf.nameservers[0])

    def test_link(self) -> None:
        """systemd-resolved's: what it leads to is not written, and the same link comes back."""
        stub = self.folder / "run" / "stub.conf"
        stub.parent.mkdir()
        stub.write_text("nameserver 127.0.0.53\n")
        self.file.unlink()
        self.file.symlink_to("../run/stub.conf")
        self.assertTrue(self.put())
        self.assertFalse(self.file.is_symlink())
        self.assertEqual((AGENT, "127.0.0.53"), parse(self.file.read_text()).nameservers)
        self.assertEqual("nameserver 127.0.0.53\n", stub.read_text())
        stub.write_text("nameserver 127.0.0.54\n")
        self.assertEqual("nameserver 127.0.0.54\n", self.kept.read_text())
        self.assertTrue(self.put())
        self.assertEqual((AGENT, "127.0.0.54"), parse(self.file.read_text()).nameservers)
        self.assertTrue(self.restore())
        self.assertEqual("../run/stub.conf", os.readlink(self.file))
        self.assertFalse(os.path.lexists(self.kept))

    def test_replaced_by_others(self) -> None:
        """DHCP's new file is the old one from now on; `down` leaves it alone."""
        self.put()
        self.file.write_text("nameserver 10.9.9.9\n")
        self.assertFalse(resolvfile.stands(str(self.file)))
        self.assertTrue(self.put())
        self.assertEqual("nameserver 10.9.9.9\n", self.kept.read_text())
        self.file.write_text("nameserver 10.8.8.8\n")
        self.assertTrue(self.restore())
        self.assertEqual("nameserver 10.8.8.8\n", self.file.read_text())
        self.assertFalse(self.kept.exists())

    def test_kept_file_is_lost(self) -> None:
        """Then the old servers that stand in ours are left."""
        self.put()
        self.kept.unlink()
        self.assertTrue(self.restore())
        self.assertEqual(("10.0.0.1", "10.0.0.2"), parse(self.file.read_text()).nameservers)

    def test_no_file(self) -> None:
        self.file.unlink()
        self.assertTrue(self.put())
        self.assertEqual((AGENT,), parse(self.file.read_text()).nameservers)
        self.assertTrue(self.restore())

    def test_no_right(self) -> None:
        """Nothing is changed, and nothing lies about."""
        self.kept = self.folder / "etc" / "resolv.conf" / "below a file"
        self.assertRaises(OSError, self.put)
        self.assertEqual(OLD, self.file.read_text())
        self.assertEqual(["resolv.conf"], os.listdir(self.folder / "etc"))
