"""Outside: the control plane's status page.

`Facts` enter, the pages that `pages.py` makes of them go out. It reads and never writes: no request changes anything.
"""

from typing import TYPE_CHECKING, Any

from meshdns.control.pages import Facts, find, measures
from meshdns.net import statuspage

if TYPE_CHECKING:
    from meshdns.net.site import Site

__all__ = ["Facts", "StatusPage"]


class StatusPage(statuspage.StatusPage):
    """The status page of a control plane. `facts` may be replaced at any time."""

    def __init__(self, facts: Facts, reactor: Any) -> None:
        super().__init__(self._load, reactor)
        self.facts = facts

    def _load(self) -> "Site":
        from meshdns.net.statussite import status_site

        return status_site(
            lambda asked, metrics: find(self.facts, asked, metrics), lambda: measures(self.facts), self._reactor
        )
