"""A small agent stays small: what a configuration does not need is not imported, and comes in full once it is needed."""

import http.client
import json
import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.agent.certificates import CertificateAuthority
from tests.e2e.agent import SERVICE, SERVICE_ADDRESS, Agent, settings, table
from tests.e2e.control import Control, Grounds
from tests.e2e.stage import WAIT, Stage, free_port
from tests.e2e.upstreams import Unbound

# What speaks TLS; what speaks HTTP and writes metrics; what reads C. (Of OpenSSL only what is behind its own imports: the others
# are told when they are tried, too.)
TLS = {"OpenSSL.crypto", "cryptography.x509", "service_identity", "twisted.web.client", "meshdns.agent.poller"}
PAGES = {"twisted.web.server", "twisted.web.http", "prometheus_client", "meshdns.agent.explain"}
NEVER = {"cffi", "pycparser", "twisted.trial.unittest", "twisted.internet.asyncioreactor"}


class SmallStage(Stage):
    """Agents say what they import: `import time: … | … | MODULE` (python -X importtime)."""

    def setUp(self) -> None:
        super().setUp()
        os.environ["PYTHONPROFILEIMPORTTIME"] = "1"
        self.addCleanup(os.environ.pop, "PYTHONPROFILEIMPORTTIME")
        self.status = free_port()

    def imported(self, agent: Agent) -> set[str]:
        found = set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", agent.log.read_text(), re.MULTILINE))
        self.assertIn("meshdns.agent.service", found)
        return found

    def page(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.status, timeout=2 * WAIT)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


class FileTests(SmallStage):
    """An agent that reads its table from a file and asks plain upstreams."""

    def start_small(self, **sections: Any) -> Agent:
        return Agent.start(self, status=f"127.0.0.1:{self.status}", **sections)

    def test_imports(self) -> None:
        """Neither TLS nor HTTP, though a table is in force, a question was relayed, and its status page is open."""
        agent = self.start_small()
        self.assertEqual([SERVICE_ADDRESS], agent.addresses(SERVICE))
        agent.ask("www.example.com")
        self.assertEqual(set(), self.imported(agent) & (TLS | PAGES | NEVER))
        agent.stop()
        self.assertTrue(agent.ended_well(), agent.log.read_text())

    def test_pages(self) -> None:
        """The first request is answered in full, as are those that come beside it, and mesh answers go out meanwhile."""
        agent = self.start_small()
        agent.await_true("a table", lambda: agent.ask(SERVICE).rcode() == 0)
        with ThreadPoolExecutor(5) as at_once:
            asked = [at_once.submit(self.page, path) for path in ("/metrics", "/readyz", "/v1/status", "/metrics", "/")]
            while not all(each.done() for each in asked):
                self.assertEqual([SERVICE_ADDRESS], agent.addresses(SERVICE))
            answers = [each.result() for each in asked]
        self.assertEqual([200] * 5, [code for code, _ in answers])
        families = {family.name for family in text_string_to_metric_families(answers[0][1].decode())}
        self.assertIn("meshdns_queries", families)
        self.assertTrue(json.loads(answers[2][1])["ready"])
        self.assertEqual(set(), self.imported(agent) & TLS)
        agent.stop()
        self.assertTrue(agent.ended_well(), agent.log.read_text())

    def test_ends_while_pages_load(self) -> None:
        """Whoever comes in the last moment does not keep it."""
        agent = self.start_small()
        with socket.create_connection(("127.0.0.1", self.status), WAIT) as late:
            late.sendall(b"GET / HTTP/1.1\r\n")
            agent.stop()
            self.assertTrue(agent.ended_well(), agent.log.read_text())


class ReloadTests(SmallStage):
    """TLS comes in with a configuration that wants it."""

    def test_to_a_control_plane(self) -> None:
        """X5, X9: from a file to a control plane that is trusted by its authority, and shown a certificate."""
        grounds = Grounds.lay(self)
        control = Control.start(grounds)
        small = Agent.start(self, table=table([]))
        self.assertEqual([], small.ask(SERVICE).answer)
        self.assertEqual(set(), self.imported(small) & TLS)
        vm = grounds.vm("ns1")
        said = {"urls": [control.url], "ca": str(grounds.root.pem), "certificate": str(vm.pem), "key": str(vm.key)}
        sections = {
            "table": {"control_plane": said},
            "workload": {"namespace": "ns1", "cluster": "east", "network": "east-net"},
        }
        small.hang_up(settings(small.port, ["127.0.0.1:9"], **sections))
        small.await_line("from the control plane: ")
        self.assertEqual([SERVICE_ADDRESS], small.addresses(SERVICE))
        grounds.edit(SERVICE_ADDRESS, "10.4.0.77")
        small.await_line("from the control plane: ", 2)
        self.assertEqual(["10.4.0.77"], small.addresses(SERVICE))
        self.assertLessEqual(TLS, self.imported(small))
        self.assertEqual([], small.complaints())

    def test_to_an_upstream(self) -> None:
        """D23: from plain to TLS, certificate checked; and to a server that is not whom it says."""
        authority = CertificateAuthority()
        os.environ["SSL_CERT_FILE"] = str(authority.write(self.folder / "ca.pem"))
        self.addCleanup(os.environ.pop, "SSL_CERT_FILE")
        certificate, key = authority.write_pair(self.folder, "dns.example.com")
        key.chmod(0o644)
        port = free_port()
        more = (
            f"server:\n    interface: 127.0.0.1@{port}\n    tls-port: {port}\n"
            f"    tls-service-pem: {certificate}\n    tls-service-key: {key}\n"
        )
        Unbound.start(self, "example.com", "@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\n* A 192.0.2.9\n", more=more)
        small = Agent.start(self)
        self.assertEqual(set(), self.imported(small) & TLS)
        small.hang_up(settings(small.port, [f"tls://127.0.0.1:{port}?name=dns.example.com"]))
        small.await_line("has read .* again")
        for number in range(20):
            self.assertEqual(["192.0.2.9"], small.addresses(f"host{number}.example.com"))
        small.hang_up(settings(small.port, [f"tls://127.0.0.1:{port}?name=other.example.com"]))
        small.await_line("has read .* again", 2)
        small.ask("another.example.com")
        small.await_line("is not trusted.*its certificate is for")
        self.assertEqual([], small.complaints())
