"""dig and kdig as people use them (rules D1 to D5, and some of D11 and D15)."""

from meshdns import __version__
from tests.e2e.agent import EXAMPLE_HOSTS, SERVICE, SERVICE_ADDRESS, Agent, table
from tests.e2e.dig import Shown, needs_tools, read
from tests.e2e.stage import Stage
from tests.e2e.upstreams import Unbound

BIG = {
    "host": "big.ns1.svc.cluster.local",
    "ips": [f"10.9.{number // 200}.{number % 200 + 1}" for number in range(400)],
    "registry": "Kubernetes",
}


class ToolTests(Stage):
    """Both tools against one agent."""

    def setUp(self) -> None:
        super().setUp()
        needs_tools()
        self.unbound = Unbound.start(self, "example.org", "@ SOA ns h 1 3600 600 86400 60\n@ NS ns\nwww A 192.0.2.80\n")
        self.agent = Agent.start(self, servers=[self.unbound.address], table=table([*EXAMPLE_HOSTS, BIG]))

    def output(self, tool: str, words: str) -> str:
        retries = "+tries=1" if tool == "dig" else "+retry=0"
        return self.said_by([tool, "@127.0.0.1", "-p", str(self.agent.port), "+time=5", retries, *words.split()])

    def one(self, tool: str, words: str) -> Shown:
        (shown,) = read(self.output(tool, words))
        return shown

    def with_both(self, words: str) -> dict[str, Shown]:
        return {tool: self.one(tool, words) for tool in ("dig", "kdig")}

    def test_short(self) -> None:
        """D11: `+short` prints the address, and for an alias where it leads first."""
        for tool in ("dig", "kdig"):
            self.assertEqual(f"{SERVICE_ADDRESS}\n", self.output(tool, f"+short {SERVICE}"))
            self.assertEqual(f"{SERVICE}.\n{SERVICE_ADDRESS}\n", self.output(tool, "+short productpage"))
            self.assertEqual("192.0.2.80\n", self.output(tool, "+short www.example.org"))

    def test_tcp(self) -> None:
        """D1: over TCP the same as over UDP."""
        for tool, shown in self.with_both(f"+tcp {SERVICE}").items():
            self.assertEqual(((f"{SERVICE}.", "A", SERVICE_ADDRESS),), shown.answer, tool)
            self.assertIn("(TCP)", shown.text)

    def test_keepopen(self) -> None:
        """D1: several queries on one connection (RFC 7766), mesh and relayed ones."""
        for tool in ("dig", "kdig"):
            shown = read(self.output(tool, f"+tcp +keepopen {SERVICE} db2.example.com www.example.org"))
            self.assertEqual([[SERVICE_ADDRESS], ["240.240.0.2"], ["192.0.2.80"]], [each.rdata for each in shown])

    def test_edns_version(self) -> None:
        """D4: EDNS version 1: BADVERS, and with version 0 the answer."""
        self.assertEqual("BADVERS", self.one("dig", f"+edns=1 +noednsnegotiation {SERVICE}").status)
        self.assertEqual("BADVERS", self.one("kdig", f"+edns=1 {SERVICE}").status)
        self.assertEqual([SERVICE_ADDRESS], self.one("dig", f"+edns=1 {SERVICE}").rdata)

    def test_edns(self) -> None:
        """D4: OPT for OPT and none for none; our size, DO echoed, flags of tomorrow not."""
        self.assertIn("udp: 1232", self.one("dig", f"+edns=0 +nocookie {SERVICE}").text)
        self.assertIn("flags: do; udp: 1232", self.one("dig", f"+dnssec {SERVICE}").text)
        self.assertIn("flags:; udp: 1232", self.one("dig", f"+ednsflags=0x40 {SERVICE}").text)
        self.assertNotIn("OPT PSEUDOSECTION", self.one("dig", f"+noedns {SERVICE}").text)

    def test_opcode(self) -> None:
        """D2: NOTIFY, UPDATE, STATUS: NOTIMP."""
        for opcode in ("notify", "update", "status"):
            shown = self.one("dig", f"+opcode={opcode} {SERVICE}")
            self.assertEqual((opcode.upper(), "NOTIMP"), (shown.opcode, shown.status))

    def test_header_only(self) -> None:
        """D2: a query without a question: FORMERR."""
        self.assertEqual("FORMERR", self.one("dig", "+header-only").status)

    def test_options(self) -> None:
        """D4: a client subnet, a cookie, padding and an unknown option change nothing and are not sent back."""
        for words in ("+subnet=192.0.2.0/24", "+cookie", "+padding=128", "+nsid", "+ednsopt=65001:abcd"):
            for tool, shown in self.with_both(f"{words} {SERVICE}").items():
                self.assertEqual([SERVICE_ADDRESS], shown.rdata, f"{tool} {words}")
                self.assertNotRegex(shown.text, "(?i)cookie:|client-subnet:|padding:|nsid:|65001")
        self.assertEqual(["192.0.2.80"], self.one("dig", "+cookie www.example.org").rdata)

    def test_flags(self) -> None:
        """D4: RD and CD come back as asked, RA always, AA on mesh answers only, the unused bit never."""
        for words, flags in {
            "+nocdflag": "qr aa rd ra",
            "+norecurse": "qr aa ra",
            "+cdflag": "qr aa rd ra cd",
            "+adflag": "qr aa rd ra",
            "+zflag": "qr aa rd ra",
        }.items():
            for tool, shown in self.with_both(f"{words} {SERVICE}").items():
                self.assertEqual(set(flags.split()), shown.flags, f"{tool} {words}")
        self.assertEqual({"qr", "rd", "ra"}, self.one("dig", "www.example.org").flags)

    def test_chaos(self) -> None:
        """D2: class CH knows our version; everything else of another class is REFUSED."""
        for name in ("version.bind", "version.server", "VERSION.bind"):
            for tool, shown in self.with_both(f"-c CH -t TXT {name}").items():
                self.assertEqual([f'"meshdns {__version__}"'], shown.rdata, f"{tool} {name}")
        self.assertEqual("REFUSED", self.one("dig", "-c CH -t TXT hostname.bind").status)
        self.assertEqual("REFUSED", self.one("dig", f"-c HS -t A {SERVICE}").status)

    def test_truncated(self) -> None:
        """D5: within what the client takes, whole records and TC; `+ignore` shows it, without it TCP brings all."""
        for words, size in {
            "dig +noedns": 512,
            "kdig": 512,
            "dig +bufsize=512": 512,
            "kdig +bufsize=512": 512,
            "dig +bufsize=100": 512,
            "dig +bufsize=4096": 1232,
            "kdig +bufsize=4096": 1232,
        }.items():
            tool, _, options = words.partition(" ")
            cut = self.one(tool, f"{options} +ignore {BIG['host']}")
            self.assertIn("tc", cut.flags, words)
            self.assertTrue(set(cut.rdata) < set(BIG["ips"]), words)
            self.assertTrue(size - 32 < cut.octets <= size, f"{words}: {cut.octets} octets")
        for tool in ("dig", "kdig"):
            whole = read(self.output(tool, str(BIG["host"])))[-1]
            self.assertEqual(set(BIG["ips"]), set(whole.rdata))
            self.assertIn("(TCP)", whole.text)

    def test_transfer(self) -> None:
        """D2 and RFC 5936: nobody transfers a mesh zone."""
        for words in ("AXFR cluster.local", "IXFR=1 cluster.local"):
            self.assertIn("Transfer failed", self.output("dig", words))
        self.assertEqual("REFUSED", self.one("dig", "+tcp -t TYPE252 +noall +comments cluster.local").status)

    def test_any(self) -> None:
        """D15: ANY gets the one record of RFC 8482, over UDP too."""
        self.assertEqual(
            [("HINFO", '"RFC8482" ""')], [each[1:] for each in self.one("dig", f"+notcp ANY {SERVICE}").answer]
        )

    def test_rotation(self) -> None:
        """D11: three addresses, every one in each answer, each first as often as the others."""
        firsts = []
        for _ in range(9):
            rdata = self.one("dig", "mysql.db.svc.cluster.local").rdata
            self.assertEqual({"10.1.9.10", "10.1.9.11", "10.1.9.12"}, set(rdata))
            firsts.append(rdata[0])
        self.assertEqual([3, 3, 3], [firsts.count(each) for each in sorted(set(firsts))])
