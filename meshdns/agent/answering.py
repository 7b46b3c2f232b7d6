"""Root: all that answers packets in one process, wired: doors, resolver, cache, upstream side; no logic.

A configuration and what resolv.conf says enter, and tables. The main process and every other worker (`worker.py`) have one each.
"""

import gc
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from meshdns import defaults
from meshdns.agent.access import Access
from meshdns.agent.adoption import Adoption
from meshdns.agent.batch import Batch
from meshdns.agent.cache import Cache
from meshdns.agent.config import AgentConfig
from meshdns.agent.datagrams import open_datagrams
from meshdns.agent.doors import Doors, tell_bug, tell_query
from meshdns.agent.front import Front
from meshdns.agent.hotpath import TakeShort, UdpPort, UdpProtocol
from meshdns.agent.ledger import Ledger
from meshdns.agent.lifetimes import Limits
from meshdns.agent.linger import Linger
from meshdns.agent.lookups import Lookups
from meshdns.agent.pool import Pool
from meshdns.agent.resolver import Place, Resolver
from meshdns.agent.routes import Routes
from meshdns.agent.servers import Options as UpstreamOptions
from meshdns.agent.shortway import ShortWay
from meshdns.agent.special import Special
from meshdns.agent.steps import Result
from meshdns.agent.streams import TcpFactory, TcpPort
from meshdns.agent.upstream import Upstream
from meshdns.host import descriptors, resolvconf
from meshdns.values import Server
from meshdns.wire import Ask

if TYPE_CHECKING:  # what speaks TLS is imported when a configuration wants it: it would double a small agent's memory
    from meshdns.agent.secure import Secure

TakePassed = Callable[[int, str, int], socket.socket | None]


def prepare(reactor: Any) -> None:
    """What a process with an agent in it needs before anything else."""
    # Twisted's clock is the wall's, which a VM steps at its first NTP sync; timers must not notice (ticket 2424).
    reactor.seconds = time.monotonic
    # Questions under way live for milliseconds and hold no circles; the default looks at them every few hundred.
    gc.set_threshold(defaults.GC_THRESHOLD)
    descriptors.allow(defaults.DESCRIPTORS)


class Answering:
    """One process's share in the answering. `doors` are those that it opens by itself."""

    def __init__(
        self, config: AgentConfig, conf: resolvconf.Choice, reactor: Any, take_passed: TakePassed = lambda *_: None
    ) -> None:
        """The reactor's `seconds` must be monotonic. `take_passed` gives sockets that are open already, by kind, host and port."""
        self._config, self._conf = config, conf
        self._reactor = reactor
        clock: Callable[[], float] = reactor.seconds
        self._batch = Batch()
        self._linger = Linger(reactor)
        self._secure: Secure | None = None
        self._running = False
        self.routes = Routes(self._open_upstream)
        self._special = Special(config.upstream.domains)
        self.lookups = Lookups(Cache(limits(config)), self._ask, self._later)
        self.resolver = Resolver(place(config, conf), self.lookups, self.routes.is_own_probe, self._special)
        self.ledger = Ledger(*self.resolver.packs.stores)
        self._access = Access(config.allow, clock)
        self._short = ShortWay(self.resolver, self.routes.ask_alone, clock)
        self._others: WeakSet[Doors] = WeakSet()
        self.doors = self._make_doors(take_passed)
        self.doors.tell_queries(config.log.queries)
        self.adoption = Adoption(self.resolver.adopt_in_steps, gc.freeze, reactor)  # what is in a table is no garbage

    def start(self) -> None:
        self._running = True
        for upstream in self.routes.groups:
            upstream.start()
        self._route()

    async def stop(self) -> None:
        """Answer what has been asked, then close every socket."""
        self.adoption.stop()
        await self.doors.close()
        for upstream in self.routes.groups:
            await upstream.stop()

    # Changes

    def use(self, config: AgentConfig, conf: resolvconf.Choice) -> None:
        """Another configuration, in all but the addresses of the doors."""
        before, self._config, self._conf = self._config, config, conf
        self._secure = None  # what is trusted is read anew
        self._special.use(config.upstream.domains)
        self._route()
        self.lookups.cache.use(limits(config))
        if config.upstream.domains != before.upstream.domains:
            self.lookups.cache.clear()  # what others said of these names is not what their own servers say
        self.resolver.move(place(config, conf))
        self._access.allow(config.allow)
        for doors in (self.doors, *self._others):
            doors.tell_queries(config.log.queries)

    def move(self, conf: resolvconf.Choice) -> None:
        """Another network, or another search list."""
        before, self._conf = set(self._conf.conf.nameservers), conf
        if conf.conf.nameservers and before.isdisjoint(conf.conf.nameservers):
            self.lookups.cache.clear()  # a name may be another host's in another network
        self._route()
        self.resolver.move(place(self._config, conf))

    # from the workers

    def stand_in(self, addresses: Iterable[tuple[str, int]], take_passed: TakePassed) -> Doors:
        """More doors, as of another worker: open at once. Raises twisted's CannotListenError."""
        doors = self._make_doors(take_passed)
        doors.listen(addresses)
        if self._config.log.queries:
            doors.tell_queries(True)
        self._others.add(doors)
        return doors

    # Wiring

    def _make_doors(self, take_passed: TakePassed) -> Doors:
        return open_doors(
            self.resolver, self._access, self.ledger, self._reactor, clock=self._reactor.seconds, batch=self._batch,
            linger=self._linger, take_short=self._short.take, take_passed=take_passed,
        )  # fmt: skip

    def _open_upstream(self) -> Upstream:
        upstream = Upstream(
            self._reactor, (), pool=Pool(self._reactor, self._batch, self._linger), batch=self._batch, secure=self._tls,
            recovered=self._recovered,
        )  # fmt: skip
        if self._running:
            upstream.start()
        return upstream

    def _tls(self) -> "Secure":
        """TLS towards upstream servers."""
        if self._secure is None:
            from meshdns.agent.secure import Secure

            self._secure = Secure()
        return self._secure

    def _recovered(self) -> None:
        """A server is back: what failed before may be asked at once, not only when its failure is forgotten."""
        self.lookups.cache.recovered(self._reactor.seconds())

    def _route(self) -> None:
        config, conf = self._config, self._conf
        if any(each.transport == "tls" for each in chain(config.upstream.servers, *config.upstream.domains.values())):
            self._tls()  # while no packet waits: it takes a moment to import
        self.routes.replace(servers(config, conf), config.upstream.domains, upstream_options(config, conf))

    def _ask(self, ask: Ask, done: Callable[[Result, float], None]) -> None:
        special = self._special.reply(ask)  # where a walk of the search list comes to such a name
        if special is not None:
            return done(special, self._reactor.seconds())
        return self.routes.ask(ask, lambda result: done(result, self._reactor.seconds()))

    def _later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        delayed = self._reactor.callLater(seconds, call)
        return lambda: delayed.cancel() if delayed.active() else None


