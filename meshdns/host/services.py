"""Outside: who starts services on this machine: systemd, scripts of sysvinit, or nobody; and how it is told to.

The root directory of a machine enters; commands leave, and are run. It must never know what a service does.
"""

import os
import subprocess
from collections.abc import Sequence
from shutil import which

import attrs

from meshdns.defaults import SERVICE_WAIT

_UNITS = ("etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")


@attrs.frozen
class Service:
    """Commands for one service: to have it started at boot; to start it or start it anew; to have its redirect up, which may be
    forbidden; to see how it is."""

    enable: Sequence[str]
    start: Sequence[str]
    redirect: Sequence[str]
    look: Sequence[str]


def find(name: str, root: str = "/") -> Service | None:
    """The service of this name, None where nobody here could start it. A `root` elsewhere is an image: it is not running."""
    if _is_there(root, _UNITS, f"{name}.service") and which("systemctl"):
        running = root == "/" and os.path.isdir("/run/systemd/system")
        if running or root != "/":
            offline = () if running else ("--root", root)
            return Service(
                ("systemctl", *offline, "--quiet", "enable", f"{name}.service"),
                ("systemctl", "restart", f"{name}.service"),
                ("systemctl", "start", f"{name}-intercept.service"),
                ("journalctl", "-u", name, "-n", "20"),
            )
    script = f"/etc/init.d/{name}"
    if root == "/" and os.access(script, os.X_OK) and which("update-rc.d"):
        return Service(
            ("update-rc.d", name, "defaults"), (script, "restart"), ("true",), ("tail", f"/var/log/{name}.log")
        )
    return None


def _is_there(root: str, folders: Sequence[str], file: str) -> bool:
    return any(os.path.exists(os.path.join(root, folder, file)) for folder in folders)


def run(command: Sequence[str]) -> str:
    """Run one of these commands; why it failed, "" when it did not."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SERVICE_WAIT)
    except subprocess.TimeoutExpired:
        return f"no end in {SERVICE_WAIT:.0f} s"
    except OSError as error:
        return str(error.strerror)
    if not done.returncode:
        return ""
    return " ".join((done.stderr or done.stdout).split()) or f"it ended with {done.returncode}"
