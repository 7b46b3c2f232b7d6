"""A machine of its own, booted by real systemd: a copy of this one's files, which is thrown away, in namespaces of its own.

Its files are an overlay over ours, kept in memory; its network is a loopback; nothing outside of it is touched. Its systemd is
process 1 in there. Made as root only, where the kernel lets us.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any
from unittest import SkipTest

from tests.e2e.stage import PATIENCE, Stage, until

UNPACKED = Path("/usr/local/lib/meshdns-tests")  # of packages whose services must not run here: .ci/run puts them there
SERVER = "10.99.0.53"  # where its resolv.conf points
_NEEDED = ("unshare", "nsenter", "mount", "ip", "chroot", "setpriv")
_SYSTEMD = Path("/lib/systemd/systemd")
# Units that have no sense in there.
_MASKED = """\
getty.target systemd-logind.service systemd-networkd.service systemd-resolved.service systemd-udevd.service dev-hugepages.mount
sys-kernel-debug.mount sys-kernel-tracing.mount systemd-timesyncd.service systemd-firstboot.service systemd-binfmt.service
remote-fs.target systemd-journal-flush.service systemd-update-utmp.service apparmor.service
"""
_BUILD = """\
set -e
memory=$1 name=$2 server=$3 boot=$4
mount --make-rprivate /
mount -t tmpfs tmpfs "$memory"
mkdir "$memory/up" "$memory/work" "$memory/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$memory/up,workdir=$memory/work" "$memory/root"
root=$memory/root
rm -rf "$root"/etc/systemd/system/*.wants "$root/etc/fstab" "$root/etc/resolv.conf" "$root/etc/meshdns" "$root/var/lib/meshdns"
rm -f "$root/usr/sbin/policy-rc.d"
echo "$name" >"$root/etc/hostname"
echo "nameserver $server" >"$root/etc/resolv.conf"
ln -s /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
shift 4
for unit; do ln -sf /dev/null "$root/etc/systemd/system/$unit"; done
spaces="--mount --pid --fork --kill-child=KILL --net --uts --ipc --cgroup"
status=129  # killed by the signal that stands for a reboot of process 1
while [ $status = 129 ]; do
    status=0
    setpriv --pdeathsig KILL unshare $spaces bash -c "$boot" boot "$root" "$name" "$server" || status=$?
done
"""
_BOOT = """\
set -e
root=$1 name=$2 server=$3
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
if [ -d /sys/fs/cgroup/systemd ]; then
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
    mkdir "$root/sys/fs/cgroup/systemd" "$root/sys/fs/cgroup/unified"
    mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
else
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
fi
mount -o remount,bind,ro "$root/sys"  # by this systemd and NetworkManager know that no udev runs
hostname "$name"
ip link set lo up
ip address add "$server/32" dev lo
cd "$root"
exec env -i container=meshdns-test PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" /lib/systemd/systemd --show-status=no
"""


class Machine:
    """One booted machine."""

    def __init__(self, stage: Stage, name: str = "vm1") -> None:
        self._stage = stage
        self.log = stage.folder / f"{name}.log"
        self._groups = _make_groups(f"meshdns-e2e-{token_hex(4)}")
        stage.addCleanup(_remove_groups, self._groups)
        memory = stage.folder / f"{name}.disk"
        memory.mkdir()
        entering = "".join(f"echo $$ >'{each}/cgroup.procs'; " for each in self._groups)
        building = f'{entering}exec unshare --mount bash -c "$0" build "$@"'
        words = ["bash", "-c", building, _BUILD, memory, name, SERVER, _BOOT, *_MASKED.split()]
        self._holder = stage.start(words, self.log)
        stage.addCleanup(self.end)
        self._await_boot()

    def _await_boot(self) -> None:
        self.process = int(until("process 1", self._find_one, self._holder, self.log))
        self.until("the end of boot", lambda: self.run("systemctl", "is-system-running").stdout.strip() == "running")

    def reboot(self) -> None:
        """Shut down in order, and boot again; the files stay, but for those of /run and /tmp. Returns at the end of boot."""
        before = Path(f"/proc/{self.process}")
        self.run("systemctl", "reboot")
        until("the shutdown", lambda: not before.exists(), self._holder, self.log)
        self._await_boot()

    def run(self, *words: str | Path, wait: float = PATIENCE, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run a program there -> its exit status and what it said."""
        return subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=wait,
            **options,
        )

    def command(self, *words: str | Path) -> Sequence[str]:
        path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        return [
            "nsenter",
            "-t",
            str(self.process),
            "-a",
            "-r",
            "-w",
            "env",
            "-i",
            path,
            "LC_ALL=C.UTF-8",
            *map(str, words),
        ]

    def do(self, *words: str | Path, wait: float = PATIENCE) -> str:
        """Run a program there that does what it should -> what it said."""
        done = self.run(*words, wait=wait)
        if done.returncode:
            journal = self.run("journalctl", "--no-pager", "-n", "60").stdout
            raise AssertionError(f"{words} ended with {done.returncode}:\n{done.stdout}\nIts journal:\n{journal}")
        return done.stdout

    def path(self, place: str) -> Path:
        """One of its files, as it is seen from here."""
        return Path(f"/proc/{self.process}/root", place.lstrip("/"))

    def bring(self, *packages: str) -> None:
        """Files of packages that were unpacked, as if they had been installed there; the test is skipped if they were not."""
        for package in packages:
            if not (UNPACKED / package).is_dir():
                raise SkipTest(f"not unpacked: {package} (.ci/run does it)")
            copy = 'tar -C "$0" -c . | tar -C "$1" -x --keep-directory-symlink'
            self._stage.said_by(["sh", "-c", copy, UNPACKED / package, self.path("/")])

    def until(self, what: str, look: Any) -> Any:
        try:
            return until(what, look, self._holder, self.log)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.run('journalctl', '--no-pager', '-n', '60').stdout}") from None

    def show(self, unit: str, what: str) -> str:
        """A property of a unit."""
        return self.do("systemctl", "show", "--value", "-p", what, unit).strip()

    def end(self) -> None:
        if self._holder.poll() is None:
            os.kill(self.process, signal.SIGKILL)
        self._holder.wait(PATIENCE)

    def _find_one(self) -> str:
        """systemd, once it is what the shell has become."""
        try:
            (spaces,) = _children(self._holder.pid)
            (one,) = _children(spaces)
            is_up = "systemd" in Path(f"/proc/{one}/cmdline").read_text()
            return one if is_up and self._answers(one) else ""
        except (OSError, ValueError):
            return ""

    def _answers(self, one: str) -> bool:
        asked = ["nsenter", "-t", one, "-a", "-r", "-w", "systemctl", "is-system-running"]
        return bool(subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.strip())


def _children(process: int | str) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def _make_groups(name: str) -> list[Path]:
    """Control groups for it alone: systemd makes its own below them."""
    made = []
    for each in ("systemd", "unified", ""):
        parent = Path("/sys/fs/cgroup", each)
        if (parent / "cgroup.procs").exists():
            (parent / name).mkdir()
            made.append(parent / name)
    return made


def _remove_groups(groups: Sequence[Path]) -> None:
    for group in groups:
        for folder, _, _ in os.walk(group, topdown=False):
            _remove_group(Path(folder))


def _remove_group(folder: Path) -> None:
    """Its last process may just be ending."""
    from time import monotonic, sleep

    end = monotonic() + PATIENCE
    while folder.exists():
        try:
            folder.rmdir()
        except OSError:
            if monotonic() > end:
                raise
            sleep(0.02)


def why_not() -> str:
    """Why no machine can be made here, "" if one can."""
    if os.geteuid():
        return "machines are made as root only"
    missing = [name for name in _NEEDED if not shutil.which(name)]
    if missing or not _SYSTEMD.exists():
        return f"not installed: {', '.join(missing) or 'systemd'}"
    over = "lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w"
    script = f"mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w /mnt/r && mount -t overlay o -o {over} /mnt/r"
    tried = subprocess.run(["unshare", "--mount", "bash", "-c", script], stdin=subprocess.DEVNULL, capture_output=True)
    return "this kernel does not let us make overlays and namespaces" if tried.returncode else ""
