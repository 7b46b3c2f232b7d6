"""Envoy's DNS filter: a table for the mesh, c-ares for the rest. It speaks UDP only, and keeps no answers."""

import json

from benchmarks import names
from benchmarks.processes import free_port
from benchmarks.servers import Room, Server, program


def envoy(room: Room) -> Server:
    """As the example of its documentation ("DNS Filter"), the table in a file of its own.

    `max_pending_lookups` is above the 200 that dnsperf has under way; the search list of this machine is left out. One worker
    thread (`--concurrency 1`), no hot restart, no admin page.
    """
    directory, port = room.of("envoy"), free_port()
    (directory / "table.json").write_text(json.dumps(_table()))
    configuration = f"""\
static_resources:
  listeners:
  - name: dns
    address: {{socket_address: {{protocol: UDP, address: 127.0.0.1, port_value: {port}}}}}
    listener_filters:
    - name: envoy.filters.udp.dns_filter
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.udp.dns_filter.v3.DnsFilterConfig
        stat_prefix: dns
        server_config:
          external_dns_table: {{filename: table.json}}
        client_config:
          resolver_timeout: 5s
          max_pending_lookups: 256
          typed_dns_resolver_config:
            name: envoy.network.dns_resolver.cares
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig
              resolvers: [{{socket_address: {{address: 127.0.0.1, port_value: {room.upstream_port}}}}}]
              dns_resolver_options: {{no_default_search_domain: true}}
"""
    path = directory / "envoy.yaml"
    path.write_text(configuration)
    options = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
    return Server("envoy", (program("envoy"), "-c", str(path), *options), port, directory, configuration)


def _table() -> dict[str, object]:
    """envoy.data.dns.v3.DnsTable."""
    domains = [
        {"name": host, "answer_ttl": f"{names.TTL}s", "endpoint": {"address_list": {"address": [ip]}}}
        for host, ip in names.mesh_hosts().items()
    ]
    return {"known_suffixes": [{"suffix": names.MESH_ZONE}], "virtual_domains": domains}
