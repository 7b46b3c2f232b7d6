"""Servers behind the agent: a real unbound that serves a zone, and one that says what a test tells it to."""

import shutil
import socket
import threading
from collections.abc import Callable
from unittest import SkipTest

import dns.message
import dns.name
import dns.rcode

from tests.e2e.stage import HERE, PATIENCE, DnsServer, Place, Stage, free_port

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


class Unbound(DnsServer):
    """An unbound on 127.0.0.1 that is authoritative for one zone and knows no other name."""

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
    ) -> "Unbound":
        """Starts one and waits for its first answer; `records` are those of a zone file, `more` ends its configuration.

        Skips where unbound is missing.
        """
        program = shutil.which("unbound") or shutil.which("/usr/sbin/unbound")
        if program is None:
            raise SkipTest("not installed: unbound")
        port = port or free_port(place)
        folder = stage.folder / f"unbound-{port}"
        folder.mkdir(exist_ok=True)
        (folder / "zone").write_text(f"$ORIGIN {zone}.\n$TTL 300\n{records}")
        config = _CONFIG.format(folder=folder, port=port, zone=zone, file=folder / "zone", more=more)
        (folder / "config").write_text(config)
        log = folder / "log"
        process = stage.start([*place.prefix, program, "-d", "-c", folder / "config"], log)
        server = cls(port, process, log, place)
        server.await_answer(zone, "SOA")
        return server

    @property
    def address(self) -> str:
        """As a configuration names it."""
        return f"127.0.0.1:{self.port}"


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
