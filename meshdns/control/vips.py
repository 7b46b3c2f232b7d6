"""Inside: who gets which VIP (rule C5).

Hosts that want one, addresses that users have named, the leases held and the time enter; a `Plan` leaves: what to write into
the store, and the addresses of each host once that is done. A host's first choice hangs on its name alone, so that replicas
with stores of their own agree unless two names want the same; a lease once given never moves by what others do. It must
never know where leases are kept.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address

import attrs

from meshdns.control.model import CONFLICT, VIP, Problem
from meshdns.defaults import VIP_REST

Network = IPv4Network | IPv6Network


@attrs.frozen
class Lease:
    """A host and its pair of addresses, "" for a family without a range; `freed` is when it was given up, in seconds of the
    wall clock, None while it is held."""

    host: str
    ipv4: str
    ipv6: str
    freed: float | None = None


@attrs.frozen
class Ranges:
    """Where VIPs come from; one family may be missing."""

    ipv4: IPv4Network | None
    ipv6: IPv6Network | None

    @property
    def slots(self) -> int:
        """How many numbers there are; not all of them can be given."""
        sizes = [each.num_addresses for each in (self.ipv4, self.ipv6) if each is not None]
        return min(sizes, default=0)

    def addresses(self, slot: int) -> tuple[str, str] | None:
        """The pair of a number; None for one that is never given: the network's first and IPv4 addresses ending .0 or .255."""
        if not 0 < slot < self.slots:
            return None
        v4 = str(self.ipv4.network_address + slot) if self.ipv4 else ""
        if v4.endswith((".0", ".255")):
            return None
        return v4, str(self.ipv6.network_address + slot) if self.ipv6 else ""

    def holds(self, address: str) -> bool:
        """Whether an address lies in one of them."""
        found = ip_address(address)
        return any(
            found in each for each in (self.ipv4, self.ipv6) if each is not None and each.version == found.version
        )

    def fits(self, lease: Lease) -> bool:
        """Whether a lease's addresses are those that would be given today: the ranges may have changed."""
        return (
            bool(lease.ipv4) == (self.ipv4 is not None)
            and bool(lease.ipv6) == (self.ipv6 is not None)
            and all(self.holds(each) for each in (lease.ipv4, lease.ipv6) if each)
        )


@attrs.frozen
class Plan:
    """What is to be done. `write` are leases new or changed, `forget` hosts whose lease is over; `vips` holds for after that."""

    write: tuple[Lease, ...] = ()
    forget: tuple[str, ...] = ()
    vips: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    problems: tuple[Problem, ...] = ()


def plan(
    wanted: Collection[str],
    claimed: Mapping[str, Collection[str]],
    leases: Mapping[str, Lease],
    ranges: Ranges,
    now: float,
) -> Plan:
    """Who has which VIP. `wanted` are hosts; `claimed` gives the hosts for which users name an address; `now` is wall time."""
    return _Planner(wanted, claimed, leases, ranges, now).plan()


def standing(made: Plan) -> Plan:
    """As much of a plan as holds with nothing written: leases that stand as they are."""
    new = {lease.host for lease in made.write}
    return Plan(vips={host: pair for host, pair in made.vips.items() if host not in new}, problems=made.problems)


class _Planner:
    def __init__(
        self, wanted: Collection[str], claimed: Mapping[str, Collection[str]], leases: Mapping[str, Lease], ranges: Ranges,
        now: float,
    ) -> None:  # fmt: skip
        self._wanted = frozenset(wanted)
        self._claimed = {address: frozenset(hosts) for address, hosts in claimed.items() if ranges.holds(address)}
        self._leases = leases
        self._ranges = ranges
        self._now = now
        self._write: list[Lease] = []
        self._forget: list[str] = []
        self._problems: list[Problem] = []
        self._vips: dict[str, tuple[str, ...]] = {}
        self._taken: set[str] = set(self._claimed)

    def plan(self) -> Plan:
        for host in sorted(self._leases):
            self._keep(self._leases[host])
        for host in sorted(self._wanted - self._vips.keys()):
            self._give(host)
        self._problems += self._quarrels()
        return Plan(tuple(self._write), tuple(self._forget), self._vips, tuple(self._problems))

    def _keep(self, lease: Lease) -> None:
        """A lease goes on, begins or ends its rest, or is over."""
        host, pair = lease.host, tuple(filter(None, (lease.ipv4, lease.ipv6)))
        lost = [each for each in pair if each in self._claimed and host not in self._claimed[each]]
        if host in self._wanted and not lost and self._ranges.fits(lease):
            self._taken.update(pair)
            self._vips[host] = pair
            if lease.freed is not None:
                self._write.append(attrs.evolve(lease, freed=None))
        elif host in self._wanted:
            why = f"a user names its VIP {lost[0]} for another host" if lost else "its VIP is outside the ranges of now"
            self._problems.append(_problem(VIP, host, f"{why}; it gets another one"))
            # It rests under words that are no host: the host's own lease will be another one.
            self._taken.update(pair)
            self._write.append(Lease(f"{' and '.join(pair)} of {host}", lease.ipv4, lease.ipv6, self._now))
        elif lease.freed is None:
            self._taken.update(pair)
            self._write.append(attrs.evolve(lease, freed=self._now))
        elif self._now - lease.freed < VIP_REST:
            self._taken.update(pair)  # clients may still have it; a clock set back only makes the rest longer
        else:
            self._forget.append(host)

    def _give(self, host: str) -> None:
        pair = next(self._free(host), None)
        if pair is None:
            where = ", ".join(str(each) for each in (self._ranges.ipv4, self._ranges.ipv6) if each)
            told = f"it gets no VIP, for {where} is full; widen vips.ipv4 and vips.ipv6, or give the host addresses of its own"
            self._problems.append(_problem(VIP, host, told))
            if host in self._leases:
                self._forget.append(host)
            return
        self._taken.update(filter(None, pair))
        self._write.append(Lease(host, *pair))
        self._vips[host] = tuple(filter(None, pair))

    def _free(self, host: str) -> Iterator[tuple[str, str]]:
        """Pairs that nobody has, the host's own first choice first."""
        slots = self._ranges.slots
        first = int.from_bytes(hashlib.blake2b(host.encode(), digest_size=8).digest()) % slots if slots else 0
        for step in range(min(slots, _MOST_SLOTS)):
            pair = self._ranges.addresses((first + step) % slots)
            if pair is not None and not self._taken.intersection(pair):
                yield pair

    def _quarrels(self) -> Iterator[Problem]:
        """Addresses in our ranges that users name for several hosts: we hand them to nobody, but connections mix."""
        for address, hosts in sorted(self._claimed.items()):
            if len(hosts) > 1:
                first, second = sorted(hosts)[:2]
                yield _problem(
                    CONFLICT, second, f"its address {address} is that of {first}, too; give one of them another"
                )


_MOST_SLOTS = 1 << 20  # looked at for one host: a range of IPv6 alone has no end


def _problem(kind: str, host: str, reason: str) -> Problem:
    return Problem(kind, "", "", 0, host, reason)
