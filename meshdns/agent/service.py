"""Root: the agent as a Twisted service: options to objects, wiring, the order of start and stop; no logic."""

import pickle
import secrets
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from meshdns import __version__, defaults, names
from meshdns.agent.addresses import Addresses, from_upstream
from meshdns.agent.answering import Answering, servers
from meshdns.agent.child import Child, Post
from meshdns.agent.config import AgentConfig, load
from meshdns.agent.doors import Doors
from meshdns.agent.facts import TableSource
from meshdns.agent.heartbeat import Heartbeat
from meshdns.agent.shares import Share, left_over, open_shares
from meshdns.agent.snapshot import Snapshot
from meshdns.agent.status import Facts, StatusPage
from meshdns.agent.tablefile import TableFile
from meshdns.agent.watch import Watch
from meshdns.agent.workers import Workers
from meshdns.host import cores, resolvconf
from meshdns.host.placing import File, place
from meshdns.net.supervisor import Supervisor
from meshdns.net.trust import TrustProblem
from meshdns.settings import Invalid
from meshdns.table import Table

if TYPE_CHECKING:  # what speaks TLS is imported when a configuration wants it: it would double a small agent's memory
    from meshdns.agent.poller import Poller
    from meshdns.agent.renewal import Renewal

_log = Logger()
_TOKEN_OCTETS = 4096
_WORKER = "meshdns.worker"


OpenManifests = Callable[[AgentConfig, Callable[[Table], None], Any], TableSource]


class AgentService(Service):
    """One agent, wired from a configuration; `reload` takes on a changed one while it runs."""

    def __init__(self, path: str, config: AgentConfig, reactor: Any, open_manifests: OpenManifests) -> None:
        """`path` is the configuration's file; the reactor's `seconds` must be monotonic. `open_manifests` gives the source for
        `table.manifests`, which is the other room's."""
        self._path = path
        self._config = config
        self._reactor = reactor
        self._conf = _resolv_conf(config)
        self._supervisor = Supervisor(reactor)
        self._answering = Answering(config, self._conf, reactor, self._supervisor.take)
        self._shares: list[Share] = []
        self._workers = Workers(self._stand_in, self._start_worker, self._settings, reactor)
        self._heartbeat = Heartbeat(reactor)
        self._open_manifests = open_manifests
        self._snapshot: Snapshot | None = None
        self._table = self._table_source(config)
        self._watch = self._watch_resolv_conf(config)
        self._started = reactor.seconds()
        self._status = StatusPage(self._facts(config), reactor, self._workers.look)

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
        self._answering.start()
        self._table.start()
        self._answering.adoption.finish()  # what was read from disk is there at the first packet
        self._reactor.callWhenRunning(self._workers.start)
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
        self._answering.adoption.stop()
        if self._snapshot is not None:
            await self._snapshot.close()
        await gatherResults([Deferred.fromCoroutine(each.stop()) for each in (self._workers, self._answering)])
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
        self._config, self._conf = config, _resolv_conf(config)
        self._answering.use(config, self._conf)
        self._workers.tell_settings()
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
        self._conf = conf
        self._answering.move(conf)
        self._workers.tell_settings()
        search = " ".join(map(names.text, self._answering.resolver.place.search)) or "nothing"
        self._say("has read {source} again: asks {servers}, search {search}", source=conf.source, search=search)

    # Wiring

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

    def _listen(self, config: AgentConfig) -> None:
        doors, take_passed = self._answering.doors, self._supervisor.take
        doors.listen((each.host, each.port) for each in config.listen)
        others = (config.workers or cores.count()) - 1
        self._shares = open_shares(doors.sockets, self._shares, others, take_passed)
        self._workers.place(self._shares, [*left_over(doors.sockets, take_passed)])
        self._status.listen((config.status.host, config.status.port) if config.status else None)
        own = [each for pair in doors.sockets.values() for each in pair]
        self._supervisor.hold([*own, *(each for share in self._shares for each in share.sockets)])

    def _stand_in(self, share: Share) -> Doors:
        return self._answering.stand_in(share.pairs, share.take)

    def _start_worker(self, number: int, share: Share, post: Post) -> Child:
        child = Child(number, post, self._reactor)
        child.start(_WORKER, share.sockets)
        return child

    def _settings(self) -> bytes:
        """What a worker must know beside tables."""
        return pickle.dumps((self._config, self._conf))

    def _facts(self, config: AgentConfig) -> Facts:
        return Facts(
            resolver=self._answering.resolver,
            ledger=self._answering.ledger,
            upstream=self._answering.routes,
            table=self._table,
            clock=self._reactor.seconds,
            started=self._started,
            config=self._path,
            table_source=_told_source(config),
            trouble=lambda: self._table.trouble,
            others=self._workers,
        )

    def _table_source(self, config: AgentConfig) -> TableSource:
        if config.table.file:
            return TableFile(config.table.file, self._adopt, self._reactor)
        self._snapshot = Snapshot(config.table.snapshot, self._reactor) if config.table.snapshot else None
        first = self._snapshot.load() if self._snapshot and self._answering.resolver.authority.table is None else None
        if first is not None:
            self._adopt(first)
        if config.table.manifests is not None:
            return self._open_manifests(config, self._keep, self._reactor)
        return self._poller(config, first or self._answering.resolver.authority.table)

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

    def _adopt(self, table: Table) -> None:
        self._answering.adoption.take(table)
        self._workers.take(table)

    def _keep(self, table: Table) -> None:
        """A table of a control plane is answered from, and kept."""
        self._adopt(table)
        if self._snapshot is not None:
            self._snapshot.keep(table)

    def _ask_addresses(self, name: str) -> Deferred[list[str]]:
        """The addresses of a control plane's name, from upstream servers alone: we must not need ourselves to find it."""
        return Deferred.fromCoroutine(from_upstream(self._answering.lookups, name, self._reactor.seconds))

    def _say(self, what: str, **more: str) -> None:
        asked = ", ".join(map(str, servers(self._config, self._conf))) or "nobody else"
        for domain, own in self._config.upstream.domains.items():
            asked += f"; for {names.text(domain)} {', '.join(map(str, own))}"
        listen = ", ".join(map(str, self._config.listen))
        what = "meshdns {version} " + what
        _log.info(what, version=__version__, path=self._path, listen=listen, servers=asked, **more)
        for note in self._conf.notes if not self._config.upstream.servers else ():
            _log.warn("{note}", note=note)


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


def _on_hangup(reactor: Any, call: Callable[[], None]) -> None:
    """SIGHUP would end twistd; now it reloads, between two turns of the reactor."""
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(call))


def _resolv_conf(config: AgentConfig) -> resolvconf.Choice:
    return resolvconf.read(config.upstream.resolv_conf, config.listen)
