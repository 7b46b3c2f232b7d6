"""What is redirected (contract section 4, `meshdns intercept`), and what the rules of nftables and iptables make of it."""

import re

from twisted.trial.unittest import SynchronousTestCase

from meshdns.host import iptables, nftables, redirect
from meshdns.host.redirect import Family, NoPlan, Plan
from meshdns.values import Endpoint

LISTEN = (Endpoint("127.0.0.1", 15053), Endpoint("::1", 15053))
SERVERS = ("10.0.0.2", "10.0.0.1", "fd00::1", "fd00::2")


def plan(**changes: object) -> Plan:
    return redirect.make(**{"listen": LISTEN, "servers": SERVERS, "uid": 999, **changes})  # type: ignore[arg-type]


class PlanTests(SynchronousTestCase):
    def test_families(self) -> None:
        """Servers of each family in one order, each once."""
        found = plan(servers=(*SERVERS, "10.0.0.1"))
        self.assertEqual(
            (Family(4, LISTEN[0], ("10.0.0.1", "10.0.0.2")), Family(6, LISTEN[1], ("fd00::1", "fd00::2"))),
            found.families,
        )
        self.assertEqual((), found.notes)

    def test_order_of_resolv_conf_does_not_matter(self) -> None:
        """`hold` compares plans: a file with its lines turned round is no change."""
        self.assertEqual(plan(), plan(servers=SERVERS[::-1]))

    def test_every_server(self) -> None:
        self.assertEqual([None, None], [family.servers for family in plan(every=True).families])

    def test_agent_itself(self) -> None:
        """An agent on port 53 that resolv.conf names needs no redirect to itself."""
        found = plan(listen=[Endpoint("127.0.0.1", 53)], servers=["127.0.0.1", "10.0.0.1"])
        self.assertEqual((Family(4, Endpoint("127.0.0.1", 53), ("10.0.0.1",)),), found.families)
        found = plan(listen=LISTEN, servers=["127.0.0.1"])
        self.assertEqual(("127.0.0.1",), found.families[0].servers)

    def test_loopback_is_preferred(self) -> None:
        found = plan(listen=[Endpoint("10.0.0.9", 53), Endpoint("127.0.0.1", 15053)])
        self.assertEqual([Endpoint("127.0.0.1", 15053)], [family.agent for family in found.families])

    def test_family_without_an_agent(self) -> None:
        """Said with the servers that it is about, and only if there are any."""
        found = plan(listen=LISTEN[:1])
        self.assertEqual([4], [family.version for family in found.families])
        self.assertEqual(1, len(found.notes))
        self.assertIn("fd00::1, fd00::2", found.notes[0])
        self.assertIn('add "[::1]:15053" to listen', found.notes[0])
        self.assertEqual((), plan(listen=LISTEN[:1], servers=["10.0.0.1"]).notes)

    def test_link_local(self) -> None:
        """A socket to such a server is bound to its interface: redirected, it would reach nobody."""
        found = plan(servers=["fe80::1%eth0", "fd00::1"])
        self.assertEqual([(), ("fd00::1",)], [family.servers for family in found.families])
        self.assertIn("queries to fe80::1%eth0 are not redirected", found.notes[0])

    def test_wildcard(self) -> None:
        """Reached over loopback."""
        found = plan(listen=[Endpoint("0.0.0.0", 15053), Endpoint("::", 15053)])
        self.assertEqual(LISTEN, tuple(family.agent for family in found.families))

    def test_nothing_to_redirect_to(self) -> None:
        self.assertRaises(NoPlan, plan, listen=[Endpoint("fe80::1%eth0", 53)])

    def test_no_server(self) -> None:
        self.assertIn("names no server", plan(servers=[]).notes[0])
        self.assertEqual((), plan(servers=[], every=True).notes)

    def test_agent_of_root(self) -> None:
        self.assertIn("runs as root", plan(uid=0).notes[0])

    def test_exempt(self) -> None:
        self.assertEqual((5, 7, 999), plan(spared=[7, 5, 999, 7]).exempt)

    def test_resolver_of_root(self) -> None:
        found = plan(of_root=["127.0.0.1", "::1", "127.0.0.1"])
        self.assertEqual((("127.0.0.1",), ("::1",)), (found.root_asks(4), found.root_asks(6)))
        self.assertEqual(((), None), (plan(of_root=[]).of_root, plan().of_root))


