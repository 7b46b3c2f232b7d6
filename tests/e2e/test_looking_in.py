"""A running agent looked into, from outside: its status page, and the commands that ask it (contract section 4)."""

import json
import sys
from http.client import HTTPConnection
from signal import SIGTERM
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.agent import EXAMPLE_TABLE, SERVICE, SERVICE_ADDRESS, Agent, replace
from tests.e2e.stage import WAIT, Stage, free_port
from tests.e2e.upstreams import Scripted

EXPANDED = f"{SERVICE}.ns1.svc.cluster.local"
_COMMAND = "import sys; from meshdns.cli import main; sys.exit(main())"


class LookingInTests(Stage):
    def setUp(self) -> None:
        super().setUp()
        self.page = free_port()

    def start_agent(self, **more: Any) -> Agent:
        return Agent.start(self, **{"status": f"127.0.0.1:{self.page}", **more})

    def get(self, path: str) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.page, timeout=WAIT)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def status(self) -> Any:
        return json.loads(self.get("/v1/status")[1])

    def meshdns(self, agent: Agent, *words: str) -> tuple[int, str, str]:
        """A command -> its exit code and what it printed."""
        done = self.run_to_end([sys.executable, "-c", _COMMAND, *words, "--config", agent.config])
        return done.returncode, done.stdout, done.stderr

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return {
            (each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples
        }

    def test_ready_agent(self) -> None:
        agent = self.start_agent()
        self.assertEqual(self.get("/healthz"), (200, "ok\n"))
        self.assertEqual(self.get("/readyz"), (200, "ready\n"))
        said = self.status()
        self.assertEqual((said["ready"], said["table"]["hosts"]), (True, EXAMPLE_TABLE.count(b'"host"')))
        self.assertEqual(said["table"]["source"], f"file {agent.table}")
        self.assertEqual(agent.complaints(), [])

    def test_query_and_explain(self) -> None:
        """D8: the same name by DNS and by reason."""
        agent = self.start_agent()
        code, out, err = self.meshdns(agent, "query", EXPANDED)
        self.assertEqual((code, err), (0, ""))
        self.assertIn(f"{SERVICE}.                        30  A      {SERVICE_ADDRESS}\n", out)
        self.assertIn("Answered from the mesh (rule D8): your resolver appended the search domain", out)
        code, out, err = self.meshdns(agent, "explain", EXPANDED)
        self.assertEqual((code, err), (0, ""))
        self.assertIn("  ports      http 9080/TCP\n", out)

    def test_raw_table_is_a_table_file(self) -> None:
        """Section 2.1: what `meshdns table --raw` prints, another agent can live on."""
        agent = self.start_agent()
        code, out, _ = self.meshdns(agent, "table", "--raw")
        self.assertEqual(code, 0)
        generation = self.status()["table"]["generation"]
        agent.stop()
        again = self.start_agent(table=out.encode())
        self.assertEqual(self.status()["table"]["generation"], generation)
        self.assertEqual(self.meshdns(again, "table", "--raw")[1], out)

    def test_metrics_count_every_query(self) -> None:
        """Packed answers too; and asking for metrics counts nothing."""
        agent = self.start_agent()
        for _ in range(5):
            agent.await_answer(SERVICE, "AAAA")
        found = self.metrics()
        labels = {"transport": "udp", "type": "AAAA", "rcode": "NOERROR", "source": "mesh"}
        self.assertEqual(found["meshdns_queries_total", frozenset(labels.items())], 5)
        self.assertEqual(found["meshdns_table_updates_total", frozenset({("kind", "whole")})], 1)
        self.assertIn(("process_open_fds", frozenset()), found)

    def test_broken_table_file(self) -> None:
        """Exit 4 with the reason while the old table is in force; 0 when the file is mended."""
        agent = self.start_agent(servers=[Scripted(self, lambda _: None).address])
        agent.await_true("all is well", lambda: not self.status()["problems"])
        replace(agent.table, b"rubbish\n")
        agent.await_line("stays in force")
        code, out, _ = self.meshdns(agent, "status")
        self.assertEqual(code, 4)
        self.assertIn(f"! The name table is old: file {agent.table}: line 1: ", out)
        self.assertEqual(self.get("/readyz")[0], 200)
        replace(agent.table, EXAMPLE_TABLE)
        agent.await_true("all is well again", lambda: not self.status()["problems"])
        self.assertEqual(self.meshdns(agent, "status")[0], 0)

    def test_no_table(self) -> None:
        """D17: alive, not ready, and it says why."""
        agent = self.start_agent(table=b"")
        self.assertEqual(self.get("/healthz")[0], 200)
        code, body = self.get("/readyz")
        self.assertEqual(code, 503)
        self.assertIn("the table is empty", json.loads(body)["detail"])
        self.assertEqual(self.meshdns(agent, "table")[0], 4)
        self.assertEqual(self.meshdns(agent, "query", SERVICE)[0], 1)

    def test_dead_upstream(self) -> None:
        """D21: nobody answers there; `status` and `explain` say so."""
        agent = self.start_agent()
        self.meshdns(agent, "query", "www.example.org")
        agent.await_true("the server is known as dead", lambda: self.status()["problems"])
        code, out, _ = self.meshdns(agent, "explain", "www.example.org")
        self.assertEqual(code, 0)
        self.assertIn("None of them answers at the moment, so expect SERVFAIL.", out)
        self.assertEqual(self.meshdns(agent, "status")[0], 4)

    def test_move_and_off(self) -> None:
        """SIGHUP takes the page elsewhere, and away."""
        agent = self.start_agent()
        before, self.page = self.page, free_port()
        agent.hang_up(agent.config.read_text().replace(str(before), str(self.page)))
        agent.await_line("has read")
        self.assertEqual(self.get("/healthz")[0], 200)
        agent.hang_up(agent.config.read_text().replace(f"127.0.0.1:{self.page}", "off"))
        agent.await_line("has read", 2)
        with self.assertRaises(ConnectionRefusedError):
            self.get("/healthz")

    def test_agent_has_ended(self) -> None:
        agent = self.start_agent()
        self.assertIn(agent.stop(), (0, -SIGTERM))
        for words in (("query", "a"), ("explain", "a"), ("table",), ("status",)):
            code, out, err = self.meshdns(agent, *words)
            self.assertEqual((code, out), (3, ""))
            self.assertIn("no agent answers at 127.0.0.1:", err)
