"""A real control plane, `twistd meshdns-control`, in a process of its own, with certificates, tokens and manifests."""

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import attrs

from tests.e2e.agent import Agent, command, settings
from tests.e2e.stage import HERE, ROOT, Command, Stage, end, free_port, twistd, until
from tests.pki import Authority, Issued

SAMPLES = ROOT / "meshdns" / "samples" / "mesh"
BOOKINFO = (SAMPLES / "east" / "bookinfo.yaml").read_text()


def spiffe(namespace: str, account: str = "default") -> str:
    return f"spiffe://cluster.local/ns/{namespace}/sa/{account}"


@attrs.define
class Grounds:
    """What control planes and agents of a test have in common: a folder with an authority, manifests and a lease store."""

    stage: Stage
    folder: Path
    root: Authority

    @classmethod
    def lay(cls, stage: Stage) -> "Grounds":
        folder = stage.folder / "control"
        shutil.copytree(SAMPLES, folder)
        return cls(stage, folder, Authority(folder, "root"))

    def vm(self, namespace: str) -> Issued:
        """The certificate of a workload."""
        return self.root.issue(f"vm-{namespace}", spiffe(namespace))

    def edit(self, old: str, new: str, file: str = "east/bookinfo.yaml") -> None:
        """Change a manifest as an editor that writes a new file."""
        path = self.folder / file
        text = path.read_text()
        assert old in text
        other = path.with_name(f".{path.name}.new")
        other.write_text(text.replace(old, new))
        other.replace(path)


@attrs.define
class Control:
    """One running control plane."""

    grounds: Grounds
    port: int
    status: int
    config: Path
    log: Path
    process: subprocess.Popen[bytes]
    prefix: Command = ()

    @classmethod
    def start(
        cls, grounds: Grounds, name: str = "one", port: int = 0, status: int = 0, prefix: Command = (), **sections: Any
    ) -> "Control":
        """Starts one and waits until it is ready. `prefix` stands before its command line."""
        port, status = port or free_port(), status or free_port()
        served = grounds.root.issue(f"server-{name}", "localhost", "127.0.0.1") if "tls" not in sections else None
        keys: dict[str, Any] = {
            "listen": [f"127.0.0.1:{port}"],
            "tls": served and {"certificate": served.pem.name, "key": served.key.name, "client_ca": "root.pem"},
            "tokens": "tokens.yaml",
            "clusters": [
                {"name": "east", "network": "east-net", "manifests": "east/"},
                {"name": "west", "network": "west-net", "manifests": "west/"},
            ],
            "vips": {"store": "sqlite:vips.sqlite"},
            "status": f"127.0.0.1:{status}",
            **sections,
        }
        config = grounds.folder / f"{name}.yaml"
        config.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items()))
        (grounds.folder / "tokens.yaml").touch()
        log = grounds.stage.folder / f"{name}.log"
        words = [*prefix, *twistd(), "--nodaemon", "--pidfile=", "meshdns-control", "--config", config]
        control = cls(grounds, port, status, config, log, grounds.stage.start(words, log), prefix)
        until("readiness", control.is_ready, control.process, log)
        return control

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def is_ready(self) -> bool:
        try:
            return bool(self.page("/readyz"))
        except OSError:
            return False

    def page(self, path: str) -> str:
        with urlopen(f"http://127.0.0.1:{self.status}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def json(self, path: str) -> Any:
        return json.loads(self.page(path))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        return end(self.process)

    def again(self, name: str = "one", **sections: Any) -> "Control":
        """Another process in its place."""
        return Control.start(self.grounds, name, self.port, self.status, self.prefix, **sections)

    def complaints(self) -> list[str]:
        """Lines of the log that nobody may ever write."""
        lines = self.log.read_text().splitlines()
        return [
            line
            for line in lines
            if any(word in line for word in ("Traceback", "Unhandled", "please report", "#critical"))
        ]


def agent(grounds: Grounds, *controls: Control, namespace: str = "ns1", **control_plane: Any) -> Agent:
    """An agent that follows these control planes."""
    if "token_file" not in control_plane and "certificate" not in control_plane:
        vm = grounds.vm(namespace)
        control_plane |= {"certificate": str(vm.pem), "key": str(vm.key)}
    trust = {"ca": str(grounds.root.pem)} if "pins" not in control_plane and "ca" not in control_plane else {}
    said = {"urls": [each.url for each in controls], **trust, **control_plane}
    folder = grounds.stage.folder / f"agent-{namespace}-{free_port()}"
    folder.mkdir()
    port, config, log = free_port(), folder / "agent.yaml", folder / "agent.log"
    sections = {
        "table": {"control_plane": said, "snapshot": "snapshot.jsonl"},
        "workload": {"namespace": namespace, "cluster": "east", "network": "east-net"},
        "status": f"127.0.0.1:{free_port()}",
    }
    config.write_text(settings(port, ["127.0.0.1:9"], **sections))
    return run_agent(grounds.stage, port, config, log)


def run_agent(stage: Stage, port: int, config: Path, log: Path) -> Agent:
    """An agent with a configuration that stands there."""
    found = Agent(port, stage.start(command(config), log), log, HERE, config, config.with_name("snapshot.jsonl"))
    found.await_answer("version.bind", "TXT", "CH")
    return found
