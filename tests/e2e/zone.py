"""A zone with all that makes answers long or odd, signed; and questions of all kinds about it.

Chains of CNAMEs, some that end nowhere or in a circle, DNAMEs, wildcards, empty non-terminals, large RRsets, delegations,
and TTLs from nought to the largest. `python -m tests.e2e.zone` prints it, for a server started by hand.
"""

import sys
from itertools import product
from random import Random

import attrs
import dns.dnssec
import dns.dnssectypes
import dns.flags
import dns.message
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec

ORIGIN = "zone.example"
_DAYS = 86400
_LINKS = 8  # of the longest chain
_DIGEST = "be74359954660069d5c63d200c39f5603827d7dd02b56f120ee9f3a86764247c"
_RECORDS = rf"""
@ 3600 SOA ns hostmaster 7 3600 600 86400 60
@ NS ns
@ NS ns2
@ MX 10 mail
@ TXT "v=spf1 -all"
@ CAA 0 issue "ca.example.net"
ns A 192.0.2.53
ns AAAA 2001:db8::53
ns2 A 192.0.2.54
mail A 192.0.2.25
host A 192.0.2.1
host A 192.0.2.2
host AAAA 2001:db8::1
host TXT "one" "two; three" "\200\"\\"
only-aaaa AAAA 2001:db8::2
MiXeD A 192.0.2.77
zero 0 A 192.0.2.3
second 1 A 192.0.2.4
forever 2147483647 A 192.0.2.5
odd TYPE65280 \# 6 0a0000010203
https HTTPS 1 . alpn=h2,h3 ipv4hint=192.0.2.1 key65400=odd
_sip._tcp SRV 1 2 5060 host
naptr NAPTR 100 10 "s" "SIP+D2U" "!^.*$!sip:info@{ORIGIN}!" _sip._tcp
loc LOC 52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m
sshfp SSHFP 4 2 {_DIGEST}
a\.dot A 192.0.2.6
a\000nul A 192.0.2.7
{"l" * 63} A 192.0.2.8
; aliases: into nothing, out of the zone, in circles, to each kind of name
alias CNAME host
alias-6 CNAME only-aaaa
alias-nowhere CNAME nowhere
alias-out CNAME www.elsewhere.example.
alias-self CNAME alias-self
circle-a CNAME circle-b
circle-b CNAME circle-a
alias-large CNAME large
alias-wild CNAME anything.wild
alias-sub CNAME www.sub
alias-empty CNAME empty
alias-short 1 CNAME host
alias-dname CNAME host.old
chain-0 CNAME host
; DNAMEs: one to names that are there, one behind the other, one into nothing
new A 192.0.2.10
host.new A 192.0.2.11
alias.new CNAME host
*.new TXT "by wildcard behind a DNAME"
old DNAME new
older DNAME old
void DNAME nothing.here
; wildcards: of several types, cut off by a name, of CNAMEs, within each other
*.wild A 192.0.2.20
*.wild TXT "wild"
stop.wild A 192.0.2.21
deep.stop.wild A 192.0.2.22
*.wild-alias CNAME host
*.*.wild-star A 192.0.2.23
*.lone AAAA 2001:db8::20
; empty non-terminals
a.b.c.empty A 192.0.2.30
_25._tcp.mail TLSA 3 1 1 {_DIGEST}
; delegations, signed and not
sub NS ns.sub
sub DS 370 13 2 {_DIGEST}
ns.sub A 192.0.2.40
island NS ns.elsewhere.example.
"""
# What the zone holds nothing at, or makes an answer up for.
_INVENTED = (
    "nowhere", "a.nowhere", "below.host", "below.alias", "empty", "c.empty", "b.c.empty", "z.c.empty", "x.b.c.empty",
    "_tcp", "_tcp.mail", "wild", "x.wild", "y.x.wild", "x.stop.wild", "x.deep.stop.wild", "*.wild", "lone", "x.lone",
    "x.wild-alias", "x.y.wild-star", "host.old", "host.older", "alias.old", "nowhere.old", "x.host.old", "host.void",
    "www.sub", "ns.sub", "deep.www.sub", "www.island", "WWW.Wild", "HOST", "Alias", "hOsT.oLd", "chain-99",
)  # fmt: skip
_TYPES = ("A", "AAAA", "CNAME", "TXT", "MX", "NS", "SOA", "DS", "DNAME", "NSEC", "DNSKEY", "RRSIG", "HTTPS", "SRV",
          "TYPE65280", "ANY")  # fmt: skip
