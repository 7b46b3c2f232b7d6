"""BIND's `named`: a primary zone for the mesh, `forward only` for the rest."""

from benchmarks import names
from benchmarks.processes import free_port
from benchmarks.servers import Room, Server


def named(room: Room) -> Server:
    """Its manual (BIND 9 Administrator Reference Manual, "Forwarding" and "Tuning") leaves little to choose.

    `minimal-responses`: nothing beside the answer, as nobody else here says more; without the validator, since nobody else
    validates. Its way not to cache is a cache in which nothing lives. `-n 1` is one worker
    thread; what it relays occupies a second one, of its tasks.
    """
    directory, port = room.of("named"), free_port()
    records = [f"{host}. A {ip}\n" for host, ip in names.mesh_hosts().items()]
    (directory / "mesh.zone").write_text(_ZONE_HEAD + "".join(records))
    configuration = f"""\
options {{
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    forward only;
    forwarders {{ 127.0.0.1 port {room.upstream_port}; }};
    recursion yes;
    minimal-responses yes;
    dnssec-validation no;
{room.caching.named}    pid-file none;
    lock-file none;
    session-keyfile none;
}};
controls {{ }};
zone "{names.MESH_ZONE}" {{ type primary; file "mesh.zone"; notify no; }};
"""
    path = directory / "named.conf"
    path.write_text(configuration)
    command = ("named", "-f", "-n", "1", "-c", str(path))
    return Server("named", command, port, directory, configuration, crowded=True)


_ZONE_HEAD = f"""\
$TTL {names.TTL}
$ORIGIN {names.MESH_ZONE}.
@ SOA ns admin 1 3600 900 86400 {names.TTL}
@ NS ns
ns A 127.0.0.1
"""
