"""The world without sockets: the resolver, the cache, the lookups and the real `Flights`, whose messages are carried to the
script's servers by plain calls, and whose time is a `task.Clock`."""

from collections.abc import Callable
from random import Random
from typing import Any

import dns.message
from twisted.internet.task import Clock

from meshdns import table
from meshdns.agent import answering
from meshdns.agent import config as configuration
from meshdns.agent.attempts import Sole
from meshdns.agent.cache import Cache
from meshdns.agent.flights import Failed, Finished, Flights, Recovered, Reply, Send, Steps
from meshdns.agent.lookups import Lookups
from meshdns.agent.resolver import Answered, Resolver
from meshdns.agent.servers import STREAM
from meshdns.agent.shortway import ShortWay
from meshdns.host import resolvconf
from tests.agent.mesh import HOSTS, SEARCH, lines
from tests.e2e.agent import settings
from tests.scenarios.play import SERVER, Asked, Given, Hears

_SLOTS = 512


class Clocked:
    """An agent without sockets, and a clock that stands unless a step lets time pass."""

    def __init__(self, stated: dict[str, Any], hear: Hears, short: bool = True) -> None:
        """`stated` are sections of a configuration; `short`: plain questions take the short way, as at a real UDP door."""
        self.clock = Clock()
        self.slack = 0
        self.given: list[Given] = []
        self._hear = hear
        stated = dict(stated)
        conf = resolvconf.parse(stated.pop("resolv.conf", ""))
        upstream = {"servers": () if conf.nameservers else (SERVER,), **stated.get("upstream", {})}
        text = settings(15053, upstream["servers"], **{"search": SEARCH, **stated, "upstream": upstream})
        config = configuration.parse(text.encode(), "scenario")
        choice = resolvconf.Choice(conf, "resolv.conf")
        self._zones = tuple(stated.get("mesh", {}).get("zones", ("cluster.local",)))
        self._flights = Flights(Random(7).getrandbits)
        self._cache = Cache(answering.limits(config))
        self._lookups = Lookups(self._cache, self._ask, self._later)
        self._resolver = Resolver(answering.place(config, choice), self._lookups, lambda name: False)
        self._short = ShortWay(self._resolver, self._ask_alone, self.clock.seconds) if short else None
        self._timer: Any = None
        self.adopt(HOSTS)
        self._servers = answering.servers(config, choice)
        self._options = answering.upstream_options(config, choice)

    @property
    def _now(self) -> float:
        return float(self.clock.seconds())

    @property
    def inflight(self) -> int:
        return self._flights.inflight

    # from the script

    def start(self) -> None:
        self._run(self._flights.replace(self._servers, self._options, _SLOTS, self._now))
        self.settle()

    def ask(self, packet: bytes, tcp: bool) -> None:
        packed = None if tcp else self._resolver.packs.datagrams.known.get(packet[2:])  # as the UDP door does it
        if packed is not None and self._now < packed.until:
            self.given.append(Given(dns.message.from_wire(packet[:2] + (packed.tail or packed.next_tail()))))
        elif tcp or self._short is None or not self._short.take(packet, (), self, self._now):
            self._resolver.answer(packet, tcp=tcp, now=self._now, done=self._give)
        self.settle()

    def say(self, asked: Asked, message: bytes, *, elsewhere: bool, later: float) -> None:
        """A message arrives; never within the call that sent the question, as little as on a real network."""
        server, slot = asked.back
        slot = slot + 1 & 0xFF if elsewhere else slot
        self.clock.callLater(later, self._receive, server, slot, message)

    def fail(self, asked: Asked) -> None:
        server, slot = asked.back
        self._run(self._flights.failed(server, slot, "refuses the question: nothing listens there", self._now))
        self.settle()

    def time_passes(self, seconds: float) -> None:
        """From one thing due to the next, as in a reactor, so that everything sees the time it was meant for."""
        end = self._now + seconds
        while (due := self._next()) is not None and due <= end:
            self.clock.advance(max(0.0, due - self._now))
        self.clock.advance(end - self._now)

    def adopt(self, hosts: list[dict[str, Any]]) -> None:
        self._resolver.adopt(table.read(lines(hosts, self._zones)))

    def until(self, true: Callable[[], bool]) -> None:
        """What has not come yet comes only when time passes."""

    def turn(self) -> None:
        self.time_passes(0.0)

    settle = turn

    def _next(self) -> float | None:
        return min((call.getTime() for call in self.clock.getDelayedCalls()), default=None)

    # from the agent

    def give(self, address: tuple[object, ...], came: float, answered: Answered) -> None:
        self._give(answered)

    def give_relayed(self, address: tuple[object, ...], message: bytes, qtype: int, seconds: float) -> None:
        self.given.append(Given(dns.message.from_wire(message)))

    def _give(self, answered: Answered) -> None:
        self.given.append(Given(dns.message.from_wire(answered.message)))

    def _ask_alone(self, sole: Sole, now: float) -> bool:
        sent = self._flights.ask_alone(sole, now)
        if sent is not None:
            self._run([Send(*sent)])
        return sent is not None

    def _ask(self, ask: Any, done: Callable[[Reply | Failed, float], None]) -> None:
        self._run(self._flights.ask(ask, lambda result: done(result, self._now), self._now))

    def _later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        delayed = self.clock.callLater(seconds, call)
        return lambda: delayed.cancel() if delayed.active() else None

    def _run(self, steps: Steps) -> None:
        for step in steps:
            if isinstance(step, Send):
                peer = self._flights.peers[step.server]
                asked = Asked(peer.server.host, step.message, step.slot == STREAM, (step.server, step.slot))
                self.clock.callLater(0.0, self._hear, asked)
            elif isinstance(step, Finished):
                for waiter in step.waiters:
                    waiter(step.result)  # type: ignore[operator]
            elif isinstance(step, Recovered):
                self._cache.recovered(self._now)
        self._arm()

    def _receive(self, server: int, slot: int, message: bytes) -> None:
        answered = self._flights.answered_alone(server << 32 | slot << 16, message, self._now)
        if answered is not None:
            sole, body, plain = answered
            sole.answered(message, body, self._now, plain)
        else:
            self._run(self._flights.received(server, slot, message, self._now))

    def _arm(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        wake = self._flights.next_wake()
        if wake is not None:
            self._timer = self.clock.callLater(max(0.0, wake - self._now), self._tick)

    def _tick(self) -> None:
        self._run(self._flights.tick(self._now))
