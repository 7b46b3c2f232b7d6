"""Root: the agent as a Twisted service: options to objects, wiring, the order of start and stop; no logic."""

import gc
import secrets
import signal
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from meshdns import __version__, defaults, names
from meshdns.agent.access import Access
from meshdns.agent.addresses import Addresses, from_upstream
from meshdns.agent.adoption import Adoption
from meshdns.agent.batch import Batch
from meshdns.agent.cache import Cache
from meshdns.agent.config import AgentConfig, load
from meshdns.agent.datagrams import open_datagrams
from meshdns.agent.doors import Doors, tell_bug, tell_query
from meshdns.agent.facts import TableSource
from meshdns.agent.front import Front
from meshdns.agent.heartbeat import Heartbeat
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
from meshdns.agent.snapshot import Snapshot
from meshdns.agent.special import Special
from meshdns.agent.status import Facts, StatusPage
from meshdns.agent.steps import Result
from meshdns.agent.streams import TcpFactory, TcpPort
from meshdns.agent.tablefile import TableFile
from meshdns.agent.upstream import Upstream
from meshdns.agent.watch import Watch
from meshdns.host import descriptors, resolvconf
from meshdns.host.placing import File, place
from meshdns.net.supervisor import Supervisor
from meshdns.net.trust import TrustProblem
from meshdns.settings import Invalid
from meshdns.table import Table
from meshdns.values import Server
from meshdns.wire import Ask

if TYPE_CHECKING:  # what speaks TLS is imported when a configuration wants it: it would double a small agent's memory
    from meshdns.agent.poller import Poller
    from meshdns.agent.renewal import Renewal
    from meshdns.agent.secure import Secure

_log = Logger()
_TOKEN_OCTETS = 4096


def prepare(reactor: Any) -> None:
    """What a process with an agent in it needs before anything else."""
    # Twisted's clock is the wall's, which a VM steps at its first NTP sync; timers must not notice (ticket 2424).
    reactor.seconds = time.monotonic
    # Questions under way live for milliseconds and hold no circles; the default looks at them every few hundred.
    gc.set_threshold(defaults.GC_THRESHOLD)
    descriptors.allow(defaults.DESCRIPTORS)


TakePassed = Callable[[int, str, int], socket.socket | None]
OpenManifests = Callable[[AgentConfig, Callable[[Table], None], Any], TableSource]


