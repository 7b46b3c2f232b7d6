"""Outside: the agent's status page.

`Facts` enter, the pages that `pages.py` makes of them go out. It reads and never writes: no request changes anything.
"""

from typing import Any

from meshdns.agent.facts import Facts
from meshdns.agent.measures import measures
from meshdns.agent.pages import find
from meshdns.net import statuspage
from meshdns.web import Asked, Page

__all__ = ["Facts", "StatusPage"]


class StatusPage(statuspage.StatusPage):
    """The status page of an agent. `facts` may be replaced at any time."""

    def __init__(self, facts: Facts, reactor: Any) -> None:
        super().__init__(self._find, lambda: measures(self.facts), reactor)
        self.facts = facts

    def _find(self, asked: Asked) -> Page:
        return find(self.facts, asked, self.metrics)
