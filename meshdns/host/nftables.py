"""Inside: the redirect as an nftables ruleset. A plan enters; text for `nft -f -` leaves, one transaction.

It fails open in the kernel. The set `alive` holds a family for as long as the agent's last answer over it is younger than
INTERCEPT_ALIVE: each answer that leaves the agent's UDP door renews it (the agent asks itself, `agent/heartbeat.py`), and
the kernel's own refusal to a client, when nobody has the agent's port, ends it at once. No process but the agent keeps the
redirect, and none but the agent can: its answers are known by their user, so whoever takes its port after its death is
asked nothing.

Conntrack decides on NAT at a flow's first packet only. So queries that are redirected have a conntrack zone of their own, and
whether they are is decided for each packet: a client that keeps its socket reaches its old server with the very next one
when the agent is dead, and no entry of another time or rule is met.

What begins an exchange, a query over UDP or a TCP connection, is marked in a chain of its own. Without its rules nothing new comes
to the agent, and what is under way ends there in order: answers are still translated back.
"""

from collections.abc import Iterator

from meshdns.defaults import INTERCEPT_ALIVE, INTERCEPT_TABLE, INTERCEPT_ZONE
from meshdns.host.redirect import LINK_LOCAL, Family, Plan

_TABLE = f"inet {INTERCEPT_TABLE}"
_OPENS = "tcp flags & (fin | syn | rst | ack)"  # of the packet that opens a connection only `syn` is set
# Where the destination port stands in the packet that an ICMP error quotes, in bits from the ICMP header: behind that (8
# octets) and the IP header, the second field of UDP.
_QUOTED_PORT = {4: (8 + 20 + 2) * 8, 6: (8 + 40 + 2) * 8}
_ERROR = {4: "icmp type destination-unreachable icmp code port-unreachable",
          6: "icmpv6 type destination-unreachable icmpv6 code port-unreachable"}  # fmt: skip
_IP = {4: "ip", 6: "ip6"}
_ADDRESS = {4: "ipv4_addr", 6: "ipv6_addr"}

REMOVAL = f"add table {_TABLE}\ndelete table {_TABLE}\n"
CLOSING = f"flush chain {_TABLE} begin\n"  # before that, for a while: from here on nothing new is redirected


def ruleset(plan: Plan) -> str:
    """Puts the redirect up, or brings one that is there up to date without a gap."""
    return "\n".join(_lines(plan)) + "\n"


def _lines(plan: Plan) -> Iterator[str]:
    yield f"add table {_TABLE}"
    yield (
        f"add set {_TABLE} alive "
        f"{{ type nf_proto; flags dynamic, timeout; timeout {round(INTERCEPT_ALIVE * 1000)}ms; size 16; }}"
    )
    for version in (4, 6):
        yield f"add set {_TABLE} servers{version} {{ type {_ADDRESS[version]}; }}"
        yield f"flush set {_TABLE} servers{version}"
    for chain, hook in (
        ("choose", "type filter hook output priority raw"),
        ("translate", "type nat hook output priority -110"),
    ):
        yield f"add chain {_TABLE} {chain} {{ {hook}; policy accept; }}"
        yield f"flush chain {_TABLE} {chain}"
    yield f"add chain {_TABLE} begin"
    yield f"flush chain {_TABLE} begin"
    for family in plan.families:
        if family.servers:
            yield f"add element {_TABLE} servers{family.version} {{ {', '.join(family.servers)} }}"
    for rule in _choose(plan):
        yield f"add rule {_TABLE} choose {rule}"
    for family in plan.families:
        for what in ("udp dport 53", f"tcp dport 53 {_OPENS} == syn"):
            yield f"add rule {_TABLE} begin {_redirected(family, what)}"
    for family in plan.families:
        for rule in _translate(family):
            yield f"add rule {_TABLE} translate {rule}"


def _choose(plan: Plan) -> Iterator[str]:
    for family in plan.families:
        ip, host, port = _IP[family.version], family.agent.host, family.agent.port
        # What the agent answers with: a socket that root opened for it, and systemd keeps, is root's.
        answering = ", ".join(map(str, sorted({0, plan.uid})))
        yield f"{ip} saddr {host} udp sport {port} meta skuid {{ {answering} }} update @alive {{ meta nfproto }}"
        error = f"{ip} saddr {host} {_ERROR[family.version]} @th,{_QUOTED_PORT[family.version]},16 {port}"
        yield f"{error} delete @alive {{ meta nfproto }}"
        # What answers a SYN to a port that nobody has.
        refusal = "tcp flags & (rst | ack) == rst | ack tcp sequence 0"
        yield f"{ip} saddr {host} tcp sport {port} {refusal} delete @alive {{ meta nfproto }}"
        yield f"{error} ct zone set {INTERCEPT_ZONE} accept"  # so that it finds the client, who need not wait
        for direction in ("saddr {} {} th sport {}", "daddr {} {} th dport {}"):
            yield f"{ip} {direction.format(host, 'meta l4proto { tcp, udp }', port)} ct zone set {INTERCEPT_ZONE} accept"
    yield f"meta skuid {{ {', '.join(map(str, plan.exempt))} }} accept"
    if plan.of_root is not None:
        for version in (family.version for family in plan.families):
            kept = plan.root_asks(version)
            others = f"{_IP[version]} daddr != {{ {', '.join(kept)} }}" if kept else f"meta nfproto ipv{version}"
            yield f"meta skuid 0 {others} accept"
    for family in plan.families:
        yield _redirected(family, f"tcp dport 53 {_OPENS} != syn")
    yield "jump begin"


def _redirected(family: Family, what: str) -> str:
    """These packets of its queries, while the agent answers."""
    anybody = {4: "meta nfproto ipv4", 6: f"ip6 daddr != {LINK_LOCAL}"}[family.version]
    to = anybody if family.servers is None else f"{_IP[family.version]} daddr @servers{family.version}"
    return f"{to} {what} meta nfproto @alive ct zone set {INTERCEPT_ZONE}"


def _translate(family: Family) -> Iterator[str]:
    ip = _IP[family.version]
    here = f"ct zone {INTERCEPT_ZONE} meta nfproto ipv{family.version}"
    target = f"dnat {ip} to {family.agent}"
    yield f"{here} udp dport 53 {target}"
    # A connection to the old server that was there before the redirect ends as it began.
    yield f"{here} tcp dport 53 {_OPENS} == syn {target}"