def open_doors(
    resolver: Resolver, access: Access, ledger: Ledger, reactor: Any, *, clock: Callable[[], float], batch: Batch,
    linger: Linger, take_short: TakeShort = lambda *_: False, take_passed: TakePassed = lambda *_: None,
) -> Doors:  # fmt: skip
    """Doors that answer what this resolver says; none of them is open yet. `take_passed` gives sockets of the process before
    this one, by kind, host and port."""
    front = Front(resolver.answer, access.allows, ledger, clock, tell_bug, tell_query)

    def open_udp(host: str, port: int) -> UdpPort:
        door = UdpPort(
            port, UdpProtocol(front, reactor, batch), host, reactor, front=front, packed=resolver.packs.datagrams, access=access,
            batch=batch, linger=linger, open_datagrams=open_datagrams, take_short=take_short,
        )  # fmt: skip
        door.passed = take_passed(socket.SOCK_DGRAM, host, port)
        door.startListening()
        return door

    def open_tcp(host: str, port: int) -> TcpPort:
        door = TcpPort(port, TcpFactory(front, resolver.packs.streams, reactor), defaults.TCP_BACKLOG, host, reactor)
        door.passed = take_passed(socket.SOCK_STREAM, host, port)
        door.startListening()
        return door

    return Doors(front, resolver.packs.stores, open_udp, open_tcp, reactor)


# Sections of a configuration as others want them


def limits(config: AgentConfig) -> Limits:
    said = config.cache
    return Limits(
        max_bytes=said.max_bytes,
        min_ttl=said.min_ttl,
        max_ttl=said.max_ttl,
        serve_stale=said.serve_stale,
        prefetch=said.prefetch,
    )


def servers(config: AgentConfig, choice: resolvconf.Choice) -> Sequence[Server]:
    transport = "tcp" if choice.conf.use_vc else "udp"
    return config.upstream.servers or [Server(host, 53, transport, None) for host in choice.conf.nameservers]


def upstream_options(config: AgentConfig, choice: resolvconf.Choice) -> UpstreamOptions:
    """The configuration's word counts, then that of resolv.conf, then the default."""
    said, conf = config.upstream, choice.conf
    return UpstreamOptions(
        policy=said.policy,
        timeout=said.timeout or conf.timeout or defaults.UPSTREAM_TIMEOUT,
        attempts=said.attempts or conf.attempts or defaults.UPSTREAM_ATTEMPTS,
        deadline=said.deadline,
        max_inflight=said.max_inflight,
        rotate=conf.rotate,
    )


def place(config: AgentConfig, choice: resolvconf.Choice) -> Place:
    return Place(
        namespace=config.workload.namespace,
        domain=config.workload.cluster_domain,
        search=choice.conf.search if config.search is None else config.search,
        zones=config.mesh.zones or (),
        autopath=config.autopath,
        udp_max=config.udp_max,
        ttl=config.mesh.ttl,
    )
