"""Root: the control plane as a Twisted service: options to objects, wiring, the order of start and stop; no logic."""

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet import reactor as twisted_reactor
from twisted.internet import tcp
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python import usage

from meshdns import __version__, defaults, names
from meshdns.certificates import Authority
from meshdns.clusters import Cluster
from meshdns.control import model
from meshdns.control.config import ControlConfig, load
from meshdns.control.identity import Identity, Refusal, identify
from meshdns.control.issuing import Issuing, read_authority
from meshdns.control.leases import SqliteLeases, StoreProblem
from meshdns.control.longpoll import LongPoll
from meshdns.control.mesh import Mesh
from meshdns.control.sources.files import Files
from meshdns.control.status import Facts, StatusPage
from meshdns.control.tokensfile import TokensFile
from meshdns.control.vips import Ranges
from meshdns.host import descriptors
from meshdns.net.ports import tls_port
from meshdns.net.site import Site
from meshdns.net.supervisor import Supervisor
from meshdns.net.tls import ServerTls
from meshdns.net.trust import TrustProblem
from meshdns.settings import Invalid

_log = Logger()


class Options(usage.Options):
    """The words behind `twistd meshdns-control`."""

    optParameters = [
        [
            "config",
            "c",
            defaults.CONTROL_CONFIG_FILE,
            "the control plane's configuration, as docs/control-plane.md has it",
        ]
    ]
    longdesc = "The mesh's control plane: reads the objects of several clusters, and gives each agent the table of its workload."

    def opt_version(self) -> None:
        """Print the version of meshdns and exit."""
        sys.stdout.write(f"meshdns {__version__}\n")
        raise SystemExit(0)

    def postOptions(self) -> None:
        try:
            self["loaded"] = load(self["config"])
        except Invalid as invalid:
            sys.stderr.write(f"meshdns-control: the configuration cannot be used:\n{invalid}\n")
            raise SystemExit(os.EX_CONFIG) from None


def makeService(options: Options) -> "ControlService":
    """The service for `twistd meshdns-control`."""
    reactor: Any = twisted_reactor
    reactor.seconds = time.monotonic  # timers must not notice that the wall's clock is stepped (ticket 2424)
    gc.set_threshold(defaults.GC_THRESHOLD)
    descriptors.allow(defaults.CONTROL_DESCRIPTORS)
    try:
        return ControlService(options["config"], options["loaded"], reactor)
    except (TrustProblem, StoreProblem) as problem:
        sys.stderr.write(f"meshdns-control cannot start: {problem}\n")
        raise SystemExit(1) from None


def cluster_of(section: Cluster) -> model.Cluster:
    """A cluster of the configuration as the World knows it."""
    return model.Cluster(section.name, section.network, names.text(section.domain))


class _World:
    """A mesh and its sources, as a configuration wants them."""

    def __init__(self, config: ControlConfig, reactor: Any, changed: Callable[["_World"], None]) -> None:
        """Raises StoreProblem."""
        self.leases = SqliteLeases(config.vips.store.removeprefix("sqlite:"), reactor.callFromThread)
        clusters = [cluster_of(each) for each in config.clusters]
        ranges = Ranges(cast(Any, config.vips.ipv4), cast(Any, config.vips.ipv6))
        self.mesh = Mesh(
            clusters,
            config.export_to,
            config.root_namespace,
            ranges,
            self.leases,
            reactor,
            time.time,
            lambda: changed(self),
        )
        self.sources = [
            Files(each.name, [cast(str, each.manifests)], self.mesh.update, reactor) for each in config.clusters
        ]
        self.mesh.sources.update(
            {each.name: source for each, source in zip(config.clusters, self.sources, strict=True)}
        )

    def start(self) -> None:
        for source in self.sources:
            source.start()

    async def stop(self) -> None:
        for source in self.sources:
            source.stop()
        self.mesh.stop()
        await self.leases.close()


