"""A virtual machine joins the mesh: package, bundle, real systemd; an application resolves, and removal restores everything."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from time import sleep, time
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from meshdns import certificates
from tests.e2e.hosts import connect
from tests.e2e.joining import ADDRESS, CLIENT, GUIDE, PUBLIC, PUBLIC_ADDRESS, SERVICE, MachineTests, package
from tests.e2e.machine import SERVER, Machine
from tests.e2e.stage import ROOT


class PackageTests(MachineTests):
    def test_from_nothing(self) -> None:
        """docs/vm.md: package, bundle, and applications resolve the mesh and the world; removal leaves the machine as it was."""
        self.start_resolver()
        before = self.vm.do("nft", "list", "ruleset")
        self.install_package()
        self.assertEqual(before, self.vm.do("nft", "list", "ruleset"), "installing the package redirects nothing")
        self.assertEqual("inactive", self.vm.run("systemctl", "is-active", "meshdns").stdout.strip())
        self.assertEqual("", self.resolved(SERVICE))
        self.start_control()
        digest = self.make_bundle()
        said = self.install_bundle("--digest", digest)
        self.assertIn("All is well", said)
        for unit in ("meshdns", "meshdns-intercept", "meshdns-control"):
            self.assertEqual("active", self.vm.run("systemctl", "is-active", unit).stdout.strip(), unit)
        self.assertEqual("enabled", self.vm.run("systemctl", "is-enabled", "meshdns").stdout.strip())
        self.assertEqual(ADDRESS, self.resolved(SERVICE))
        self.assertEqual(PUBLIC_ADDRESS, self.resolved(PUBLIC))
        self.check_processes()
        self.check_logs()
        self.check_units()
        self.vm.do("dpkg", "--purge", "meshdns", wait=120)
        self.check_gone(before)

    def test_sysvinit(self) -> None:
        """Where systemd does not run, the script does all that the units do."""
        self.start_resolver()
        self.install_package()
        self.start_control()
        before = self.rules()
        self.vm.do("mv", "/run/systemd/system", "/run/systemd/elsewhere")  # so does everybody know that it runs
        self.install_package()
        self.assertIn("6", str(self.script("start").returncode), "no bundle, no agent")
        self.make_bundle()
        self.assertIn("All is well", self.install_bundle())
        self.assertTrue(list(self.vm.path("/etc/rc2.d").glob("S*meshdns")))
        for action in ("status", "reload", "restart", "status"):
            done = self.script(action)
            self.assertEqual(0, done.returncode, done.stdout)
            self.vm.until("the mesh", lambda: self.resolved(SERVICE) == ADDRESS)
        self.assertEqual(PUBLIC_ADDRESS, self.resolved(PUBLIC))
        pid = self.vm.path("/run/meshdns.pid").read_text().strip()
        self.assertEqual("meshdns", self.vm.do("ps", "-o", "user=", "-p", pid).strip())
        self.assertIn("answers on", self.vm.path("/var/log/meshdns.log").read_text())
        self.assertEqual(0, self.script("stop").returncode)
        self.assertEqual(3, self.script("status").returncode)
        self.assertNotIn("meshdns", self.rules())
        self.assertEqual(PUBLIC_ADDRESS, self.resolved(PUBLIC))
        self.assertEqual(0, self.script("start").returncode)
        self.vm.until("the mesh", lambda: self.resolved(SERVICE) == ADDRESS)
        self.vm.do("mv", "/run/systemd/elsewhere", "/run/systemd/system")
        self.vm.do("systemctl", "stop", "meshdns-control")
        self.vm.do("mv", "/run/systemd/system", "/run/systemd/elsewhere")
        self.vm.do("dpkg", "--purge", "meshdns", wait=120)
        self.check_gone(before)
        self.assertEqual([], list(self.vm.path("/etc/rc2.d").glob("S*meshdns")))

    def test_disk_full(self) -> None:
        """A real disk below /opt: too small, dpkg says so and nothing is there; full at an upgrade, the old version goes on."""
        self.start_resolver()
        before = self.rules()
        self.vm.do("mkdir", "-p", "/opt")
        self.vm.do("mount", "-t", "tmpfs", "-o", "size=8m", "none", "/opt")
        shutil.copy(package(), self.vm.path("/root/meshdns.deb"))
        install = ("dpkg", "--install", "/root/meshdns.deb")
        self.refuses_for_room(*install)
        self.assertEqual([], list(self.vm.path("/opt").glob("*")))
        self.assertEqual((before, PUBLIC_ADDRESS), (self.rules(), self.resolved(PUBLIC)))
        self.vm.do("mount", "-o", "remount,size=300m", "/opt")
        self.join_mesh()
        pid = self.vm.show("meshdns", "MainPID")
        room = self.vm.do("df", "--output=avail", "--block-size=1M", "/opt").split()[1]
        self.vm.do("dd", "if=/dev/zero", "of=/opt/full", "bs=1M", f"count={int(room) - 8}", "status=none")
        self.refuses_for_room(*install)
        self.assertEqual(pid, self.vm.show("meshdns", "MainPID"))
        self.assertEqual((ADDRESS, PUBLIC_ADDRESS), (self.resolved(SERVICE), self.resolved(PUBLIC)))
        self.vm.do("systemctl", "restart", "meshdns")
        self.vm.do("rm", "/opt/full")
        self.vm.do(*install, wait=120)
        self.vm.do("meshdns", "intercept", "verify")

    def refuses_for_room(self, *command: str) -> None:
        done = self.vm.run(*command, wait=120)
        self.assertEqual(1, done.returncode)
        self.assertIn("No space left on device", done.stdout)

    def script(self, action: str) -> "subprocess.CompletedProcess[str]":
        return self.vm.run("/etc/init.d/meshdns", action)

    def check_units(self) -> None:
        """systemd-analyze says nothing at all: of an unknown key it says so, and ends with 0."""
        units = ["meshdns.service", "meshdns-intercept.service", "meshdns-control.service"]
        self.assertEqual("", self.vm.do("systemd-analyze", "verify", *units))

    def check_processes(self) -> None:
        """The agent is nobody who matters; its files are its own."""
        process = self.vm.show("meshdns", "MainPID")
        uid = self.vm.do("id", "-u", "meshdns").strip()
        status = Path(self.vm.path(f"/proc/{process}/status")).read_text()
        self.assertRegex(status, rf"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
        for port in (15054, 15014):
            self.assertIn("process_resident_memory_bytes", self.vm.do("curl", "-s", f"http://127.0.0.1:{port}/metrics"))
        modes = self.vm.do("stat", "-c", "%a %U %G %n", "/var/lib/meshdns/identity.pem", "/etc/meshdns/agent.yaml")
        self.assertIn("600 meshdns meshdns /var/lib/meshdns/identity.pem", modes)
        self.assertIn("640 root meshdns /etc/meshdns/agent.yaml", modes)

    def check_logs(self) -> None:
        journal = self.vm.do("journalctl", "--no-pager", "-u", "meshdns*")
        for word in ("Traceback", "#critical", "please report", "Unable to write", "Failed", "Unknown key"):
            self.assertNotIn(word, journal)

    def check_gone(self, before: str) -> None:
        self.assertEqual(before, self.vm.do("nft", "list", "ruleset"))
        self.assertEqual(f"nameserver {SERVER}\n", self.vm.path("/etc/resolv.conf").read_text())
        self.assertEqual(PUBLIC_ADDRESS, self.resolved(PUBLIC))
        for place in (
            "/opt/meshdns",
            "/var/lib/meshdns",
            "/etc/meshdns/agent.yaml",
            "/etc/init.d/meshdns",
            "/usr/bin/meshdns",
        ):
            self.assertFalse(self.vm.path(place).exists(), place)
        self.assertEqual("", self.vm.run("pgrep", "-f", "twistd").stdout)


class GuideTests(MachineTests):
    """docs/vm.md, word by word, on two machines: each command as it stands there, where it stands there."""

    def setUp(self) -> None:
        super().setUp()
        self.start_resolver()
        control = Machine(self, "control")
        shutil.copytree(ROOT / "meshdns/samples/mesh", control.path("/etc/meshdns"))
        (yaml,) = re.findall(r"(?s)```yaml\n(tls:.*?)```", GUIDE)
        control.path("/etc/meshdns/control.yaml").write_text(yaml)
        shutil.copy(package(), control.path("/root"))
        connect(self, (control, "10.0.0.1/24"), (self.vm, "10.0.0.2/24"))
        self.machines = {"control": control, "vm1": self.vm}
        self.folders = dict.fromkeys(self.machines, "/root")
        self.digest = ""

    def follow(self, title: str) -> str:
        """Type every command of a section -> all that was said."""
        section = GUIDE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
        lines = re.findall(r"(?m)^    (control|vm1)# (.*)$", section)
        self.assertTrue(lines, title)
        return "".join(self.type(*each) for each in lines)

    def type(self, where: str, line: str) -> str:
        words = line.split()
        if words[0] == "cd":
            self.folders[where] = words[1]
            return ""
        if words[0] == "scp":
            self.copy(where, words[1:-1], *words[-1].split(":"))
            return ""
        command = f"cd {self.folders[where]} && {line.replace('DIGEST', self.digest)}"
        said = self.machines[where].do("env", "HOME=/root", "sh", "-c", command, wait=120)
        self.digest = (re.findall(r"(?m)^[0-9a-f]{64}$", said) or [self.digest])[0]
        return said

    def copy(self, where: str, files: Sequence[str], other: str, folder: str) -> None:
        """As scp does."""
        for each in files:
            path = each.replace("~", "/root") if each.startswith("~") else f"{self.folders[where]}/{each}"
            shutil.copy(self.machines[where].path(path), self.machines[other].path(folder or "/root"))

    def test_from_nothing(self) -> None:
        said = self.follow("From nothing to a resolving VM")
        self.assertIn("All is well", said)
        self.assertIn(f"{ADDRESS} ", said)
        said = self.follow("The bundle")
        self.assertIn("All is well", said)
        said = self.follow("When something is wrong")
        for word in ("10.0.0.1:15012", SERVICE, "It works"):
            self.assertIn(word, said)
        self.assertEqual("", self.machines["control"].run("pgrep", "-f", "agent.yaml").stdout)


class IdentityTests(MachineTests):
    def test_renewed_in_the_sandbox(self) -> None:
        """The agent may write its own identity there, and nothing else."""
        self.join()
        authority = certificates.Authority.read(
            (self.folder / "pki/root.pem").read_bytes(), (self.folder / "pki/root.key").read_bytes()
        )
        key = ec.generate_private_key(ec.SECP256R1())
        uri = "spiffe://cluster.local/ns/ns1/sa/default"
        made = authority.issue(key.public_key(), uri, "vm1", time() - 50, 60, 7)
        path = self.vm.path("/var/lib/meshdns/identity.pem")
        path.write_text(certificates.key_text(key) + certificates.text([made]))  # as it is: owner and mode stay
        self.vm.do("systemctl", "restart", "meshdns")
        self.vm.until("another one", lambda: made not in certificates.read_certificates(path.read_bytes()))
        self.assertEqual("600 meshdns", self.vm.do("stat", "-c", "%a %U", "/var/lib/meshdns/identity.pem").strip())
        self.assertIn("is renewed until", self.vm.do("journalctl", "--no-pager", "-u", "meshdns"))


_RESOLVER_UNIT = f"""\
[Unit]
DefaultDependencies=no
[Service]
Type=forking
ExecStart=dnsmasq --conf-file=/dev/null --no-resolv --no-hosts --listen-address={SERVER} --bind-interfaces --pid-file= \
    --user=root --local=/local/ --host-record={PUBLIC},{PUBLIC_ADDRESS}
