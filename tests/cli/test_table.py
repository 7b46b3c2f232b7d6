"""`meshdns table`: in columns, as JSON, and raw, which may be used as a table file again (sections 2.1 and 4)."""

import json

from meshdns import table
from tests.agent.looking import Source
from tests.agent.mesh import HOSTS
from tests.cli.living import LivingTests

MANY = {"host": "many.ns1.svc.cluster.local", "ips": [f"10.9.0.{n}" for n in range(50)], "registry": "Kubernetes"}


class TableTests(LivingTests):
    hosts = [*HOSTS, MANY]

    async def test_columns(self) -> None:
        code, out, err = await self.meshdns("table")
        self.assertEqual((code, err), (0, ""))
        first, *rest = out.splitlines()
        self.assertEqual(first.split(), ["HOST", "ADDRESSES", "REGISTRY", "NAMESPACE", "PORTS"])
        rows = {line.split()[0]: line.split()[1:] for line in rest}
        self.assertEqual(list(rows), sorted(host["host"] for host in self.hosts))
        self.assertEqual(
            rows["productpage.ns1.svc.cluster.local"], ["10.4.0.5", "Kubernetes", "ns1", "http", "9080/TCP"]
        )
        self.assertEqual(rows["docs.ns1.svc.cluster.local"], ["->", "docs.example.org", "Kubernetes", "-", "-"])
        self.assertEqual(rows["db1.example.com"], ["240.240.0.1,", "2001:2::1", "(virtual)", "External", "-", "-"])

    async def test_pipe_gets_everything(self) -> None:
        """Nothing is folded, cut or coloured where no person looks, however narrow the window."""
        _, out, _ = await self.meshdns("table", COLUMNS="40", FORCE_COLOR="1")
        (line,) = (line for line in out.splitlines() if line.startswith("many."))
        self.assertIn(", ".join(f"10.9.0.{n}" for n in range(50)), line)
        self.assertNotIn("\x1b", out)

    async def test_raw(self) -> None:
        """The lines as they are: a table file."""
        code, out, _ = await self.meshdns("table", "--raw")
        self.assertEqual(code, 0)
        self.assertEqual(table.read(out.encode()), self.page.facts.held)

    async def test_json(self) -> None:
        said = await self.json("table")
        held = self.page.facts.held
        assert held
        self.assertEqual((said["generation"], said["zones"], said["ttl"]), (held.generation, ["cluster.local"], 30))
        self.assertEqual([each["host"] for each in said["entries"]], sorted(host["host"] for host in self.hosts))

    async def test_host(self) -> None:
        for host in ("db1.example.com", "DB1.example.com."):
            code, out, _ = await self.meshdns("table", "--host", host)
            self.assertEqual((code, len(out.splitlines())), (0, 2))
        _, out, _ = await self.meshdns("table", "--host", "db1.example.com", "--raw")
        self.assertEqual(json.loads(out)["ips"], ["240.240.0.1", "2001:2::1"])
        self.assertEqual((await self.json("table", "--host", "*.wild.example.com"))["ips"], ["240.240.0.2"])

    async def test_no_such_host(self) -> None:
        """Exit 1, and where to look on."""
        for raw in ((), ("--raw",)):
            code, out, err = await self.meshdns("table", "--host", "productpage", *raw)
            self.assertEqual((code, out), (1, ""))
            self.assertIn("meshdns: productpage is no host of the table: ", err)


class NoTableTests(LivingTests):
    hosts = None

    async def test_no_table(self) -> None:
        """Exit 4: the agent runs, but has no table yet."""
        self.page.facts = self.make_facts(table=Source(0, 1, None), trouble=lambda: "line 3: is not JSON")
        code, out, err = await self.meshdns("table")
        self.assertEqual((code, out), (4, ""))
        self.assertIn("No name table is held: file /etc/meshdns/nametable.jsonl: line 3: is not JSON.", err)


class EmptyTableTests(LivingTests):
    hosts = []

    async def test_empty(self) -> None:
        code, out, _ = await self.meshdns("table")
        self.assertEqual((code, out), (0, "HOST  ADDRESSES  REGISTRY  NAMESPACE  PORTS\n"))
