"""The agent's configuration (contract section 4): every key, its default, and what is said when it is wrong."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import attrs
from jsonschema import Draft202012Validator
from twisted.trial.unittest import SynchronousTestCase

from meshdns import names, yamltext
from meshdns.agent import config
from meshdns.settings import Endpoint, Invalid, Server

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "etc" / "agent.schema.json").read_text())
HEAD = "workload: {namespace: ns1}\ntable: {file: t.json}\n"  # what each file needs; the rest begins in line 3
NO_VALUE = "has no value; write one, or take the line out for the default"
NOT_DOMAIN = 'is not a domain; letters, digits, "-" and "_" between dots are possible'
NOT_LABEL = 'is not a DNS label; lower-case letters, digits and inner "-" are possible, at most 63'
NOT_PORT = "has a wrong port; it must be a number from 1 to 65535"
NOT_ADDRESS = "is a name; an IP address is wanted, like"
NOT_DURATION = "is not a duration; write it like 500ms, 2s, 5m or 1h"
NOT_LOOPBACK = "is not a loopback address, and the page asks nobody for a password; write"
NOT_MAP = 'keys with values are wanted here, like "key: value"'
NOT_WORD = "is not one word; at most 253 characters without spaces are possible"
NOT_URL = "is not the URL of a control plane; write it like https://control.example:15012"
NOT_PIN = 'is not a pin; write sha256/ and 44 characters of Base64, as "meshdns pin" prints them'
ONE_TABLE = "one of control_plane, manifests, file is required"
NOT_LIST = "a list is wanted here; write"
NOT_ALLOWED = "is none of loopback, any, an address, a network like 10.0.0.0/8"
EMPTY = "the list is empty; put a value in, or take the line out for the default"
PIN = "sha256/" + "A" * 43 + "="


def parse(text: str) -> config.AgentConfig:
    return config.parse(text.encode(), "/etc/meshdns/agent.yaml")


def problems(text: str | bytes) -> list[str]:
    """The problems as `line: reason`."""
    try:
        config.parse(text.encode() if isinstance(text, str) else text, "agent.yaml")
    except Invalid as error:
        return [f"{problem.line}: {problem.reason}" for problem in error.problems]
    return []


def keys(kind: Any = config.AgentConfig, front: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key of a configuration class with its attribute, sections too."""
    for field in attrs.fields(attrs.resolve_types(kind)):
        yield front + field.name, field
        for inner in classes(field.type):
            yield from keys(inner, f"{front}{field.name}.")


def classes(kind: Any) -> Iterator[Any]:
    """The configuration classes in a type annotation."""
    if attrs.has(kind) and all("reader" in field.metadata for field in attrs.fields(kind)):
        yield kind
    for argument in get_args(kind):
        yield from classes(argument)


class ValueTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        """The defaults of the contract, all of them."""
        found = parse(HEAD)
        self.assertEqual(
            config.Workload(namespace="ns1", cluster="", network="", cluster_domain=names.parse("cluster.local")),
            found.workload,
        )
        self.assertEqual((Endpoint("127.0.0.1", 15053), Endpoint("::1", 15053)), found.listen)
        self.assertEqual((("loopback",), None, "all", 1232), (found.allow, found.search, found.autopath, found.udp_max))
        self.assertEqual(1, found.workers)
        self.assertEqual("/etc/meshdns/t.json", found.table.file)
        self.assertEqual((None, None, None), (found.table.control_plane, found.table.manifests, found.table.snapshot))
        self.assertEqual((None, None), (found.mesh.ttl, found.mesh.zones))
        self.assertEqual(
            config.Upstream(
                resolv_conf="/etc/resolv.conf", servers=(), domains={}, policy="fastest", timeout=None, attempts=None,
                deadline=5.0, max_inflight=2000,
            ),
            found.upstream,
        )  # fmt: skip
        self.assertEqual(
            config.Cache(max_bytes=16 << 20, min_ttl=0.0, max_ttl=3600.0, serve_stale=3600.0, prefetch=True),
            found.cache,
        )
        self.assertEqual((Endpoint("127.0.0.1", 15054), False), (found.status, found.log.queries))

    def test_all_set(self) -> None:
        """Every key that this version knows, set to something else."""
        found = parse("""
workload: {namespace: no, cluster: East_1, network: 12, cluster_domain: Mesh.Example.}
listen: ["0.0.0.0:53", "[::]:53"]
allow: [any, 10.0.0.0/8, 10.0.0.7, "fd00::/8", loopback]
search: [ns1.svc.cluster.local, Corp.example]
autopath: off
udp_max: 4096
workers: 4
table: {file: ../t.json}
mesh: {ttl: 0, zones: [cluster.local, clusterset.local]}
upstream:
  resolv_conf: resolv.conf
  servers: [10.0.0.53, "10.0.0.53:5353", "fd00::1", "tcp://[fd00::53]", "tls://1.1.1.1?name=cloudflare-dns.com"]
  domains: {Corp.example.com.: [10.1.0.53], onion: ["tls://10.1.0.54"]}
  policy: race
  timeout: 500ms
  attempts: 1
  deadline: 500ms
  max_inflight: 1
cache: {max_bytes: 64KiB, min_ttl: 1s, max_ttl: 2m, serve_stale: 0, prefetch: off}
status: off
log: {queries: on}
""")
        self.assertEqual(
            config.AgentConfig(
                workload=config.Workload(
                    namespace="no", cluster="East_1", network="12", cluster_domain=names.parse("mesh.example")
                ),
                listen=(Endpoint("0.0.0.0", 53), Endpoint("::", 53)),
                allow=("any", "10.0.0.0/8", "10.0.0.7/32", "fd00::/8", "loopback"),
                search=(names.parse("ns1.svc.cluster.local"), names.parse("corp.example")),
                autopath="off",
                udp_max=4096,
                workers=4,
                table=config.Table(file="/etc/meshdns/../t.json"),
                mesh=config.Mesh(ttl=0, zones=(names.parse("cluster.local"), names.parse("clusterset.local"))),
                upstream=config.Upstream(
                    resolv_conf="/etc/meshdns/resolv.conf",
                    servers=(
                        Server("10.0.0.53"), Server("10.0.0.53", 5353), Server("fd00::1"), Server("fd00::53", 53, "tcp"),
                        Server("1.1.1.1", 853, "tls", "cloudflare-dns.com"),
                    ),
                    domains={
                        names.parse("corp.example.com"): (Server("10.1.0.53"),),
                        names.parse("onion"): (Server("10.1.0.54", 853, "tls"),),
                    },
                    policy="race", timeout=0.5, attempts=1, deadline=0.5, max_inflight=1,
                ),
                cache=config.Cache(max_bytes=64 << 10, min_ttl=1.0, max_ttl=120.0, serve_stale=0.0, prefetch=False),
                status=None,
                log=config.Log(queries=True),
            ),
            found,
        )  # fmt: skip

    def test_limits(self) -> None:
        """The least and the most that are allowed."""
        for text in GOOD:
            self.assertEqual([], problems(HEAD + text), text)

    def test_contract_sample(self) -> None:
        """The sample in the contract, with one of its three tables."""
        sample = CONTRACT.replace("      file: nametable.json\n", "").replace("      manifests: [mesh/]\n", "")
        self.assertEqual(
            [],
            problems(sample),
        )  # fmt: skip


CONTRACT = f"""\
    workload: {{namespace: ns1, cluster: east, network: east-net, cluster_domain: cluster.local}}
    listen: ["127.0.0.1:15053", "[::1]:15053"]
    allow: [loopback]
    search: [ns1.svc.cluster.local, svc.cluster.local, cluster.local]   # default: from resolv_conf
    autopath: all                                                       # all | mesh | off
    udp_max: 1232
    table:                       # one of control_plane, manifests, file
      control_plane: {{urls: ["https://control.example:15012"], ca: root.pem, pins: ["{PIN}"], certificate: vm.pem, key: vm.key, token_file: token}}
      manifests: [mesh/]
      file: nametable.json
      snapshot: /var/lib/meshdns/table.jsonl
    mesh: {{ttl: 30, zones: auto}}         # auto: what the table says
    upstream: {{resolv_conf: /etc/resolv.conf, servers: [], domains: {{}}, policy: fastest, timeout: 2s, attempts: 2, deadline: 5s, max_inflight: 2000}}
    cache: {{max_bytes: 16MiB, min_ttl: 0s, max_ttl: 1h, serve_stale: 1h, prefetch: true}}
    status: 127.0.0.1:15054
    log: {{queries: off}}
"""  # noqa: E501 -- as it stands there

# Files (behind HEAD) that both the checker and the schema take.
GOOD = [
    "udp_max: 512", "udp_max: 4096", "workers: 1", "workers: 64", "workers: auto",
    "mesh: {ttl: 0}", "mesh: {ttl: 86400}", "mesh: {ttl: auto}", "mesh: {zones: [a]}",
    "mesh:\n", "cache:\n",
    "upstream: {timeout: 10ms}", "upstream: {deadline: 1m}", "upstream: {timeout: 5s}", "upstream: {attempts: 10}",
    "upstream: {max_inflight: 60000}", "upstream: {servers: ['::1', 'tcp://[::1]', 'udp://1.1.1.1:54']}",
    "upstream: {servers: ['tls://1.1.1.1']}", "upstream: {servers: ['tls://[fd00::1]:8853?name=dns.example']}",
    "upstream: {domains: {corp: [1.1.1.1]}}",
    "upstream: {domains: {a.corp.: ['tls://1.1.1.1?name=a.b', 'tcp://::1'], corp: ['::1']}}",
    "upstream: {policy: ordered}", "upstream: {policy: race}", "cache: {max_bytes: 0}", "cache: {min_ttl: 1s}",
    "cache: {max_ttl: 2h}", "cache: {serve_stale: 0}", "cache: {prefetch: off}",
    "upstream: {domains: {}}", "upstream: {domains: }", "upstream: {policy: fastest}", "log:\n", "search: []",
    "cache: {max_bytes: 16384KiB}", "cache: {max_bytes: 16777216}", "cache: {min_ttl: 0}", "cache: {max_ttl: 60m}",
    "cache: {prefetch: yes}", "cache: {prefetch: True}", "status: off", "status: false", "status: 'off'", "autopath: false",
    "status: 127.1.2.3:1", "status: '[::1]:15054'", "log: {queries: no}", "allow: ['::1', 10.0.0.0/8, any]",
    "listen: ['[fe80::1%eth0]:53']", "search: [corp, a_b.example.]",
]  # fmt: skip

