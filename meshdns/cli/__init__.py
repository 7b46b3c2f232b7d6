"""Root: the `meshdns` command. Words of a command line enter, an exit code leaves.

Each sub-command is a module of its own with `add_arguments(parser) -> None` and `run(args) -> int`, imported only when
it is the one asked for: `meshdns --help` must answer at once. So nothing slow may be imported here.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from meshdns import __version__, defaults

DONE, FAILED, USAGE, NOT_RUNNING, DEGRADED = range(5)  # exit codes, contract section 4
INTERRUPTED = 130  # as a shell reports Ctrl-C

# name -> module, one line for --help, which of the shared options it takes
COMMANDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "check": ("meshdns.cli.check", "validate configurations, name tables and manifests", ("json",)),
    "query": ("meshdns.cli.query", "ask the agent; show the answer and where it came from", ("config", "json")),
    "explain": ("meshdns.cli.explain", "show step by step how the agent decides on a name", ("config", "json")),
    "table": ("meshdns.cli.table", "show the agent's current name table", ("config", "json")),
    "status": ("meshdns.cli.status", "show the agent's health", ("config", "json")),
    "intercept": ("meshdns.cli.intercept", "redirect this machine's DNS queries to the agent", ("config", "json")),
    "pin": ("meshdns.cli.pin", "print the pins of certificates", ("json",)),
    "token": ("meshdns.cli.token", "add, list and remove tokens that agents poll with", ("json",)),
    "bundle": ("meshdns.cli.bundle", "one file with all that a VM needs: make it, install it", ()),
    "demo": ("meshdns.cli.demo", "run a control plane and an agent on a sample mesh", ()),
}

_EXITS = "Exit codes: 0 done, 1 it failed, 2 wrong usage, 3 the agent is not running, 4 degraded or stale."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. It never raises but for bugs."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            code = _run(words)
        finally:
            if sys.stdout is not None:  # None: closed from the start
                sys.stdout.flush()  # a pipe may break here as well as in a print
        return code
    except SystemExit as end:  # from argparse, which has said why
        return end.code if isinstance(end.code, int) else DONE
    except OSError as error:
        _silence()
        if not isinstance(error, BrokenPipeError):  # `| head` has seen enough, which needs no words
            print(f"meshdns: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(words: list[str]) -> int:
    chosen = next((word for word in words if not word.startswith("-")), None)
    parser = argparse.ArgumentParser(
        prog="meshdns",
        description="The DNS of a service mesh, for this machine.",
        epilog=f'"meshdns COMMAND --help" says more. {_EXITS}',
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"meshdns {__version__}")
    _add_commands(parser, chosen)
    if chosen is not None and chosen == words[0] and chosen not in COMMANDS:
        parser.error(_no_such(chosen))
    args = parser.parse_args(words)
    if "run" not in args:
        parser.print_help(sys.stderr)
        return USAGE
    code: int = args.run(args)
    return code


def _add_commands(parser: argparse.ArgumentParser, chosen: str | None) -> None:
    """All commands by name and help; the words of the chosen one only, since its module must be imported for them."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (path, summary, shared) in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=_EXITS, allow_abbrev=False
        )
        if name != chosen:
            continue
        module = import_module(path)
        module.add_arguments(command)
        if "config" in shared:
            command.add_argument(
                "--config",
                metavar="FILE",
                default=defaults.CONFIG_FILE,
                help="the agent's configuration, which knows its addresses (default: %(default)s)",
            )
        if "json" in shared:
            command.add_argument("--json", action="store_true", help="print JSON, for programs")
        command.set_defaults(run=module.run)


def _no_such(command: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(command, COMMANDS, 1)
    advice = f'did you mean "{close[0]}"?' if close else f"there are {', '.join(COMMANDS)}"
    return f'there is no command "{command}"; {advice}'


def _silence() -> None:
    """Lets Python end without a word about what can no longer be written."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # not a real file
        pass
