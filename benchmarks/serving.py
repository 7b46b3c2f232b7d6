"""A `source` of tables that runs, and what an agent is told of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import helper, plane, processes
from benchmarks.helper import Helper
from meshdns.cli.demo import make_certificates

_START = 60.0  # seconds for it to be there
_PER_HOST = 0.001  # seconds more for each host: it packs its tables beforehand


@contextmanager
def tables(directory: Path, hosts: int, core: int) -> Iterator[tuple[Helper, str]]:
    """The source, and what the configuration of an agent in this directory says as `table`."""
    directory.mkdir()
    make_certificates(directory)
    port = processes.free_port()
    words = [port, directory / "server.pem", directory / "server.key", hosts]
    with helper.helper("benchmarks.source", words, core, directory / "source.log") as source:
        source.hear(_START + hosts * _PER_HOST)
        yield source, plane.control_plane(port, directory / "root.pem", "none", directory)
