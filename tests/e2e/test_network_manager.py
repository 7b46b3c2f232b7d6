"""A machine whose network is NetworkManager's, the real one: its address and its servers come by DHCP, and change (issue 6)."""

import shutil
import subprocess
from itertools import count
from time import sleep

from tests.e2e.hosts import Host
from tests.e2e.joining import ADDRESS, PUBLIC, PUBLIC_ADDRESS, SERVICE, MachineTests
from tests.e2e.stage import end, until
from tests.e2e.vm import OTHER_SERVER, SERVER, plug_in, start_old_server

_DHCP = "--keep-in-foreground --conf-file=/dev/null --port=0 --interface=cable --bind-interfaces --user=root --log-facility=-"
_BACK = 2.0  # seconds within which applications have their old servers again


class NetworkManagerTests(MachineTests):
    def setUp(self) -> None:
        super().setUp()
        if not shutil.which("dnsmasq"):
            self.skipTest("not installed: dnsmasq")
        self.far = Host(self, "", "far")
        plug_in(self.far, self.vm)
        self.old = start_old_server(self, self.far)
        self.vm.bring("network-manager", "libnm0", "libndp0")
        self.names = (f"x{number}.example.com" for number in count())
        self.dhcp = self.lease(SERVER)

    def test_dhcp(self) -> None:
        """NetworkManager writes resolv.conf; at the next lease it names another server, and is followed."""
        self.start_network("default")
        self.join_mesh()
        self.asks_once(SERVER)
        self.next_lease(OTHER_SERVER)
        self.vm.until("the new server", lambda: self.is_written(OTHER_SERVER))
        self.vm.until("its redirect", lambda: f"port 53 of {OTHER_SERVER}" in self.journal("meshdns-intercept"))
        self.asks_once(OTHER_SERVER)
        self.fails_open(OTHER_SERVER)

    def test_dnsmasq(self) -> None:
        """NetworkManager has started a dnsmasq, which resolv.conf names: applications' queries go to the agent, the agent's to
        dnsmasq, and dnsmasq's to the server of the lease."""
        self.start_network("dnsmasq")
        self.join_mesh()
        self.redirect_everything()
        self.asks_once("127.0.0.1")
        self.next_lease(OTHER_SERVER)
        self.vm.until("the new server", lambda: f"nameserver {OTHER_SERVER}" in self.journal("NetworkManager"))
        self.asks_once("127.0.0.1")
        self.fails_open("127.0.0.1")

    def lease(self, server: str) -> subprocess.Popen[bytes]:
        """Start a DHCP server that names this DNS server."""
        log = self.folder / f"dhcp-{server}.log"
        words = ["--dhcp-range=10.9.0.100,10.9.0.150,120", "--dhcp-option=3", f"--dhcp-option=6,{server}",
                 f"--dhcp-leasefile={self.folder}/leases", *_DHCP.split()]  # fmt: skip
        process = self.start([*self.far.place.prefix, "dnsmasq", *words], log)
        until("the DHCP server", lambda: "sockets bound" in log.read_text(), process, log)
        return process

    def next_lease(self, server: str) -> None:
        end(self.dhcp)
        self.dhcp = self.lease(server)
        self.vm.do("nmcli", "device", "connect", "cable")

    def start_network(self, dns: str) -> None:
        self.vm.path("/etc/NetworkManager/conf.d/dns.conf").write_text(f"[main]\ndns={dns}\n")
        self.vm.do("systemctl", "daemon-reload")
        self.vm.do("systemctl", "reload", "dbus")
        self.vm.do("systemctl", "start", "NetworkManager")
        self.vm.until("a lease", lambda: self.is_written(SERVER if dns == "default" else "127.0.0.1"))

    def is_written(self, server: str) -> bool:
        text = self.vm.path("/etc/resolv.conf").read_text()
        return "NetworkManager" in text and f"nameserver {server}\n" in text

    def asks_once(self, server: str) -> None:
        """Mesh and world are found, and no question goes round: the old server hears of each once."""
        self.vm.until("the mesh", lambda: self.resolved(SERVICE) == ADDRESS)
        self.assertEqual(PUBLIC_ADDRESS, self.resolved(PUBLIC))
        self.assertIn("meshdns", self.vm.do("dig", "+short", f"@{server}", "version.bind", "TXT", "CH"))
        name = next(self.names)
        self.assertIn("NXDOMAIN", self.vm.do("dig", f"{name}."))
        self.assertEqual(1, self.old.log.read_text().lower().count(f" {name}. a in"))
        self.assertEqual("", self.vm.run("journalctl", "--no-pager", "-q", "-u", "meshdns", "--grep", "loop").stdout)

    def fails_open(self, server: str) -> None:
        """The agent hangs."""
        stop = ("kill", "-STOP", self.vm.show("meshdns", "MainPID"))
        found = self.ask_steadily(PUBLIC, PUBLIC_ADDRESS, lambda: (self.vm.do(*stop), sleep(_BACK)), server)
        self.assertLess(found["without"], _BACK)

    def journal(self, unit: str) -> str:
        return self.vm.do("journalctl", "--no-pager", "-u", unit)