# Files that both the checker and the schema refuse; HEAD stands in front.
BAD = [
    # keys
    ("listn: []", ['3: unknown key "listn"; did you mean "listen"?']),
    ("upstream: {server: []}", ['3: upstream: unknown key "server"; did you mean "servers"?']),
    ("mesh: {tll: 3}", ['3: mesh: unknown key "tll"; did you mean "ttl"?']),
    (
        "cache: {size: 3}",
        ['3: cache: unknown key "size"; the keys here are max_bytes, min_ttl, max_ttl, serve_stale, prefetch'],
    ),
    ("log: {no: 3}", ['3: log: unknown key "no"; the keys here are queries']),
    # listen
    ("listen: 127.0.0.1:53", [f'3: listen: {NOT_LIST} ["127.0.0.1:53"]']),
    ("listen: []", [f"3: listen: {EMPTY}"]),
    ("listen:", [f'3: listen: {NOT_LIST} ["..."]']),
    ("listen: [127.0.0.1]", ['3: listen[0]: "127.0.0.1" has no port; write 127.0.0.1:15053']),
    ("listen: ['127.0.0.1:0']", [f'3: listen[0]: "127.0.0.1:0" {NOT_PORT}']),
    ("listen: ['::1:53']", ['3: listen[0]: "::1:53" has no port; write [::1]:53']),
    ("listen: ['localhost:53']", [f'3: listen[0]: "localhost" {NOT_ADDRESS} 127.0.0.1:15053']),
    ("listen:\n- 1.1.1.1:53\n- 2.2.2.2:53\n- 1.1.1.1:53", ["6: listen[2]: the same as listen[0]; keep one"]),
    # allow
    ("allow: loopback", [f'3: allow: {NOT_LIST} ["loopback"]']),
    ("allow: []", [f"3: allow: {EMPTY}"]),
    ("allow: [everyone]", [f'3: allow[0]: "everyone" {NOT_ALLOWED}']),
    ("allow: [Loopback]", [f'3: allow[0]: "Loopback" {NOT_ALLOWED}']),
    ("allow: [10.0.0.0/x]", ['3: allow[0]: "10.0.0.0/x" is not an address or a network like 10.0.0.0/8']),
    ("allow: [any, any]", ["3: allow[1]: the same as allow[0]; keep one"]),
    # search
    ("search: corp", [f'3: search: {NOT_LIST} ["corp"]']),
    ("search: [a b]", [f'3: search[0]: "a b" {NOT_DOMAIN}']),
    ("search: ['*.corp']", [f'3: search[0]: "*.corp" {NOT_DOMAIN}']),
    ("search: ['.']", ['3: search[0]: "." is the root of all names, which is no domain to write here']),
    ("search: [a..b]", ['3: search[0]: "a..b" has an empty label']),
    ("search: [a, a]", ["3: search[1]: the same as search[0]; keep one"]),
    # autopath
    ("autopath: on", ['3: autopath: "on" is not one of all, mesh, off']),
    ("autopath: true", ['3: autopath: "true" is not one of all, mesh, off']),
    ("autopath: [all]", ["3: autopath: one value is wanted here, not a list"]),
    ("autopath:", [f"3: autopath: {NO_VALUE}"]),
    # udp_max
    ("udp_max: 511", ['3: udp_max: "511" is out of range; 512 to 4096 is possible']),
    ("udp_max: 4097", ['3: udp_max: "4097" is out of range; 512 to 4096 is possible']),
    ("udp_max: '1232'", ['3: udp_max: "1232" is quoted text; leave the quotes out']),
    ("udp_max: 1232B", ['3: udp_max: "1232B" is not a whole number']),
    ("udp_max: 20:32", ['3: udp_max: "20:32" is not a whole number']),
    # workers
    ("workers: 0", ['3: workers: "0" is out of range; 1 to 64 is possible']),
    ("workers: 65", ['3: workers: "65" is out of range; 1 to 64 is possible']),
    ("workers: all", ['3: workers: "all" is not a whole number']),
    # mesh
    ("mesh: [30]", [f"3: mesh: {NOT_MAP}"]),
    ("mesh: {ttl: 30s}", ['3: mesh.ttl: "30s" is not a whole number']),
    ("mesh: {ttl: -1}", ['3: mesh.ttl: "-1" is out of range; 0 to 86400 is possible']),
    ("mesh: {ttl: 86401}", ['3: mesh.ttl: "86401" is out of range; 0 to 86400 is possible']),
    ("mesh: {zones: cluster.local}", [f'3: mesh.zones: {NOT_LIST} ["cluster.local"]']),
    ("mesh: {zones: []}", [f"3: mesh.zones: {EMPTY}"]),
    ("mesh: {zones: [a b]}", [f'3: mesh.zones[0]: "a b" {NOT_DOMAIN}']),
    # upstream
    ("upstream: 1.1.1.1", [f"3: upstream: {NOT_MAP}"]),
    ("upstream: {resolv_conf: }", [f"3: upstream.resolv_conf: {NO_VALUE}"]),
    ("upstream: {resolv_conf: ''}", ["3: upstream.resolv_conf: the path is empty"]),
    ("upstream: {resolv_conf: [x]}", ["3: upstream.resolv_conf: one value is wanted here, not a list"]),
    ("upstream: {servers: 1.1.1.1}", [f'3: upstream.servers: {NOT_LIST} ["1.1.1.1"]']),
    ("upstream: {servers: [dns.google]}", [f'3: upstream.servers[0]: "dns.google" {NOT_ADDRESS} 10.0.0.53']),
    (
        "upstream: {servers: ['https://1.1.1.1']}",
        [
            '3: upstream.servers[0]: "https://1.1.1.1": https:// is unknown; write an address, tcp://ADDRESS or tls://ADDRESS?name=NAME'
        ],
    ),
    ("upstream: {servers: ['1.1.1.1:0']}", [f'3: upstream.servers[0]: "1.1.1.1:0" {NOT_PORT}']),
    (
        "upstream: {servers: ['tcp://1.1.1.1?name=x']}",
        ['3: upstream.servers[0]: "tcp://1.1.1.1?name=x": only tls:// takes ?name=NAME; take it out'],
    ),
    (
        "upstream:\n  servers:\n  - 1.1.1.1\n  - 1.1.1.1",
        ["6: upstream.servers[1]: the same as upstream.servers[0]; keep one"],
    ),
    ("upstream: {domains: [corp]}", [f"3: upstream.domains: {NOT_MAP}"]),
    ("upstream: {domains: {a b: [1.1.1.1]}}", [f'3: upstream.domains: "a b" {NOT_DOMAIN}']),
    ("upstream: {domains: {corp: []}}", [f"3: upstream.domains.corp: {EMPTY}"]),
    ("upstream: {domains: {corp: 1.1.1.1}}", [f'3: upstream.domains.corp: {NOT_LIST} ["1.1.1.1"]']),
    ("upstream: {policy: quick}", ['3: upstream.policy: "quick" is not one of fastest, ordered, race']),
    ("upstream: {timeout: 5}", ['3: upstream.timeout: "5" has no unit; write 5s or 5ms']),
    ("upstream: {timeout: fast}", [f'3: upstream.timeout: "fast" {NOT_DURATION}']),
    ("upstream: {attempts: 0}", ['3: upstream.attempts: "0" is out of range; 1 to 10 is possible']),
    ("upstream: {attempts: 11}", ['3: upstream.attempts: "11" is out of range; 1 to 10 is possible']),
    ("upstream: {attempts: two}", ['3: upstream.attempts: "two" is not a whole number']),
    ("upstream: {deadline: 5 s}", [f'3: upstream.deadline: "5 s" {NOT_DURATION}']),
    ("upstream: {max_inflight: 0}", ['3: upstream.max_inflight: "0" is out of range; 1 to 60000 is possible']),
    ("upstream: {max_inflight: 2k}", ['3: upstream.max_inflight: "2k" is not a whole number']),
    # cache
    ("cache: off", [f"3: cache: {NOT_MAP}"]),
    ("cache: {max_bytes: 16MB}", ['3: cache.max_bytes: "16MB" is not a size; write 16MiB']),
    ("cache: {max_bytes: -1}", ['3: cache.max_bytes: "-1" is not a size; write it like 64KiB, 16MiB or 1GiB']),
    ("cache: {min_ttl: 5}", ['3: cache.min_ttl: "5" has no unit; write 5s or 5ms']),
    ("cache: {max_ttl: long}", [f'3: cache.max_ttl: "long" {NOT_DURATION}']),
    ("cache: {serve_stale: yes}", [f'3: cache.serve_stale: "yes" {NOT_DURATION}']),
    ("cache: {prefetch: maybe}", ['3: cache.prefetch: "maybe" is neither true nor false']),
    ("cache: {prefetch: 'true'}", ['3: cache.prefetch: "true" is quoted text; leave the quotes out']),
    # status
    ("status: on", [f'3: status: "on" {NOT_ADDRESS} 127.0.0.1:15053']),
    ("status: 15054", ['3: status: "15054" is not an IP address']),
    ("status: 127.0.0.1", ['3: status: "127.0.0.1" has no port; write 127.0.0.1:15053']),
    ("status: 0.0.0.0:15054", [f'3: status: "0.0.0.0:15054" {NOT_LOOPBACK} 127.0.0.1:15054']),
    ("status: '[::]:80'", [f'3: status: "[::]:80" {NOT_LOOPBACK} [::1]:80']),
    ("status: [off]", ["3: status: one value is wanted here, not a list"]),
    ("status:", [f"3: status: {NO_VALUE}"]),
    # log
    ("log: {queries: all}", ['3: log.queries: "all" is neither true nor false']),
    ("log: {queries: 1}", ['3: log.queries: "1" is neither true nor false']),
    ("log: on", [f"3: log: {NOT_MAP}"]),
]