class AgentService(Service):
    """One agent, wired from a configuration; `reload` takes on a changed one while it runs."""

    def __init__(self, path: str, config: AgentConfig, reactor: Any, open_manifests: OpenManifests) -> None:
        """`path` is the configuration's file; the reactor's `seconds` must be monotonic. `open_manifests` gives the source for
        `table.manifests`, which is the other room's."""
        self._path = path
        self._config = config
        self._reactor = reactor
        clock: Callable[[], float] = reactor.seconds
        self._conf = _resolv_conf(config)
        self._batch = batch = Batch()
        self._linger = Linger(reactor)
        self._secure: Secure | None = None
        self._running = False
        self._routes = Routes(self._open_upstream)
        self._special = Special(config.upstream.domains)
        self._lookups = Lookups(Cache(_limits(config)), self._ask, self._later)
        self._resolver = Resolver(_place(config, self._conf), self._lookups, self._routes.is_own_probe, self._special)
        self._ledger = Ledger(*self._resolver.packs.stores)
        self._access = Access(config.allow, clock)
        short = ShortWay(self._resolver, self._routes.ask_alone, clock)
        self._supervisor = Supervisor(reactor)
        self._doors = open_doors(
            self._resolver, self._access, self._ledger, reactor, clock=clock, batch=batch, linger=self._linger,
            take_short=short.take, take_passed=self._supervisor.take,
        )  # fmt: skip
        self._doors.tell_queries(config.log.queries)
        self._heartbeat = Heartbeat(reactor)
        self._open_manifests = open_manifests
        self._adoption = Adoption(self._resolver.adopt_in_steps, gc.freeze, reactor)  # what is in a table is no garbage
        self._snapshot: Snapshot | None = None
        self._table = self._table_source(config)
        self._watch = self._watch_resolv_conf(config)
        self._started = clock()
        self._status = StatusPage(self._facts(config), reactor)

    # from twistd

    def privilegedStartService(self) -> None:
        """Take the ports while a low one may still be taken: twistd gives up root after this."""
        try:
            self._listen(self._config)
        except CannotListenError as error:
            _log.critical("meshdns cannot start: {error} Is another agent, or another DNS server, there?", error=error)
            raise SystemExit(1) from None

    def startService(self) -> None:
        super().startService()
        _on_hangup(self._reactor, self.reload)
        self._running = True
        for upstream in self._routes.groups:
            upstream.start()
        self._route()
        self._table.start()
        self._adoption.finish()  # what was read from disk is there at the first packet
        self._say("answers on {listen}, asks {servers}")
        self._watch_on()
        self._beat()
        self._supervisor.ready(f"answers on {', '.join(map(str, self._config.listen))}")

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._supervisor.stopping()
        self._heartbeat.stop()
        self._watch.stop()
        self._table.stop()
        self._adoption.stop()
        if self._snapshot is not None:
            await self._snapshot.close()
        await self._doors.close()
        for upstream in self._routes.groups:
            await upstream.stop()
        await self._status.close()
        self._supervisor.stop()

    # from SIGHUP

    def reload(self) -> None:
        """Read the configuration again and take it on whole, or keep the one in force and say why."""
        self._supervisor.reloading()
        self._reload()
        self._supervisor.ready(f"answers on {', '.join(map(str, self._config.listen))}")

    def _reload(self) -> None:
        try:
            config = load(self._path)
        except Invalid as invalid:
            _log.error("the configuration stays as it was, since the new one cannot be used:\n{why}", why=str(invalid))
            return
        # A file says the same to every workload.
        moved = config.table != self._config.table or (
            not config.table.file and config.workload != self._config.workload
        )
        try:
            table = self._table_source(config) if moved else self._table
            self._listen(config)
        except (CannotListenError, TrustProblem) as error:
            self._listen(self._config)
            _log.error("the configuration stays as it was: {why}", why=str(error))
            return
        before, self._config, self._conf = self._config, config, _resolv_conf(config)
        self._secure = None  # what is trusted is read anew
        self._special.use(config.upstream.domains)
        self._route()
        self._lookups.cache.use(_limits(config))
        if config.upstream.domains != before.upstream.domains:
            self._lookups.cache.clear()  # what others said of these names is not what their own servers say
        self._resolver.move(_place(config, self._conf))
        self._access.allow(config.allow)
        self._doors.tell_queries(config.log.queries)
        if moved:
            self._table.stop()
            self._table = table
            self._table.start()
        self._status.facts = self._facts(config)
        self._watch.stop()
        self._watch = self._watch_resolv_conf(config)
        self._say("has read {path} again: answers on {listen}, asks {servers}")
        self._watch_on()
        self._beat()

    # from the watch

    def _moved(self, conf: resolvconf.Choice) -> None:
        """Another network, or another search list."""
        before, self._conf = set(self._conf.conf.nameservers), conf
        if conf.conf.nameservers and before.isdisjoint(conf.conf.nameservers):
            self._lookups.cache.clear()  # a name may be another host's in another network
        self._route()
        self._resolver.move(_place(self._config, conf))
        search = " ".join(map(names.text, self._resolver.place.search)) or "nothing"
        self._say("has read {source} again: asks {servers}, search {search}", source=conf.source, search=search)

    # Wiring

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
        self._lookups.cache.recovered(self._reactor.seconds())

    def _route(self) -> None:
        config, conf = self._config, self._conf
        if any(each.transport == "tls" for each in chain(config.upstream.servers, *config.upstream.domains.values())):
            self._tls()  # while no packet waits: it takes a moment to import
        self._routes.replace(_servers(config, conf), config.upstream.domains, _upstream_options(config, conf))

    def _watch_resolv_conf(self, config: AgentConfig) -> Watch[resolvconf.Choice]:
        paths = [config.upstream.resolv_conf, *defaults.RESOLV_FALLBACKS]
        return Watch(
            paths, self._conf, lambda: _resolv_conf(config), self._moved, self._reactor, resolvconf.is_doubtful
        )

    def _watch_on(self) -> None:
        if not self._config.upstream.servers:
            self._watch.start()

    def _beat(self) -> None:
        self._heartbeat.start((each.host, each.port) for each in self._config.listen)

    def _ask(self, ask: Ask, done: Callable[[Result, float], None]) -> None:
        special = self._special.reply(ask)  # where a walk of the search list comes to such a name
        if special is not None:
            return done(special, self._reactor.seconds())
        return self._routes.ask(ask, lambda result: done(result, self._reactor.seconds()))

    def _later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        delayed = self._reactor.callLater(seconds, call)
        return lambda: delayed.cancel() if delayed.active() else None

    def _listen(self, config: AgentConfig) -> None:
        self._doors.listen((each.host, each.port) for each in config.listen)
        self._status.listen((config.status.host, config.status.port) if config.status else None)
        self._supervisor.hold(self._doors.sockets)

    def _facts(self, config: AgentConfig) -> Facts:
        return Facts(
            resolver=self._resolver,
            ledger=self._ledger,
            upstream=self._routes,
            table=self._table,
            clock=self._reactor.seconds,
            started=self._started,
            config=self._path,
            table_source=_told_source(config),
            trouble=lambda: self._table.trouble,
        )

    def _table_source(self, config: AgentConfig) -> TableSource:
        if config.table.file:
            return TableFile(config.table.file, self._adoption.take, self._reactor)
        self._snapshot = Snapshot(config.table.snapshot, self._reactor) if config.table.snapshot else None
        first = self._snapshot.load() if self._snapshot and self._resolver.authority.table is None else None
        if first is not None:
            self._adoption.take(first)
        if config.table.manifests is not None:
            return self._open_manifests(config, self._keep, self._reactor)
        return self._poller(config, first or self._resolver.authority.table)

    def _poller(self, config: AgentConfig, first: Table | None) -> "Poller":
        """Raises TrustProblem."""
        from meshdns.agent.poller import Poller
        from meshdns.agent.subscription import Subscription
        from meshdns.net.tls import ClientTls

        said, where = config.table.control_plane, config.workload
        assert said is not None  # one of three, as `config` has made sure
        tls = ClientTls(ca=said.ca, pins=said.pins, certificate=said.certificate, key=said.key)
        memory = f"{config.table.snapshot}.addresses" if config.table.snapshot else None
        addresses = Addresses(self._ask_addresses, self._reactor, memory)
        subscription = Subscription(said.urls, where.cluster, where.network)
        token = partial(_token, said.token_file)
        # Key and certificate in one file, as a bundle brings them, are ours to renew: they are replaced at once.
        ours = said.certificate if said.certificate == said.key else None
        renewal = self._renewal(ours) if ours else None
        return Poller(
            subscription, tls, token, addresses, self._keep, self._reactor, _chance, first, said.name, renewal
        )

    def _renewal(self, path: str) -> "Renewal":
        from meshdns.agent.renewal import Renewal

        return Renewal(path, partial(_replace, path), self._reactor, time.time, _chance)

    def _keep(self, table: Table) -> None:
        """A table of a control plane is answered from, and kept."""
        self._adoption.take(table)
        if self._snapshot is not None:
            self._snapshot.keep(table)

    def _ask_addresses(self, name: str) -> Deferred[list[str]]:
        """The addresses of a control plane's name, from upstream servers alone: we must not need ourselves to find it."""
        return Deferred.fromCoroutine(from_upstream(self._lookups, name, self._reactor.seconds))

    def _say(self, what: str, **more: str) -> None:
        servers = ", ".join(map(str, _servers(self._config, self._conf))) or "nobody else"
        for domain, own in self._config.upstream.domains.items():
            servers += f"; for {names.text(domain)} {', '.join(map(str, own))}"
        listen = ", ".join(map(str, self._config.listen))
        what = "meshdns {version} " + what
        _log.info(what, version=__version__, path=self._path, listen=listen, servers=servers, **more)
        for note in self._conf.notes if not self._config.upstream.servers else ():
            _log.warn("{note}", note=note)


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


