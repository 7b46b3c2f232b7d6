"""Outside: the redirect in this machine's kernel, by nft or by iptables. A plan enters and is put up, or is taken down.

`Nftables` and `Iptables` are the same to their callers. Every program has INTERCEPT_COMMAND to end; what goes wrong is
raised as `Refused`, with the program's own words.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Protocol

from meshdns.defaults import INTERCEPT_COMMAND, INTERCEPT_TABLE
from meshdns.host import iptables, nftables
from meshdns.host.redirect import Plan

_SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where the programs are, which a user's PATH may lack
_WORDS = 300  # characters of what a program said that a sentence repeats


class Refused(Exception):
    """A sentence: which program would not do what, and its reason."""


class Redirect(Protocol):
    """A way to put a plan into the kernel."""

    name: str

    def absent(self) -> str:
        """Why the program cannot be run; "" if it can."""

    def missing(self, plan: Plan) -> str:
        """Why this way is none for this plan here; "" if it is one. Needs root."""

    def up(self, plan: Plan) -> Sequence[str]:
        """Put it up, or bring what is up to date; returns sentences on what is left out. Raises Refused."""

    def close(self) -> bool:
        """Send nothing new to the agent, let what is under way come back, and tell whether anything was up. Raises Refused."""

    def down(self) -> bool:
        """Take away what is up, and tell whether anything was. Raises Refused."""

    def is_up(self) -> bool: ...

    def text(self, plan: Plan) -> str:
        """What `up` hands to the program."""


class Nftables:
    name = "nftables"

    def absent(self) -> str:
        return "" if _path("nft") else "nft is not installed"

    def missing(self, plan: Plan) -> str:
        if absent := self.absent():
            return absent
        done = _run("nft", "--check", "--file", "-", text=nftables.ruleset(plan))
        return "" if not done.returncode else f"nft does not take the rules: {_said(done)}"

    def up(self, plan: Plan) -> Sequence[str]:
        text = nftables.ruleset(plan)
        if _run("nft", "--file", "-", text=text).returncode:
            # A table of another version of ours, which cannot become this one.
            _must("nft", "--file", "-", text=nftables.REMOVAL + text)
        return ()

    def close(self) -> bool:
        if not self.is_up():
            return False
        _run("nft", "--file", "-", text=nftables.CLOSING)  # a table of another version of ours goes without
        return True

    def down(self) -> bool:
        if not self.is_up():
            return False
        _must("nft", "--file", "-", text=nftables.REMOVAL)
        return True

    def is_up(self) -> bool:
        return bool(_path("nft")) and not _run("nft", "list", "table", "inet", INTERCEPT_TABLE).returncode

    def text(self, plan: Plan) -> str:
        return nftables.ruleset(plan)


class Iptables:
    name = "iptables"

    def absent(self) -> str:
        found = any(_path(f"{program}-restore") for program in iptables.PROGRAMS.values())
        return "" if found else "iptables is not installed"

    def missing(self, plan: Plan) -> str:
        if absent := self.absent():
            return absent
        refusals = [self._test(plan, version) for version in iptables.PROGRAMS]
        return "" if "" in refusals else refusals[0]

    def up(self, plan: Plan) -> Sequence[str]:
        refusals = {version: self._test(plan, version) for version in iptables.PROGRAMS}
        for version, program in iptables.PROGRAMS.items():
            if not refusals[version]:
                jumps = tuple(table for table in iptables.TABLES if not _jumps(program, table))
                _must(f"{program}-restore", "-w", "5", "--noflush", text=iptables.rules(plan, version, jumps))
        return [
            f"IPv{family.version} is not redirected: {refusals[family.version]}"
            for family in plan.families
            if refusals[family.version]
        ]

    def close(self) -> bool:
        found = [program for program in iptables.PROGRAMS.values() if _jumps(program, "raw")]
        for program in found:
            _must(f"{program}-restore", "-w", "5", "--noflush", text=iptables.CLOSING)
        return bool(found)

    def down(self) -> bool:
        found = False
        for program in iptables.PROGRAMS.values():
            if tables := tuple(table for table in iptables.TABLES if _jumps(program, table)):
                _must(f"{program}-restore", "-w", "5", "--noflush", text=iptables.removal(tables))
                found = True
        return found

    def is_up(self) -> bool:
        return any(_jumps(program, table) for program in iptables.PROGRAMS.values() for table in iptables.TABLES)

    def text(self, plan: Plan) -> str:
        return "".join(
            f"# {program}-restore --noflush\n{iptables.rules(plan, version, iptables.TABLES)}"
            for version, program in iptables.PROGRAMS.items()
        )

    def _test(self, plan: Plan, version: int) -> str:
        """Why one family's rules cannot be had; "" if they can."""
        program = iptables.PROGRAMS[version]
        if not _path(f"{program}-restore"):
            return f"{program} is not installed"
        done = _run(f"{program}-restore", "-w", "5", "--noflush", "--test", text=iptables.rules(plan, version, ()))
        return "" if not done.returncode else f"{program} does not take the rules: {_said(done)}"


REDIRECTS: tuple[Redirect, ...] = (Nftables(), Iptables())


def _jumps(program: str, table: str) -> bool:
    return bool(_path(program)) and not _run(program, "-w", "5", "-t", table, "-C", *iptables.JUMP).returncode


def _path(program: str) -> str | None:
    return shutil.which(program, path=_SEARCHED)


def _must(program: str, *words: str, text: str) -> None:
    done = _run(program, *words, text=text)
    if done.returncode:
        raise Refused(f"{program} failed: {_said(done)}")


def _run(program: str, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Raises Refused when it cannot be run or does not end."""
    try:
        return subprocess.run(
            [_path(program) or program, *words],
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=INTERCEPT_COMMAND,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise Refused(
            f"{program} did not end within {INTERCEPT_COMMAND:g} s: does another program hold the rules?"
        ) from None
    except OSError as error:
        raise Refused(f"{program} cannot be run: {error.strerror}") from None


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """The first line of what it complained."""
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[0][:_WORDS] if lines else f"exit status {done.returncode}"
