"""Inside: the redirect as iptables rules, for a machine without nftables. A plan enters; text for `iptables-restore` and
`ip6tables-restore` leaves.

The rules say what those of `nftables` say, and fail open in the same way: `recent` remembers when the agent answered
last. It counts whole seconds, so the redirect ends INTERCEPT_ALIVE_SECONDS after that answer.
"""

from collections.abc import Callable, Iterator

from meshdns.defaults import INTERCEPT_ALIVE_SECONDS, INTERCEPT_BEGIN_CHAIN, INTERCEPT_CHAIN, INTERCEPT_ZONE
from meshdns.host.redirect import LINK_LOCAL, Family, Plan

TABLES = ("raw", "nat")
JUMP = ("OUTPUT", "-j", INTERCEPT_CHAIN)
PROGRAMS = {4: "iptables", 6: "ip6tables"}
# Before the removal, for a while: from here on nothing new is redirected, and what is under way ends in order. The tables change
# one after the other, and what has a zone without a translation finds its old server, but not the other way round.
CLOSING = f"*nat\n:{INTERCEPT_CHAIN} - [0:0]\nCOMMIT\n*raw\n:{INTERCEPT_BEGIN_CHAIN} - [0:0]\nCOMMIT\n"

# One entry for the whole family: every address becomes this one.
_RECENT = {4: "-m recent --name meshdns --rdest --mask 0.0.0.0", 6: "-m recent --name meshdns --rdest --mask ::"}
_ERROR = {4: "-p icmp --icmp-type port-unreachable", 6: "-p icmpv6 --icmpv6-type port-unreachable"}
# The destination port in the packet that an ICMP error quotes: the low half of the word that starts at this octet of the packet.
_QUOTED_PORTS = {4: 20 + 8 + 20, 6: 40 + 8 + 40}
_BEGINNINGS = ("udp", "tcp --syn")
_SEQUENCES = {4: 20 + 4, 6: 40 + 4}  # where the sequence number stands in a packet of TCP


def rules(plan: Plan, version: int, jumps: tuple[str, ...]) -> str:
    """The chains of one family, made or made anew; `jumps` are the tables whose OUTPUT does not lead to them yet."""
    family = next((each for each in plan.families if each.version == version), None)
    lines: list[str] = []
    for table, chains in _CHAINS.items():
        lines += [f"*{table}", *(f":{chain} - [0:0]" for chain in chains)]
        for chain, write in chains.items():
            lines += [f"-A {chain} {rule}" for rule in write(plan, family)] if family else []
        lines += [f"-I {' '.join(JUMP)}"] if table in jumps else []
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"


def removal(jumps: tuple[str, ...]) -> str:
    """Takes them away again; `jumps` are the tables that have a chain of ours and a jump to it."""
    lines: list[str] = []
    for table in jumps:
        lines += [f"*{table}", *(f":{chain} - [0:0]" for chain in _CHAINS[table])]  # which empties them
        lines += [f"-D {' '.join(JUMP)}", *(f"-X {chain}" for chain in _CHAINS[table]), "COMMIT"]
    return "\n".join(lines) + "\n"


def _raw(plan: Plan, family: Family) -> Iterator[str]:
    version, host, port = family.version, family.agent.host, family.agent.port
    for uid in sorted({0, plan.uid}):
        yield f"-s {host} -p udp --sport {port} -m owner --uid-owner {uid} {_RECENT[version]} --set"
    quoted = f'-m u32 --u32 "{_QUOTED_PORTS[version]}&0xFFFF={port}"'
    error = f"-s {host} {_ERROR[version]} {quoted}"
    # What answers a SYN to a port that nobody has: its sequence number is 0.
    refusal = f'-s {host} -p tcp --sport {port} --tcp-flags RST,ACK RST,ACK -m u32 --u32 "{_SEQUENCES[version]}=0"'
    for match in (error, refusal):
        yield f"{match} {_RECENT[version]} --remove"
    ends = [f"{end} -p {protocol} --{way}port {port}"
            for protocol in ("udp", "tcp") for end, way in ((f"-s {host}", "s"), (f"-d {host}", "d"))]  # fmt: skip
    for match in (error, *ends):  # the error, too, so that it finds the client, who need not wait
        yield f"{match} -j CT --zone {INTERCEPT_ZONE}"
        yield f"{match} -j RETURN"
    for uid in plan.exempt:
        yield f"-m owner --uid-owner {uid} -j RETURN"
    for match in _queries(plan, family, "tcp ! --syn"):
        yield f"{match} -j CT --zone {INTERCEPT_ZONE}"
    yield f"-j {INTERCEPT_BEGIN_CHAIN}"


def _begin(plan: Plan, family: Family) -> Iterator[str]:
    for match in _queries(plan, family, *_BEGINNINGS):
        yield f"{match} -j CT --zone {INTERCEPT_ZONE}"


def _nat(plan: Plan, family: Family) -> Iterator[str]:
    for uid in plan.exempt:
        yield f"-m owner --uid-owner {uid} -j RETURN"
    # A connection to the old server that was there before the redirect ends as it began.
    for match in _queries(plan, family, *_BEGINNINGS):
        yield f"{match} -j DNAT --to-destination {family.agent}"


def _queries(plan: Plan, family: Family, *packets: str) -> Iterator[str]:
    """These packets of what is redirected, while the agent answers."""
    alive = f"{_RECENT[family.version]} --rcheck --seconds {INTERCEPT_ALIVE_SECONDS}"
    for server in _redirected(plan, family):
        for each in packets:
            yield f"{server}-p {each} --dport 53 {alive}"


def _redirected(plan: Plan, family: Family) -> Iterator[str]:
    """Whom these queries are for, and whose they are."""
    others = "" if plan.of_root is None else "-m owner ! --uid-owner 0 "
    roots = plan.root_asks(family.version)
    if family.servers is None:
        yield from (f"-d {address} " for address in roots)
        yield {4: "", 6: f"! -d {LINK_LOCAL} "}[family.version] + others
    else:
        yield from (f"-d {address} {'' if address in roots else others}" for address in family.servers)


_CHAINS: dict[str, dict[str, Callable[[Plan, Family], Iterator[str]]]] = {
    "raw": {INTERCEPT_CHAIN: _raw, INTERCEPT_BEGIN_CHAIN: _begin},
    "nat": {INTERCEPT_CHAIN: _nat},
}