"""
_CLIENT_UNIT = """\
[Unit]
DefaultDependencies=no
Requires=resolver.service
After=resolver.service
[Service]
ExecStart=python3 /root/steady.py {words}
StandardOutput=truncate:/root/{file}
"""


class RebootTests(MachineTests):
    """Two clients ask from the moment on in which the network is there: one for the world, one for the mesh."""

    def setUp(self) -> None:
        super().setUp()
        self.join()
        self.vm.path("/root/steady.py").write_text(CLIENT.read_text())
        units = {"resolver": _RESOLVER_UNIT}
        for file, name, address in (("world", PUBLIC, PUBLIC_ADDRESS), ("mesh", SERVICE, ADDRESS)):
            units[file] = _CLIENT_UNIT.format(words=f"{SERVER} {name} {address} /tmp/steady.end", file=file)
        for name, text in units.items():
            self.vm.path(f"/etc/systemd/system/{name}.service").write_text(text)
        self.vm.do("systemctl", "daemon-reload")
        self.vm.do("systemctl", "add-wants", "sysinit.target", "world.service", "mesh.service")

    def boot(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What both clients got, from the network's coming up until two seconds after the end of boot."""
        self.vm.reboot()
        sleep(2)
        self.vm.path("/tmp/steady.end").touch()
        self.vm.until("their end", lambda: not self.vm.run("pgrep", "-f", "steady.py").stdout)
        world, mesh = (
            json.loads(self.vm.path(f"/root/{file}").read_text().splitlines()[-1]) for file in ("world", "mesh")
        )
        print(f"\n    the world: {world}\n    the mesh: {mesh}")
        self.assertGreater(world["sent"], 100)
        return world, mesh

    def test_enabled(self) -> None:
        """Booted with the agent, without its control plane: the world is found from the first query on, the mesh within seconds."""
        world, mesh = self.boot()
        self.assertEqual((0, 0), (world["lost"], world["other"]), world)
        self.assertEqual(0, mesh["lost"], mesh)
        self.assertLess(mesh["other"], mesh["sent"])
        self.assertEqual(ADDRESS, self.resolved(SERVICE))
        self.assertEqual("inactive", self.vm.run("systemctl", "is-active", "meshdns-control").stdout.strip())

    def test_disabled(self) -> None:
        """Booted without the agent, the machine is as it was before it had one."""
        self.vm.do("systemctl", "disable", "meshdns")
        world, mesh = self.boot()
        self.assertEqual((0, 0), (world["lost"], world["other"]), world)
        self.assertEqual((0, mesh["sent"]), (mesh["lost"], mesh["other"]), mesh)
        self.assertNotIn("meshdns", self.rules())
        self.vm.do("systemctl", "enable", "--now", "meshdns")
        self.vm.until("the mesh", lambda: self.resolved(SERVICE) == ADDRESS)


