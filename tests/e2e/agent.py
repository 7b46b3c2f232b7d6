"""A real agent, `twistd meshdns`, in a process of its own: started, asked, told signals, and always ended."""

import json
import re
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

from tests.e2e.stage import HERE, PATIENCE, ROOT, WAIT, Command, DnsServer, Place, Stage, end, free_port, twistd, until

SEARCH = ("ns1.svc.cluster.local", "svc.cluster.local", "cluster.local")
EXAMPLE_TABLE = (ROOT / "examples" / "nametable.jsonl").read_bytes()
EXAMPLE_HOSTS: list[dict[str, Any]] = [json.loads(line) for line in EXAMPLE_TABLE.splitlines()[1:]]
SERVICE = "productpage.ns1.svc.cluster.local"  # a host of the example table, at SERVICE_ADDRESS
SERVICE_ADDRESS = "10.4.0.5"


def table(hosts: Iterable[dict[str, Any]], zones: Sequence[str] = ("cluster.local",)) -> bytes:
    """A hand-written table file."""
    lines = [{"nametable": 1, "zones": list(zones), "ttl": 30}, *hosts]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def settings(port: int, servers: Sequence[str], **sections: Any) -> str:
    """A configuration for one UDP and TCP port of 127.0.0.1.

    `sections` replace or add top-level keys; None leaves one out.
    """
    keys = {
        "workload": {"namespace": "ns1"},
        "listen": [f"127.0.0.1:{port}"],
        "search": SEARCH,
        "table": {"file": "table.jsonl"},
        "upstream": {"servers": servers},
        "status": "off",
        **sections,
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items() if value is not None)


@attrs.define
class Agent(DnsServer):
    """A running agent, its configuration and its table."""

    config: Path = Path()
    table: Path = Path()

    @classmethod
    def start(
        cls,
        stage: Stage,
        *,
        servers: Sequence[str] = (),
        table: bytes = EXAMPLE_TABLE,
        port: int | None = None,
        words: Command = (),
        place: Place = HERE,
        **sections: Any,
    ) -> "Agent":
        """Starts one and waits for its first answer. `words` stand before `meshdns` on the command line.

        Without `servers` there is nobody behind it: its upstream is a port that nothing listens on.
        """
        port = port or free_port(place)
        config = stage.folder / "agent.yaml"
        config.write_text(settings(port, servers or ["127.0.0.1:9"], **sections))
        (stage.folder / "table.jsonl").write_bytes(table)
        log = stage.folder / "agent.log"
        process = stage.start([*place.prefix, *command(config, *words)], log)
        agent = cls(port, process, log, place, config, stage.folder / "table.jsonl")
        agent.await_answer("version.bind", "TXT", "CH")  # no upstream hears of it
        return agent

    def hang_up(self, config: str | None = None) -> None:
        """SIGHUP, after the configuration was replaced."""
        if config is not None:
            replace(self.config, config.encode())
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        """SIGTERM -> the exit status."""
        return end(self.process)

    def ended_well(self, patience: float = WAIT, signal_sent: int = signal.SIGTERM) -> bool:
        """Whether it ends soon, of the signal and in order: twistd puts all down, then lets the signal have its way."""
        return self.process.wait(timeout=patience) == -signal_sent and not self.complaints()

    def lines(self, pattern: str = "") -> list[str]:
        """The lines of the log that a pattern is found in."""
        return [line for line in self.log.read_text().splitlines() if re.search(pattern, line)]

    def await_line(self, pattern: str, count: int = 1) -> str:
        """The last of `count` lines of the log, waited for."""
        found: list[str] = until(
            f"{count} lines with {pattern!r}",
            lambda: len(self.lines(pattern)) >= count and self.lines(pattern),
            self.process,
            self.log,
        )
        return found[-1]

    def await_true(self, what: str, look: Callable[[], Any], patience: float = PATIENCE) -> Any:
        """The first true value of `look`, as long as the agent lives."""
        return until(what, look, self.process, self.log, patience)

    def complaints(self) -> list[str]:
        """Lines of the log that no agent may ever write."""
        return self.lines(r"Traceback|Unhandled|Error:|please report|#critical")


def command(config: Path, *words: str | Path) -> list[str | Path]:
    """The command line of an agent in the foreground."""
    return [*twistd(), "--nodaemon", "--pidfile=", *words, "meshdns", "--config", config]


def replace(file: Path, content: bytes) -> None:
    """New content under an old name, at once, as editors and ConfigMaps do it."""
    new = file.with_name(f"{file.name}.new")
    new.write_bytes(content)
    new.replace(file)
