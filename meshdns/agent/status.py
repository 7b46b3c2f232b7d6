"""Outside: the agent's status page.

`Facts` enter, the pages that `pages.py` makes of them go out. It reads and never writes: no request changes anything.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from meshdns.agent.facts import Facts
from meshdns.net import statuspage

if TYPE_CHECKING:
    from meshdns.net.site import Site

__all__ = ["Facts", "StatusPage"]


class StatusPage(statuspage.StatusPage):
    """The status page of an agent. `facts` may be replaced at any time."""

    def __init__(self, facts: Facts, reactor: Any, refresh: Callable[[], Deferred[None] | None] = lambda: None) -> None:
        """`refresh` fetches the numbers of other processes, before a page that tells them; None: there are none."""
        super().__init__(self._load, reactor)
        self.facts = facts
        self._refresh = refresh

    def _load(self) -> "Site":
        from meshdns.agent.measures import measures
        from meshdns.agent.pages import COUNTED, find
        from meshdns.net.statussite import status_site

        return status_site(
            lambda asked, metrics: find(self.facts, asked, metrics),
            lambda: measures(self.facts),
            self._reactor,
            lambda asked: self._refresh() if asked.path in COUNTED else None,
        )
