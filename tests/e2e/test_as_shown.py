"""What the demo prints and docs/control-plane.md shows, run as it stands there: it cannot drift from what is true (X5, X6, C7).

Both need the ports of every example, so they run on a made-up host.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from unittest import SkipTest

from tests.e2e.hosts import Host
from tests.e2e.stage import PATIENCE, ROOT, Stage, until

DOCUMENT = ROOT / "docs" / "control-plane.md"
_END = "--- this was all ---"


class Demo(Stage):
    """`meshdns demo`, running."""

    def setUp(self) -> None:
        super().setUp()
        for program in ("dig", "curl", "bash"):
            if shutil.which(program) is None:
                raise SkipTest(f"not installed: {program}")
        self.host = Host(self)
        self.log = self.folder / "demo.log"
        command = [*self.host.place.prefix, shutil.which("meshdns") or "meshdns", "demo", self.folder / "demo"]
        self.demo = self.start(command, self.log)
        self.await_true("a first table", lambda: "a table from the control plane" in self.log.read_text())

    def await_true(self, what: str, look: object) -> None:
        until(what, look, self.demo, self.log)  # type: ignore[arg-type]

    def shell(self, line: str) -> str:
        return self.host.said_by("bash", "-c", line)


class PrintedTests(Demo):
    def test_every_line(self) -> None:
        """What `make run` prints to be tried: each line does what it is there for, and the edit changes the answer."""
        printed = self.log.read_text().partition("Try, in another terminal:")[2]
        lines = re.findall(r"^  (\S.*)$", printed, re.MULTILINE)
        page, loyalty, databases, edit, again, why = lines
        self.assertRegex(self.shell(page), r"\Aproductpage\.ns1\.svc\.cluster\.local\.\s+30\s+IN\s+A\s+10\.4\.0\.5\n\Z")
        self.assertRegex(self.shell(loyalty), r"loyalty\.ns2\.svc\.cluster\.local\.\s+30\s+IN\s+A\s+10\.8\.0\.7\n\Z")
        vips = re.findall(
            r"^(db[12])\.example\.com\.\s+30\s+IN\s+A\s+(240\.240\.[0-9.]+)$", self.shell(databases), re.MULTILINE
        )
        self.assertEqual((["db1", "db2"], 2), ([name for name, _ in vips], len({vip for _, vip in vips})))
        self.shell(edit)
        self.await_true("the changed answer", lambda: "10.4.0.99" in self.shell(again))
        told = json.loads(self.shell(why))
        self.assertIsNone(told["entry"])
        self.assertIn("exportTo shows it to hr only", " ".join(told["because"]))
        self.assertNotRegex(self.log.read_text(), r"Traceback|Unhandled|please report|#critical")


class Terminal:
    """A shell that keeps what is set in it."""

    def __init__(self, stage: Demo, folder: Path) -> None:
        self._process = subprocess.Popen(
            [*stage.host.place.prefix, "timeout", str(int(2 * PATIENCE)), "bash", "-c", f"cd {folder} && exec bash"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        stage.addCleanup(self._end)

    def type(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{line}\necho; echo '{_END}'\n")
        self._process.stdin.flush()

    def shown(self) -> str:
        """All that the line has printed."""
        assert self._process.stdout
        lines: list[str] = []
        for line in self._process.stdout:
            if line.strip() == _END:
                return "".join(lines).replace("\r\n", "\n").strip("\n")
            lines.append(line)
        raise AssertionError(f"the shell has ended, after it printed {''.join(lines)!r}")

    def _end(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._process.stdout.close()


def blocks(text: str) -> list[list[str]]:
    """The indented blocks of a document, line by line."""
    found = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    return [[line[4:] for line in block.splitlines()] for block in found]


def pattern(lines: list[str]) -> str:
    """What a document shows, as a regular expression: an ellipsis is any text in its line, or any lines."""
    parts = [r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in lines]
    return r"\A" + "".join(parts) + r"\Z"


class DocumentTests(Demo):
    def setUp(self) -> None:
        super().setUp()
        self.first, self.second = (Terminal(self, self.folder / "demo") for _ in range(2))

    def shows(self, terminal: Terminal, lines: list[str]) -> None:
        self.assertRegex(terminal.shown() + "\n", pattern(lines))

    def test_by_hand(self) -> None:
        """X5, X6: the long poll by `curl`, line by line: a whole table, its ETag, nothing new, a wait, a delta, a refusal; and
        C7: what the status page is asked."""
        section = DOCUMENT.read_text().partition("## What agents ask")[2].partition("\n## ")[0]
        whole, poll, edit, delta, refusal = blocks(section)
        for block in (whole, poll, refusal):
            if block is refusal:
                self.second.type(edit[0].removeprefix("$ "))
                self.assertEqual("", self.second.shown())
                self.shows(self.first, delta)
            commands = [number for number, line in enumerate(block) if line.startswith("$ ")]
            for begin, end in zip(commands, [*commands[1:], len(block)], strict=True):
                self.first.type(block[begin].removeprefix("$ "))
                if block is poll and begin == commands[-1]:
                    self.await_true("two parked polls", lambda: "meshdns_parked_polls 2.0" in self.metrics())
                elif begin + 1 == end:
                    self.assertEqual("", self.first.shown())
                else:
                    self.shows(self.first, block[begin + 1 : end])
        ((why,),) = blocks(DOCUMENT.read_text().partition("## Why is it not there")[2])
        self.assertIsNone(json.loads(self.shell(why.removeprefix("$ ")))["entry"])

    def metrics(self) -> str:
        return self.shell("curl -s http://127.0.0.1:15014/metrics")