class BadDayTests(MachineTests):
    """What applications see while the agent is restarted, killed, stopped, hung and upgraded (issue 6: never two seconds)."""

    def setUp(self) -> None:
        super().setUp()
        self.join()

    def test_restart(self) -> None:
        """Not one query is lost; the redirect is not touched."""
        pids = [self.vm.show(unit, "MainPID") for unit in ("meshdns", "meshdns-intercept")]
        found = self.ask_steadily(SERVICE, ADDRESS, lambda: self.vm.do("systemctl", "restart", "meshdns"))
        self.assertNotEqual(pids[0], self.vm.show("meshdns", "MainPID"))
        self.assertEqual(pids[1], self.vm.show("meshdns-intercept", "MainPID"))
        self.check_continuous(found)

    def test_reload(self) -> None:
        found = self.ask_steadily(SERVICE, ADDRESS, lambda: self.vm.do("systemctl", "reload", "meshdns"))
        self.check_continuous(found)

    def test_killed(self) -> None:
        """SIGKILL: systemd starts it again, and what was asked meanwhile is answered."""
        found = self.ask_steadily(SERVICE, ADDRESS, self.kill)
        self.assertLess(found["without"], 2, found)
        self.assertEqual("active", self.vm.run("systemctl", "is-active", "meshdns-intercept").stdout.strip())

    def kill(self) -> None:
        pid = self.vm.show("meshdns", "MainPID")
        self.vm.do("kill", "-KILL", pid)
        self.vm.until("its successor", lambda: self.vm.show("meshdns", "MainPID") not in ("0", pid))
        self.vm.until("its readiness", lambda: self.vm.run("systemctl", "is-active", "meshdns").stdout == "active\n")

    def test_hung(self) -> None:
        """SIGSTOP: within two seconds the old servers answer; the watchdog ends it, and the mesh is back."""
        pid = self.vm.show("meshdns", "MainPID")
        found = self.ask_steadily(PUBLIC, PUBLIC_ADDRESS, lambda: (self.vm.do("kill", "-STOP", pid), sleep(4)))
        self.assertLess(found["without"], 2, found)
        self.vm.until("its successor", lambda: self.vm.show("meshdns", "MainPID") not in ("0", pid))
        self.vm.until("the mesh", lambda: self.resolved(SERVICE) == ADDRESS)

    def test_stopped(self) -> None:
        """Stopped for good, the redirect goes before it, and no query is lost; started, it comes back."""
        found = self.ask_steadily(PUBLIC, PUBLIC_ADDRESS, lambda: self.vm.do("systemctl", "stop", "meshdns"))
        self.check_end(found)
        self.assertNotIn("meshdns", self.rules())
        self.vm.do("systemctl", "start", "meshdns")
        self.vm.until("the redirect", lambda: "meshdns" in self.rules())
        self.vm.until("the mesh", lambda: self.resolved(SERVICE) == ADDRESS)

    def test_broken_configuration(self) -> None:
        """It is not tried again and again; applications have their old servers; mended, all comes back."""
        path = self.vm.path("/etc/meshdns/agent.yaml")
        good = path.read_text()
        path.write_text(good + "nonsense: 1\n")
        self.assertNotEqual(0, self.vm.run("systemctl", "restart", "meshdns").returncode)
        self.vm.until("the end of the redirect", lambda: "meshdns" not in self.rules())
        self.assertEqual("failed", self.vm.show("meshdns", "ActiveState"))
        self.assertEqual("0", self.vm.show("meshdns", "NRestarts"))
        self.assertEqual(PUBLIC_ADDRESS, self.resolved(PUBLIC))
        path.write_text(good)
        self.vm.do("systemctl", "start", "meshdns")
        self.vm.until("the mesh", lambda: self.resolved(SERVICE) == ADDRESS)

    def test_no_redirect(self) -> None:
        """Masked, the redirect stays away, and the agent is there for those who ask it."""
        self.vm.do("systemctl", "stop", "meshdns")
        self.vm.do("systemctl", "mask", "meshdns-intercept")
        self.vm.do("systemctl", "start", "meshdns")
        self.assertNotIn("meshdns", self.rules())
        self.assertIn(ADDRESS, self.vm.do("dig", "+short", "-p", "15053", "@127.0.0.1", SERVICE))

    def test_upgrade(self) -> None:
        """The package again: no query is lost."""
        pid = self.vm.show("meshdns", "MainPID")
        found = self.ask_steadily(SERVICE, ADDRESS, self.install_package)
        self.assertNotEqual(pid, self.vm.show("meshdns", "MainPID"))
        self.check_continuous(found)
        self.vm.do("meshdns", "intercept", "verify")

    def test_second_bundle(self) -> None:
        """Another bundle over the first one, while applications ask."""
        self.make_bundle("--service-account", "other")
        found = self.ask_steadily(SERVICE, ADDRESS, self.install_bundle)
        self.check_continuous(found)
        self.assertIn("sa/other", self.vm.do("curl", "-s", "http://127.0.0.1:15014/v1/agents"))

    def test_removed(self) -> None:
        """Removed while applications ask: they are answered by their old servers at once."""
        found = self.ask_steadily(PUBLIC, PUBLIC_ADDRESS, lambda: self.vm.do("dpkg", "--remove", "meshdns", wait=120))
        self.check_end(found)

    def check_continuous(self, found: dict[str, Any]) -> None:
        """Nothing is lost. Where a busy machine takes longer than 1.8 s to start the agent, some go to the old server."""
        self.assertEqual(0, found["lost"], found)
        self.assertLess(found["other"], 150, found)

    def check_end(self, found: dict[str, Any]) -> None:
        """What was on its way when the redirect ended has its answer, too."""
        self.assertEqual((0, 0), (found["lost"], found["other"]), found)
