"""Root: `twistd meshdns`: the agent's service. What only some configurations need is imported only for those."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.python import usage

from meshdns import __version__, defaults
from meshdns.agent.config import AgentConfig, load
from meshdns.settings import Invalid

if TYPE_CHECKING:  # importing these would import Twisted's TCP, see `small_reactor`
    from meshdns.agent.facts import TableSource
    from meshdns.agent.service import AgentService
    from meshdns.table import Table

__all__ = ["Options", "makeService"]


class Options(usage.Options):
    """The words behind `twistd meshdns`."""

    optParameters = [
        ["config", "c", defaults.CONFIG_FILE, "the agent's configuration, as docs/configuration.md has it"]
    ]
    longdesc = "The mesh's DNS proxy beside a workload: answers mesh names on the spot, relays everything else."

    def opt_version(self) -> None:
        """Print the version of meshdns and exit."""
        sys.stdout.write(f"meshdns {__version__}\n")
        raise SystemExit(0)

    def postOptions(self) -> None:
        try:
            self["loaded"] = load(self["config"])
        except Invalid as invalid:
            sys.stderr.write(f"meshdns: the configuration cannot be used:\n{invalid}\n")
            raise SystemExit(os.EX_CONFIG) from None


def makeService(options: Options) -> "AgentService":
    """The service for `twistd meshdns`."""
    reactor = small_reactor()
    from meshdns.agent.answering import prepare
    from meshdns.agent.service import AgentService
    from meshdns.net.trust import TrustProblem

    prepare(reactor)
    try:
        return AgentService(options["config"], options["loaded"], reactor, _open_manifests)
    except TrustProblem as problem:
        sys.stderr.write(f"meshdns cannot start: {problem}\n")
        raise SystemExit(1) from None


def small_reactor() -> Any:
    """Twisted's reactor, its TCP without the `startTLS` that it has where OpenSSL can be imported.

    Nobody here calls that: TLS is a protocol of its own above TCP (`twisted.protocols.tls`), which needs nothing of it. But it
    brings OpenSSL and cryptography into every process, 12 MB of the 60 that an agent had, and an agent that reads its
    table from a file and speaks no TLS has no other use for them. As long as `sys.modules` has None for a module its import fails
    (Python's import system), and Twisted, of which TLS is an extra, goes on without. From then on it can be imported again.
    """
    missing = sys.modules.get("OpenSSL") is None
    if missing:
        sys.modules["OpenSSL"] = None  # type: ignore[assignment]
    try:
        from twisted.internet import reactor
    finally:
        if missing:
            del sys.modules["OpenSSL"]
    return reactor


def _open_manifests(config: AgentConfig, adopt: "Callable[[Table], None]", reactor: Any) -> "TableSource":
    from meshdns.embedded import Manifests

    return Manifests(config, adopt, reactor)
