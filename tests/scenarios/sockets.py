"""A world of real sockets for scenarios that need no time to pass: `twistd meshdns`, a client, and UDP servers."""

import selectors
import socket
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import dns.message

from tests.agent.mesh import HOSTS
from tests.e2e.agent import Agent, replace, table
from tests.e2e.stage import WAIT, Stage, until
from tests.scenarios.play import Asked, Given, Hears

QUIET = 0.15  # seconds in which what is not to come would have come


class Wired:
    """An agent in a process of its own. Every address of the script is a port of 127.0.0.1."""

    def __init__(
        self, stage: Stage, servers: Sequence[str], sections: Callable[[Sequence[str]], dict[str, Any]], hear: Hears
    ) -> None:
        """`sections` makes the configuration of the servers as they are."""
        self.given: list[Given] = []
        self.slack = 5
        self._stage = stage
        self._hear = hear
        self._selector = selectors.DefaultSelector()
        stage.addCleanup(self._selector.close)
        self._servers = {self._socket(): address for address in servers}
        self._client = self._socket()
        self._elsewhere = self._socket()
        stated = sections([f"127.0.0.1:{each.getsockname()[1]}" for each in self._servers])
        stated["upstream"] = {"timeout": "2s", **stated["upstream"]}
        self._stated = stated

    def _socket(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._stage.addCleanup(made.close)
        made.bind(("127.0.0.1", 0))
        self._selector.register(made, selectors.EVENT_READ)
        return made

    def _pump(self, seconds: float) -> bool:
        """Carries whatever has come, waiting so long for a first datagram."""
        ready = self._selector.select(seconds)
        for key, _ in ready:
            one: Any = key.fileobj
            message, sender = one.recvfrom(65535)
            if one is self._client:
                self.given.append(Given(dns.message.from_wire(message)))
            elif one is not self._elsewhere:
                self._hear(Asked(self._servers[one], message, False, (one, sender)))
        return bool(ready)

    # from the script

    def start(self) -> None:
        upstream = self._stated.pop("upstream")
        self._agent = Agent.start(self._stage, table=table(HOSTS), upstream=upstream, **self._stated)

    def ask(self, packet: bytes, tcp: bool) -> None:
        assert not tcp, "this world knows UDP only"
        self._client.sendto(packet, ("127.0.0.1", self._agent.port))

    def say(self, asked: Asked, message: bytes, *, elsewhere: bool, later: float) -> None:
        assert not later, "no time passes in this world"
        one, back = asked.back
        (self._elsewhere if elsewhere else one).sendto(message, back)

    def fail(self, asked: Asked) -> None:
        raise AssertionError("nothing fails in this world")

    def time_passes(self, seconds: float) -> None:
        raise AssertionError("no time passes in this world")

    def adopt(self, hosts: list[dict[str, Any]]) -> None:
        before = len(self._agent.lines("table"))
        replace(self._agent.table, table(hosts))
        until("the new table", lambda: len(self._agent.lines("table")) > before, self._agent.process, self._agent.log)

    def until(self, true: Callable[[], bool]) -> None:
        deadline = monotonic() + WAIT
        while not true() and monotonic() < deadline:
            self._pump(max(0.0, deadline - monotonic()))

    def turn(self) -> None:
        while self._pump(0.0):
            pass

    def settle(self) -> None:
        while self._pump(QUIET):
            pass
