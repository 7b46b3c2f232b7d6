"""Inside: the search list, walked on the client's behalf (rule D8).

A name that an application's resolver made by appending a search domain enters; out come the names that the client would try,
and what the table says of each: a host, nothing, or that only an upstream can tell. The `Authority` answers for mesh names;
this module never asks anybody else.
"""

from collections.abc import Sequence

import attrs

from meshdns import names
from meshdns.agent.authority import Authority, Found


@attrs.frozen
class Step:
    """One name that the client would try, and what the table says of it: `host`, `absent` or `upstream` decides."""

    name: bytes
    verdict: str
    found: Found | None = None


@attrs.frozen
class Walk:
    """The steps to go, in the client's order, up to the first that exists in the mesh."""

    bare: bytes  # X: the name without the search domain
    domain: bytes  # Si: the search domain that was appended
    steps: tuple[Step, ...]

    @property
    def found(self) -> Found | None:
        """Where the walk ends, if the table alone tells that."""
        return None if self.undecided else self.steps[-1].found

    @property
    def undecided(self) -> bool:
        """Whether an upstream must be asked about a step before the end is known."""
        return any(step.verdict == "upstream" for step in self.steps)


class Search:
    """One search list."""

    def __init__(self, domains: Sequence[bytes]) -> None:
        """`domains` in the client's order; the root appends nothing and is passed over."""
        self.domains = tuple(domain for domain in domains if domain != names.ROOT)

    def candidates(self, name: bytes) -> tuple[bytes, int] | None:
        """X and i for a name X.Si, with the longest Si that fits (rule D8); None for a name without search domain."""
        best: tuple[bytes, int] | None = None
        if not name.endswith(self.domains):  # as bytes: most names end in none of them, which is told at once
            return None
        for i, domain in enumerate(self.domains):
            front = names.strip(name, domain)
            if front and (best is None or len(domain) > len(self.domains[best[1]])):
                best = front + names.ROOT, i
        return best

    def walk(self, name: bytes, authority: Authority) -> Walk | None:
        """X.Si, X.Si+1 … X.Sn, then X, up to the first that exists in the mesh."""
        expanded = self.candidates(name)
        if expanded is None:
            return None
        bare, i = expanded
        domain = self.domains[i]
        # Nobody owns "….cluster.local.corp.example.com", so a whole mesh name needs no look at what comes before it.
        whole = authority.zone_of(bare) and authority.locate(bare)
        if whole:
            return Walk(bare, domain, (Step(bare, "host", whole),))
        passed = {names.join(bare[:-1], earlier) for earlier in self.domains[:i]}
        steps: list[Step] = []
        for candidate in self._order(bare, i):
            found = authority.locate(candidate)
            # Who asks X.Si has passed X.S1 … X.Si-1 or does not want them. X as a short form of one of these would make
            # every SERVICE.svc.ZONE exist, which the Kubernetes specification says does not.
            if found and not (candidate is bare and found.canonical in passed):
                steps.append(Step(candidate, "host", found))
                break
            steps.append(Step(candidate, "absent" if authority.zone_of(candidate) else "upstream"))
        return Walk(bare, domain, tuple(steps))

    def _order(self, bare: bytes, i: int) -> list[bytes]:
        """X.Si … X.Sn, then X; what would be too long for a name is no step."""
        full = (names.join(bare[:-1], domain) for domain in self.domains[i:])
        return [name for name in full if name] + [bare]
