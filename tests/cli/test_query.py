"""`meshdns query`: the agent is asked over DNS itself; exit 0 NOERROR, 1 any other rcode, 3 nobody there (section 4)."""

import dns.message
import dns.rrset

from meshdns.agent.flights import Failed
from tests.agent.looking import zone
from tests.agent.mesh import HOSTS
from tests.agent.test_doors import free_port
from tests.cli.living import LivingTests

HOST = "productpage.ns1.svc.cluster.local"
MANY = {"host": "many.ns1.svc.cluster.local", "ips": [f"10.9.0.{n}" for n in range(200)], "registry": "Kubernetes"}


class QueryTests(LivingTests):
    hosts = [*HOSTS, MANY]

    async def test_text(self) -> None:
        """D12: records in presentation format, and the verdict."""
        code, out, err = await self.meshdns("query", "productpage")
        first, *rest = out.splitlines()
        self.assertEqual((code, err), (0, ""))
        self.assertRegex(first, rf"^productpage A: NOERROR, from 127.0.0.1:{self.port} over UDP in [0-9.]+ ms$")
        self.assertEqual(
            rest,
            [
                f"  productpage.                        30  CNAME  {HOST}.",
                f"  {HOST}.  30  A      10.4.0.5",
                f"Answered from the mesh (rule D6): productpage is short for {HOST} (+ ns1.svc.cluster.local).",
            ],
        )

    async def test_json(self) -> None:
        said = await self.json("query", HOST)
        self.assertGreater(said.pop("seconds"), 0)
        self.assertEqual(
            said,
            {
                "name": HOST,
                "type": "A",
                "rcode": "NOERROR",
                "flags": ["aa", "rd", "ra"],
                "server": f"127.0.0.1:{self.port}",
                "transport": "UDP",
                "answer": [
                    {
                        "name": f"{HOST}.",
                        "ttl": 30,
                        "class": "IN",
                        "type": "A",
                        "data": "10.4.0.5",
                        "text": f"{HOST}. 30 IN A 10.4.0.5",
                    }
                ],
                "authority": [],
                "additional": [],
                "errors": [],
                "source": "mesh",
                "rule": "D6",
                "verdict": f"Answered from the mesh (rule D6): {HOST} is a host of the table.",
                "hints": [],
            },
        )

    async def test_is_counted(self) -> None:
        """It is a query like any other, for all to see."""
        await self.meshdns("query", HOST, "AAAA")
        self.assertEqual(self.ledger.queries(), {("udp", "AAAA", "NOERROR", "mesh"): 1})

    async def test_no_records(self) -> None:
        """D11: NOERROR without records is no failure."""
        code, out, _ = await self.meshdns("query", HOST, "AAAA")
        self.assertEqual(code, 0)
        self.assertIn("\n  no records\nauthority\n  cluster.local.  5  SOA  ns.dns.cluster.local. ", out)
        self.assertIn("but has no AAAA record.\n", out)

    async def test_nxdomain(self) -> None:
        """D9: exit 1, and what may have been meant."""
        code, out, _ = await self.meshdns("query", "reviews.ns1.svc.cluster.local")
        self.assertEqual(code, 1)
        self.assertIn("reviews.ns1.svc.cluster.local A: NXDOMAIN, from", out)
        self.assertTrue(out.endswith("\nreviews exists in ns2: reviews.ns2.svc.cluster.local.\n"), out)

    async def test_upstream(self) -> None:
        """D18: what an upstream says, its types unknown here too."""

        def reply(query: dns.message.Message) -> dns.message.Message:
            message = dns.message.make_response(query)
            message.answer.append(dns.rrset.from_text("www.example.org.", 60, "IN", "TYPE65280", r"\# 3 010203"))
            return message

        self.mesh.reply = reply
        said = await self.json("query", "www.example.org", "TYPE65280")
        self.assertEqual([each["text"] for each in said["answer"]], [r"www.example.org. 60 IN TYPE65280 \# 3 010203"])
        self.assertEqual((said["source"], said["rule"], said["flags"]), ("upstream", "D10", ["rd", "ra"]))

    async def test_cache(self) -> None:
        """D25: where the answer came from is known before it is asked for: afterwards the cache has it in any case."""
        self.mesh.reply = zone("www.example.org. A 192.0.2.1")
        code, out, _ = await self.meshdns("query", "www.example.org")
        self.assertEqual(code, 0)
        self.assertIn("\nRelayed to an upstream server (rule D10)", out)
        self.mesh.clock.advance(36.5)
        code, out, _ = await self.meshdns("query", "www.example.org")
        self.assertEqual(code, 0)
        self.assertIn("\n  www.example.org.  23  A  192.0.2.1\n", out)
        self.assertIn("\nAnswered from the cache, 24 s left (rule D10)", out)
        self.assertEqual((await self.json("query", "www.example.org"))["source"], "cache")

    async def test_servfail(self) -> None:
        """D21: the extended error says why."""
        self.mesh.reply = lambda _: Failed("timeout", 22, "10.0.0.53:53 gave no answer in 2 s")
        code, out, _ = await self.meshdns("query", "www.example.org")
        self.assertEqual(code, 1)
        self.assertIn("\n  10.0.0.53:53 gave no answer in 2 s (extended error 22)\n", out)

    async def test_truncated(self) -> None:
        """D5: what does not fit comes over TCP, whole."""
        said = await self.json("query", "many.ns1.svc.cluster.local")
        self.assertEqual((said["transport"], len(said["answer"])), ("TCP", 200))

    async def test_address(self) -> None:
        """An address means its reverse name (D13)."""
        code, out, _ = await self.meshdns("query", "10.4.0.5")
        self.assertEqual(code, 0)
        self.assertIn(f"  5.0.4.10.in-addr.arpa.  30  PTR  {HOST}.\n", out)

    async def test_without_status_page(self) -> None:
        """D4: then the AA bit says where the answer came from."""
        self.mesh.reply = dns.message.make_response
        config = self.configure(status="off")
        for name, verdict in (
            (HOST, "Answered from the mesh, as its AA bit says."),
            ("www.example.org", "Not answered from the mesh, as it has no AA bit."),
        ):
            code, out, err = await self.meshdns("query", name, config=config)
            self.assertEqual((code, err), (0, ""))
            self.assertIn(verdict, out)

    async def test_nobody_there(self) -> None:
        """Exit 3, with the addresses tried and what to do."""
        port = free_port()
        config = self.configure(listen=[f"127.0.0.1:{port}", f"[::1]:{port}"])
        code, out, err = await self.meshdns("query", HOST, config=config)
        self.assertEqual((code, out), (3, ""))
        self.assertEqual(
            err,
            f"meshdns: no agent answers at 127.0.0.1:{port}, [::1]:{port}: Connection refused. It starts with "
            f"`twistd meshdns --config {config}`; --config FILE names that of another agent.\n",
        )

    async def test_second_address(self) -> None:
        """An address that the agent has not opened is passed over."""
        config = self.configure(listen=[f"[::1]:{free_port('::1')}", f"0.0.0.0:{self.port}"])
        code, out, _ = await self.meshdns("query", HOST, config=config)
        self.assertEqual(code, 0)
        self.assertIn(f"from 127.0.0.1:{self.port} over", out)

    async def test_usage(self) -> None:
        """Exit 2 for what is no name and no type."""
        for words, sentence in (
            (("a..b",), 'meshdns: "a..b" has an empty label.\n'),
            (("a", "B"), 'meshdns: "B" is no record type: write one like A, AAAA, SRV or TYPE65280.\n'),
        ):
            code, out, err = await self.meshdns("query", *words)
            self.assertEqual((code, out, err), (2, "", sentence))


class NoTableTests(LivingTests):
    hosts = None

    async def test_servfail(self) -> None:
        """D17: the reason comes as an extended error."""
        code, out, _ = await self.meshdns("query", HOST)
        self.assertEqual(code, 1)
        self.assertIn("  no name table has arrived yet (extended error 14)\n", out)
        self.assertIn("Answered on the spot with SERVFAIL (rule D17)", out)
