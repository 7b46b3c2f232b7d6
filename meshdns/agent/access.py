"""Outside: who may ask (rule D3). A source address enters, yes or no leaves; the kernel is asked which addresses are ours."""

import ipaddress
import socket
from collections.abc import Callable, Sequence

from meshdns.defaults import REFUSAL_MEMORY, REFUSAL_MEMORY_LIFE

LOOPBACK, ANYONE = "loopback", "any"
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_own_address(address: str) -> bool:
    """Whether an address belongs to this host: a route to it then starts at itself. No packet is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return bool(probe.getsockname()[0] == address)
    except OSError:
        return False


class Access:
    """The `allow` list. What was found of an address is remembered for a minute."""

    def __init__(self, allow: Sequence[str], clock: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._until = 0.0
        self.known: dict[str, bool] = {}  # read by the UDP door for each packet
        self.allow(allow)

    def allow(self, allow: Sequence[str]) -> None:
        """Words "loopback" (loopback and this host's own addresses) and "any", addresses and networks, from now on."""
        self._own = LOOPBACK in allow
        self._anyone = ANYONE in allow
        self._networks: tuple[_Network, ...] = tuple(
            ipaddress.ip_network(text, strict=False) for text in allow if text not in (LOOPBACK, ANYONE)
        )
        self.known.clear()

    def allows(self, address: str) -> bool:
        """Whether this source address (as the kernel writes it) may ask."""
        now = self._clock()
        if now > self._until or len(self.known) >= REFUSAL_MEMORY:
            self.known.clear()
            self._until = now + REFUSAL_MEMORY_LIFE
        if (held := self.known.get(address)) is None:
            held = self.known[address] = self._find(address)
        return held

    def _find(self, address: str) -> bool:
        ip = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        if self._anyone or any(ip in network for network in self._networks):
            return True
        return self._own and (ip.is_loopback or is_own_address(address))