WHOLE = [
    # workload
    ("table: {file: t}", ["1: workload is required"]),
    ("workload:\ntable: {file: t}", ["1: workload.namespace is required"]),
    ("workload: {}\ntable: {file: t}", ["1: workload.namespace is required"]),
    ("workload: ns1\ntable: {file: t}", [f"1: workload: {NOT_MAP}"]),
    ("workload: {namespace: }\ntable: {file: t}", [f"1: workload.namespace: {NO_VALUE}"]),
    ("workload: {namespace: NS1}\ntable: {file: t}", [f'1: workload.namespace: "NS1" {NOT_LABEL}']),
    ("workload: {namespace: a.b}\ntable: {file: t}", [f'1: workload.namespace: "a.b" {NOT_LABEL}']),
    ("workload: {namespace: a-}\ntable: {file: t}", [f'1: workload.namespace: "a-" {NOT_LABEL}']),
    (
        f"workload: {{namespace: {'a' * 64}}}\ntable: {{file: t}}",
        [f'1: workload.namespace: "{"a" * 57}..." {NOT_LABEL}'],
    ),
    ("workload: {namespace: [a]}\ntable: {file: t}", ["1: workload.namespace: one value is wanted here, not a list"]),
    ("workload: {namespace: a, cluster: x y}\ntable: {file: t}", [f'1: workload.cluster: "x y" {NOT_WORD}']),
    ("workload: {namespace: a, network: x y}\ntable: {file: t}", [f'1: workload.network: "x y" {NOT_WORD}']),
    (
        "workload: {namespace: a, cluster_domain: x y}\ntable: {file: t}",
        [f'1: workload.cluster_domain: "x y" {NOT_DOMAIN}'],
    ),
    (
        "workload: {namespace: a, name_space: a}\ntable: {file: t}",
        ['1: workload: unknown key "name_space"; did you mean "namespace"?'],
    ),
    # table
    ("workload: {namespace: a}", ["1: table is required"]),
    ("workload: {namespace: a}\ntable:\n", [f"2: table: {ONE_TABLE}"]),
    ("workload: {namespace: a}\ntable: {}\n", [f"2: table: {ONE_TABLE}"]),
    ("workload: {namespace: a}\ntable: t.json\n", [f"2: table: {NOT_MAP}"]),
    ("workload: {namespace: a}\ntable: {file: }\n", [f"2: table.file: {NO_VALUE}"]),
    ("workload: {namespace: a}\ntable: {file: ''}\n", ["2: table.file: the path is empty"]),
    ("workload: {namespace: a}\ntable: {file: t, snapshot: ''}\n", ["2: table.snapshot: the path is empty"]),
    ("workload: {namespace: a}\ntable: {file: [t]}\n", ["2: table.file: one value is wanted here, not a list"]),
    (
        "workload: {namespace: a}\ntable: {flie: t}\n",
        [f"2: table: {ONE_TABLE}", '2: table: unknown key "flie"; did you mean "file"?'],
    ),
    (
        "workload: {namespace: a}\ntable:\n  file: t\n  manifests: [m]\n",
        [
            "4: table.manifests: file is there too; keep one of control_plane, manifests, file",
        ],
    ),
    ("workload: {namespace: a}\ntable:\n  manifests: []\n", [f"3: table.manifests: {EMPTY}"]),
    (
        "workload: {namespace: a}\ntable:\n  manifests: [{name: c}, {name: d, manifests: d/, kubeconfig: k}]\n",
        [
            "3: table.manifests[0]: one of manifests, kubeconfig is required",
            "3: table.manifests[1].kubeconfig: manifests is there too; keep one of manifests, kubeconfig",
        ],
    ),
]