class NftablesTests(SynchronousTestCase):
    def lines(self, **changes: object) -> list[str]:
        return nftables.ruleset(plan(**changes)).splitlines()

    def position(self, lines: list[str], part: str) -> int:
        return next(number for number, line in enumerate(lines) if part in line)

    def test_order(self) -> None:
        """The agent's answers are seen before its user is let go, and its user is let go before anything is redirected."""
        lines = self.lines()
        spots = [
            self.position(lines, part)
            for part in ("update @alive", "meta skuid { 999 } accept", "daddr @servers4", "choose jump begin")
        ]
        self.assertEqual(sorted(spots), spots)

    def test_only_while_alive(self) -> None:
        """No rule marks a query without looking into the set, and none translates what is not marked."""
        marks = [line for line in self.lines() if "dport 53 " in line and " translate " not in line]
        self.assertEqual(6, len(marks))
        for line in marks:
            self.assertIn("meta nfproto @alive ct zone set", line)
        for line in self.lines():
            if "dnat" in line:
                self.assertIn("translate ct zone 15053", line)

    def test_every_server(self) -> None:
        lines = self.lines(every=True)
        self.assertFalse([line for line in lines if "daddr @servers" in line])
        for to in ("meta nfproto ipv4", "ip6 daddr != fe80::/10"):
            self.position(lines, f"begin {to} udp")
            self.position(lines, f"choose {to} tcp")

    def test_resolver_of_root(self) -> None:
        """What root asks others is let go, in both families, before anything is redirected."""
        lines = self.lines(of_root=["127.0.0.1"])
        for rule in ("meta skuid 0 ip daddr != { 127.0.0.1 } accept", "meta skuid 0 meta nfproto ipv6 accept"):
            self.assertLess(self.position(lines, rule), self.position(lines, "daddr @servers4 tcp"))
        self.assertFalse([line for line in self.lines() if "skuid 0 " in line])

    def test_one_family(self) -> None:
        """Nothing is said of a family that has no agent."""
        text = nftables.ruleset(plan(listen=LISTEN[:1], of_root=[]))
        self.assertNotIn("ip6 ", text)
        self.assertNotIn("fd00", text)

    def test_again(self) -> None:
        """Everything that is filled is emptied first: a second run ends in the same rules."""
        lines = self.lines()
        for kind, names in (("set", ("servers4", "servers6")), ("chain", ("choose", "begin", "translate"))):
            for name in names:
                flush = self.position(lines, f"flush {kind} inet meshdns {name}")
                word = "element" if kind == "set" else "rule"
                self.assertLess(flush, self.position(lines, f"add {word} inet meshdns {name}"))
        self.assertFalse([line for line in lines if line.startswith("flush set inet meshdns alive")])


class IptablesTests(SynchronousTestCase):
    def tables(self, version: int = 4, jumps: tuple[str, ...] = (), **changes: object) -> dict[str, list[str]]:
        text = iptables.rules(plan(**changes), version, jumps)
        self.assertTrue(text.endswith("COMMIT\n"))
        parts = re.split(r"^\*(\w+)\n", text, flags=re.MULTILINE)[1:]
        return {table: body.splitlines() for table, body in zip(parts[::2], parts[1::2], strict=True)}

    def test_order(self) -> None:
        raw = self.tables()["raw"]
        spots = [
            next(n for n, line in enumerate(raw) if part in line)
            for part in ("--set", "--uid-owner 999 -j RETURN", "--dport 53")
        ]
        self.assertEqual(sorted(spots), spots)

    def test_only_while_alive(self) -> None:
        for version, servers in ((4, 2), (6, 2)):
            for table, lines in self.tables(version).items():
                asked = [line for line in lines if "--dport 53 " in line]
                self.assertEqual((3 if table == "raw" else 2) * servers, len(asked))
                for line in asked:
                    self.assertIn("--rcheck --seconds 1", line)

    def test_jumps(self) -> None:
        """Only where there is none yet."""
        self.assertFalse([line for line in self.tables()["nat"] if line.startswith("-I")])
        self.assertIn("-I OUTPUT -j MESHDNS", self.tables(jumps=("nat",))["nat"])
        removal = ("*raw", ":MESHDNS - [0:0]", ":MESHDNS-BEGIN - [0:0]", "-D OUTPUT -j MESHDNS", "-X MESHDNS",
                   "-X MESHDNS-BEGIN", "COMMIT", "")  # fmt: skip
        self.assertEqual("\n".join(removal), iptables.removal(("raw",)))

    def test_every_server(self) -> None:
        for lines in self.tables(every=True).values():
            self.assertEqual(1, len([line for line in lines if " -p udp --dport 53" in line]))
            self.assertFalse([line for line in lines if "--dport 53" in line and "-d 10." in line])

    def test_resolver_of_root(self) -> None:
        """Only what is sent to the resolver is redirected of root, too."""
        for every in (True, False):
            for lines in self.tables(every=every, servers=["127.0.0.1", "10.0.0.1"], of_root=["127.0.0.1"]).values():
                asked = [line for line in lines if " -p udp --dport 53" in line]
                not_roots = [line for line in asked if "-m owner ! --uid-owner 0 " in line]
                self.assertEqual((1, 1), (len([line for line in asked if "-d 127.0.0.1 " in line]), len(not_roots)))
                self.assertFalse([line for line in not_roots if "127.0.0.1 -p" in line])

    def test_family_without_an_agent(self) -> None:
        """Its chains are emptied: an agent may have lost its address."""
        for lines in self.tables(6, listen=LISTEN[:1]).values():
            self.assertFalse([line for line in lines if line.startswith("-")])
            self.assertIn(":MESHDNS - [0:0]", lines)
