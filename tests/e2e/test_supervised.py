"""An agent and a control plane under a service manager: what they tell it, and restarts in which no query is lost."""

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from time import monotonic, sleep

import dns.message

from tests.e2e.agent import EXAMPLE_TABLE, SERVICE, SERVICE_ADDRESS, command, settings
from tests.e2e.control import Grounds
from tests.e2e.manager import Manager
from tests.e2e.stage import PATIENCE, DnsServer, Stage, end, framed, free_port, read_frame, twistd, until


class Asking:
    """A client that asks every few milliseconds, and waits for each answer as long as resolvers do."""

    EVERY = 0.004
    WAIT = 5.0

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._port = port
        self.sent: dict[int, float] = {}
        self.late: dict[int, float] = {}  # seconds that each answer took
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._ask, self._listen)]
        for each in self._threads:
            each.start()

    def _ask(self) -> None:
        number = 0
        while not self._stop.wait(self.EVERY):
            number += 1
            query = dns.message.make_query(SERVICE, "A", id=number)
            self.sent[number] = monotonic()
            self._socket.sendto(query.to_wire(), ("127.0.0.1", self._port))

    def _listen(self) -> None:
        self._socket.settimeout(0.05)
        while not self._stop.is_set() or (len(self.late) < len(self.sent) and self._may_come()):
            try:
                answer = self._socket.recv(4096)
            except TimeoutError:
                continue
            except ConnectionRefusedError:
                continue
            number = int.from_bytes(answer[:2])
            if socket.inet_aton(SERVICE_ADDRESS) in answer:
                self.late[number] = monotonic() - self.sent[number]

    def _may_come(self) -> bool:
        return monotonic() - max(self.sent.values()) < self.WAIT

    def end(self) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()
        self._socket.close()

    @property
    def lost(self) -> list[int]:
        return [number for number in self.sent if number not in self.late]