# The innards of table.control_plane, in line 3, and what is said of them.
CONTROL = [
    ("{}", [".urls is required", ": ca or pins is required, to know the control plane by"]),
    ("{ca: c}", [".urls is required"]),
    ("{ca: c, urls: []}", [f".urls: {EMPTY}"]),
    ("{ca: c, urls: https://x}", [f'.urls: {NOT_LIST} ["https://x"]']),
    ("{ca: c, urls: ['http://x']}", [f'.urls[0]: "http://x" {NOT_URL}']),
    ("{ca: c, urls: ['https://']}", [f'.urls[0]: "https://" {NOT_URL}']),
    ("{ca: c, urls: ['https://x/path']}", [f'.urls[0]: "https://x/path" {NOT_URL}']),
    ("{ca: c, urls: ['https://a b']}", [f'.urls[0]: "https://a b" {NOT_URL}']),
    ("{ca: c, urls: ['https://user@x']}", [f'.urls[0]: "https://user@x" {NOT_URL}']),
    ("{urls: ['https://x']}", [": ca or pins is required, to know the control plane by"]),
    ("{urls: ['https://x'], pins: []}", [": ca or pins is required, to know the control plane by"]),
    (
        "{urls: ['https://x'], ca: c, name: a b}",
        ['.name: "a b" is not a domain; letters, digits, "-" and "_" between dots are possible'],
    ),
    ("{urls: ['https://x'], ca: }", [f".ca: {NO_VALUE}"]),
    ("{urls: ['https://x'], pins: [abc]}", [f'.pins[0]: "abc" {NOT_PIN}']),
    ("{urls: ['https://x'], ca: c, key: k}", [".key: it needs certificate beside it"]),
    ("{urls: ['https://x'], ca: c, certificate: k}", [".certificate: it needs key beside it"]),
    ("{urls: ['https://x'], ca: c, token_file: ''}", [".token_file: the path is empty"]),
    ("{urls: ['https://x'], ca: c, token: t}", [': unknown key "token"; did you mean "token_file"?']),
    ("[https://x]", [f": {NOT_MAP}"]),
]

