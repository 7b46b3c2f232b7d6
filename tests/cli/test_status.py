"""`meshdns status`: exit 0 all well, 3 the agent is not running, 4 degraded or stale (section 4)."""

import socket
from typing import Any

import attrs
from twisted.internet.threads import deferToThread

from meshdns import __version__
from meshdns.agent.counts import Counts
from meshdns.agent.steps import Failed
from tests.agent.looking import Servers, Source, server, zone
from tests.agent.test_doors import free_port
from tests.cli.living import LivingTests

STATUS = f"""\
meshdns {__version__}, ready, running for 1 min 42 s with /etc/meshdns/agent.yaml

table     20 hosts, generation %s, 12 s old
from      file /etc/meshdns/nametable.jsonl (1 table taken, 0 refused)
zones     cluster.local
workload  namespace ns1, search ns1.svc.cluster.local svc.cluster.local cluster.local
queries   2: mesh 2; 0 by walking the search list
answers   NOERROR 1, NXDOMAIN 1
cache     1 answer, 0.0 of 16 MiB; 0 refreshed early, 0 pushed out
upstream  0 outstanding, 3 joined, 1 refused
dropped   upstream-question 2

SERVER        STATE  LATENCY  ANSWERED  FAILED
10.0.0.53:53  up     2.1 ms   5         2: timeout 2
"""


class StatusTests(LivingTests):
    async def test_text(self) -> None:
        held = self.page.facts.held
        assert held
        for name in ("productpage", "gone.ns1.svc.cluster.local"):
            await self.meshdns("query", name)
        code, out, err = await self.meshdns("status")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(out, STATUS % held.generation)

    async def test_hit_rate(self) -> None:
        """Section 4: of the queries that only upstreams know, how many the cache answered."""
        self.mesh.reply = zone("www.example.org. A 192.0.2.1")
        for seconds, reply in ((0, None), (10, None), (90, lambda _: Failed("timeout", 22, "silent"))):
            self.mesh.clock.advance(seconds)
            self.mesh.reply = reply or self.mesh.reply
            await self.meshdns("query", "www.example.org")
        _, out, _ = await self.meshdns("status")
        self.assertIn("\nqueries   3: upstream 1, cache 1, stale 1; 0 by walking the search list\n", out)
        told = "1 answer, 0.0 of 16 MiB; 66 % of 3 queries from it, 1 expired; 0 refreshed early, 0 pushed out"
        self.assertIn(f"\ncache     {told}\n", out)

    async def test_workers(self) -> None:
        """Several have a line, and one that is not there is a problem."""

        @attrs.frozen
        class Others:
            counts: tuple[Counts, ...] = ()

            def status(self) -> list[dict[str, Any]]:
                up = {"number": 2, "state": "up", "restarts": 0, "queries": 1204, "pid": 7}
                return [up, {"number": 3, "state": "resting", "restarts": 2, "queries": 1, "pid": None}]

        self.page.facts = self.make_facts(others=Others())
        code, out, _ = await self.meshdns("status")
        self.assertEqual(4, code)
        self.assertIn("\nworkers   1: 0 queries, 2: 1204 queries, 3: 1 query and resting after 2 restarts\n", out)
        self.assertIn("! Worker 3 is not up (resting): the main process does its work meanwhile.", out)

    async def test_json(self) -> None:
        said = await self.json("status")
        self.assertEqual((said["ready"], said["problems"]), (True, []))

    async def test_degraded(self) -> None:
        """Exit 4: a table file that went bad, upstreams that are dead."""
        self.page.facts = self.make_facts(trouble=lambda: "line 3: is not JSON")
        code, out, _ = await self.meshdns("status")
        self.assertEqual(code, 4)
        self.assertIn("\n! The name table is old: file /etc/meshdns/nametable.jsonl: line 3: is not JSON.", out)
        self.page.facts = self.make_facts(upstream=Servers([server(state="dead")]))
        said = await self.json("status", code=4)
        self.assertEqual(len(said["problems"]), 1)

    async def test_nobody_there(self) -> None:
        """Exit 3, with the address tried and what to do."""
        port = free_port()
        config = self.configure(status=f"127.0.0.1:{port}")
        for words in (("status",), ("explain", "a"), ("table",), ("table", "--raw")):
            code, out, err = await self.meshdns(*words, config=config)
            self.assertEqual((code, out), (3, ""))
            self.assertEqual(
                err,
                f"meshdns: no agent answers at 127.0.0.1:{port} (its status page): Connection refused. It starts "
                f"with `twistd meshdns --config {config}`; --config FILE names that of another agent.\n",
            )

    async def test_somebody_else_there(self) -> None:
        """What answers is no agent: it says so, and shows nothing of it."""
        stranger = socket.create_server(("127.0.0.1", 0))
        stranger.settimeout(30)
        self.addCleanup(stranger.close)

        def serve() -> None:
            for said in (b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\n\r\n<html>", b"HTTP/1.1 404 No\r\n\r\n{}"):
                connection, _ = stranger.accept()
                connection.recv(1000)
                connection.sendall(said)
                connection.close()

        serving = deferToThread(serve)
        config = self.configure(status=f"127.0.0.1:{stranger.getsockname()[1]}")
        for _ in range(3):
            code, out, err = await self.meshdns("status", config=config)
            self.assertEqual((code, out), (3, ""))
            self.assertIn(" is not the agent. It starts with `twistd", err)
        await serving

    async def test_page_is_off(self) -> None:
        config = self.configure(status="off")
        code, out, err = await self.meshdns("status", config=config)
        self.assertEqual((code, out), (1, ""))
        self.assertIn("the status page is off in the configuration", err)

    async def test_no_configuration(self) -> None:
        """Exit 1 with the file's name; a broken one with its lines."""
        code, _, err = await self.meshdns("status", config="/nonexistent/agent.yaml")
        self.assertEqual(code, 1)
        self.assertIn(
            "/nonexistent/agent.yaml:1: cannot be read: No such file or directory\nName the configuration", err
        )
        code, _, err = await self.meshdns("status", config=self.configure(lisen=[]))
        self.assertEqual(code, 1)
        self.assertIn("did you mean", err)

    async def test_proxies_are_not_asked(self) -> None:
        """An HTTP proxy of the environment has no part in this."""
        code, _, err = await self.meshdns("status", http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9")
        self.assertEqual((code, err), (0, ""))


class NoTableTests(LivingTests):
    hosts = None

    async def test_no_table(self) -> None:
        """D17: exit 4 until the first table."""
        self.page.facts = self.make_facts(table=Source(0, 0, None))
        said = await self.json("status", code=4)
        self.assertEqual((said["ready"], said["table"]["generation"]), (False, None))
        code, out, _ = await self.meshdns("status")
        self.assertEqual(code, 4)
        self.assertIn(f"meshdns {__version__}, not ready, ", out)
        self.assertIn("\n! No name table is held: ", out)
