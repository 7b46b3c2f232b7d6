"""An agent in the test's own process, doors and status page open, and `meshdns` run on it as people run it."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from meshdns.agent.access import Access
from meshdns.agent.answering import open_doors
from meshdns.agent.batch import Batch
from meshdns.agent.ledger import Ledger
from meshdns.agent.linger import Linger
from meshdns.agent.status import Facts, StatusPage
from tests.agent.looking import facts_of
from tests.agent.mesh import HOSTS, SEARCH, Mesh
from tests.agent.test_doors import free_port

ROOT = Path(__file__).resolve().parents[2]
_COMMAND = "import sys; from meshdns.cli import main; sys.exit(main())"


class LivingTests(TestCase):
    """`self.mesh` answers at `self.port`; its status page is open, too."""

    hosts: list[dict[str, Any]] | None = HOSTS

    def setUp(self) -> None:
        self.mesh = Mesh(hosts=self.hosts)
        self.mesh.clock.advance(112)
        resolver = self.mesh.resolver
        self.ledger = Ledger(resolver.packs.datagrams)
        access = Access(("loopback",), time.monotonic)
        self.doors = open_doors(
            resolver, access, self.ledger, reactor, clock=self.mesh.clock.seconds, batch=Batch(), linger=Linger(reactor)
        )
        self.port = free_port()
        self.doors.listen([("127.0.0.1", self.port)])
        self.addCleanup(lambda: Deferred.fromCoroutine(self.doors.close()))
        self.page = StatusPage(self.make_facts(), reactor)
        self.page.listen(("127.0.0.1", 0))
        self.addCleanup(lambda: Deferred.fromCoroutine(self.page.close()))
        self.config = self.configure()

    def make_facts(self, **changes: Any) -> Facts:
        return facts_of(self.mesh, **{"ledger": self.ledger, "clock": self.mesh.clock.seconds, **changes})

    def configure(self, **sections: Any) -> str:
        """A configuration file for this agent; `sections` replace or add top-level keys."""
        keys = {
            "workload": {"namespace": "ns1"},
            "listen": [f"127.0.0.1:{self.port}"],
            "search": list(SEARCH),
            "table": {"file": "table.jsonl"},
            "status": f"127.0.0.1:{self.page.port}",
            **sections,
        }
        path = self.mktemp()
        with open(path, "w") as file:
            file.writelines(f"{key}: {json.dumps(value)}\n" for key, value in keys.items())
        return os.path.abspath(path)

    async def meshdns(self, *words: str, config: str | None = None, **variables: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command in a process of its own."""
        all_words = ["-c", _COMMAND, *words, "--config", config or self.config]
        environment = {**os.environ, **variables}
        out, err, code = await getProcessOutputAndValue(sys.executable, all_words, environment, str(ROOT))
        return code, out.decode(), err.decode()

    async def json(self, *words: str, code: int = 0) -> Any:
        """What a command prints with --json; everything else must be silent."""
        found, out, err = await self.meshdns(*words, "--json")
        self.assertEqual((found, err), (code, ""))
        return json.loads(out)