# Files (behind HEAD) that only the checker refuses: a schema cannot say it.
BEYOND = [
    ("listen: [0.0.0.0:99999]", [f'3: listen[0]: "0.0.0.0:99999" {NOT_PORT}']),
    ("listen: ['1.2.3.400:53']", ['3: listen[0]: "1.2.3.400" is not an IP address']),
    (
        "listen: ['[fe80::1]:53']",
        ['3: listen[0]: "fe80::1" is link-local and needs its interface; write fe80::1%eth0'],
    ),
    ("listen: ['[::1]:53', '[0::1]:53']", ["3: listen[1]: the same as listen[0]; keep one"]),
    (
        "listen: [0.0.0.0:53, 127.0.0.1:53]",
        ["3: listen: 127.0.0.1:53 is part of the other address with this port; keep one"],
    ),
    ("allow: [10.0.0.1/8]", ['3: allow[0]: "10.0.0.1/8" has bits set behind its prefix; write 10.0.0.0/8']),
    ("allow: [10.0.0.0/33]", ['3: allow[0]: "10.0.0.0/33" is not an address or a network like 10.0.0.0/8']),
    ("search: [A.b, a.B.]", ["3: search[1]: the same as search[0]; keep one"]),
    ("udp_max: 0x400", ['3: udp_max: "0x400" is not a whole number']),
    ("upstream: {timeout: 9ms}", ['3: upstream.timeout: "9ms" is out of range; 10ms to 1m is possible']),
    ("upstream: {timeout: 0}", ['3: upstream.timeout: "0" is out of range; 10ms to 1m is possible']),
    ("upstream: {deadline: 61s}", ['3: upstream.deadline: "61s" is out of range; 10ms to 1m is possible']),
    (
        "upstream:\n  timeout: 3s\n  deadline: 2s",
        ["5: upstream.deadline: the deadline of 2s is shorter than the timeout of one server, 3s"],
    ),
    (
        "upstream: {timeout: 6s}",
        ["3: upstream.timeout: the deadline of 5s (its default) is shorter than the timeout of one server, 6s"],
    ),
    ("upstream: {servers: ['0.0.0.0']}", ['3: upstream.servers[0]: "0.0.0.0" is not the address of one server']),
    (
        "upstream: {servers: ['1.1.1.1', '1.1.1.1:53']}",
        ["3: upstream.servers[1]: the same as upstream.servers[0]; keep one"],
    ),
    # D19: its own addresses are never an upstream
    (
        "upstream: {servers: ['127.0.0.1:15053']}",
        ["3: upstream: 127.0.0.1:15053 is where this agent listens, and would make it ask itself; take it out"],
    ),
    (
        "listen: [0.0.0.0:53]\nupstream: {servers: [127.0.0.53]}",
        ["4: upstream: 127.0.0.53:53 is where this agent listens, and would make it ask itself; take it out"],
    ),
    (
        "listen: ['127.0.0.1:15054']",
        ["3: listen: 127.0.0.1:15054 cannot serve both DNS and the status page; give one another port"],
    ),
    (
        "listen: ['0.0.0.0:53']\nstatus: 127.0.0.1:53",
        ["4: status: 127.0.0.1:53 cannot serve both DNS and the status page; give one another port"],
    ),
    ("status: 127.0.0.1:70000", [f'3: status: "127.0.0.1:70000" {NOT_PORT}']),
    ("cache: {max_bytes: 65GiB}", ['3: cache.max_bytes: "65GiB" is out of range; 0 to 64GiB is possible']),
    ("cache: {max_ttl: 8d}", ['3: cache.max_ttl: "8d" is out of range; 0s to 7d is possible']),
    (
        "cache: {min_ttl: 2h}",
        ["3: cache.min_ttl: min_ttl 2h is longer than max_ttl 1h"],
    ),
    (
        "cache: {max_ttl: 0s, min_ttl: 1s}",
        [
            "3: cache.min_ttl: min_ttl 1s is longer than max_ttl 0s",
        ],
    ),
    ("cache: {prefetch: 'yes'}", ['3: cache.prefetch: "yes" is quoted text; leave the quotes out']),
    ("mesh: {ttl: 1}\nmesh: {ttl: 2}", ["4: mesh is there twice, first in line 3; keep one"]),
]