_LONG = (
    ("large", "A"),
    ("large", "TXT"),
    ("alias-large", "A"),
    ("middle", "TXT"),
    ("middle", "AAAA"),
    ("middle", "MX"),
)


def _large() -> list[str]:
    """RRsets that fit no datagram, and some that fit one with EDNS only."""
    lines = [f"large A 198.18.{number // 256}.{number % 256}" for number in range(150)]
    lines += [f'large TXT "{number:03}{"x" * 97}"' for number in range(40)]
    lines += [f'middle TXT "{number:03}{"y" * 97}"' for number in range(7)]
    lines += [f"middle AAAA 2001:db8:2::{number:x}" for number in range(30)]
    return lines + [f"middle MX {number} mail-{number}" for number in range(20)]


def records(origin: str = ORIGIN) -> str:
    """The whole signed zone, as a zone file with absolute names."""
    chain = [f"chain-{number} CNAME chain-{number - 1}" for number in range(1, _LINKS)]
    head = f"$ORIGIN {origin}.\n$TTL 300\n"
    zone = dns.zone.from_text(head + _RECORDS + "\n".join([*chain, *_large()]), origin, relativize=False)
    key = ec.generate_private_key(ec.SECP256R1())
    dnskey = dns.dnssec.make_dnskey(key.public_key(), dns.dnssectypes.Algorithm.ECDSAP256SHA256)
    with zone.writer() as writer:
        dns.dnssec.sign_zone(zone, writer, [(key, dnskey)], dnskey_ttl=300, lifetime=30 * _DAYS)
    return zone.to_text(relativize=False)


@attrs.frozen
class Asked:
    """A question, and how it is put. `payload` None: without OPT."""

    name: str
    rdtype: str
    flags: dns.flags.Flag
    payload: int | None
    dnssec: bool

    def query(self) -> dns.message.Message:
        edns = self.payload is not None
        query = dns.message.make_query(
            self.name, self.rdtype, use_edns=edns, want_dnssec=self.dnssec, payload=self.payload
        )
        query.flags = self.flags
        return query


def questions(zone_file: str, count: int, origin: str = ORIGIN, seed: int = 1) -> list[Asked]:
    """So many questions, no two the same: every name of the zone and invented ones, of types there and not there.

    Those with long answers come in every way, each other (name, type) in one before any comes in a second.
    """
    zone = dns.zone.from_text(zone_file, origin, relativize=False)
    there = [str(name) for name in zone.nodes]
    random = Random(seed)
    pairs = list(product([*there, *(f"{name}.{origin}." for name in _INVENTED)], _TYPES))
    random.shuffle(pairs)
    ways = [
        (dns.flags.Flag(flags), payload, dnssec)
        for flags in (dns.flags.RD, dns.flags.RD | dns.flags.CD, dns.flags.RD | dns.flags.AD, dns.flags.Flag(0))
        for payload, dnssec in ((None, False), (512, False), (1232, False), (1232, True), (4096, False), (4096, True))
    ]
    asked = {Asked(f"{name}.{origin}.", rdtype, *way): None for (name, rdtype) in _LONG for way in ways}
    while len(asked) < count:
        for name, rdtype in pairs:
            asked[Asked(name, rdtype, *random.choice(ways))] = None
    return list(asked)[:count]


if __name__ == "__main__":
    sys.stdout.write(records())