class ControlService(Service):
    """One control plane, wired from a configuration; `reload` takes on a changed one while it runs."""

    def __init__(self, path: str, config: ControlConfig, reactor: Any) -> None:
        """`path` is the configuration's file; the reactor's `seconds` must be monotonic. Raises TrustProblem, StoreProblem."""
        self._path = path
        self._config = config
        self._reactor = reactor
        self._tls = ServerTls(config.tls.certificate, config.tls.key, config.tls.client_ca)
        self._tokens = TokensFile(config.tokens)
        self._world = _World(config, reactor, self._changed)
        self._next: _World | None = None
        self._fresh: _World | None = self._world  # the last one, until it is ready
        self._polls = LongPoll(
            self._identify, lambda workload: self._world.mesh.view(workload), self._networks, reactor
        )
        self._authority()
        issuing = Issuing(self._polls, self._identify, self._authority, time.time)
        self._site = Site(
            issuing,
            reactor,
            connections=defaults.POLL_CONNECTIONS,
            idle=defaults.POLL_IDLE,
            body=defaults.REQUEST_BYTES,
        )
        self._ports: dict[tuple[str, int], tcp.Port] = {}
        self._supervisor = Supervisor(reactor)
        self._status = StatusPage(self._facts(), reactor)

    # from twistd

    def privilegedStartService(self) -> None:
        """Take the ports while a low one may still be taken: twistd gives up root after this."""
        try:
            self._listen(self._config)
        except CannotListenError as error:
            _log.critical("meshdns-control cannot start: {error}", error=error)
            raise SystemExit(1) from None

    def startService(self) -> None:
        super().startService()
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self.reload))
        self._tokens.tokens()
        self._world.start()
        self._say("serves {clusters} on {listen}")
        self._supervisor.ready("serves tables")

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._supervisor.stopping()
        ports, self._ports = self._ports, {}
        for port in ports.values():
            await cast("Deferred[None]", maybeDeferred(port.stopListening))
        self._polls.stop()
        for world in filter(None, (self._world, self._next)):
            await world.stop()
        await self._site.abort()
        await self._status.close()
        self._supervisor.stop()

    # from SIGHUP

    def reload(self) -> None:
        """Read the configuration again and take it on whole, or keep the one in force and say why."""
        self._supervisor.reloading()
        self._reload()
        self._supervisor.ready("serves tables")

    def _reload(self) -> None:
        opened = None
        try:
            config = load(self._path)
            tls = ServerTls(config.tls.certificate, config.tls.key, config.tls.client_ca)
            read_authority(config.tls.client_ca, config.tls.client_ca_key)
            if _world_of(config) != _world_of(self._config):
                opened = _World(config, self._reactor, self._changed)
            self._listen(config)
        except (Invalid, TrustProblem, StoreProblem, CannotListenError) as error:
            self._listen(self._config)
            if opened is not None:
                Deferred.fromCoroutine(opened.stop())
            _log.error("the configuration stays as it was, since the new one cannot be used:\n{why}", why=str(error))
            return
        self._config, self._tokens = config, TokensFile(config.tokens)
        self._tls.become(tls)
        if opened is not None:
            if self._next is not None:
                Deferred.fromCoroutine(self._next.stop())
            self._fresh = self._next = opened  # the old one serves until every source of the new one has been read
            opened.start()
        self._say("has read {path} again: serves {clusters} on {listen}")
        self._polls.wake()  # whose token is gone must not stay parked

    # from the mesh

    def _changed(self, world: _World) -> None:
        if world is self._fresh:
            self._fresh = None
            self._reactor.callLater(0, _settle)
        if world is self._next:
            old, self._world, self._next = self._world, world, None
            self._status.facts = self._facts()
            Deferred.fromCoroutine(old.stop())
        if world is self._world:
            self._polls.wake()

    # Wiring

    def _identify(self, uris: tuple[str, ...] | None, authorization: str) -> Identity | Refusal:
        domain = names.text(self._config.trust_domain)
        return identify(uris, authorization, domain, self._tokens.tokens(), time.time())

    def _authority(self) -> Authority | None:
        """Who renews certificates, read anew each time: that is seldom, and its files may be replaced. Raises TrustProblem."""
        return read_authority(self._config.tls.client_ca, self._config.tls.client_ca_key)

    def _networks(self) -> dict[str, str]:
        return {name: each.network for name, each in self._world.mesh.registry.clusters.items()}

    def _listen(self, config: ControlConfig) -> None:
        """Be at exactly these addresses. Raises CannotListenError with those that were open still open."""
        wanted = {(each.host, each.port) for each in config.listen}
        for address in wanted - self._ports.keys():
            self._ports[address] = tls_port(address, self._tls, self._site, self._reactor)
        self._status.listen((config.status.host, config.status.port) if config.status else None)
        for address in self._ports.keys() - wanted:
            maybeDeferred(self._ports.pop(address).stopListening)

    def _facts(self) -> Facts:
        return Facts(mesh=self._world.mesh, polls=self._polls, clock=self._reactor.seconds, more=self._trouble)

    def _trouble(self) -> list[str]:
        return [each for each in (self._tls.problem, self._tokens.problem) if each]

    def _say(self, what: str) -> None:
        _log.info(
            "meshdns-control {version} " + what,
            version=__version__,
            path=self._path,
            clusters=", ".join(each.name for each in self._config.clusters),
            listen=", ".join(map(str, self._config.listen)),
        )


def _settle() -> None:
    """What is known of a mesh is no garbage, and to search it for some takes long; what was known of an older one goes."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _world_of(config: ControlConfig) -> tuple[object, ...]:
    """All that the World hangs on."""
    return config.clusters, config.vips, config.root_namespace, config.export_to
