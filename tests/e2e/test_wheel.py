"""The wheel in an empty virtual environment: what a user gets from `pip install`, with the checkout out of reach."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import dns.exception
import dns.message
import dns.query
from twisted.trial.unittest import SynchronousTestCase

from meshdns import __version__

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = (".git", ".venv", "_trial_temp*", "build", "dist", "*.egg-info", "__pycache__", "dropin.cache", ".*_cache")
# Where the interpreter would look besides its own environment.
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


@cache
def workplace() -> TemporaryDirectory[str]:
    """One folder for all tests of this file, gone when the interpreter ends."""
    return TemporaryDirectory(prefix="meshdns-wheel-")


def run(*command: str | Path) -> str:
    """Runs a command away from the checkout -> what it printed; fails with that if the command does."""
    done = subprocess.run(
        command,
        cwd=workplace().name,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


@cache
def wheel() -> Path:
    """The wheel, built from a copy so that nothing is left in the checkout."""
    source = Path(workplace().name, "source")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*SCRATCH))
    target = Path(workplace().name, "wheels")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", target, source)
    (built,) = target.iterdir()
    return built


@cache
def installed() -> Path:
    """The folder of commands of an empty environment with the wheel and its dependencies."""
    environment = Path(workplace().name, "environment")
    run(sys.executable, "-m", "venv", environment)
    run(environment / "bin" / "python", "-m", "pip", "install", "--quiet", wheel())
    return environment / "bin"


def free_port() -> int:
    """A port of the loopback that nobody has, neither for UDP nor for TCP."""
    while True:
        with closing(socket.socket(type=socket.SOCK_DGRAM)) as udp, closing(socket.socket()) as tcp:
            udp.bind(("127.0.0.1", 0))
            try:
                tcp.bind(udp.getsockname())
            except OSError:
                continue
            return int(udp.getsockname()[1])


@contextmanager
def example_agent() -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    """The agent of examples/ on ports of its own -> the process, its DNS port, its log."""
    examples = Path(workplace().name, "examples")
    shutil.copytree(ROOT / "examples", examples, dirs_exist_ok=True)
    config, log, port = examples / "agent.yaml", examples / "log", free_port()
    text = re.sub(r"(?m)^listen:.*", f'listen: ["127.0.0.1:{port}"]', config.read_text())
    text = re.sub(r"(?m)^status:.*", f"status: 127.0.0.1:{free_port()}", text)
    config.write_text(text + 'upstream: {servers: ["127.0.0.1:9"]}\n')  # this machine's own resolver is left in peace
    command = [installed() / "twistd", "-n", "--pidfile=", "meshdns", "--config", config]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=examples, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield process, port, log
    finally:
        process.kill()
        process.wait()


def ask(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> dns.message.Message:
    """Asks until the agent has started and answers, at most 30 s."""
    query = dns.message.make_query(name, "A")
    for _ in range(30):
        try:
            return dns.query.udp(query, "127.0.0.1", port=port, timeout=1)
        except dns.exception.Timeout:
            if process.poll() is not None:
                break
    raise AssertionError(f"no answer from the agent; its log:\n{log.read_text()}")


class WheelTests(SynchronousTestCase):
    def test_contents(self) -> None:
        """It holds the package, the plugin and the licence, and no __init__.py over Twisted's."""
        names = ZipFile(wheel()).namelist()
        tops = {name.split("/")[0] for name in names}
        self.assertEqual({"meshdns", "twisted", f"meshdns-{__version__}.dist-info"}, tops)
        self.assertEqual(["twisted/plugins/meshdns_plugin.py"], [name for name in names if name.startswith("twisted")])
        self.assertIn("meshdns/py.typed", names)
        self.assertIn(f"meshdns-{__version__}.dist-info/licenses/LICENSE", names)

    def test_every_module_is_in_it(self) -> None:
        ours = {str(path.relative_to(ROOT)) for path in ROOT.glob("meshdns/**/*.py")}
        self.assertEqual(set(), ours - set(ZipFile(wheel()).namelist()))

    def test_twistd_lists_it(self) -> None:
        self.assertRegex(run(installed() / "twistd", "--help"), r"(?m)^ +meshdns +the mesh's DNS proxy")

    def test_twistd_shows_its_options(self) -> None:
        self.assertIn("--config", run(installed() / "twistd", "meshdns", "--help"))

    def test_command(self) -> None:
        self.assertIn("check", run(installed() / "meshdns", "--help"))

    def test_dependencies_fit(self) -> None:
        """pip finds no requirement missing or at odds."""
        self.assertIn("No broken requirements", run(installed() / "python", "-m", "pip", "check"))

    def test_agent_answers(self) -> None:
        """The agent of examples/ runs from it, answers a mesh name, and ends on SIGTERM."""
        with example_agent() as (process, port, log):
            answer = ask("productpage.ns1.svc.cluster.local", process, port, log)
            self.assertEqual(["10.4.0.5"], [record.address for rrset in answer.answer for record in rrset])
            process.terminate()
            self.assertIn(process.wait(timeout=20), (0, -15), log.read_text())
