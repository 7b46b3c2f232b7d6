"""Answers, trimmed to the chain from their question (rule D24)."""

from collections.abc import Sequence

import dns.rrset
from twisted.trial.unittest import SynchronousTestCase

from meshdns import names, wire
from meshdns.agent.chain import legs, trim
from tests.agent.saying import COOKIE, A, ask, parsed, reply

ALIAS = "www.example.net. 60 CNAME there.example.org."
THERE = "there.example.org. 60 A 192.0.2.2"
EVIL = "bank.example.com. 60 A 192.0.2.66"


def trimmed(message: bytes) -> bytes:
    return trim(message, wire.body(message), wire.skip_name(message, 12) + 4)[0]


def owners(message: bytes) -> Sequence[str]:
    return [f"{rrset.name.to_text(omit_final_dot=True)} {_type(rrset)}".lower() for rrset in parsed(message).answer]


def _type(rrset: dns.rrset.RRset) -> str:
    return wire.type_text(rrset.rdtype)


class TrimTests(SynchronousTestCase):
    def left(self, *answer: str, rdtype: str = "A", name: str = "www.example.net") -> Sequence[str]:
        """The owners and types left of an answer; those of another order are the same."""
        message = trimmed(reply(ask(name, rdtype), *answer))
        backwards = trimmed(reply(ask(name, rdtype), *answer[::-1]))
        self.assertEqual(sorted(owners(message)), sorted(owners(backwards)))
        return owners(message)

    def test_whole_chains_pass_untouched(self) -> None:
        """The very same object: nothing is parsed into records and made anew (rule D18)."""
        for answer in ((), (A,), (A, A.replace("2.1", "2.9")), (ALIAS, THERE)):
            message = reply(ask(), *answer, options=[COOKIE])
            self.assertIs(message, trimmed(message))

    def test_strangers_go(self) -> None:
        self.assertEqual(["www.example.net a"], self.left(A, EVIL))
        self.assertEqual(["www.example.net cname", "there.example.org a"], self.left(ALIAS, THERE, EVIL))
        self.assertEqual([], self.left(EVIL))

    def test_siblings_parents_and_children_are_strangers(self) -> None:
        for name in ("example.net", "mail.example.net", "x.www.example.net", "wwww.example.net"):
            self.assertEqual(["www.example.net a"], self.left(A, f"{name}. 60 A 192.0.2.66"))

    def test_case_means_nothing(self) -> None:
        self.assertEqual(
            ["www.example.net cname", "there.example.org a"],
            self.left(ALIAS.replace("there", "THERE"), THERE.replace("example", "eXample"), EVIL),
        )

    def test_signatures_of_the_chain_stay(self) -> None:
        signature = "RRSIG CNAME 13 3 60 20300101000000 20200101000000 1 example.net. c2ln"
        left = self.left(ALIAS, f"www.example.net. 60 {signature}", THERE, f"bank.example.com. 60 {signature}")
        self.assertEqual(["www.example.net cname", "www.example.net rrsig", "there.example.org a"], left)

    def test_a_loop_ends(self) -> None:
        back = "there.example.org. 60 CNAME www.example.net."
        self.assertEqual(["www.example.net cname", "there.example.org cname"], self.left(ALIAS, back, EVIL))
        self.assertEqual(["www.example.net cname"], self.left("www.example.net. 60 CNAME www.example.net.", EVIL))

    def test_an_endless_chain_ends(self) -> None:
        """More links than mean anything: what is behind them goes."""
        links = [f"n{n}.example.net. 60 CNAME n{n + 1}.example.net." for n in range(200)]
        self.assertLess(len(self.left(*links, name="n0.example.net")), 64)

    def test_dname(self) -> None:
        """A DNAME above the name asked, and the CNAME that a server makes of it (RFC 6672 section 3.1)."""
        dname, made = "old.example. 60 DNAME example.org.", "www.old.example. 60 CNAME www.example.org."
        end = "www.example.org. 60 A 192.0.2.2"
        left = self.left(dname, made, end, EVIL, "new.example. 60 DNAME evil.example.", name="www.old.example")
        self.assertEqual(["old.example dname", "www.old.example cname", "www.example.org a"], left)

    def test_dname_of_the_root_zone(self) -> None:
        """The root has no parent to look for DNAMEs at."""
        self.assertEqual([], self.left("old.example. 60 DNAME example.org.", rdtype="NS", name="."))

    def test_who_asks_for_cname_gets_one(self) -> None:
        self.assertEqual(["www.example.net cname"], self.left(ALIAS, THERE, rdtype="CNAME"))

    def test_any(self) -> None:
        left = self.left(A, 'www.example.net. 60 TXT "x"', EVIL, rdtype="ANY")
        self.assertEqual(["www.example.net a", "www.example.net txt"], left)

    def test_the_rest_of_the_message_stays(self) -> None:
        """Id, flags, the question's case, the other sections and OPT."""
        soa = "example.net. 900 SOA ns.example.net. root.example.net. 1 7200 1800 86400 120"
        message = reply(ask(), A, EVIL, authority=[soa], additional=[EVIL], options=[COOKIE], flags=0x0400)
        whole, left = parsed(message), parsed(trimmed(message))
        self.assertEqual(message[:6], trimmed(message)[:6])
        self.assertEqual(message[12 : 12 + len(ask().question)], trimmed(message)[12 : 12 + len(ask().question)])
        self.assertEqual((whole.authority, whole.additional), (left.authority, left.additional))
        self.assertEqual((whole.options, whole.flags), (left.options, left.flags))

    def test_the_body_fits_the_message(self) -> None:
        message = reply(ask(), A, EVIL, options=[COOKIE])
        left, body = trim(message, wire.body(message), 12 + len(ask().question))
        self.assertEqual(wire.body(left), body)

    def test_nonsense_is_no_bug(self) -> None:
        """A pointer inside RDATA that leads nowhere, which a check of whole records lets pass."""
        message = bytearray(reply(ask(), EVIL, A.replace(" A 192.0.2.1", " CNAME x.example.net.")))
        at = message.rindex(b"\x01x")
        message[at : at + 2] = b"\xff\xff"
        self.assertRaises(wire.Malformed, trimmed, bytes(message))


class LegsTests(SynchronousTestCase):
    def test_in_order_and_lower_case(self) -> None:
        """However the server told it; each with the records that lead there."""
        answer = (ALIAS.replace("there", "There"), "there.example.org. 60 CNAME end.example.org.", EVIL)
        for order in (answer, answer[::-1]):
            told = [(name, len(records)) for name, records in legs(reply(ask(), *order))]
            self.assertEqual([(names.parse("there.example.org"), 1), (names.parse("end.example.org"), 2)], told)

    def test_alias_asked_for(self) -> None:
        self.assertEqual([], list(legs(reply(ask(rdtype="CNAME"), ALIAS))))
