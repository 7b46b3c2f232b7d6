"""`meshdns explain`: the agent's reasons as text and as JSON (section 4)."""

from tests.agent.looking import zone
from tests.cli.living import LivingTests

HOST = "productpage.ns1.svc.cluster.local"
CLASSIC = f"""\
{HOST}.ns1.svc.cluster.local A
-> Answered from the mesh (rule D8): your resolver appended the search domain ns1.svc.cluster.local to {HOST}, which is a host of the table.

  -  zone        It is in the mesh zone cluster.local: its answer comes from here, it never goes upstream.
  -  host        It is not itself a host of the table.
  -  short name  It is not short for a Kubernetes service: none is found with ns1.svc.cluster.local, svc.cluster.local or cluster.local behind it.
  -  wildcard    No wildcard of the table covers it.
  -  search      It ends in the search domain ns1.svc.cluster.local, as if your resolver had appended that to {HOST}. The agent goes on as your resolver would:
  *  step        {HOST} is a host of the table. Nobody owns names made of a whole mesh name and a search domain.
  -  answer      A CNAME leads to {HOST}: clients learn the full name (rule D12).

its entry in the table
  host       {HOST}
  ips        10.4.0.5
  registry   Kubernetes
  namespace  ns1
  ports      http 9080/TCP

answer (NOERROR)
  {HOST}.ns1.svc.cluster.local.  30  CNAME  {HOST}.
  {HOST}.                        30  A      10.4.0.5

table of 20 hosts, generation %s, 12 s old
"""  # noqa: E501


class ExplainTests(LivingTests):
    async def test_classic(self) -> None:
        """D8: the whole page, as it stands in docs/observing.md."""
        held = self.page.facts.held
        assert held
        code, out, err = await self.meshdns("explain", f"{HOST}.ns1.svc.cluster.local")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(out, CLASSIC % held.generation)

    async def test_hint(self) -> None:
        """Exit 0 though the name does not exist: it is explained."""
        code, out, _ = await self.meshdns("explain", "reviews")
        self.assertEqual(code, 0)
        self.assertIn("\n   reviews exists in ns2: reviews.ns2.svc.cluster.local.\n", out)

    async def test_virtual_address(self) -> None:
        _, out, _ = await self.meshdns("explain", "db1.example.com", "AAAA")
        self.assertIn("\n  ips       240.240.0.1, 2001:2::1 (virtual)\n", out)

    async def test_address(self) -> None:
        """An address means its reverse name (D13)."""
        said = await self.json("explain", "fd00::9")
        self.assertEqual(
            (said["type"], said["rule"], said["entry"]["host"]), ("PTR", "D13", "dual.ns1.svc.cluster.local")
        )

    async def test_json(self) -> None:
        said = await self.json("explain", "docs", "A")
        self.assertEqual((said["source"], said["upstream"]["name"]), ("mesh+upstream", "docs.example.org"))

    async def test_cache(self) -> None:
        """D8, D25: a warm walk: each step, and the records as they would be given."""
        self.mesh.reply = zone("www.python.org. A 192.0.2.7")
        self.mesh.ask("www.python.org.ns1.svc.cluster.local.")
        code, out, _ = await self.meshdns("explain", "www.python.org.ns1.svc.cluster.local")
        self.assertEqual(code, 0)
        self.assertIn("\n-> Answered from the cache, 60 s left (rule D8): your resolver appended", out)
        self.assertIn(
            "\n  *  step        www.python.org exists, as the cache knows for 60 s more. The search ends", out
        )
        self.assertIn("\nanswer (NOERROR)\n  www.python.org.ns1.svc.cluster.local.  30  CNAME  www.python.org.\n", out)

    async def test_usage(self) -> None:
        code, _, err = await self.meshdns("explain", "a", "TYPE70000")
        self.assertEqual(code, 2)
        self.assertIn("is no record type", err)


class NoTableTests(LivingTests):
    hosts = None

    async def test_no_table(self) -> None:
        """D17: it is explained, too."""
        code, out, _ = await self.meshdns("explain", HOST)
        self.assertEqual(code, 0)
        self.assertIn("no name table is held (file /etc/meshdns/nametable.jsonl)\n", out)
