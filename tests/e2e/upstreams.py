"""Servers behind the agent: a real unbound, named or knotd that serves a zone, and one that says what a test tells it to."""

import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self
from unittest import SkipTest

import dns.message
import dns.name
import dns.rcode

from tests.e2e.stage import HERE, PATIENCE, DnsServer, Place, Stage, free_port, until

_PROBES = dns.name.from_text("loop.meshdns.example")  # what the agent asks to see whether a server lives
_CONFIG = """\
server:
    directory: "{folder}"
    chroot: ""
    username: ""
    pidfile: ""
    do-daemonize: no
    use-syslog: no
    logfile: ""
    interface: 127.0.0.1
    port: {port}
    num-threads: 1
    module-config: "iterator"
    rrset-roundrobin: no
    minimal-responses: no
    # Whatever is not in the zone does not exist: nothing is asked outside.
    local-zone: "." always_nxdomain
    local-zone: "{zone}." transparent
auth-zone:
    name: "{zone}"
    zonefile: "{file}"
    for-downstream: yes
    for-upstream: no
    fallback-enabled: no
{more}
remote-control:
    control-enable: no
"""


_NAMED_CONFIG = """\
options {{
    directory "{folder}";
    pid-file none;
    lock-file none;
    session-keyfile "{folder}/session.key";
    managed-keys-directory "{folder}";
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    recursion no;
    dnssec-validation no;
    minimal-responses no;
    check-integrity no;
    zero-no-soa-ttl no;
    max-records-per-type 0;
    max-types-per-name 0;
    notify no;
}};
controls {{ }};
zone "{zone}" {{ type primary; file "{file}"; check-names ignore; }};
zone "." {{ type primary; file "{root}"; check-names ignore; }};
"""
_KNOTD_CONFIG = """\
server:
    rundir: "{folder}"
    pidfile: "{folder}/pid"
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: "{folder}"
zone:
  - domain: "{zone}"
    file: "{file}"
    journal-content: none
  - domain: "."
    file: "{root}"
    journal-content: none
"""
_ROOT = """\
$TTL 300
. SOA ns.invalid. hostmaster.invalid. 1 3600 600 86400 60
. NS ns.invalid.
"""


class Authority(DnsServer):
    """A server on 127.0.0.1 that is authoritative for one zone and denies every other name."""

    programs: ClassVar[tuple[str, ...]]
    config: ClassVar[str]

    @classmethod
    def words(cls, folder: Path) -> list[str | Path]:
        """The words behind the program, for the configuration in this folder."""
        raise NotImplementedError

    @classmethod
    def start(
        cls,
        stage: Stage,
        zone: str,
        records: str,
        *,
        port: int | None = None,
        place: Place = HERE,
        more: str = "",
    ) -> Self:
        """Starts one and waits for its first answer; `records` are those of a zone file, `more` ends its configuration.

        Skips where the program is missing.
        """
        program = next(filter(None, map(shutil.which, cls.programs)), None)
        if program is None:
            raise SkipTest(f"not installed: {cls.programs[0]}")
        port = port or free_port(place)
        folder = stage.folder / f"{cls.programs[0]}-{port}"
        folder.mkdir(exist_ok=True)
        (folder / "zone").write_text(f"$ORIGIN {zone}.\n$TTL 300\n{records}")
        (folder / "root").write_text(_ROOT)
        paths = {"folder": folder, "file": folder / "zone", "root": folder / "root"}
        (folder / "config").write_text(cls.config.format(port=port, zone=zone, more=more, **paths))
        log = folder / "log"
        process = stage.start([*place.prefix, program, *cls.words(folder)], log)
        server = cls(port, process, log, place)
        until("its zone", lambda: server.has(zone), process, log)
        return server

    def has(self, zone: str) -> bool:
        """Whether the zone is loaded: until then some say nothing, and some SERVFAIL."""
        try:
            return self.ask(zone, "SOA", wait=1).rcode() == dns.rcode.NOERROR
        except OSError:
            return False

    @property
    def address(self) -> str:
        """As a configuration names it."""
        return f"127.0.0.1:{self.port}"


class Named(Authority):
    """BIND's."""

    programs = ("named", "/usr/sbin/named")
    config = _NAMED_CONFIG

    @classmethod
    def words(cls, folder: Path) -> list[str | Path]:
        return ["-g", "-n", "1", "-c", folder / "config"]


class Knotd(Authority):
    """Knot DNS'."""

    programs = ("knotd", "/usr/sbin/knotd")
    config = _KNOTD_CONFIG

    @classmethod
    def words(cls, folder: Path) -> list[str | Path]:
        return ["-c", folder / "config"]


class Unbound(Authority):
    """NLnet Labs', with a zone of its own."""

    programs = ("unbound", "/usr/sbin/unbound")
    config = _CONFIG

    @classmethod
    def words(cls, folder: Path) -> list[str | Path]:
        return ["-d", "-c", folder / "config"]


Reply = Callable[[dns.message.Message], dns.message.Message | bytes | None]


class Scripted:
    """A UDP server on 127.0.0.1 that answers each query with what `reply` makes of it; None: not at all.

    The agent's own probes are answered with NXDOMAIN, so that the server counts as alive, and are not noted.
    """

    def __init__(
        self,
        stage: Stage,
        reply: Reply,
        *,
        latency: float = 0,
        place: Place = HERE,
        at: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        """`latency` is what each answer takes longer, in seconds, so that another server is the faster one."""
        self.asked: list[dns.message.Message] = []
        self.ports: list[int] = []  # which each of these came from
        self.reply = reply
        self._socket = place.make_socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(at)
        self.address = f"{at[0]}:{self._socket.getsockname()[1]}"
        self._latency = latency
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scripted upstream")
        self._thread.start()
        stage.addCleanup(self._end)

    def names(self) -> list[str]:
        """The names asked, lower-case, in order."""
        return [message.question[0].name.to_text(omit_final_dot=True).lower() for message in self.asked]

    def _run(self) -> None:
        while True:
            packet, client = self._socket.recvfrom(65535)
            if self._ending.wait(self._latency):
                return
            said = self._say(dns.message.from_wire(packet), client[1])
            if said is not None:
                self._socket.sendto(said if isinstance(said, bytes) else said.to_wire(), client)

    def _say(self, query: dns.message.Message, port: int) -> dns.message.Message | bytes | None:
        if query.question[0].name.is_subdomain(_PROBES):
            answer = dns.message.make_response(query)
            answer.set_rcode(dns.rcode.NXDOMAIN)
            return answer
        self.ports.append(port)
        self.asked.append(query)
        return self.reply(query)

    def _end(self) -> None:
        self._ending.set()
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join(PATIENCE)
        self._socket.close()
