"""Root: the agent as a Twisted service: options to objects, wiring, the order of start and stop; no logic."""

import gc
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet import reactor as twisted_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python import usage

from meshdns import __version__, defaults
from meshdns.agent.access import Access
from meshdns.agent.batch import Batch
from meshdns.agent.config import AgentConfig, load
from meshdns.agent.doors import Doors
from meshdns.agent.ledger import Ledger
from meshdns.agent.resolver import Place, Resolver
from meshdns.agent.servers import Options as UpstreamOptions
from meshdns.agent.status import Facts, StatusPage
from meshdns.agent.tablefile import TableFile
from meshdns.agent.upstream import Upstream
from meshdns.host import resolvconf
from meshdns.settings import Invalid
from meshdns.table import Table
from meshdns.values import Server

_log = Logger()


class Options(usage.Options):
    """The words behind `twistd meshdns`."""

    optParameters = [
        ["config", "c", defaults.CONFIG_FILE, "the agent's configuration, as docs/configuration.md has it"]
    ]
    longdesc = "The mesh's DNS proxy beside a workload: answers mesh names on the spot, relays everything else."

    def opt_version(self) -> None:
        """Print the version of meshdns and exit."""
        sys.stdout.write(f"meshdns {__version__}\n")
        raise SystemExit(0)

    def postOptions(self) -> None:
        try:
            self["loaded"] = load(self["config"])
        except Invalid as invalid:
            sys.stderr.write(f"meshdns: the configuration cannot be used:\n{invalid}\n")
            raise SystemExit(1) from None


def makeService(options: Options) -> "AgentService":
    """The service for `twistd meshdns`."""
    reactor: Any = twisted_reactor
    # Twisted's clock is the wall's, which a VM steps at its first NTP sync; timers must not notice (ticket 2424).
    reactor.seconds = time.monotonic
    # Questions under way live for milliseconds and hold no circles; the default looks at them every few hundred.
    gc.set_threshold(defaults.GC_THRESHOLD)
    _raise_descriptors()
    return AgentService(options["config"], options["loaded"], reactor)


def _raise_descriptors() -> None:
    """Use as many file descriptors as the host allows: TCP clients and the ports of upstream questions (D1, D20) take them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = defaults.DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, defaults.DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class AgentService(Service):
    """One agent, wired from a configuration; `reload` takes on a changed one while it runs."""

    def __init__(self, path: str, config: AgentConfig, reactor: Any) -> None:
        """`path` is the configuration's file; the reactor's `seconds` must be monotonic."""
        self._path = path
        self._config = config
        self._reactor = reactor
        clock: Callable[[], float] = reactor.seconds
        self._conf = _resolv_conf(config)
        batch = Batch()
        self._upstream = Upstream(
            reactor, _servers(config, self._conf), _upstream_options(config, self._conf), batch=batch
        )
        self._resolver = Resolver(_place(config, self._conf), self._upstream.ask, self._upstream.is_own_probe)
        self._ledger = Ledger(self._resolver.packed)
        self._access = Access(config.allow, clock)
        self._doors = Doors(
            self._resolver.answer, self._resolver.packed, self._access, self._ledger, reactor, clock, batch
        )
        self._doors.tell_queries(config.log.queries)
        self._table = self._table_file(config)
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
        self._upstream.start()
        self._table.start()
        self._say("answers on {listen}, asks {servers}")

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._table.stop()
        await self._doors.close()
        await self._upstream.stop()
        await self._status.close()

    # from SIGHUP

    def reload(self) -> None:
        """Read the configuration again and take it on whole, or keep the one in force and say why."""
        try:
            config = load(self._path)
        except Invalid as invalid:
            _log.error("the configuration stays as it was, since the new one cannot be used:\n{why}", why=str(invalid))
            return
        try:
            self._listen(config)
        except CannotListenError as error:
            self._listen(self._config)
            _log.error("the configuration stays as it was: {why}", why=str(error))
            return
        self._conf = _resolv_conf(config)
        self._upstream.replace(_servers(config, self._conf), _upstream_options(config, self._conf))
        self._resolver.move(_place(config, self._conf))
        self._access.allow(config.allow)
        self._doors.tell_queries(config.log.queries)
        before, self._config = self._config, config
        if config.table != before.table:
            self._table.stop()
            self._table = self._table_file(config)
            self._table.start()
        self._status.facts = self._facts(config)
        self._say("has read {path} again: answers on {listen}, asks {servers}")

    def _listen(self, config: AgentConfig) -> None:
        self._doors.listen((each.host, each.port) for each in config.listen)
        self._status.listen((config.status.host, config.status.port) if config.status else None)

    def _facts(self, config: AgentConfig) -> Facts:
        return Facts(
            resolver=self._resolver,
            ledger=self._ledger,
            upstream=self._upstream,
            table=self._table,
            clock=self._reactor.seconds,
            started=self._started,
            config=self._path,
            table_source=f"file {config.table.file}",
            trouble=lambda: self._table.trouble,
        )

    def _table_file(self, config: AgentConfig) -> TableFile:
        assert config.table.file  # the one source of this version, as `config` has made sure
        return TableFile(config.table.file, self._adopt, self._reactor)

    def _adopt(self, table: Table) -> None:
        self._resolver.adopt(table)
        gc.freeze()  # a table is no garbage: searching it for some would cost milliseconds again and again

    def _say(self, what: str) -> None:
        servers = ", ".join(map(str, _servers(self._config, self._conf))) or "nobody else"
        listen = ", ".join(map(str, self._config.listen))
        _log.info("meshdns {version} " + what, version=__version__, path=self._path, listen=listen, servers=servers)
        for note in self._conf.notes if not self._config.upstream.servers else ():
            _log.warn("{note}", note=note)


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
