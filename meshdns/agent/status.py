"""Outside: the agent's status page.

`Facts` enter, the pages that `pages.py` makes of them go out. It reads and never writes: no request changes anything.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from meshdns.agent.facts import Facts
from meshdns.agent.measures import measures
from meshdns.agent.pages import COUNTED, find
from meshdns.net import statuspage
from meshdns.web import Asked, Page

__all__ = ["Facts", "StatusPage"]


class StatusPage(statuspage.StatusPage):
    """The status page of an agent. `facts` may be replaced at any time."""

    def __init__(self, facts: Facts, reactor: Any, refresh: Callable[[], Deferred[None] | None] = lambda: None) -> None:
        """`refresh` fetches the numbers of other processes, before a page that tells them; None: there are none."""
        super().__init__(self._find, lambda: measures(self.facts), reactor, self._before)
        self.facts = facts
        self._refresh = refresh

    def _before(self, asked: Asked) -> Deferred[None] | None:
        return self._refresh() if asked.path in COUNTED else None

    def _find(self, asked: Asked) -> Page:
        return find(self.facts, asked, self.metrics)
