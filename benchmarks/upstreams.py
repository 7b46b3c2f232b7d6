"""The one upstream of all servers: an unbound that knows every name at once, and counts what it is asked."""

from collections.abc import Iterable

from benchmarks import names
from benchmarks.servers import UNBOUND_ALONE, Room, Server, unbound_of

TTL = 3600  # of what is there; no run is so long
NEGATIVE_TTL = 300  # of what is not there: as long as all servers here keep it


def upstream(room: Room) -> Server:
    """It has an address for every name outside the mesh."""
    lines = f"""\
    local-zone: "{names.OUTSIDE_ZONE}." redirect
    local-data: "{names.OUTSIDE_ZONE}. {TTL} IN A {names.OUTSIDE_ADDRESS}"
"""
    return _counting(room, lines)


def all_knowing(room: Room, records: Iterable[str]) -> Server:
    """It has these records, `www.example A 192.0.2.1`, those of the mesh with them, and denies all else in their name."""
    soa = f". {NEGATIVE_TTL} IN SOA ns.example. admin.example. 1 3600 900 86400 {NEGATIVE_TTL}"
    lines = [f'local-data: "{soa}"\n']
    for record in records:
        name, rest = record.split(" ", 1)
        lines.append(f'local-data: "{name}. {TTL} IN {rest}"\n')
    path = room.of("upstream") / "records.conf"
    path.write_text("".join(lines))
    return _counting(room, f'    local-zone: "." static\n    include: "{path}"\n')


def _counting(room: Room, lines: str) -> Server:
    directory = room.of("upstream")
    configuration = f"""\
server:
    interface: 127.0.0.1
    port: {room.upstream_port}
    num-threads: 1
    so-rcvbuf: 4m
    so-sndbuf: 4m
{lines}{UNBOUND_ALONE}remote-control:
    control-enable: yes
    control-interface: {directory}/control
"""
    return unbound_of("upstream", directory, room.upstream_port, configuration)
