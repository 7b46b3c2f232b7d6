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
        self.forget_at = 0.0
        self.known: dict[str, bool] = {}
        self.sources: set[bytes | str] = set()  # what the UDP door reads for each packet, and fills: who may
        self.allow(allow)

    def allow(self, allow: Sequence[str]) -> None:
        """Words "loopback" (loopback and this host's own addresses) and "any", addresses and networks, from now on."""
        self._own = LOOPBACK in allow
        self._anyone = ANYONE in allow
        self._networks: tuple[_Network, ...] = tuple(
            ipaddress.ip_network(text, strict=False) for text in allow if text not in (LOOPBACK, ANYONE)
        )
        self.forget()

    def forget(self) -> None:
        """Ask again of everybody."""
        self.known.clear()
        self.sources.clear()
        self.forget_at = self._clock() + REFUSAL_MEMORY_LIFE

    def allows(self, address: str) -> bool:
        """Whether this source address (as the kernel writes it) may ask."""
        if self._clock() >= self.forget_at or len(self.known) >= REFUSAL_MEMORY:
            self.forget()
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