def _token(path: str | None) -> str:
    """A token file's content, read anew each time; raises OSError."""
    if path is None:
        return ""
    with open(path, encoding="ascii", errors="replace") as opened:
        return opened.read(_TOKEN_OCTETS).strip()


def _replace(path: str, content: bytes) -> None:
    """A file with a secret, whole or not at all; raises OSError."""
    place([File(path=path, content=content, mode=0o600)])


def _chance() -> float:
    """From 0 to 1."""
    return secrets.randbelow(1 << 20) / (1 << 20)


def _told_source(config: AgentConfig) -> str:
    """Where tables come from, in words."""
    if config.table.file:
        return f"file {config.table.file}"
    if config.table.control_plane:
        return f"control plane {', '.join(config.table.control_plane.urls)}"
    paths = [each if isinstance(each, str) else each.manifests for each in config.table.manifests or ()]
    return f"manifests {', '.join(map(str, paths))}"


def _limits(config: AgentConfig) -> Limits:
    said = config.cache
    return Limits(
        max_bytes=said.max_bytes,
        min_ttl=said.min_ttl,
        max_ttl=said.max_ttl,
        serve_stale=said.serve_stale,
        prefetch=said.prefetch,
    )


def _on_hangup(reactor: Any, call: Callable[[], None]) -> None:
    """SIGHUP would end twistd; now it reloads, between two turns of the reactor."""
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(call))


def _resolv_conf(config: AgentConfig) -> resolvconf.Choice:
    return resolvconf.read(config.upstream.resolv_conf, config.listen)


def _servers(config: AgentConfig, choice: resolvconf.Choice) -> Sequence[Server]:
    transport = "tcp" if choice.conf.use_vc else "udp"
    return config.upstream.servers or [Server(host, 53, transport, None) for host in choice.conf.nameservers]


def _upstream_options(config: AgentConfig, choice: resolvconf.Choice) -> UpstreamOptions:
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


def _place(config: AgentConfig, choice: resolvconf.Choice) -> Place:
    return Place(
        namespace=config.workload.namespace,
        domain=config.workload.cluster_domain,
        search=choice.conf.search if config.search is None else config.search,
        zones=config.mesh.zones or (),
        autopath=config.autopath,
        udp_max=config.udp_max,
        ttl=config.mesh.ttl,
    )
