"""Inside: which servers a name is asked of (rule D23): those of the longest domain that it lies in, else those for all.

Groups of servers enter, each an upstream side of its own, and names; the group to ask leaves. It must never know what is
behind a group, nor how its servers are asked.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from meshdns import names
from meshdns.agent.attempts import Sole
from meshdns.agent.servers import Options
from meshdns.agent.steps import Result
from meshdns.values import Server
from meshdns.wire import Ask


class Group(Protocol):
    """One set of servers, as Upstream has them."""

    def ask(self, ask: Ask, done: Callable[[Result], None]) -> None: ...
    def ask_alone(self, sole: Sole, now: float) -> bool: ...
    def replace(self, servers: Sequence[Server], options: Options, others: int = 0) -> None: ...
    def is_own_probe(self, name: bytes) -> bool: ...
    def status(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def inflight(self) -> int: ...
    @property
    def joined(self) -> int: ...
    @property
    def shed(self) -> int: ...
    @property
    def dropped(self) -> Mapping[str, int]: ...


def asked_for(servers: Sequence[Mapping[str, Any]], name: bytes) -> list[Mapping[str, Any]]:
    """Of the servers as `Routes.status` has them those that a lower-case wire name is asked of."""
    domains = {domain for server in servers for domain in server.get("domains", ())}
    own = next((suffix for suffix in map(names.text, names.suffixes(name)) if suffix in domains), None)
    return [server for server in servers if (own in server["domains"] if own else not server.get("domains"))]


G = TypeVar("G", bound=Group)


class Routes(Generic[G]):
    """All groups: `main` for names of no domain, and those of `upstream.domains`. `open_group` makes one more.

    Domains with the same servers share a group. A group that no domain needs any more stays, without servers, for the
    next one: what is under way there ends as usual.
    """

    def __init__(self, open_group: Callable[[], G]) -> None:
        self._open_group = open_group
        self.main = open_group()
        self.groups: list[G] = [self.main]
        self._domains: dict[bytes, G] = {}  # by domain
        self._servers: dict[int, tuple[Server, ...]] = {}  # of the groups beside `main`, by their place in `groups`

    # from the root

    def replace(self, servers: Sequence[Server], domains: Mapping[bytes, Sequence[Server]], options: Options) -> None:
        """Other servers, domains or options. A group with the same servers goes on with what it knows of them."""
        wanted = list(dict.fromkeys(tuple(group) for group in domains.values()))
        places = {held: place for place, held in self._servers.items() if held in wanted}
        spare = [place for place in self._servers if place not in places.values()]
        for each in wanted:
            if each not in places:
                places[each] = spare.pop() if spare else self._add()
        self._servers = {place: each for each, place in places.items()} | dict.fromkeys(spare, ())
        count = len(servers) + sum(map(len, wanted))
        self.main.replace(servers, options, count - len(servers))
        for place, each in self._servers.items():
            self.groups[place].replace(each, options, count - len(each))
        self._domains = {domain: self.groups[places[tuple(each)]] for domain, each in domains.items()}

    def _add(self) -> int:
        self.groups.append(self._open_group())
        return len(self.groups) - 1

    # from the resolver

    def ask(self, ask: Ask, done: Callable[[Result], None]) -> None:
        """Ask the servers that the question's name belongs to."""
        group = self.choose(ask.question[:-4]) if self._domains else self.main
        group.ask(ask, done)

    def ask_alone(self, sole: Sole, now: float) -> bool:
        """As `ask`, by the short way: whether it could be asked so."""
        group = self.choose(sole.ask.question[:-4]) if self._domains else self.main
        return group.ask_alone(sole, now)

    def choose(self, name: bytes) -> G:
        """The group for a lower-case wire name."""
        domains = self._domains
        for suffix in names.suffixes(name):
            if suffix in domains:
                return domains[suffix]
        return self.main

    def is_own_probe(self, name: bytes) -> bool:
        """Whether a lower-case wire name that a client asks for is a probe of any group."""
        return any(group.is_own_probe(name) for group in self.groups)

    # from the status page

    @property
    def inflight(self) -> int:
        return sum(group.inflight for group in self.groups)

    @property
    def joined(self) -> int:
        return sum(group.joined for group in self.groups)

    @property
    def shed(self) -> int:
        return sum(group.shed for group in self.groups)

    @property
    def dropped(self) -> dict[str, int]:
        """Messages that answered no question, by reason."""
        return dict(sum((Counter(group.dropped) for group in self.groups), Counter[str]()))

    def status(self) -> list[dict[str, Any]]:
        """The servers of all groups, those for all names first; `domains` are those that a server is for, [] for all."""
        found = [{**server, "domains": []} for server in self.main.status()]
        for group in self.groups[1:]:
            own = [names.text(domain) for domain, other in self._domains.items() if other is group]
            found += [{**server, "domains": own} for server in group.status()]
        return found
