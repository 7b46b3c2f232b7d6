"""A control plane under test, `twistd meshdns-control` in a process of its own, and what it costs the machine."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import attrs

from benchmarks import machine, polling, processes
from benchmarks.polling import HOST, Heard, Poller
from benchmarks.processes import CannotMeasure, last_words
from benchmarks.servers import ROOT, program, twistd
from meshdns.cli.demo import make_certificates
from meshdns.exchange import Poll

CLUSTER = "east"
NAMESPACE = "ns1"
_PAUSE = 0.02  # seconds between two attempts at a control plane that starts
_REST = 60.0  # seconds in which it is to come to rest
_GLANCE = 0.1  # seconds in which it is seen whether it is busy
_BUSY = 0.3  # seconds of CPU a second; to look at its files it takes a fifth of a core at most
_ANSWER = 30.0  # seconds for an answer that is not parked


@attrs.frozen
class Plane:
    """One that runs, `started` on the monotonic clock. Its folder has the certificate to trust it by; `token` lets a workload of
    NAMESPACE in."""

    process: subprocess.Popen[bytes]
    folder: Path
    port: int
    status: int
    token: str
    started: float

    @property
    def ca(self) -> Path:
        return self.folder / "root.pem"

    def said_to_agents(self, directory: Path) -> str:
        """What an agent's configuration says as `table`; its token goes into a file of the directory."""
        return control_plane(self.port, self.ca, self.token, directory)

    def check(self) -> None:
        """Raise if it has ended."""
        if self.process.poll() is not None:
            told = f"The control plane ended with status {self.process.returncode}"
            raise CannotMeasure(f"{told}:\n{last_words(self.folder / 'log')}")

    def cpu(self) -> float:
        """Its CPU time so far, in seconds."""
        self.check()
        return machine.cpu_seconds(self.process.pid)

    def parked(self) -> int:
        """Polls that are parked, by its own count."""
        with urlopen(f"http://{HOST}:{self.status}/metrics", timeout=_ANSWER) as page:
            for line in page.read().decode().splitlines():
                if line.startswith("meshdns_parked_polls "):
                    return int(float(line.split()[1]))
        raise CannotMeasure("The control plane does not say how many polls are parked.")

    def idle(self, seconds: float) -> float:
        """CPU that it takes with nothing to do, in seconds per second: it looks at its files."""
        before, began = self.cpu(), time.monotonic()
        time.sleep(seconds)
        return (self.cpu() - before) / (time.monotonic() - began)

    def rest(self) -> None:
        """Return once all that it was asked for is done: it takes little CPU."""
        deadline = time.monotonic() + _REST
        while time.monotonic() < deadline:
            if self.idle(_GLANCE) < _BUSY:
                return
        raise CannotMeasure(f"The control plane was busy for {_REST:.0f} s and longer.")

    def first_table(self, patience: float) -> tuple[Poller, Heard]:
        """Poll without waiting, again and again, until there is a table; and who has got it."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            self.check()
            poll = Poll(cluster=CLUSTER, gzip=True)
            try:
                poller = Poller(polling.trusting(self.ca), self.port, self.token, poll)
            except OSError:  # it does not listen yet
                time.sleep(_PAUSE)
                continue
            while (heard := poller.wait(_ANSWER)).answer.status == 503:
                time.sleep(_PAUSE)
                poller.ask(polling.request(poll, self.token))
            if heard.answer.kind != "table":
                raise CannotMeasure(f"The control plane answers with {heard.answer.status}: {heard.body[:500]!r}")
            return poller, heard
        raise CannotMeasure(f"The control plane had no table within {patience:.0f} s of its start.")


def control_plane(port: int, ca: Path, token: str, directory: Path) -> str:
    """The same of any control plane on a port of this machine."""
    (directory / "token").write_text(f"{token}\n")
    return f'{{control_plane: {{urls: ["https://{HOST}:{port}"], ca: "{ca}", token_file: token}}}}'


@contextmanager
def plane(folder: Path, manifests: Path, core: int) -> Iterator[Plane]:
    """A control plane of these manifests for the length of a `with`, started and no more. `folder` is made for its files."""
    folder.mkdir()
    make_certificates(folder)
    token = _token(folder / "tokens.yaml")
    port, status = processes.free_port(), processes.free_port()
    configuration = f"""\
listen: ["{HOST}:{port}"]
tls: {{certificate: server.pem, key: server.key}}
tokens: tokens.yaml
clusters:
  - {{name: {CLUSTER}, manifests: "{manifests}"}}
vips: {{store: "sqlite:vips.sqlite"}}
status: {HOST}:{status}
"""
    (folder / "control.yaml").write_text(configuration)
    command = [twistd(), "-n", "--pidfile=", "meshdns-control", "--config", str(folder / "control.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.monotonic()
    with processes.running(command, core, folder / "log", environment) as process:
        yield Plane(process, folder, port, status, token, started)


def _token(file: Path) -> str:
    """As an operator makes it."""
    command = [program("meshdns"), "token", "add", "--file", str(file), "--namespace", NAMESPACE, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    if done.returncode:
        raise CannotMeasure(f"meshdns token add failed:\n{done.stderr}")
    return str(json.loads(done.stdout)["token"])


def replace(new: Path, text: str, old: Path) -> float:
    """Put a file in the place of another in one step; the moment before, on the monotonic clock. `new` is a name on the same
    file system for the time between."""
    new.write_text(text)
    now = time.monotonic()
    os.replace(new, old)
    return now
