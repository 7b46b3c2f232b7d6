"""Root: an agent that is its own control plane where its configuration says `table.manifests`; and both in one process.

The control plane's own code reads manifests and makes the one table that this agent needs, in its process. Options to
objects, wiring; no logic.
"""

import sys
import time
from collections.abc import Callable, Mapping
from os.path import dirname, isdir, join
from typing import Any

from twisted.application.service import Service
from twisted.internet import reactor as twisted_reactor
from twisted.internet.defer import Deferred
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver

from meshdns import defaults, names
from meshdns.agent.answering import prepare
from meshdns.agent.config import AgentConfig, load
from meshdns.agent.service import AgentService
from meshdns.clusters import Cluster as ClusterSection
from meshdns.control import model
from meshdns.control.config import load as load_control
from meshdns.control.leases import MemoryLeases, SqliteLeases, StoreProblem
from meshdns.control.mesh import Mesh
from meshdns.control.service import ControlService
from meshdns.control.sources.files import Files
from meshdns.control.vips import Ranges
from meshdns.net.trust import TrustProblem
from meshdns.settings import Invalid
from meshdns.table import Table
from meshdns.values import parse_network

_log = Logger()


def run_both(control: str, agent: str) -> str:
    """Run a control plane and an agent with these configurations in this process, until a signal; why not, "" when all was
    well."""
    reactor: Any = twisted_reactor
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    prepare(reactor)
    try:
        services: list[Service] = [
            ControlService(control, load_control(control), reactor),
            AgentService(agent, load(agent), reactor, Manifests),
        ]
    except Invalid as invalid:
        return f"the configuration cannot be used:\n{invalid}"
    except (TrustProblem, StoreProblem) as problem:
        return f"it cannot start: {problem}"
    for service in services:
        service.privilegedStartService()
    for service in services:
        service.startService()
        reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return ""


class Manifests:
    """The table source for `table.manifests`."""

    def __init__(self, config: AgentConfig, adopt: Callable[[Table], None], reactor: Any) -> None:
        self.updates = 0
        self.failures = 0
        self.last_change: float | None = None
        self._held: Table | None = None
        self._adopt = adopt
        self._reactor = reactor
        where = config.workload
        self._leases = _leases(config, reactor)
        paths = _clusters(config)
        clusters = [model.Cluster(each.name, each.network, names.text(each.domain)) for each in paths]
        own = next((each for each in clusters if each.name == where.cluster), clusters[0])
        network = where.network or own.network
        self._workload = model.Workload(where.cluster or own.name, network, where.namespace)
        ranges = Ranges(parse_network(defaults.VIPS_IPV4), parse_network(defaults.VIPS_IPV6))  # type: ignore[arg-type]
        self._mesh = Mesh(
            clusters, ("*",), defaults.ROOT_NAMESPACE, ranges, self._leases, reactor, time.time, self._changed
        )
        self._sources = [Files(each.name, several, self._mesh.update, reactor) for each, several in paths.items()]
        for source, cluster in zip(self._sources, clusters, strict=True):
            self._mesh.sources[cluster.name] = source

    # from the agent

    def start(self) -> None:
        for source in self._sources:
            source.start()

    def stop(self) -> None:
        for source in self._sources:
            source.stop()
        self._mesh.stop()
        Deferred.fromCoroutine(self._leases.close())

    @property
    def confirmed(self) -> float | None:
        return self._reactor.seconds() if self.last_change is not None else None

    @property
    def polls(self) -> Mapping[str, int]:
        """Nobody is polled."""
        return {}

    @property
    def trouble(self) -> str:
        """What is wrong with the manifests, if something is."""
        problems = self._mesh.problems
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return f"{problems[0]}{more}" if problems else ""

    # from the mesh

    def _changed(self) -> None:
        view = self._mesh.view(self._workload)
        assert view is not None  # the mesh is ready when it says that it has changed
        self.updates += 1
        self.last_change = self._reactor.seconds()
        _log.info(
            "the mesh as {namespace} of {cluster} sees it: {hosts} hosts, generation {generation}",
            namespace=self._workload.namespace,
            cluster=self._workload.cluster,
            hosts=view.hosts,
            generation=view.generation,
        )
        self._held = view.table(self._held)
        self._adopt(self._held)


def _clusters(config: AgentConfig) -> dict[ClusterSection, list[str]]:
    """The clusters and their paths; paths without a cluster are those of the workload's own."""
    where = config.workload
    own = ClusterSection(name=where.cluster or "local", network=where.network, domain=where.cluster_domain)
    found: dict[ClusterSection, list[str]] = {}
    for each in config.table.manifests or ():
        if isinstance(each, str):
            found.setdefault(own, []).append(each)
        else:
            assert each.manifests is not None  # `clusters` takes nothing else yet
            found[each] = [each.manifests]
    return found


def _leases(config: AgentConfig, reactor: Any) -> SqliteLeases | MemoryLeases:
    """VIPs are remembered beside the snapshot, else where a control plane remembers them."""
    folder = dirname(config.table.snapshot or defaults.VIPS_STORE)
    if config.table.snapshot or isdir(folder):
        try:
            return SqliteLeases(join(folder, "vips.sqlite"), reactor.callFromThread)
        except StoreProblem as problem:
            _log.error("VIPs are not remembered beyond this process: {problem}", problem=str(problem))
    else:
        told = "VIPs are not remembered beyond this process: make {folder}, or name a file in table.snapshot"
        _log.warn(told, folder=folder)
    return MemoryLeases()
