"""A booted machine that joins the mesh: by the package, a control plane on it, and a bundle."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep
from typing import Any

from meshdns import certificates
from tests.e2e.machine import SERVER, Machine, why_not
from tests.e2e.stage import PATIENCE, ROOT, Stage
from tests.pki import Authority

SERVICE, ADDRESS = "productpage.ns1.svc.cluster.local", "10.4.0.5"
PUBLIC, PUBLIC_ADDRESS = "www.example.com", "192.0.2.80"
GUIDE = (ROOT / "docs/vm.md").read_text()
CLIENT = Path(__file__).with_name("clients") / "steady.py"
SCRATCH = (".git", ".venv", "_trial_temp*", "build", "dist", "*.egg-info", "__pycache__", "dropin.cache", ".*_cache")


@cache
def workplace() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="meshdns-deb-")


@cache
def package() -> Path:
    """The package, by the one command, from a copy so that nothing is left in the checkout."""
    source = Path(workplace().name, "source")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*SCRATCH))
    done = subprocess.run(
        ["make", "deb"], cwd=source, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        raise AssertionError(f"make deb failed:\n{done.stdout}{done.stderr}")
    (built,) = (source / "dist").glob("*.deb")
    return built


class MachineTests(Stage):
    """A machine "vm1" with the package, a control plane on it, and a resolver that it had before."""

    def setUp(self) -> None:
        super().setUp()
        if reason := why_not():
            self.skipTest(reason)
        self.vm = Machine(self)

    def install_package(self) -> None:
        shutil.copy(package(), self.vm.path("/root/meshdns.deb"))
        self.vm.do("dpkg", "--install", "/root/meshdns.deb", wait=120)

    def start_resolver(self) -> None:
        """What the machine had before: it knows one public name, and nothing of the mesh."""
        words = (
            f"--no-daemon --no-resolv --no-hosts --listen-address={SERVER} --bind-interfaces --pid-file= --user=root"
        )
        entry = f"--host-record={PUBLIC},{PUBLIC_ADDRESS}"
        self.vm.do("systemd-run", "--quiet", "--unit=resolver", "dnsmasq", *words.split(), "--local=/local/", entry)
        self.vm.until("the resolver", lambda: self.resolved(PUBLIC))

    def start_control(self, **tls: str) -> None:
        """A control plane of its own unit, with the sample mesh."""
        shutil.copytree(ROOT / "meshdns/samples/mesh", self.vm.path("/etc/meshdns"), dirs_exist_ok=True)
        folder = self.folder / "pki"
        folder.mkdir()
        root = Authority(folder, "root")
        root.issue("server", "127.0.0.1")
        (folder / "root.key").write_bytes(_pem(root.key))
        for each in folder.iterdir():
            shutil.copy(each, self.vm.path("/etc/meshdns"))
            os.chmod(self.vm.path(f"/etc/meshdns/{each.name}"), 0o644)
        self.vm.path("/etc/meshdns/control.yaml").write_text(
            "tls: {certificate: server.pem, key: server.key, client_ca: root.pem, client_ca_key: root.key}\n"
            "clusters: [{name: east, network: east-net, manifests: east/}, {name: west, network: west-net, manifests: west/}]\n"
            'listen: ["127.0.0.1:15012"]\n'
        )
        self.vm.do("systemctl", "start", "meshdns-control.service")

    def make_bundle(self, *words: str, host: str = "vm1") -> str:
        """Its digest; the file is /root/vm1.bundle."""
        common = "--namespace ns1 --cluster east --control-plane https://127.0.0.1:15012 --output /root/vm1.bundle"
        said = self.vm.do("meshdns", "bundle", "create", host, *common.split(), *words)
        return re.findall(r"(?m)^[0-9a-f]{64}$", said)[0]

    def install_bundle(self, *words: str) -> str:
        return self.vm.do("meshdns", "bundle", "install", "/root/vm1.bundle", *words, wait=120)

    def join(self) -> None:
        """All of it."""
        self.start_resolver()
        self.join_mesh()

    def join_mesh(self) -> None:
        """All of it, where a resolver is there already."""
        self.vm.until("the old server", lambda: self.resolved(PUBLIC) == PUBLIC_ADDRESS)
        self.install_package()
        self.start_control()
        self.make_bundle()
        self.assertIn("All is well", self.install_bundle())

    def redirect_everything(self) -> None:
        """Queries to every server are redirected from now on: a resolver of the machine that is not spared asks in a circle."""
        self.vm.path("/etc/default/meshdns").write_text("INTERCEPT_OPTIONS=--all\n")
        self.vm.do("systemctl", "restart", "meshdns-intercept")

    def ask_steadily(
        self, name: str, address: str, during: Callable[[], object], server: str = SERVER
    ) -> dict[str, Any]:
        """What a client that asks every 10 ms, a second longer than something lasts, gets: see clients/steady.py."""
        self.vm.path("/root/steady.py").write_text(CLIENT.read_text())
        end = self.vm.path("/tmp/steady.end")
        client = subprocess.Popen(
            self.vm.command("python3", "/root/steady.py", server, name, address, "/tmp/steady.end"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.assertIsNotNone(client.stdout and client.stdout.readline())
            during()
            sleep(1)
        finally:
            end.touch()
            said, _ = client.communicate(timeout=PATIENCE)
            end.unlink()
        found: dict[str, Any] = json.loads(said)
        print(f"\n    {self.id().rpartition('.')[2]}: {said.strip()}")
        self.assertGreater(found["sent"], 100)
        return found

    def rules(self) -> str:
        return self.vm.do("nft", "list", "ruleset")

    def resolved(self, name: str) -> str:
        """What an unmodified application finds."""
        done = self.vm.run("getent", "ahostsv4", name)
        return done.stdout.split()[0] if done.stdout else ""


def _pem(key: Any) -> bytes:
    return certificates.key_text(key).encode()
