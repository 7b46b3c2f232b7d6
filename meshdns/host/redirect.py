"""Inside: what is redirected to the agent, and what never is. Addresses, servers and users enter; a plan leaves, which
`nftables` and `iptables` write as rules.

The plan holds nothing that depends on whether the agent lives: that is the rules' own affair, packet by packet.
"""

import ipaddress
from collections.abc import Sequence

import attrs

from meshdns.values import Endpoint

LINK_LOCAL = "fe80::/10"  # sockets to these are bound to their interface, so nothing else can be reached from them
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@attrs.frozen
class Family:
    """One IP version: queries to `servers` (None: to anybody but LINK_LOCAL) go to `agent` instead."""

    version: int
    agent: Endpoint
    servers: tuple[str, ...] | None


@attrs.frozen
class Plan:
    """`uid` is the agent's, `spared` are further users whose queries go where they are sent; `notes` are sentences.

    Where root runs a resolver that the agent asks, `of_root` are the only addresses to which root's queries are redirected: the
    resolver's own, which others ask. None: root is a user like others.
    """

    families: tuple[Family, ...]
    uid: int
    spared: tuple[int, ...] = ()
    of_root: tuple[str, ...] | None = None
    notes: tuple[str, ...] = attrs.field(default=(), eq=False)

    @property
    def exempt(self) -> tuple[int, ...]:
        """Every user whose queries are not redirected."""
        return tuple(sorted({self.uid, *self.spared}))

    def root_asks(self, version: int) -> tuple[str, ...]:
        """`of_root`, of one IP version."""
        return tuple(address for address in self.of_root or () if _version(address) == version)


class NoPlan(Exception):
    """Why nothing can be redirected to this agent: a sentence that says what to do."""


def make(
    listen: Sequence[Endpoint],
    servers: Sequence[str],
    *,
    uid: int,
    spared: Sequence[int] = (),
    of_root: Sequence[str] | None = None,
    every: bool = False,
) -> Plan:
    """`listen` is where the agent answers, `servers` whom applications ask, `every` whether others are redirected too.

    Raises NoPlan.
    """
    families: list[Family] = []
    notes: list[str] = []
    asked = [address for address in servers if not any(each.takes(address, 53) for each in listen)]
    if stuck := [address for address in asked if _is_link_local(address)]:
        notes.append(
            f"queries to {', '.join(stuck)} are not redirected, since a packet to a link-local address cannot leave its "
            "interface; name another server first in resolv.conf, or use --mode resolv-conf"
        )
        asked = [address for address in asked if address not in stuck]
    for version in (4, 6):
        mine = tuple(sorted({address for address in asked if _version(address) == version}))
        agent = _target(listen, version)
        if agent is not None:
            families.append(Family(version, agent, None if every else mine))
        elif mine:
            example = "127.0.0.1:15053" if version == 4 else '"[::1]:15053"'
            notes.append(
                f"queries to {', '.join(mine)} are not redirected, since the agent listens on no IPv{version} address; "
                f"add {example} to listen"
            )
    if not families:
        raise NoPlan(
            "nothing can be redirected to an agent that listens on link-local addresses only; "
            'write listen: ["127.0.0.1:15053", "[::1]:15053"]'
        )
    if not every and not any(family.servers for family in families):
        notes.append("resolv.conf names no server to redirect; this is done again when it does, if `hold` runs")
    if uid == 0:
        notes.append("the agent runs as root, so nothing is redirected of what root asks; give it a user of its own")
    roots = None if of_root is None else tuple(sorted(set(of_root)))
    return Plan(tuple(families), uid, tuple(sorted(set(spared) - {uid})), roots, tuple(notes))


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _is_link_local(address: str) -> bool:
    return _version(address) == 6 and ipaddress.ip_address(address.partition("%")[0]).is_link_local


def _target(listen: Sequence[Endpoint], version: int) -> Endpoint | None:
    """Where the agent is reached by a redirect: on loopback if it can be."""
    found = [_near(each) for each in listen if _version(each.host) == version and "%" not in each.host]
    loopback = [each for each in found if ipaddress.ip_address(each.host).is_loopback]
    return next(iter([*loopback, *found]), None)


def _near(listening: Endpoint) -> Endpoint:
    """A wildcard takes what is sent to loopback, and answers from there."""
    return Endpoint(_LOOPBACK.get(listening.host, listening.host), listening.port)