# What later versions do: contract section 4 knows it, this one refuses it, and says what to use instead.
# Tables that are all right.
TABLES = [
    "  manifests: [mesh/, one.yaml]",
    "  manifests: [{name: east, network: n, domain: a.b, manifests: e/}, {name: west, manifests: w/}]",
    f"  control_plane: {{urls: ['https://x:1/'], pins: ['{PIN}']}}",
    "  control_plane: {urls: ['https://[::1]:1'], ca: c, certificate: a, key: b, token_file: t}",
    "  file: t\n  snapshot: s",
]


class BadFileTests(SynchronousTestCase):
    """Each kind of wrong value of each key, and exactly what is said about it, with its line."""

    def _said(self, expected: list[str], text: str) -> None:
        self.assertEqual(sorted(expected), sorted(problems(text)), f"of {text}")

    def test_bad(self) -> None:
        for text, expected in BAD + BEYOND:
            self._said(expected, HEAD + text)

    def test_workload_and_table(self) -> None:
        for text, expected in WHOLE:
            self._said(expected, text)

    def test_control_plane(self) -> None:
        for text, expected in CONTROL:
            about = [f"3: table.control_plane{each}" for each in expected]
            self._said(about, f"workload: {{namespace: a}}\ntable:\n  control_plane: {text}\n")

    def test_tables(self) -> None:
        for text in TABLES:
            self._said([], f"workload: {{namespace: a}}\ntable:\n{text}\n")

    def test_every_key_has_a_bad_value(self) -> None:
        """No key is left out of the tables above."""
        said = " ".join(reason for _, reasons in BAD + BEYOND + WHOLE for reason in reasons)
        said += "".join(f" table.control_plane{reason}" for _, reasons in CONTROL for reason in reasons)
        missing = {key for key, _ in keys() if f" {key}" not in said and not key.startswith("table.manifests.")}
        self.assertEqual(set(), missing)


