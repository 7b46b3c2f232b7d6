"""A machine with Docker, the real one: what its containers find (docs/vm.md, "Containers"; issue 6)."""

import re

from tests.e2e.hosts import Host
from tests.e2e.joining import ADDRESS, GUIDE, PUBLIC, PUBLIC_ADDRESS, SERVICE, MachineTests
from tests.e2e.test_clients import CLIENTS, needs
from tests.e2e.vm import SERVER, plug_in, start_old_server

_VIP_NAME = "db1.example.com"
_VIP = "240.240."
_PLACES = {"json": "/etc/docker/daemon.json", "ini": "/etc/systemd/system/docker.service.d/meshdns.conf"}


class DockerTests(MachineTests):
    def setUp(self) -> None:
        super().setUp()
        needs("musl-gcc")
        self.far = Host(self, "", "far")
        plug_in(self.far, self.vm, "10.9.0.2/24")
        self.old = start_old_server(self, self.far)
        self.vm.bring("containerd", "docker.io", "runc")
        self.vm.do("groupadd", "--system", "docker")
        self.image = self.folder / "image"
        self.image.mkdir()
        self.said_by(["musl-gcc", "-static", "-O1", "-o", self.image / "lookup", CLIENTS / "lookup.c"])
        self.said_by(["tar", "-C", self.image, "-cf", self.vm.path("/root/image.tar"), "."])

    def start_docker(self) -> None:
        self.vm.do("systemctl", "daemon-reload")
        self.vm.do("systemctl", "start", "docker")
        self.vm.do("docker", "import", "/root/image.tar", "lookup")
        self.vm.do("docker", "network", "create", "own")

    def found(self, network: str, name: str) -> str:
        """What a container on this network finds, by a static program of musl's."""
        words = ["docker", "run", "--rm", "--network", network, "lookup", "/lookup", name]
        return " ".join(re.findall(r"address (\S+)", self.vm.run(*words).stdout))

    def finds_mesh(self, network: str) -> None:
        self.assertEqual(ADDRESS, self.found(network, SERVICE))
        self.assertIn(_VIP, self.found(network, _VIP_NAME))
        self.asks_once(network)

    def asks_once(self, network: str) -> None:
        """A public name is found, and no question goes round."""
        before = self.count_asked()
        self.assertIn(PUBLIC_ADDRESS, self.found(network, PUBLIC))
        self.assertLessEqual(self.count_asked(), before + 1)

    def count_asked(self) -> int:
        return self.old.log.read_text().lower().count(f" {PUBLIC}. a in")

    def test_containers(self) -> None:
        """The machine's network is redirected; a network of their own is not, until Docker is told of the agent as the guide has
        it; and then the old server is there when the agent is not."""
        self.vm.path("/etc/resolv.conf").write_text(f"nameserver {SERVER}\n")
        self.join_mesh()
        self.start_docker()
        self.finds_mesh("host")
        for network in ("bridge", "own"):
            self.assertEqual("", self.found(network, SERVICE))
            self.asks_once(network)
        self.follow_guide()
        for network in ("host", "own"):
            self.finds_mesh(network)
        self.vm.do("systemctl", "stop", "meshdns")
        for network in ("bridge", "own"):
            self.assertIn(PUBLIC_ADDRESS, self.found(network, PUBLIC))

    def test_resolver_of_the_machine(self) -> None:
        """Docker asks a resolver on loopback by itself, so it is redirected, though both are root's; and though every server is,
        that resolver asks the agent nothing."""
        self.vm.path("/etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
        words = (
            "--keep-in-foreground --no-resolv --no-hosts --cache-size=0 --listen-address=127.0.0.1 --bind-interfaces"
        )
        run = ["dnsmasq", *words.split(), "--pid-file=", f"--server={SERVER}", "--user=root"]
        self.vm.do("systemd-run", "--quiet", "--unit=resolver", *run)
        self.join_mesh()
        self.redirect_everything()
        self.start_docker()
        for network in ("host", "own"):
            self.finds_mesh(network)

    def follow_guide(self) -> None:
        """Every file of the section, as it stands there."""
        section = GUIDE.partition("\n### Containers\n")[2].partition("\n### ")[0]
        blocks = dict(re.findall(r"(?s)```(\w+)\n(.*?)```", section))
        config = self.vm.path("/etc/meshdns/agent.yaml")
        keys = re.findall(r"(?m)^\w+", blocks["yaml"])
        kept = [line for line in config.read_text().splitlines(keepends=True) if line.split(":")[0] not in keys]
        config.write_text("".join(kept) + blocks["yaml"])
        for kind, place in _PLACES.items():
            path = self.vm.path(place)
            path.parent.mkdir(exist_ok=True)
            path.write_text(blocks[kind])
        self.vm.do("systemctl", "daemon-reload")
        self.vm.do("systemctl", "restart", "docker")
        self.vm.until(
            "the agent on the bridge", lambda: self.vm.do("ss", "-Hlun", "sport", "=", "53", "src", "172.17.0.1")
        )
