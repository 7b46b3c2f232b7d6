"""What people and pipes see of the same words."""

import io
import os
import pty
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from meshdns.cli import screen

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
from meshdns.cli import screen
screen.say("a sentence that is so long that it must be folded somewhere", "yellow")
screen.show_columns(("NAME", "VALUE"), [("[red]x[/red]", "10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5, 10.0.0.6")])
"""


def on_a_terminal(**variables: str) -> str:
    """What the script writes to a terminal of 40 columns."""
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"COLUMNS": "40", "TERM": "xterm-256color", **variables}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=ROOT, stdout=theirs, env=environment)
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 4096):
            written += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert process.wait(30) == 0
    return written.decode().replace("\r\n", "\n")


class TerminalTests(SynchronousTestCase):
    def test_colours_and_folds(self) -> None:
        text = on_a_terminal()
        self.assertIn("\x1b[", text)
        self.assertIn("[red]x[/red]", text)  # names are no markup
        plain = on_a_terminal(NO_COLOR="1")
        self.assertNotIn("\x1b[3", plain)
        self.assertLessEqual(
            max(len(line) for line in plain.replace("\x1b[1m", "").replace("\x1b[0m", "").split("\n")), 40
        )
        self.assertIn("10.0.0.6", plain)


class PipeTests(SynchronousTestCase):
    def columns(self, *rows: tuple[str, ...], headers: tuple[str, ...] = ("A", "B"), indent: str = "") -> str:
        with redirect_stdout(io.StringIO()) as out:
            screen.show_columns(headers, rows, indent=indent)
        return out.getvalue()

    def test_columns(self) -> None:
        self.assertEqual(self.columns(("long one", "b"), ("", "c")), "A         B\nlong one  b\n          c\n")
        self.assertEqual(self.columns(("a", "b"), headers=("", ""), indent="  "), "  a  b\n")
        self.assertEqual(self.columns(), "A  B\n")
        self.assertEqual(self.columns(headers=("", "")), "")

    def test_poor_encoding(self) -> None:
        """A terminal that knows ASCII only gets escapes, not a traceback."""
        out = io.TextIOWrapper(io.BytesIO(), "ascii")
        with redirect_stdout(out):
            screen.say("ä → b")
        out.seek(0)
        self.assertEqual(out.read(), "\\xe4 \\u2192 b\n")

    def test_spans(self) -> None:
        for seconds, text in (
            (None, "-"),
            (0.0, "0 ms"),
            (0.00042, "0.42 ms"),
            (0.9991, "999 ms"),
            (0.9996, "1 s"),
            (1.5, "1.5 s"),
            (12.4, "12 s"),
            (59.7, "1 min"),
            (102, "1 min 42 s"),
            (3600, "1 h"),
            (11_100, "3 h 5 min"),
            (187_200, "2 d 4 h"),
        ):
            self.assertEqual(screen.span(seconds), text)
