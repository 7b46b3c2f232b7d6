"""A worker's process by itself: what it is told that it cannot use ends it, with words for the log."""

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from meshdns.agent.frames import Word, frame

ROOT = Path(__file__).resolve().parents[2]


class NonsenseTests(SynchronousTestCase):
    def end_of(self, told: bytes) -> tuple[int, str]:
        """Status and last words of one that is told this, and then nothing for as long as it lives."""
        command = [sys.executable, "-P", "-m", "meshdns.worker", "2"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=False,
            env={"PYTHONPATH": str(ROOT)},
        ) as process:  # fmt: skip
            self.addCleanup(process.kill)
            assert process.stdin is not None and process.stderr is not None
            process.stdin.write(told)
            process.stdin.flush()
            status = process.wait(30)
            return status, process.stderr.read().decode()

    def test_no_message(self) -> None:
        status, said = self.end_of(bytes(5))
        self.assertEqual(1, status)
        self.assertIn("Nonsense: 0000000000 begins no message", said)

    def test_no_table(self) -> None:
        """A table that is none is a bug of who sent it: the next worker is told it anew, whole."""
        status, said = self.end_of(frame(Word.BEGIN) + frame(Word.LINES, b"nonsense"))
        self.assertEqual(1, status)
        self.assertIn("BadTable", said)

    def test_end_of_the_pipe(self) -> None:
        """That is no accident."""
        command = [sys.executable, "-P", "-m", "meshdns.worker", "2"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env={"PYTHONPATH": str(ROOT)}, timeout=30
        )
        self.assertEqual((0, b"", b""), (done.returncode, done.stdout, done.stderr))