class SupervisedTests(Stage):
    def setUp(self) -> None:
        super().setUp()
        self.manager = Manager(self)
        self.log = self.folder / "agent.log"
        self.config = self.folder / "agent.yaml"
        (self.folder / "table.jsonl").write_bytes(EXAMPLE_TABLE)
        self.port = free_port()
        self.config.write_text(settings(self.port, ["127.0.0.1:9"]))

    def begin(self, watchdog: float = 0) -> subprocess.Popen[bytes]:
        process = self.manager.start(command(self.config), self.log, watchdog)
        self.manager.await_word("READY=1", self.log)
        return process

    def answers(self, process: subprocess.Popen[bytes], port: int | None = None, *, tcp: bool = False) -> list[str]:
        return DnsServer(port or self.port, process, self.log).addresses(SERVICE, tcp=tcp)

    def test_ready(self) -> None:
        """READY=1 is said when it answers, and not before: the first query thereafter is answered."""
        process = self.begin()
        self.assertEqual([SERVICE_ADDRESS], self.answers(process))
        self.assertEqual(1, self.manager.count("READY=1"))
        self.assertEqual(1, self.manager.count(f"STATUS=answers on 127.0.0.1:{self.port}"))

    def test_reload(self) -> None:
        """SIGHUP: RELOADING=1 with the time, then READY=1, whether the new configuration is good or not."""
        process = self.begin()
        for text in (self.config.read_text(), "nonsense: ["):
            self.manager.said.clear()
            self.config.write_text(text)
            process.send_signal(signal.SIGHUP)
            self.manager.await_word("READY=1", self.log)
            self.assertRegex("\n".join(self.manager.said), r"RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]+\n(.|\n)*READY=1")
        self.assertIn("the configuration stays as it was", self.log.read_text())

    def test_stopping(self) -> None:
        process = self.begin()
        end(process)
        self.manager.await_word("STOPPING=1", self.log)

    def test_watchdog(self) -> None:
        """It beats twice in the time allowed, and a process that hangs does not."""
        process = self.begin(watchdog=0.2)
        self.manager.await_word("WATCHDOG=1", self.log)
        sleep(1)
        self.assertGreaterEqual(self.manager.count("WATCHDOG=1"), 5)
        process.send_signal(signal.SIGSTOP)
        self.addCleanup(process.send_signal, signal.SIGCONT)
        sleep(0.3)
        before = self.manager.count("WATCHDOG=1")
        sleep(0.5)
        self.assertEqual(before, self.manager.count("WATCHDOG=1"))

    def test_no_watchdog(self) -> None:
        self.begin()
        sleep(0.3)
        self.assertEqual(0, self.manager.count("WATCHDOG=1"))

    def test_restart(self) -> None:
        """No query is lost: those that come in between wait in the socket, which the manager holds."""
        process = self.begin()
        asking = Asking(self.port)
        try:
            for _ in range(2):
                sleep(0.5)
                end(process)
                process = self.begin()
            sleep(0.3)
        finally:
            asking.end()
        self.assertGreater(len(asking.sent), 300)
        self.assertEqual([], asking.lost, f"of {len(asking.sent)}; {self.log.read_text()}")
        self.assertGreater(max(asking.late.values()), 0.1, "nothing waited, so nothing was tested")

    def test_killed(self) -> None:
        """After SIGKILL, too: all that was asked while nobody was there is answered by the next process."""
        process = self.begin()
        asking = Asking(self.port)
        try:
            sleep(0.3)
            process.kill()
            process.wait()
            killed = monotonic()
            self.begin()
            sleep(0.3)
        finally:
            asking.end()
        lost = [each for each in asking.lost if asking.sent[each] > killed]
        self.assertEqual([], lost)
        self.assertLessEqual(len(asking.lost), 2)

    def test_tcp_over_restart(self) -> None:
        """A TCP connection that is made in between is accepted by the next process."""
        process = self.begin()
        end(process)
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as client:
            client.sendall(framed(dns.message.make_query(SERVICE, "A").to_wire()))
            self.begin()
            self.assertIn(SERVICE_ADDRESS, dns.message.from_wire(read_frame(client)).to_text())

    def test_control_case(self) -> None:
        """The test of restarts would see a loss: without held sockets there is one."""
        process = self.begin()
        asking = Asking(self.port)
        try:
            sleep(0.3)
            end(process)
            self.manager.drop()
            self.begin()
            sleep(0.3)
        finally:
            asking.end()
        self.assertNotEqual([], asking.lost)

    def test_moved(self) -> None:
        """Other addresses by SIGHUP: the manager holds these, and no others; the next process takes them."""
        process = self.begin()
        before, self.port = self.port, free_port()
        self.config.write_text(settings(self.port, ["127.0.0.1:9"]))
        self.manager.said.clear()
        process.send_signal(signal.SIGHUP)
        self.manager.await_word("READY=1", self.log)
        self.assertEqual(2, len(self.manager.store))
        end(process)
        process = self.begin()
        self.assertEqual([SERVICE_ADDRESS], self.answers(process))
        self.assertEqual([SERVICE_ADDRESS], self.answers(process, tcp=True))
        with self.assertRaises(OSError):
            self.answers(process, before, tcp=True)

    def test_strange_sockets(self) -> None:
        """Handed over what it has no use for (a unit of somebody's own), it closes that and opens its own."""
        with socket.socket() as stranger, socket.socket(socket.AF_UNIX) as other, open("/dev/null", "rb") as no_socket:
            stranger.bind(("127.0.0.1", 0))
            stranger.listen()
            for each in (stranger.fileno(), other.fileno(), no_socket.fileno()):
                self.manager.store.append(os.dup(each))
            process = self.begin()
            self.assertEqual([SERVICE_ADDRESS], self.answers(process))
            links = [each.readlink() for each in Path(f"/proc/{process.pid}/fd").iterdir()]
            number = Path(f"/proc/self/fd/{stranger.fileno()}").readlink()
            self.assertNotIn(number, links)

    def test_socket_activation(self) -> None:
        """What systemd-socket-activate hands over is listened on, and what it does not is opened."""
        words = ["systemd-socket-activate", "-E", "PYTHONPATH", "-E", "PATH", f"--listen=127.0.0.1:{self.port}"]
        process = self.start([*words, *command(self.config)], self.log)
        until("its socket", lambda: _connects(self.port), process, self.log)  # starts the agent
        self.assertEqual([SERVICE_ADDRESS], self.answers(process, tcp=True))
        until("its other socket", lambda: self.answers(process), process, self.log)

    def test_no_supervisor(self) -> None:
        """A socket that is not there any more is told once, and nothing else happens."""
        self.manager._notify = self.folder / "nobody"
        process = self.manager.start(command(self.config), self.log)
        DnsServer(self.port, process, self.log).await_answer("version.bind", "TXT", "CH")
        process.send_signal(signal.SIGHUP)
        self.assertEqual([SERVICE_ADDRESS], self.answers(process))
        self.assertEqual(1, self.log.read_text().count("cannot be told"))
        self.manager._notify = self.folder / "notify"


def _connects(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


class ControlTests(Stage):
    def test_control_plane(self) -> None:
        """It speaks to its manager, too."""
        grounds, manager, log = Grounds.lay(self), Manager(self), self.folder / "control.log"
        served = grounds.root.issue("server", "127.0.0.1")
        config = grounds.folder / "control.yaml"
        config.write_text(
            f'listen: ["127.0.0.1:{free_port()}"]\nstatus: off\ntokens: tokens.yaml\nvips: {{store: "sqlite:v.sqlite"}}\n'
            f"tls: {{certificate: {served.pem}, key: {served.key}}}\nclusters: [{{name: east, manifests: east/}}]\n"
        )
        words = [*twistd(), "--nodaemon", "--pidfile=", "meshdns-control", "--config", config]
        process = manager.start(words, log, watchdog=0.4)
        for word in ("READY=1", "WATCHDOG=1"):
            manager.await_word(word, log)
        process.send_signal(signal.SIGHUP)
        manager.await_word("RELOADING=1", log)
        end(process)
        manager.await_word("STOPPING=1", log)
