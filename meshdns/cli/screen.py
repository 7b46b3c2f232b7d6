"""Root: how commands show things. Words and rows enter; they leave for a person's terminal, or plainly for a pipe.

On a terminal `rich` draws, with colours unless NO_COLOR is set, and folds what is too wide. In a pipe each row is one line,
whole, its columns apart by two spaces at least.
"""

import json
import sys
from collections.abc import Iterable, Sequence

Rows = Iterable[Sequence[str]]


def on_terminal() -> bool:
    return sys.stdout.isatty()


def say(text: str, style: str = "") -> None:
    """One line, or a sentence that a terminal may fold; `style` is rich's word for a colour."""
    if on_terminal():
        from rich.console import Console
        from rich.text import Text

        Console(highlight=False).print(Text(text, style=style))
    else:
        print(printable(text), flush=True)  # `hold` goes on for months, and a journal is read meanwhile


def complain(text: str) -> None:
    """A sentence for the person, beside what programs read."""
    print(printable(f"meshdns: {text}", sys.stderr), file=sys.stderr)


def show_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def show_columns(headers: Sequence[str], rows: Rows, *, indent: str = "") -> None:
    """A table; without headers (all empty) only its rows."""
    rows = [list(row) for row in rows]
    if on_terminal():
        _draw(headers, rows, indent)
        return
    lines = [*([list(headers)] if any(headers) else []), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print(printable(indent + "  ".join(map(str.ljust, line, widths)).rstrip()))


def _draw(headers: Sequence[str], rows: Sequence[Sequence[str]], indent: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD if any(headers) else None, show_header=any(headers), pad_edge=False)
    for number, header in enumerate(headers):
        table.add_column(Text(header), overflow="fold", style="" if number else "bold", no_wrap=not number)
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(Padding(table, (0, 0, 0, len(indent))))


def printable(text: str, stream: object = None) -> str:
    """What the receiver takes: a name may be written in letters that its encoding has not."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def span(seconds: float | None) -> str:
    """A duration in words that say enough: `0.42 ms`, `12 s`, `3 h 5 min`, `2 d 4 h`."""
    if seconds is None:
        return "-"
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds:.3g} s" if seconds < 10 else f"{whole} s"
