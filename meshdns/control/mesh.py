"""Outside: from what sources read to what workloads may see: the World, its VIPs and its views, made anew after changes.

Updates of sources enter; views leave, and `changed` is called when there are others. A change waits until sources have been
quiet for a moment, and none waits long (rule X8). A VIP is stored before anybody sees it (rule C5): while the store cannot be
written, what has a VIP keeps it and nothing new gets one. It must never know of files, HTTP or who asks.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from meshdns.control.model import SOURCE, Cluster, Demand, Problem, Update, Workload
from meshdns.control.registry import Registry
from meshdns.control.views import View, Views
from meshdns.control.vips import Lease, Plan, Ranges, plan, standing
from meshdns.defaults import DEBOUNCE_MOST, DEBOUNCE_QUIET, LEASES_RETRY

_log = Logger()


class Source(Protocol):
    """Where one cluster's objects come from."""

    @property
    def synced(self) -> bool: ...
    @property
    def problems(self) -> Sequence[Problem]: ...
    @property
    def counted(self) -> Mapping[str, int]: ...


class Leases(Protocol):
    """Where VIPs are remembered; `update` raises an exception whose text says what to do, nothing written."""

    async def update(self, decide: Callable[[Mapping[str, Lease]], Plan]) -> Plan: ...


class Mesh:
    """One control plane's knowledge. Sources are added before it starts."""

    def __init__(
        self, clusters: Sequence[Cluster], export_to: Sequence[str], root_namespace: str, ranges: Ranges, leases: Leases,
        clock: IReactorTime, wall: Callable[[], float], changed: Callable[[], None],
    ) -> None:  # fmt: skip
        """`wall` gives seconds of the wall clock, for leases outlive processes."""
        self.registry = Registry(clusters, export_to, root_namespace)
        self.views = Views(self.registry)
        self.vips: Mapping[str, tuple[str, ...]] = {}
        self.sources: dict[str, Source] = {}  # by cluster
        self.ready = False  # whether every source and the store have been read once, and tables are made
        self._ranges = ranges
        self._leases = leases
        self._clock = clock
        self._wall = wall
        self._changed = changed
        self._first = 0.0  # when the oldest change came that nobody has seen
        self._call: IDelayedCall | None = None
        self._making = False
        self._again = False
        self._met: Demand | None = None  # what the VIPs of now were made for
        self._problems: tuple[Problem, ...] = ()
        self._trouble = ""
        self._read = False  # whether the store has been, once

    # from the sources

    def update(self, update: Update) -> None:
        """Objects came, changed or went; or a source has been read once."""
        self.registry.update(update)
        now = self._clock.seconds()
        if self._call is None:
            self._first = now
            self._call = self._clock.callLater(DEBOUNCE_QUIET, self._make)
        else:
            self._call.reset(max(0.0, min(DEBOUNCE_QUIET, self._first + DEBOUNCE_MOST - now)))

    # from the root

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    # from the long poll and the status page

    def view(self, workload: Workload) -> View | None:
        """What a workload may see; None before every source has been read once."""
        return self.views.view(workload) if self.ready else None

    @property
    def synced(self) -> dict[str, bool]:
        """Whether each cluster's source has been read once."""
        return {cluster: source.synced for cluster, source in self.sources.items()}

    @property
    def problems(self) -> list[Problem]:
        """All that is wrong now."""
        found = [problem for source in self.sources.values() for problem in source.problems]
        found += self._problems
        if self._trouble:
            found.append(Problem(SOURCE, "", "", 0, "lease store", self._trouble))
        return found

    # Making

    def _make(self) -> None:
        self._call = None
        if not all(source.synced for source in self.sources.values()):
            return  # nobody gets a half-read mesh; the last source to be read says so
        if self._making:
            self._again = True
            return
        self._making = True
        Deferred.fromCoroutine(self._made()).addErrback(
            lambda failure: _log.failure("please report this bug: tables are not made", failure)
        )

    async def _made(self) -> None:
        try:
            changes = self.registry.take()
            vips = await self._find_vips()
            if not changes and vips == self.vips and self.ready:
                return
            self.vips = vips
            self.views.adopt(changes, vips)
            self.ready = self.ready or self._read or not self.registry.demand.wanted
            if self.ready:
                self._changed()
        finally:
            self._making = False
            if self._again:
                self._again = False
                self._make()

    async def _find_vips(self) -> Mapping[str, tuple[str, ...]]:
        demand, now = self.registry.demand, self._wall()
        if demand is self._met:
            return self.vips
        self._met = None
        try:
            made = await self._leases.update(lambda held: plan(demand.wanted, demand.claimed, held, self._ranges, now))
        except Exception as error:
            self._fail(str(error))
            return await self._standing(demand)
        self._read = True
        if self._trouble:
            _log.info("the lease store can be used again")
            self._trouble = ""
        self._problems = made.problems
        self._met = None if made.problems else demand  # what is full now may have room later
        return made.vips

    async def _standing(self, demand: Demand) -> Mapping[str, tuple[str, ...]]:
        """What can be had of a store without writing into it; of one that cannot even be read, what is known of it."""
        now = self._wall()
        try:
            made = await self._leases.update(
                lambda held: standing(plan(demand.wanted, demand.claimed, held, self._ranges, now))
            )
        except Exception:
            return {
                host: pair
                for host, pair in self.vips.items()
                if host in demand.wanted and all(host in demand.claimed.get(each, (host,)) for each in pair)
            }
        self._read = True
        return made.vips

    def _fail(self, why: str) -> None:
        if why != self._trouble:
            _log.error("no VIP is given to new hosts: {why}", why=why)
        self._trouble = why
        if self._call is None:
            self._first = self._clock.seconds()
            self._call = self._clock.callLater(LEASES_RETRY, self._make)
