"""Inside: the World as one workload may see it, as a name table; and what changed in it since a generation that it knows.

A World, its VIPs and what changed enter; a `View` leaves for each workload, with its lines and its deltas (contract section
2.1). What all may see is worked out once for each place; a namespace that sees more or less has no more than the difference of its
own. A generation is kept up to date host by host. It must never know who polls, nor when.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

import attrs

from meshdns.control.answer import Where, fields
from meshdns.control.model import Changes, Workload, World
from meshdns.control.offers import EVERYBODY
from meshdns.control.visibility import Scope
from meshdns.defaults import TABLE_TTL, VIEW_GENERATIONS
from meshdns.entries import BadTable, Entry, total_text, weigh, weigh_head, weighed
from meshdns.splitdict import SplitDict
from meshdns.table import Table, delta_lines, whole_lines

Vips = Mapping[str, tuple[str, ...]]


@attrs.define(eq=False)
class View:
    """A table as it is kept up to date. Over `below`, which others share, lies what is different here: an entry, or None for a
    host that is not seen."""

    scope: Scope
    where: Where
    below: "View | None"
    zones: tuple[str, ...]
    own: dict[str, Entry | None] = attrs.field(factory=dict)
    hosts: int = 0
    generation: str = attrs.field(default="", init=False)
    _total: int = 0  # of the weights of the entries
    _past: dict[str, int] = attrs.field(factory=dict)  # generation -> how many changes had been made
    _changed: list[Mapping[str, bool]] = attrs.field(
        factory=list
    )  # the last of them: hosts, and whether each was there before
    _made: int = 0  # changes in all

    def __attrs_post_init__(self) -> None:
        self._weigh()

    def _weigh(self) -> None:
        self.generation = total_text(self._total + weigh_head(self.zones, TABLE_TTL))

    def entry(self, host: str) -> Entry | None:
        """What a host answers here."""
        if host in self.own or self.below is None:
            return self.own.get(host)
        return self.below.entry(host)

    def entries(self) -> Iterator[Entry]:
        """All entries, by host."""
        names = self.own.keys() if self.below is None else self.own.keys() | self.below.own.keys()
        return (entry for host in sorted(names) if (entry := self.entry(host)) is not None)

    def lines(self) -> Iterator[str]:
        """The whole table, line by line."""
        return whole_lines(self.generation, self.hosts, self.zones, TABLE_TTL, self.entries())

    def delta(self, base: str) -> Iterator[str] | None:
        """The lines of what changed since a generation; None where that is not known any more."""
        had = self._since(base)
        if had is None:
            return None
        rows = [(host, entry) for host in sorted(had) if (entry := self.entry(host)) is not None or had[host]]
        return delta_lines(base, self.generation, self.hosts, self.zones, TABLE_TTL, rows)

    def table(self, held: Table | None) -> Table:
        """The whole table, for one who is in this process; as a delta of the one held, where its generation is known."""
        had = self._since(held.generation) if held else None
        if held is None or had is None:
            entries = SplitDict((entry.host, entry) for entry in self.entries())
            return Table(entries, self.zones, TABLE_TTL, self.generation)
        entries = held.entries.copy()
        for host in had:
            entry = self.entry(host)
            if entry is None:
                entries.pop(host, None)
            else:
                entries[host] = entry
        return Table(entries, self.zones, TABLE_TTL, self.generation, held.generation, had.keys())

    def _since(self, base: str) -> Mapping[str, bool] | None:
        """The hosts that changed since a generation, and whether each was there then."""
        if base not in self._past:
            return None
        had: dict[str, bool] = {}
        for changed in self._changed[len(self._changed) - (self._made - self._past[base]) :]:
            had = {**changed, **had}  # what was there at the base, not in between
        return had

    # from Views

    def change(self, became: "Became") -> None:
        """Hosts answer otherwise now."""
        self._past.setdefault(self.generation, self._made)
        self._total += became.weight
        self._weigh()
        self.hosts += became.count
        self._changed.append({host: had for host, (_, _, had) in became.hosts.items()})
        self._made += 1
        if len(self._changed) > VIEW_GENERATIONS:
            del self._changed[0]
        oldest = self._made - len(self._changed)
        self._past = {base: made for base, made in self._past.items() if made >= oldest}
        self._past[self.generation] = self._made  # two changes may lead back to where one was

    def begin_as(self, below: "View") -> None:
        """It has seen all that the view below has: who comes from there knows its generations."""
        self.hosts, self._total, self._made = below.hosts, below._total, below._made
        self._past, self._changed = dict(below._past), list(below._changed)
        self._weigh()


@attrs.frozen
class Became:
    """Hosts that answer otherwise: what each adds to the sum of weights and to the number of hosts, and whether it was there
    before; and the sums of all."""

    hosts: Mapping[str, tuple[int, int, bool]]
    weight: int
    count: int

    @classmethod
    def of(cls, rows: Iterable[tuple[str, Entry | None, Entry | None]]) -> "Became":
        """Of (host, as it answered, as it answers) those that differ."""
        return cls.sum(
            {
                host: (
                    (weigh(new.line) if new else 0) - (weigh(old.line) if old else 0),
                    (new is not None) - (old is not None),
                    old is not None,
                )
                for host, old, new in rows
                if new != old
            }
        )

    @classmethod
    def sum(cls, hosts: Mapping[str, tuple[int, int, bool]]) -> "Became":
        return cls(hosts, sum(each[0] for each in hosts.values()), sum(each[1] for each in hosts.values()))

    def over(self, below: "Became", apart: Collection[str]) -> "Became":
        """This, and what became of the hosts below that are not `apart`."""
        if not self.hosts and below.hosts.keys().isdisjoint(apart):
            return below
        return Became.sum({host: each for host, each in below.hosts.items() if host not in apart} | dict(self.hosts))


class Views:
    """The views of all workloads, made when they are first asked for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._vips: Vips = {}
        self._whole: dict[Where, View] = {}  # what everybody may see from there
        self._views: dict[tuple[Where, Scope], View] = {}
        self._used: set[tuple[Where, Scope]] = set()  # of them, since scopes changed last
        self._private: dict[str, set[str]] = {}  # namespace -> hosts that it sees and not everybody
        self._seers: dict[str, frozenset[str]] = {}  # host -> those namespaces
        self._scopes: dict[Workload, Scope] = {}

    # from the root

    def adopt(self, changes: Changes, vips: Vips) -> None:
        """The World has changed so; these are its VIPs now."""
        hosts = changes.hosts | {
            host for host in vips.keys() | self._vips.keys() if vips.get(host) != self._vips.get(host)
        }
        self._vips = vips
        for host in hosts:
            self._index(host)
        if changes.scopes:
            self._rescope()
        before = {
            view: [(host, view.entry(host)) for host in self._touched(view, hosts)] for view in self._views.values()
        }
        became = {where: self._change_whole(view, hosts) for where, view in self._whole.items()}
        for (where, _), view in self._views.items():
            self._change_part(view, before[view], became[where])

    def _change_whole(self, view: View, hosts: Iterable[str]) -> Became:
        old = [(host, view.own.get(host)) for host in hosts]
        for host, _ in old:
            _lay(view, host, self._answer(view, host))
        became = Became.of((host, was, view.own.get(host)) for host, was in old)
        if became.hosts:
            view.change(became)
        return became

    def _touched(self, view: View, hosts: Iterable[str]) -> list[str]:
        """Of the hosts those that a view may answer otherwise than the one below: all, or a few."""
        if view.scope.narrows:
            return list(hosts)
        private = self._private.get(view.scope.namespace) or set()
        return [host for host in hosts if host in view.own or host in private]

    def _change_part(self, view: View, before: list[tuple[str, Entry | None]], below: Became) -> None:
        """As the view below became, but for the hosts that are looked at here."""
        apart = {host for host, _ in before}
        for host in apart:
            self._overlay(view, host)
        became = Became.of((host, was, view.entry(host)) for host, was in before).over(below, apart)
        if became.hosts:
            view.change(became)

    def view(self, workload: Workload) -> View:
        """The view of a workload; the same one for all who see the same."""
        scope = self._scope(workload)
        where = Where(workload.cluster, workload.network)
        whole = self._whole.get(where)
        if whole is None:
            whole = self._whole[where] = self._make(Scope(EVERYBODY), where, None, self._world.offers)
        if not scope.narrows and not self._private.get(scope.namespace):
            return whole
        view = self._views.get((where, scope))
        if view is None:
            hosts = self._world.offers if scope.narrows else self._private[scope.namespace]
            view = self._views[where, scope] = self._make(scope, where, whole, hosts)
        self._used.add((where, scope))
        return view

    def scope(self, workload: Workload) -> Scope:
        """On what it depends what a workload sees."""
        return self._scope(workload)

    def _scope(self, workload: Workload) -> Scope:
        scope = self._scopes.get(workload)
        if scope is None:
            scope = self._scopes[workload] = Scope(workload.namespace, self._world.sidecar(workload))
        return scope

    # Making

    def _all(self) -> Iterator[View]:
        yield from self._whole.values()
        yield from self._views.values()

    def _index(self, host: str) -> None:
        """Which namespaces see a host that not everybody sees."""
        seers = frozenset(each for offer in self._world.offers.get(host, ()) for each in offer.export_to) - {EVERYBODY}
        for namespace in self._seers.get(host, frozenset()) - seers:
            self._private[namespace].discard(host)
        for namespace in seers:
            self._private.setdefault(namespace, set()).add(host)
        if seers:
            self._seers[host] = seers
        else:
            self._seers.pop(host, None)

    def _rescope(self) -> None:
        """Sidecars, labels or zones may be others."""
        self._scopes.clear()
        zones = self._world.zones
        if any(view.zones != zones for view in self._all()):
            self._whole.clear()
            self._views.clear()
        self._views = {key: view for key, view in self._views.items() if key in self._used}
        self._used.clear()

    def _make(self, scope: Scope, where: Where, below: View | None, hosts: Iterable[str]) -> View:
        view = View(scope, where, below, self._world.zones)
        if below is not None:
            view.begin_as(below)
        for host in hosts:
            self._overlay(view, host)
        rows = ((host, below.entry(host) if below else None, view.entry(host)) for host in hosts)
        view.change(Became.of(rows))
        return view

    def _overlay(self, view: View, host: str) -> None:
        """What a host answers in a view, laid over what it answers below."""
        entry = self._answer(view, host)
        if view.below is not None and view.below.entry(host) == entry:
            view.own.pop(host, None)
        else:
            _lay(view, host, entry)

    def _answer(self, view: View, host: str) -> Entry | None:
        seen = view.scope.sees(self._world.offers.get(host, ()))
        found = fields(seen, view.where, self._vips.get(host, ()))
        if found is None:
            return None
        try:
            return weighed(found)[0]
        except BadTable:  # more than a table takes: 4,096 addresses
            return None


def _lay(view: View, host: str, entry: Entry | None) -> None:
    if entry is None and view.below is None:
        view.own.pop(host, None)
    else:
        view.own[host] = entry
