"""What end-to-end tests stand on: a folder, and processes that are gone with it when the test is over.

Every process that a test starts carries the folder's name in its environment; the last clean-up looks through the whole
process table for it, so that a forgotten one is found whoever started it.
"""

import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from secrets import randbelow
from tempfile import mkdtemp
from time import monotonic
from typing import Any

import attrs
import dns.message
from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0  # seconds for what takes one on an idle machine: a process to start, a program to compile
WAIT = 5.0  # seconds for one DNS answer
TICK = 0.02  # seconds between two looks at something that cannot call us
_PORTS = range(20_000, 32_000)  # below what /proc/sys/net/ipv4/ip_local_port_range starts with
_GIVEN: set[int] = set()
_MARK = "MESHDNS_E2E_FOLDER"
Command = Sequence[str | Path]


@attrs.frozen
class Place:
    """Where programs run and sockets are made: here, or on a made-up host. `prefix` stands before each command."""

    prefix: Command = ()
    make_socket: Callable[..., socket.socket] = socket.socket


HERE = Place()


class Stage(SynchronousTestCase):
    """A test with a folder of its own, open to every user, for servers may drop their privileges."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(mkdtemp(prefix="meshdns-e2e-"))
        self.folder.chmod(0o755)
        self._started: list[subprocess.Popen[bytes]] = []
        self._threads = set(threading.enumerate())
        self.addCleanup(self._check_nothing_left)
        self.addCleanup(shutil.rmtree, self.folder)

    def start(self, command: Command, log: Path, *, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Starts a process that lasts as long as the test; all it says goes to the log."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self._environment({}), stdin=stdin, stdout=output, stderr=output
            )
        self._started.append(process)
        self.addCleanup(end, process)
        return process

    def run_to_end(self, command: Command, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a program, within PATIENCE -> its exit status and what it said."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def said_by(self, command: Command, **environment: str) -> str:
        """What a program prints; one that fails fails the test."""
        done = self.run_to_end(command, **environment)
        if done.returncode:
            self.fail(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        # The checkout is what is tested, installed or not; answers must not depend on the tester's language.
        return {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C", _MARK: str(self.folder), **more}

    def _check_nothing_left(self) -> None:
        self.assertFalse(self.folder.exists(), f"{self.folder} is still there")
        self.assertEqual([], [process.args for process in self._started if process.returncode is None])
        self.assertEqual([], processes_with(f"{_MARK}={self.folder}"))
        self.assertEqual(set(), set(threading.enumerate()) - self._threads)


def end(process: subprocess.Popen[bytes]) -> int:
    """Ends a process, if need be by force -> its exit status."""
    process.terminate()
    try:
        return process.wait(timeout=2 * WAIT)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(timeout=PATIENCE)


def processes_with(setting: str) -> list[str]:
    """The command lines of all processes whose environment holds a setting, `NAME=VALUE`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if setting.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has just ended, or is another user's
            continue
    return found


def until(
    what: str, look: Callable[[], Any], process: subprocess.Popen[bytes], log: Path, patience: float = PATIENCE
) -> Any:
    """The first true value of `look`, which is asked again and again as long as the process lives and patience lasts."""
    deadline = monotonic() + patience
    while not (found := look()):
        try:
            status = process.wait(timeout=TICK)
        except subprocess.TimeoutExpired:
            status = None
        if status is not None or monotonic() > deadline:
            why = "no time is left" if status is None else f"the process ended with {status}"
            raise AssertionError(f"waiting for {what}, {why}; its log:\n{log.read_text()}")
    return found


def free_port(place: Place = HERE) -> int:
    """A port of 127.0.0.1 that nobody has there, neither for UDP nor for TCP.

    The kernel gives none of these to a socket that asks for any, and we give none twice, so nobody takes it before it is used.
    """
    while True:
        port = _PORTS[randbelow(len(_PORTS))]
        if port in _GIVEN:
            continue
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                with place.make_socket(socket.AF_INET, kind) as tried:
                    tried.bind(("127.0.0.1", port))
        except OSError:
            continue
        _GIVEN.add(port)
        return port


@attrs.define
class DnsServer:
    """Something that answers DNS on 127.0.0.1."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path
    place: Place = HERE

    def exchange(self, packet: bytes, *, tcp: bool = False, wait: float = WAIT) -> bytes:
        """The first answer to a packet, as bytes; raises OSError, of which TimeoutError is one."""
        with self.place.make_socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as asking:
            asking.settimeout(wait)
            asking.connect(("127.0.0.1", self.port))
            if not tcp:
                asking.send(packet)
                return asking.recv(65535)
            asking.sendall(framed(packet))
            return read_frame(asking)

    def ask(
        self, name: str, rdtype: str = "A", *, tcp: bool = False, wait: float = WAIT, **options: Any
    ) -> dns.message.Message:
        """The answer to a question; dnspython has checked that it is one."""
        query = dns.message.make_query(name, rdtype, **options)
        answer = dns.message.from_wire(self.exchange(query.to_wire(), tcp=tcp, wait=wait), one_rr_per_rrset=True)
        if not query.is_response(answer):
            raise AssertionError(f"{query}\nwas answered by\n{answer}")
        return answer

    def addresses(self, name: str, rdtype: str = "A", **options: Any) -> list[str]:
        """The addresses that a name has, sorted; rcodes other than NOERROR raise."""
        answer = self.ask(name, rdtype, **options)
        if answer.rcode():
            raise AssertionError(str(answer))
        return sorted(record.address for rrset in answer.answer for record in rrset if hasattr(record, "address"))

    def await_answer(self, name: str, rdtype: str, rdclass: str = "IN") -> None:
        """Returns once the server has answered, whatever it said."""
        query = dns.message.make_query(name, rdtype, rdclass).to_wire()

        def answered() -> bool:
            try:
                return bool(self.exchange(query, wait=1))
            except OSError:
                return False

        until("an answer", answered, self.process, self.log)


def framed(message: bytes) -> bytes:
    """A message as it stands in a TCP stream."""
    return struct.pack("!H", len(message)) + message


def read_frame(connection: socket.socket) -> bytes:
    """One message from a TCP stream; raises ConnectionError when the other side has closed."""
    (size,) = struct.unpack("!H", _read(connection, 2))
    return _read(connection, size)


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise ConnectionError(f"closed after {len(data)} of {size} octets")
        data += piece
    return data


def twistd() -> list[str | Path]:
    """The command `twistd` of the interpreter that runs the tests."""
    return [Path(sys.executable).with_name("twistd")]
