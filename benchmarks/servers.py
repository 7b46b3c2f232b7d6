"""The servers, each configured for the same job: mesh names answered here, all others relayed to one upstream.

A builder takes the bench's room and returns a `Server`, ready to start. Each has one process and one thread.
"""

import getpass
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import attrs

from benchmarks import caching, names
from benchmarks.caching import Caching
from benchmarks.processes import CannotMeasure, find, free_port

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "dnsperf": "dnsperf",
    "unbound": "unbound",
    "taskset": "util-linux",
}  # without which nothing can be compared


@attrs.frozen
class Room:
    """What servers are told: a directory for their files, the port of the upstream, how to cache, and the search list that
    clients have (only meshdns wants to know)."""

    directory: Path
    upstream_port: int
    caching: Caching = caching.NONE
    search: Sequence[str] = names.MESH_SEARCH

    def of(self, server: str) -> Path:
        directory = self.directory / server
        directory.mkdir(exist_ok=True)
        return directory


@attrs.frozen
class Server:
    """A server that can be started. `configuration` is what a reader is shown; an echo gives no answers to check. Where threads of
    its own take the core from each other (`crowded`), their waiting tells nothing of other programs."""

    name: str
    command: tuple[str, ...]
    port: int
    directory: Path
    configuration: str
    answers: bool = True
    crowded: bool = False
    environment: dict[str, str] | None = None


Builder = Callable[[Room], Server]


def require_programs(programs: Iterable[str] = PACKAGES) -> None:
    """Raise unless all that must be there is there."""
    missing = [each for each in programs if not shutil.which(each)]
    if missing:
        packages = " ".join(PACKAGES[each] for each in missing)
        raise CannotMeasure(
            f"Not installed: {', '.join(missing)}. On Debian and Ubuntu, run\n  sudo apt-get install {packages}\n"
            "and then again."
        )
    twistd()


def meshdns(room: Room, more: str = "") -> Server:
    """The agent of this checkout, on the Python that runs the bench. `more` are further lines of its configuration."""
    directory = room.of("meshdns")
    entries = [{"host": host, "ips": [ip], "registry": "Kubernetes"} for host, ip in names.mesh_hosts().items()]
    header = {"nametable": 1, "hosts": len(entries), "zones": [names.MESH_ZONE], "ttl": names.TTL}
    (directory / "table.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [header, *entries]))
    more += f"search: [{', '.join(room.search)}]\n"
    return agent(directory, "{file: table.jsonl}", f"127.0.0.1:{room.upstream_port}", more + room.caching.meshdns)


def agent(directory: Path, table: str, upstream: str = "127.0.0.1:9", more: str = "") -> Server:
    """An agent for a workload of ns1, with what its configuration says of `table`, and more lines of it."""
    port = free_port()
    configuration = f"""\
workload: {{namespace: ns1}}
listen: ["127.0.0.1:{port}"]
table: {table}
upstream: {{servers: ["{upstream}"]}}
{more}status: off
"""
    (directory / "agent.yaml").write_text(configuration)
    command = (twistd(), "-n", "--pidfile=", "meshdns", "--config", str(directory / "agent.yaml"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return Server("meshdns", command, port, directory, configuration, environment=environment)


def twistd() -> str:
    return program("twistd")


def program(name: str) -> str:
    """One that came with what Python runs this."""
    if (found := find(name)) is None:
        raise CannotMeasure(f"There is no {name} beside {sys.executable}. Run `make bench`, which installs it.")
    return found


def unbound(room: Room) -> Server:
    """unbound: `local-data` for the mesh, a forwarder for the rest.

    Buffers and ranges as its "Howto Optimise" and "Unbound Howto Optimise" pages advise; `forward-no-cache` is its
    documented way not to cache; without the validator, since nobody else here validates.
    """
    directory, port = room.of("unbound"), free_port()
    lines = [f'local-data: "{host}. {names.TTL} IN A {ip}"\n' for host, ip in names.mesh_hosts().items()]
    (directory / "mesh.conf").write_text("".join(lines))
    configuration = f"""\
server:
    interface: 127.0.0.1
    port: {port}
    num-threads: 1
    so-rcvbuf: 4m
    so-sndbuf: 4m
    outgoing-range: 8192
    num-queries-per-thread: 4096
    incoming-num-tcp: 100
    module-config: "iterator"
    do-not-query-localhost: no
    local-zone: "{names.MESH_ZONE}." static
    include: "{directory}/mesh.conf"    # local-data: "service-0.ns0.svc.cluster.local. {names.TTL} IN A 10.4.0.1" ...
{room.caching.unbound}{UNBOUND_ALONE}forward-zone:
    name: "."
    forward-addr: 127.0.0.1@{room.upstream_port}
{room.caching.forward}remote-control:
    control-enable: no
"""
    return unbound_of("unbound", directory, port, configuration)


# Of any unbound here: in the foreground, unprivileged, and without files of the system's.
UNBOUND_ALONE = """\
    use-syslog: no
    do-daemonize: no
    username: ""
    chroot: ""
    directory: ""
    pidfile: ""
"""


def unbound_of(name: str, directory: Path, port: int, configuration: str) -> Server:
    """An unbound with this configuration."""
    path = directory / "unbound.conf"
    path.write_text(configuration)
    shown = configuration.replace(f"{directory}/", "")
    return Server(name, ("unbound", "-d", "-c", str(path)), port, directory, shown)


def dnsmasq(room: Room) -> Server:
    """dnsmasq: a hosts file for the mesh, `server` for the rest.

    `dns-forward-max` is above the 200 that dnsperf has under way, and no larger: it also sets how many sockets dnsmasq goes
    through for every packet, and 10,000 would make each answer 4 us dearer. Ports are random, as by default.
    """
    directory, port = room.of("dnsmasq"), free_port()
    (directory / "hosts").write_text("".join(f"{ip} {host}\n" for host, ip in names.mesh_hosts().items()))
    configuration = f"""\
port={port}
listen-address=127.0.0.1
bind-interfaces
no-resolv
no-hosts
addn-hosts={directory}/hosts
local=/{names.MESH_ZONE}/
local-ttl={names.TTL}
server=127.0.0.1#{room.upstream_port}
cache-size={room.caching.dnsmasq}
dns-forward-max=256
user={getpass.getuser()}
pid-file=
log-facility=-
"""
    path = directory / "dnsmasq.conf"
    path.write_text(configuration)
    command = ("dnsmasq", "--keep-in-foreground", f"--conf-file={path}")
    return Server("dnsmasq", command, port, directory, configuration.replace(f"{directory}/", ""))


def echo(room: Room) -> Server:
    """The floor: echo.c."""
    directory, port = room.of("echo"), free_port()
    program, source = directory / "echo", ROOT / "benchmarks" / "echo.c"
    built = subprocess.run(
        ["cc", "-O2", "-o", program, source], capture_output=True, text=True, timeout=60, check=False
    )
    if built.returncode:
        raise CannotMeasure(f"cc could not compile {source}:\n{built.stderr}")
    shown = "benchmarks/echo.c: recvfrom, sendto, nothing else\n"
    return Server("C echo", (str(program), str(port)), port, directory, shown, answers=False)
