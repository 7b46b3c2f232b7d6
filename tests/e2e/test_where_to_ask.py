"""Where the agent asks: resolv.conf as it changes (D19), domains with servers of their own (D23), over TLS (D23)."""

import errno
import json
import os
import socket
from http.client import HTTPConnection
from itertools import count
from secrets import randbelow
from typing import Any
from unittest import SkipTest

import dns.message
import dns.rcode
import dns.rrset

from tests.agent.certificates import CertificateAuthority
from tests.e2e.agent import SERVICE, SERVICE_ADDRESS, Agent, replace, settings
from tests.e2e.stage import WAIT, Stage, free_port
from tests.e2e.upstreams import Reply, Scripted, Unbound

TOLD = "has read .*resolv.conf again"


def always(address: str) -> Reply:
    """Every name has this address."""

    def reply(query: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(query)
        answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", address))
        return answer

    return reply


def quiet_address() -> str:
    """A loopback address whose port 53 may be taken and is not; resolv.conf knows no other port."""
    while True:
        address = f"127.{randbelow(250) + 2}.{randbelow(250)}.{randbelow(250) + 2}"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
            try:
                tried.bind((address, 53))
            except OSError as error:
                if error.errno == errno.EACCES:
                    raise SkipTest("needs root, for port 53") from None
                continue
        return address


class ResolvConfTests(Stage):
    """D19: the agent's own nameservers and search list follow the file."""

    def setUp(self) -> None:
        super().setUp()
        self.file = self.folder / "resolv.conf"
        self.names = (f"host{number}.example.com" for number in count())
        self.one, self.two = quiet_address(), quiet_address()
        Scripted(self, always("192.0.2.1"), at=(self.one, 53))
        Scripted(self, always("192.0.2.2"), at=(self.two, 53))
        self.file.write_text(f"nameserver {self.one}\nsearch a.example\n")
        self.agent = Agent.start(self, search=None, upstream={"resolv_conf": "resolv.conf"})

    def now(self) -> list[str]:
        """Which server answers a name that nobody asked before."""
        return self.agent.addresses(next(self.names))

    def test_followed(self) -> None:
        """Another server and search list: within two seconds, with one line in the log, and without a signal."""
        self.assertEqual(["192.0.2.1"], self.agent.addresses("kept.example.com"))
        self.assertEqual(["192.0.2.1"], self.agent.addresses(f"{SERVICE}.b.example"))
        replace(self.file, f"# new\nnameserver {self.two}\nsearch b.example\n".encode())
        self.agent.await_true("the other server", lambda: self.now() == ["192.0.2.2"], patience=4)
        self.assertEqual([SERVICE_ADDRESS], self.agent.addresses(f"{SERVICE}.b.example"))
        self.assertEqual(
            ["192.0.2.2"], self.agent.addresses("kept.example.com")
        )  # what the old network said is forgotten
        line = self.agent.await_line(TOLD)
        self.assertIn(f"asks {self.two}:53, search b.example", line)
        self.assertEqual(1, len(self.agent.lines(TOLD)))
        self.agent.stop()
        self.assertEqual([], self.agent.complaints())

    def test_emptied(self) -> None:
        """A file that is emptied and filled: the old server answers meanwhile."""
        self.file.write_text("")
        for _ in range(10):
            self.assertEqual(["192.0.2.1"], self.now())
        self.file.write_text(f"nameserver {self.two}\n")
        self.agent.await_true("the other server", lambda: self.now() == ["192.0.2.2"], patience=4)
        self.assertEqual(1, len(self.agent.lines(TOLD)))

    def test_not_with_servers(self) -> None:
        """With upstream.servers the file's nameservers mean nothing."""
        upstream = {"resolv_conf": "resolv.conf", "servers": [self.one]}
        self.agent.hang_up(settings(self.agent.port, (), search=None, upstream=upstream))
        self.agent.await_line("has read .*agent.yaml again")
        replace(self.file, f"nameserver {self.two}\n".encode())
        replace(self.agent.config, settings(self.agent.port, (), search=None, upstream=upstream).encode())
        self.agent.hang_up()
        self.agent.await_line("has read .*agent.yaml again", 2)
        self.assertEqual(["192.0.2.1"], self.now())
        self.assertEqual([], self.agent.lines(TOLD))


class DomainTests(Stage):
    """D23: `upstream.domains`."""

    def setUp(self) -> None:
        super().setUp()
        self.main, self.corp, self.lab = (Scripted(self, always(f"192.0.2.{number}")) for number in (1, 2, 3))
        self.page = free_port()
        self.domains = {"corp.example.com": [self.corp.address], "lab.corp.example.com": [self.lab.address]}
        self.agent = Agent.start(self, **self.sections(self.domains))

    def sections(self, domains: dict[str, list[str]]) -> dict[str, Any]:
        upstream = {"servers": [self.main.address], "domains": domains}
        return {"upstream": upstream, "status": f"127.0.0.1:{self.page}", "search": ["corp.example.com"]}

    def hang_up(self, domains: dict[str, list[str]]) -> None:
        before = len(self.agent.lines("has read"))
        self.agent.hang_up(settings(self.agent.port, (), **self.sections(domains)))
        self.agent.await_line("has read", before + 1)

    def get(self, path: str) -> bytes:
        connection = HTTPConnection("127.0.0.1", self.page, timeout=WAIT)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def test_longest_match(self) -> None:
        for name, address in (
            ("example.com", "192.0.2.1"),
            ("xcorp.example.com", "192.0.2.1"),
            ("corp.example.com", "192.0.2.2"),
            ("A.Corp.Example.COM", "192.0.2.2"),
            ("x.lab.corp.example.com", "192.0.2.3"),
        ):
            for tcp in (False, True):
                self.assertEqual([address], self.agent.addresses(name, tcp=tcp), name)
        self.assertLessEqual({"corp.example.com", "a.corp.example.com"}, set(self.corp.names()))
        self.assertEqual({"x.lab.corp.example.com"}, set(self.lab.names()))
        self.assertEqual([], self.agent.complaints())

    def test_status(self) -> None:
        """All servers are there, with their domains; `explain` names those that a name is asked of."""
        told = [(each["server"], each["domains"]) for each in json.loads(self.get("/v1/status"))["upstreams"]]
        self.assertEqual(
            [
                (self.main.address, []),
                (self.corp.address, ["corp.example.com"]),
                (self.lab.address, ["lab.corp.example.com"]),
            ],
            told,
        )
        self.agent.addresses("b.corp.example.com")
        line = f'meshdns_upstream_requests_total{{outcome="ok",server="{self.corp.address}"}} 1.0'
        self.assertIn(line, self.get("/metrics").decode())
        explained = json.loads(self.get("/v1/explain?name=x.lab.corp.example.com&type=MX"))
        # Its walk of the search list ends at x.lab, which is nobody's in particular.
        servers = [each["server"] for each in explained["upstream"]["servers"]]
        self.assertEqual([self.lab.address, self.main.address], servers)

    def test_reload(self) -> None:
        """SIGHUP takes other domains on, and forgets what others said."""
        self.assertEqual(["192.0.2.2"], self.agent.addresses("a.corp.example.com"))
        self.hang_up({})
        self.assertEqual(["192.0.2.1"], self.agent.addresses("a.corp.example.com"))
        self.hang_up({"example.com": [self.lab.address], "corp.example.com": [self.lab.address]})
        self.assertEqual(["192.0.2.3"], self.agent.addresses("a.corp.example.com"))
        self.hang_up(self.domains)
        self.assertEqual(["192.0.2.2"], self.agent.addresses("a.corp.example.com"))
        self.agent.stop()
        self.assertTrue(self.agent.ended_well(), self.agent.log.read_text())

    def test_special_use(self) -> None:
        """D29: answered here; configured otherwise, asked."""
        self.assertEqual(["127.0.0.1"], self.agent.addresses("localhost"))
        self.assertEqual(["::1"], self.agent.addresses("a.localhost", "AAAA"))
        self.assertEqual(dns.rcode.NXDOMAIN, self.agent.ask("x.onion").rcode())
        self.hang_up({"onion": [self.lab.address]})
        self.assertEqual(["192.0.2.3"], self.agent.addresses("x.onion"))
        self.assertEqual(dns.rcode.NXDOMAIN, self.agent.ask("x.invalid").rcode())
        self.assertEqual([], self.main.names())

    def test_special_use_at_the_end_of_a_walk(self) -> None:
        """D8, D29: a search that comes to the bare `localhost` is not asked outside."""

        def unknown(query: dns.message.Message) -> dns.message.Message:
            answer = dns.message.make_response(query)
            answer.set_rcode(dns.rcode.NXDOMAIN)
            return answer

        self.corp.reply = unknown
        self.assertEqual(["127.0.0.1"], self.agent.addresses("localhost.corp.example.com"))
        self.assertEqual(dns.rcode.NXDOMAIN, self.agent.ask("y.invalid.corp.example.com").rcode())
        self.assertEqual([], self.main.names())


class TlsTests(Stage):
    """D23: a real server over TLS, trusted by SSL_CERT_FILE."""

    def setUp(self) -> None:
        super().setUp()
        authority = CertificateAuthority()
        os.environ["SSL_CERT_FILE"] = str(authority.write(self.folder / "ca.pem"))
        self.addCleanup(os.environ.pop, "SSL_CERT_FILE")
        certificate, key = authority.write_pair(self.folder, "dns.example.com")
        key.chmod(0o644)
        self.port = free_port()
        more = (
            f"server:\n    interface: 127.0.0.1@{self.port}\n    tls-port: {self.port}\n"
            f"    tls-service-pem: {certificate}\n    tls-service-key: {key}\n"
        )
        records = "@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 192.0.2.53\n* A 192.0.2.9\n"
        Unbound.start(self, "example.com", records, more=more)

    def test_unbound(self) -> None:
        """Hundreds of questions over it, all answered."""
        agent = Agent.start(self, servers=[f"tls://127.0.0.1:{self.port}?name=dns.example.com"])
        for number in range(300):
            self.assertEqual(["192.0.2.9"], agent.addresses(f"host{number}.example.com"))
        self.assertEqual([], agent.lines("is not trusted"))
        agent.stop()
        self.assertTrue(agent.ended_well(), agent.log.read_text())

    def test_wrong_name(self) -> None:
        """SERVFAIL, and one line of the log however often it is tried."""
        server = f"tls://127.0.0.1:{self.port}?name=other.example.com"
        agent = Agent.start(self, servers=[server], cache={"max_bytes": 0})
        for number in range(10):
            self.assertEqual(dns.rcode.SERVFAIL, agent.ask(f"host{number}.example.com").rcode())
        line = agent.await_line("is not trusted")
        self.assertIn(f"upstream {server} is not trusted, so nothing is asked of it: its certificate is for", line)
        self.assertEqual(1, len(agent.lines("is not trusted")))
        self.assertEqual([], agent.complaints())