class LoadTests(SynchronousTestCase):
    def test_relative_paths(self) -> None:
        """They start at the file's directory, wherever the agent was started, and stay when it changes directory."""
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        (folder / "agent.yaml").write_text(HEAD + "upstream: {resolv_conf: r}")
        found = config.load(str(folder / "agent.yaml"))
        self.assertEqual(str(folder.resolve() / "t.json"), found.table.file)
        self.assertEqual(str(folder.resolve() / "r"), found.upstream.resolv_conf)

    def test_unreadable(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        for path, reason in ((folder / "no.yaml", "No such file or directory"), (folder, "Is a directory")):
            error = self.assertRaises(Invalid, config.load, str(path))
            self.assertEqual(f"{path}:1: cannot be read: {reason}", str(error))

    def test_endless(self) -> None:
        """A file without end is read up to the limit."""
        self.assertIn("is larger than 256KiB", str(self.assertRaises(Invalid, config.load, "/dev/zero")))


def instance(node: yamltext.Node) -> Any:
    """What an editor hands to the schema: the file by YAML 1.2's core schema."""
    if node.kind == "map":
        return {key.text: instance(value) for key, value in zip(node.items[::2], node.items[1::2], strict=True)}
    if node.kind == "list":
        return [instance(each) for each in node.items]
    if node.kind == "nothing":
        return None
    if not node.plain:
        return node.text
    if re.fullmatch("true|True|TRUE|false|False|FALSE", node.text):
        return node.text.lower() == "true"
    if re.fullmatch("[-+]?[0-9]+|0x[0-9a-fA-F]+", node.text):
        return int(node.text, 0)
    return float(node.text) if re.fullmatch(r"[-+]?[0-9]+\.[0-9]*", node.text) else node.text


class SchemaTests(SynchronousTestCase):
    """etc/agent.schema.json, for editors, and our checker agree."""

    def _takes(self, text: str) -> bool:
        tree = yamltext.tree(text.encode(), yamltext.Sheet("f"))
        return bool(Draft202012Validator(SCHEMA).is_valid(instance(tree)))

    def test_is_a_schema(self) -> None:
        Draft202012Validator.check_schema(SCHEMA)

    def test_same_keys(self) -> None:
        """Every key of the classes, no other, everywhere."""

        def found(schema: dict[str, Any], front: str = "") -> Iterator[str]:
            schema = {**schema, **SCHEMA["$defs"].get(schema.get("$ref", "").rpartition("/")[2], {})}
            for part in [schema, schema.get("items", {}), *schema.get("anyOf", [])]:
                if part is not schema and ("items" in part or "anyOf" in part or "$ref" in part):
                    yield from found(part, front)
                for key, inner in part.get("properties", {}).items() if "additionalProperties" in part else ():
                    yield front + key
                    yield from found(inner, f"{front}{key}.")

        self.assertEqual(sorted(key for key, _ in keys()), sorted(found(SCHEMA)))

    def test_same_defaults(self) -> None:
        """A file with every default of the schema in it is the same as one without."""

        def filled(schema: dict[str, Any]) -> Any:
            inner = {key: filled(each) for key, each in schema.get("properties", {}).items()}
            return schema.get(
                "default", {key: value for key, value in inner.items() if value not in (None, {})} or None
            )

        stated = filled(SCHEMA)
        stated["workload"]["namespace"], stated["table"] = "ns1", {"file": "t.json"}
        self.assertGreater(len(json.dumps(stated)), 500)
        self.assertEqual(parse(HEAD), parse(json.dumps(stated)))

    def test_good(self) -> None:
        for text in GOOD:
            self.assertTrue(self._takes(HEAD + text), text)
        for sample in ("etc/agent.yaml", "examples/agent.yaml"):
            self.assertTrue(self._takes((ROOT / sample).read_text()), sample)

    def test_bad(self) -> None:
        for text, _ in BAD:
            self.assertFalse(self._takes(HEAD + text), text)
        for text, _ in WHOLE:
            self.assertFalse(self._takes(text), text)
        for text, _ in CONTROL:
            self.assertFalse(self._takes(f"workload: {{namespace: a}}\ntable:\n  control_plane: {text}\n"), text)

    def test_beyond(self) -> None:
        """What a schema cannot say."""
        for text, _ in BEYOND:
            self.assertTrue(self._takes(HEAD + text), text)
        for text in TABLES:
            self.assertTrue(self._takes(f"workload: {{namespace: a}}\ntable:\n{text}\n"), text)


class DocumentTests(SynchronousTestCase):
    """What users read: etc/agent.yaml and docs/configuration.md name every key, and what they show is right."""

    def setUp(self) -> None:
        self.sample = (ROOT / "etc" / "agent.yaml").read_text()
        self.text = (ROOT / "docs" / "configuration.md").read_text()

    def test_keys(self) -> None:
        for key, _ in keys():
            last = re.escape(key.rpartition(".")[2])
            self.assertRegex(self.sample, rf"(?m)^[ #]*(- )?.*\b{last}:", f"etc/agent.yaml does not show {key}")
            form = f"`{key}`" if not any(each.startswith(f"{key}.") for each, _ in keys()) else key
            self.assertIn(form, self.text, f"docs/configuration.md does not name {key}")

    def test_sample(self) -> None:
        """The sample states the defaults, and has no problem."""
        found = config.parse(self.sample.encode(), "/etc/meshdns/agent.yaml")
        expected = parse("workload: {namespace: default}\ntable: {file: nametable.json}")
        self.assertEqual(expected, attrs.evolve(found, table=expected.table))
        self.assertTrue(found.table.file.startswith("/etc/meshdns/nametable.json"), found.table.file)

    def test_sample_states_every_key(self) -> None:
        """Those that have a default and may be stated are; the others stand there as comments."""
        stated = yamltext.tree(self.sample.encode(), yamltext.Sheet("f"))
        top = {key.text for key in stated.items[::2]}
        self.assertEqual({field.name for field in attrs.fields(config.AgentConfig)} - {"search"}, top)

    def test_documented_defaults(self) -> None:
        """The default in each row of the document's tables is what a file without the key gets."""
        rows = re.findall(r"(?m)^\| `([a-z_.]+)` \| `(.+?)` \|", self.text)
        self.assertGreater(len(rows), 20)
        for key, default in rows:
            section, _, name = key.rpartition(".")
            if section.startswith("table"):
                continue
            line = f"{section}: {{{name}: {default}}}" if section else f"{name}: {default}"
            text = HEAD.replace("ns1}", f"ns1, {name}: {default}}}") if section == "workload" else f"{HEAD}{line}\n"
            self.assertEqual(parse(HEAD), parse(text), key)

    def test_examples(self) -> None:
        """Every YAML block of the document is right, with what it leaves out put in."""
        blocks = re.findall(r"(?s)```yaml\n(.*?)```", self.text)
        self.assertGreater(len(blocks), 5)
        for block in blocks:
            for line in HEAD.splitlines():
                if line.partition(":")[0] + ":" not in block:
                    block = f"{line}\n{block}"
            self.assertEqual([], problems(block), block)

    def test_transcript(self) -> None:
        """The sentences shown as an example are those that one gets."""
        text = "workload: {namespace: a}\nlisen: []\ntable: {file: t}\n\nupstream:\n  servers: []\n  timeout: 5\n"
        for problem in problems(text):
            self.assertIn(f"    agent.yaml:{problem}\n", self.text)
        self.assertEqual(2, len(problems(text)))
