"""`meshdns bundle`: made beside a control plane, installed below a directory: the files, their modes, and every refusal."""

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from twisted.trial.unittest import SynchronousTestCase

from meshdns import bundles, certificates
from meshdns.agent import config as agent_config
from meshdns.control.tokens import by_hash, find, parse
from meshdns.host import placing
from tests.cli.test_check import run, spawn
from tests.pki import Authority

UNENCRYPTED = serialization.NoEncryption()
PLACES = ("etc/meshdns/agent.yaml", "etc/meshdns/root.pem", "var/lib/meshdns/identity.pem")


class BundleTests(SynchronousTestCase):
    """A folder with a control plane's files, and a machine "vm1" below another."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.root = Authority(self.folder, "root")
        self.key = self.folder / "root.key"
        form = serialization.PrivateFormat.PKCS8
        self.key.write_bytes(self.root.key.private_bytes(serialization.Encoding.PEM, form, UNENCRYPTED))
        self.root.issue("server", "127.0.0.1", "10.0.0.1", "control.example")
        self.control = self.folder / "control.yaml"
        self.configure()
        self.file = self.folder / "vm1.bundle"
        self.machine = self.folder / "machine"
        self.add_machine("vm1")

    def configure(
        self, tls: str = "client_ca: root.pem, client_ca_key: root.key", more: str = "tokens: tokens.yaml"
    ) -> None:
        clusters = (
            "[{name: east, network: east-net, manifests: east/}, {name: west, domain: west.local, manifests: west/}]"
        )
        self.control.write_text(
            f"tls: {{certificate: server.pem, key: server.key, {tls}}}\ntrust_domain: mesh.example\n{more}\nclusters: {clusters}\n"
        )

    def add_machine(self, name: str) -> None:
        (self.machine / "etc").mkdir(parents=True)
        (self.machine / "etc/hostname").write_text(f"{name}\n")
        (self.machine / "etc/passwd").write_text(
            f"root:x:0:0::/root:/bin/sh\nmeshdns:x:{os.getuid()}:{os.getgid()}::/:/bin/false\n"
        )

    def create(self, *words: str, host: str = "vm1", cluster: str = "east", url: str = "https://10.0.0.1:15012") -> Any:
        common = ["--namespace", "ns1", "--control", str(self.control), "--output", str(self.file)]
        place = [*(["--cluster", cluster] if cluster else []), *(["--control-plane", url] if url else [])]
        return run("bundle", "create", host, *common, *place, *words)

    def created(self, *words: str, **options: str) -> bundles.Bundle:
        code, out, err = self.create(*words, **options)
        self.assertEqual(0, code, err)
        self.assertEqual(bundles.digest(self.file.read_bytes()), out.strip())
        return bundles.read(self.file.read_bytes(), "0")

    def install(self, *words: str) -> tuple[int, str, str]:
        return run("bundle", "install", str(self.file), "--root", str(self.machine), *words)

    def tree(self) -> dict[str, bytes]:
        return {
            str(each.relative_to(self.machine)): each.read_bytes() for each in self.machine.rglob("*") if each.is_file()
        }

    def refused(self, told: str, *words: str) -> None:
        """An install that changes nothing at all, and says why."""
        before = self.tree()
        code, out, err = self.install(*words)
        self.assertEqual((1, ""), (code, out))
        self.assertIn(told, err)
        self.assertNotIn("Traceback", err)
        self.assertEqual(before, self.tree())


class CreateTests(BundleTests):
    def test_certificate(self) -> None:
        """Key, certificate with the SPIFFE name (X10), trust root and pin (X9), numeric address; the file is its owner's."""
        made = self.created("--service-account", "web")
        self.assertEqual({"agent.yaml", "root.pem", "identity.pem"}, made.files.keys())
        self.assertEqual(0o600, self.file.stat().st_mode & 0o777)
        pem = made.files["identity.pem"].encode()
        certificate = certificates.read_certificates(pem)[0]
        self.assertTrue(certificates.fits(certificate, certificates.read_key(pem)))
        self.assertIn("spiffe://mesh.example/ns/ns1/sa/web", certificate_uris(certificate))
        config = agent_config.parse(made.files["agent.yaml"].encode(), "agent.yaml", "/etc/meshdns")
        said = config.table.control_plane
        assert said is not None
        self.assertEqual(("https://10.0.0.1:15012",), said.urls)
        self.assertEqual(("/etc/meshdns/root.pem", (self.root.pin,)), (said.ca, said.pins))
        self.assertEqual(said.certificate, said.key)
        self.assertEqual(("east", "east-net"), (config.workload.cluster, config.workload.network))
        self.assertEqual(self.root.pem.read_text(), made.files["root.pem"])

    def test_lifetimes(self) -> None:
        """The bundle's end is its own, but never after that of the identity in it."""
        now = datetime.now(UTC).timestamp()
        made = self.created("--expires", "2h")
        self.assertTrue(abs(made.expires - now - 7200) < 60)
        made = self.created("--lifetime", "1h")
        self.assertTrue(abs(made.expires - now - 3600) < 60)

    def test_token(self) -> None:
        """The control plane knows the token by its hash; the bundle has it in clear."""
        made = self.created("--token", "--lifetime", "1h")
        found = find(by_hash(parse((self.folder / "tokens.yaml").read_bytes(), "f")), made.files["token"].strip())
        assert found is not None and found.expires is not None
        self.assertEqual(("ns1", "default"), (found.namespace, found.service_account))
        self.assertNotIn("identity.pem", made.files)

    def test_no_token_without_bundle(self) -> None:
        self.file = self.folder / "no/such/dir/vm1.bundle"
        os.chmod(self.folder, 0o755)
        (self.folder / "no").write_text("")
        self.assertEqual(1, self.create("--token")[0])
        self.assertFalse((self.folder / "tokens.yaml").exists())

    def test_no_bundle_without_token(self) -> None:
        (self.folder / "tokens.yaml").write_text("tokens: {nonsense")
        code, _, err = self.create("--token")
        self.assertEqual(1, code)
        self.assertIn("there is no bundle", err)
        self.assertFalse(self.file.exists())

    def test_request(self) -> None:
        """The VM's key never leaves it."""
        code, pem, _ = run("bundle", "request", "--root", str(self.machine))
        self.assertEqual(0, code)
        again = run("bundle", "request", "--root", str(self.machine))[1]
        self.assertEqual(*[certificates.read_request(each.encode()) for each in (pem, again)])
        (self.folder / "vm1.csr").write_text(pem)
        made = self.created("--csr", str(self.folder / "vm1.csr"))
        self.assertNotIn("PRIVATE KEY", made.files["identity.pem"])
        self.assertEqual(0, self.install()[0])
        installed = (self.machine / "var/lib/meshdns/identity.pem").read_bytes()
        self.assertTrue(
            certificates.fits(certificates.read_certificates(installed)[0], certificates.read_key(installed))
        )
        self.assertFalse((self.machine / "var/lib/meshdns/request.key").exists())
        self.assertEqual(0, self.install()[0], "a second time, too: the key is in its place now")

    def test_stranger_to_request(self) -> None:
        """A certificate for a key that is not here is of no use."""
        _, pem, _ = run("bundle", "request", "--root", str(self.machine))
        (self.folder / "vm1.csr").write_text(pem)
        self.created("--csr", str(self.folder / "vm1.csr"))
        (self.machine / "var/lib/meshdns/request.key").unlink()
        self.refused("a key that is not here")

    def test_name(self) -> None:
        """Where the certificate bears a name only, the address goes beside it: nothing is resolved to start."""
        code, _, err = self.create(url="https://10.9.9.9:15012")
        self.assertEqual(1, code)
        self.assertIn("is for control.example, 127.0.0.1, 10.0.0.1, not for 10.9.9.9", err)
        made = self.created("--name", "Control.example", url="https://10.9.9.9:15012")
        self.assertIn('name: "Control.example"', made.files["agent.yaml"])
        code, _, err = self.create(url="https://control.example:15012")
        self.assertEqual(2, code)
        self.assertIn("--name NAME", err)

    def test_server_of_another_authority(self) -> None:
        """Agents' authority and server's may be two: without --trust a pin of the server's own key must do."""
        other = Authority(self.folder, "other")
        served = other.issue("server", "10.0.0.1")
        made = self.created()
        self.assertNotIn("root.pem", made.files)
        self.assertIn(served.pin, made.files["agent.yaml"])
        made = self.created("--trust", str(other.pem))
        self.assertEqual(other.pem.read_text(), made.files["root.pem"])
        self.assertIn(other.pin, made.files["agent.yaml"])
        code, _, err = self.create("--trust", str(self.root.pem))
        self.assertEqual((1, True), (code, "has not issued" in err))

    def test_settings(self) -> None:
        """More of the agent's configuration, checked by the agent's own reader."""
        more = self.folder / "more.yaml"
        more.write_text("autopath: mesh\nupstream: {domains: {corp.example: [10.0.0.53]}}\n")
        self.assertIn("autopath: mesh", self.created("--settings", str(more)).files["agent.yaml"])
        for text, told in (("autopath: mush\n", "autopath"), ("table: {file: x}\n", "table"), ("\xff", "UTF-8")):
            more.write_bytes(text.encode("latin-1"))
            code, _, err = self.create("--settings", str(more))
            self.assertEqual((1, True), (code, told in err), err)

    def test_one_cluster(self) -> None:
        """With one cluster nothing need be said; with two it must."""
        code, _, err = self.create(cluster="")
        self.assertEqual((2, True), (code, "one of east, west" in err))
        code, _, err = self.create(cluster="north")
        self.assertEqual((2, True), (code, "there are east, west" in err))
        self.assertIn('"cluster_domain": "west.local"', self.created(cluster="west").files["agent.yaml"])

    def test_wrong_words(self) -> None:
        for words, told in (
            (["--lifetime", "soon"], "soon"),
            (["--expires", "1s"], "a minute is the least"),
            (["--namespace", "A_b"], "A_b"),
            (["--service-account", "a b"], "service account"),
            (["--token", "--csr", "x"], "two identities"),
        ):
            code, out, err = self.create(*words)
            self.assertEqual((2, ""), (code, out), words)
            self.assertIn(told, err)
        self.assertEqual(2, self.create(host="a b")[0])
        self.assertFalse(self.file.exists())

    def test_missing_files(self) -> None:
        """Each in a sentence that names the file or the key of the configuration."""
        for words, told in (
            (["--csr", "no.csr"], "no.csr cannot be read"),
            (["--ca-key", "no.key"], "no.key cannot be read"),
            (["--ca-key", str(self.folder / "server.key")], "is not the key of that certificate"),
            (["--settings", "no.yaml"], "no.yaml cannot be read"),
            (["--control", "no/control.yaml"], "--control FILE"),
        ):
            code, out, err = self.create(*words)
            self.assertEqual((1, ""), (code, out), words)
            self.assertIn(told, err)
        self.configure("client_ca: root.pem")
        self.assertIn("--ca-key FILE", self.create()[2])
        self.configure("", "tokens: t.yaml")
        self.assertIn("--token", self.create()[2])
        self.configure("client_ca: root.pem", "")
        self.assertIn("names no tokens file", self.create("--token")[2])

    def test_expired_authority(self) -> None:
        old = Authority(self.folder, "root")
        old.certificate = old.sign(old.name, old.key, BASIC, days=(-30, -1))
        old.pem.write_bytes(old.certificate.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8
        self.key.write_bytes(old.key.private_bytes(serialization.Encoding.PEM, form, UNENCRYPTED))
        code, _, err = self.create()
        self.assertEqual((1, True), (code, "has expired on" in err), err)

    def test_json(self) -> None:
        code, out, err = self.create("--json")
        self.assertEqual((0, ""), (code, err))
        self.assertEqual(bundles.digest(self.file.read_bytes()), json.loads(out)["digest"])


class InstallTests(BundleTests):
    def test_installed(self) -> None:
        """Right contents and modes; what is to be done next is said; nothing else is left."""
        made = self.created()
        code, out, err = self.install("--digest", bundles.digest(self.file.read_bytes()))
        self.assertEqual((0, ""), (code, err))
        self.assertIn("Installed for vm1", out)
        self.assertEqual({*PLACES, "etc/hostname", "etc/passwd"}, self.tree().keys())
        for path, name, mode in zip(
            PLACES, ("agent.yaml", "root.pem", "identity.pem"), (0o640, 0o644, 0o600), strict=True
        ):
            self.assertEqual(made.files[name], (self.machine / path).read_text())
            self.assertEqual(mode, (self.machine / path).stat().st_mode & 0o777, path)
        self.assertEqual(0o700, (self.machine / "var/lib/meshdns").stat().st_mode & 0o777)

    def test_image_with_unit(self) -> None:
        """In an image the unit is enabled, and nothing is started."""
        units = self.machine / "usr/lib/systemd/system"
        units.mkdir(parents=True)
        (units / "meshdns.service").write_text(
            "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
        )
        self.created()
        code, out, _ = self.install()
        self.assertEqual((0, True), (code, "starts when this machine does" in out), out)
        self.assertTrue((self.machine / "etc/systemd/system/multi-user.target.wants/meshdns.service").is_symlink())

    def test_upgrade(self) -> None:
        """A second bundle replaces the first."""
        self.created()
        self.install()
        made = self.created("--service-account", "other")
        self.assertEqual(0, self.install()[0])
        self.assertEqual(made.files["identity.pem"], (self.machine / PLACES[2]).read_text())
        self.assertEqual({*PLACES, "etc/hostname", "etc/passwd"}, self.tree().keys())

    def test_dry_run(self) -> None:
        """Everything is checked and told, nothing is written."""
        self.created()
        before = self.tree()
        code, out, _ = self.install("--dry-run")
        self.assertEqual(0, code)
        self.assertRegex(out, r"machine/var/lib/meshdns/identity.pem, mode 0600, new")
        self.assertEqual(before, self.tree())
        self.install()
        self.assertRegex(self.install("--dry-run")[1], r"identity.pem, mode 0600, as it is there")

    def test_digest(self) -> None:
        """Tampered by somebody who makes the checksum fit: only the digest finds it, and does."""
        self.created()
        said = bundles.digest(self.file.read_bytes())
        self.assertIn(said, self.install("--dry-run")[2])
        made = bundles.read(self.file.read_bytes(), "0")
        evil = {**made.files, "agent.yaml": made.files["agent.yaml"].replace("10.0.0.1", "10.6.6.6")}
        self.file.write_bytes(bundles.to_bytes(bundles.Bundle(
            version=made.version, host=made.host, created=made.created, expires=made.expires, files=evil
        )))  # fmt: skip
        self.refused("is not the file that was made", "--digest", said)
        self.assertEqual(2, self.install("--digest", "abc")[0])

    def test_tampered(self) -> None:
        self.created()
        self.file.write_bytes(self.file.read_bytes().replace(b"10.0.0.1", b"10.6.6.6"))
        self.refused("changed or damaged")

    def test_cut_off(self) -> None:
        self.created()
        self.file.write_bytes(self.file.read_bytes()[:-100])
        self.refused("copy it again")

    def test_other_host(self) -> None:
        self.created(host="vm2")
        self.refused('for the host "vm2"')
        self.assertEqual(0, self.install("--force-host")[0])

    def test_image_without_name(self) -> None:
        """An image that gets its name later takes any."""
        self.created(host="vm2")
        (self.machine / "etc/hostname").unlink()
        self.assertEqual(0, self.install()[0])

    def test_no_user(self) -> None:
        """Root must know to whom to give the files; the sentence says how to make the user."""
        if os.geteuid():
            self.skipTest("files are given away by root only")
        self.created()
        (self.machine / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        self.refused("useradd --system")

    def test_clock(self) -> None:
        """A year off, either way (faketime): the sentence names the clock."""
        self.created()
        for offset, told in (("-365d", "it was made on"), ("+365d", "it has expired on")):
            command = [sys.executable, "-c", "import sys; from meshdns.cli import main; sys.exit(main())"]
            words = ["bundle", "install", str(self.file), "--root", str(self.machine)]
            done = subprocess.run(
                ["faketime", "-f", offset, *command, *words], capture_output=True, text=True, timeout=60
            )
            year = (datetime.now(UTC) + timedelta(days=int(offset[:-1]))).year
            self.assertEqual(1, done.returncode, done.stderr)
            self.assertIn(told, done.stderr)
            self.assertIn(f"this machine's clock says {year}-", done.stderr)
            self.assertEqual({"etc/hostname", "etc/passwd"}, self.tree().keys())

    def test_newer_version(self) -> None:
        """A key that this version does not know is told with both versions."""
        made = self.created()
        files = {**made.files, "agent.yaml": made.files["agent.yaml"] + "warp: 9\n"}
        self.file.write_bytes(bundles.to_bytes(bundles.Bundle(
            version="9.9", host="vm1", created=made.created, expires=made.expires, files=files
        )))  # fmt: skip
        self.refused("was made by meshdns 9.9")

    def test_missing(self) -> None:
        self.file = self.folder / "nowhere"
        self.refused("cannot be read: No such file")

    def test_disk_full(self) -> None:
        """A file that cannot be written whole (RLIMIT_FSIZE): the first bundle stays in force, file by file."""
        self.created()
        self.install()
        before = self.tree()
        more = self.folder / "more.yaml"
        more.write_text(f"# {'x' * 20_000}\n")
        self.created("--settings", str(more))
        words = ("bundle", "install", str(self.file), "--root", str(self.machine))
        done = spawn(*words, preexec_fn=_little_room)
        self.assertEqual(1, done.returncode, done.stdout + done.stderr)
        self.assertIn("nothing was installed, and all is as it was: File too large", done.stderr)
        self.assertEqual(before, self.tree())

    def test_disk_of_its_own(self) -> None:
        """A real disk of so many pages, of which two hold what the machine has: full before the first of three files, after one,
        after two; and at an upgrade, which needs room for all three again."""
        if os.geteuid():
            self.skipTest("disks are mounted by root only")
        self.created()
        for pages, code in ((2, 1), (3, 1), (4, 1), (5, 0)):
            done, files = self.install_on_disk(pages)
            self.assertEqual((code, 5 if not code else 2), (done.returncode, len(files)), (pages, done.stderr))
            if code:
                self.assertIn("all is as it was: No space left on device", done.stderr)
                self.assertIn("make room on the disk, then install again", done.stderr)
                self.assertNotIn("Traceback", done.stderr)
        for pages, code in ((5, 1), (7, 1), (8, 0)):
            done, files = self.install_on_disk(pages, twice=True)
            self.assertEqual((code, 5), (done.returncode, len(files)), (pages, done.stderr))
            self.assertEqual([bool(code)] * 3, [files[f"/{each}"] == "first" for each in PLACES])

    def install_on_disk(
        self, pages: int, *, twice: bool = False
    ) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
        """An install there, and how each file begins that is there afterwards. `twice`: over what an earlier one left, whose
        files all begin with "first"."""
        passwd = self.folder / "passwd"
        passwd.write_text((self.machine / "etc/passwd").read_text())
        script = """
            mount -t tmpfs -o size="$1" none "$0"
            mkdir -p "$0/etc/meshdns" "$0/var/lib/meshdns"
            cp "$2" "$0/etc/passwd"; echo vm1 >"$0/etc/hostname"
            for each in $3; do echo first >"$0/$each"; done
            shift 3
            "$@"; code=$?
            find "$0" -type f -exec sh -c 'echo "$1 $(head -c 5 "$1")"' sh {} ';'; exit $code"""
        meshdns = [sys.executable, "-c", "import sys; from meshdns.cli import main; sys.exit(main())"]
        command = [*meshdns, "bundle", "install", str(self.file), "--root", str(self.machine)]
        words = [str(self.machine), str(pages * resource.getpagesize()), str(passwd), " ".join(PLACES) if twice else ""]
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, *words, *command], capture_output=True, text=True, timeout=60
        )
        return done, dict(re.findall(rf"(?m)^{self.machine}(\S+) (.*)$", done.stdout))

    def test_disk_full_at_first(self) -> None:
        """And where nothing was, nothing is, not even a directory."""
        more = self.folder / "more.yaml"
        more.write_text(f"# {'x' * 20_000}\n")
        self.created("--settings", str(more))
        done = spawn("bundle", "install", str(self.file), "--root", str(self.machine), preexec_fn=_little_room)
        self.assertEqual(1, done.returncode, done.stdout + done.stderr)
        self.assertEqual({"hostname", "passwd"}, {each.name for each in (self.machine / "etc").iterdir()})
        self.assertFalse((self.machine / "var").exists())

    def test_every_step_may_fail(self) -> None:
        """Whichever rename or write fails, all is as it was before."""
        self.created()
        self.install()
        before = self.tree()
        self.created("--service-account", "other")
        for name in ("replace", "link", "fsync"):
            for number in range(1, 4):
                self._break(name, number)
                code, _, err = self.install()
                self.assertEqual(1, code, (name, number))
                self.assertIn("all is as it was", err)
                self.assertEqual(before, self.tree(), (name, number))
        self.assertEqual(0, self.install()[0])

    def _break(self, name: str, number: int) -> None:
        """The call of this number to a function of `os` fails."""
        real, calls = getattr(os, name), []

        def call(*words: Any, **more: Any) -> Any:
            calls.append(words)
            if len(calls) == number:
                patch.restore()
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*words, **more)

        patch = self.patch(placing.os, name, call)


def _little_room() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))


def certificate_uris(certificate: Any) -> list[str]:
    return re.findall(r"spiffe://[a-zA-Z0-9./-]+", str(certificate.extensions))


BASIC = certificates.x509.BasicConstraints(ca=True, path_length=None)
