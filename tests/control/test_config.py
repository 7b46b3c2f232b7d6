"""The control plane's configuration (contract section 4): every key, its default, and what is said when it is wrong."""

import json
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import attrs
from jsonschema import Draft202012Validator
from twisted.trial.unittest import SynchronousTestCase

from meshdns import names, yamltext
from meshdns.clusters import Cluster
from meshdns.control import config
from meshdns.settings import Endpoint, Invalid
from tests.agent.test_config import instance, keys

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "etc" / "control.schema.json").read_text())
# What each file needs; the rest begins in line 3.
HEAD = "tls: {certificate: c.pem, key: k.pem, client_ca: ca.pem}\nclusters: [{name: east, manifests: east/}]\n"
TLS = "tls: {certificate: c.pem, key: k.pem, client_ca: ca.pem}\n"
NOT_LABEL = 'is not a DNS label; lower-case letters, digits and inner "-" are possible, at most 63'
NOT_EXPORT = "is none of *, ., ~ and the name of a namespace"
NOBODY = "tls.client_ca or tokens is required, to know agents by; without them every agent is refused"

# Files (behind HEAD) that both the checker and the schema take.
GOOD = [
    "listen: ['[::]:15012', 127.0.0.1:1]", "trust_domain: corp.example", "tokens: t.yaml", "vips:\n", "vips: {}",
    "vips: {ipv4: 10.0.0.0/30, ipv6: 'fd00::/126', store: 'sqlite:v.sqlite'}", "root_namespace: mesh",
    "export_to: [., ns1, ns2]", "export_to: ['~']", "status: off", "status: '[::1]:9'",
]  # fmt: skip

# Files that both the checker and the schema refuse; HEAD stands in front.
BAD = [
    ("listn: []", ['3: unknown key "listn"; did you mean "listen"?']),
    ("listen: []", ["3: listen: the list is empty; put a value in, or take the line out for the default"]),
    ("listen: [host:1]", ['3: listen[0]: "host" is a name; an IP address is wanted, like 127.0.0.1:15053']),
    ("trust_domain: a b", ['3: trust_domain: "a b" is not a domain; letters, digits, "-" and "_" between dots are possible']),
    ("tokens: ''", ["3: tokens: the path is empty"]),
    ("root_namespace: A", [f'3: root_namespace: "A" {NOT_LABEL}']),
    ("vips: {ipv4: x}", ['3: vips.ipv4: "x" is not an address or a network like 10.0.0.0/8']),
    ("vips: {ipv4: 'fd00::/64'}", ['3: vips.ipv4: "fd00::/64" is not an IPv4 network']),
    ("vips: {ipv6: 10.0.0.0/8}", ['3: vips.ipv6: "10.0.0.0/8" is not an IPv6 network']),
    ("vips: {store: v.sqlite}", ['3: vips.store: "v.sqlite" is no store; write sqlite:FILE']),
    ("vips: {stor: x}", ['3: vips: unknown key "stor"; did you mean "store"?']),
    ("export_to: [A]", [f'3: export_to[0]: "A" {NOT_EXPORT}']),
    ("status: 10.0.0.1:1", [
        '3: status: "10.0.0.1:1" is not a loopback address, and the page asks nobody for a password; write 127.0.0.1:1'
    ]),
]  # fmt: skip

# Files (behind HEAD) that only the checker refuses: a schema cannot say it.
BEYOND = [
    ("vips: {ipv4: 10.0.0.0/31}", ['3: vips.ipv4: "10.0.0.0/31" has room for no VIP; /30 is the narrowest possible']),
    ("vips: {ipv6: 'fd00::/128'}", ['3: vips.ipv6: "fd00::/128" has room for no VIP; /126 is the narrowest possible']),
    ("vips: {ipv4: 10.0.0.1/8}", ['3: vips.ipv4: "10.0.0.1/8" has bits set behind its prefix; write 10.0.0.0/8']),
    ("export_to: ['*', ns1]", ['3: export_to: "*" leaves no room for other words; keep it alone, or take it out']),
    ("listen: ['0.0.0.0:1', '127.0.0.1:1']", ["3: listen: 127.0.0.1:1 is part of the other address with this port; keep one"]),
    ("listen: ['0.0.0.0:15014']", [
        "3: listen: 127.0.0.1:15014 cannot serve both agents and the status page; give one another port"
    ]),
]  # fmt: skip

# Whole files that both refuse.
WHOLE = [
    ("clusters: [{name: e, manifests: e/}]\n", ["1: tls is required"]),
    (TLS, ["1: clusters is required"]),
    (TLS + "clusters: []\n", ["2: clusters: the list is empty; put a value in, or take the line out for the default"]),
    (TLS + "clusters: [{name: E, manifests: e/}]\n", [f'2: clusters[0].name: "E" {NOT_LABEL}']),
    (TLS + "clusters: [{name: e}]\n", ["2: clusters[0]: one of manifests, kubeconfig is required"]),
    ("tls: {key: k, client_ca: c}\nclusters: [{name: e, manifests: e/}]\n", ["1: tls.certificate is required"]),
    (
        "tls: {certificate: c, key: k, client_ca_key: r}\ntokens: t\nclusters: [{name: e, manifests: e/}]\n",
        ["1: tls.client_ca_key: it needs client_ca beside it, whose key it is"],
    ),
    ("tls: {certificate: c, client_ca: c}\nclusters: [{name: e, manifests: e/}]\n", ["1: tls.key is required"]),
    (TLS + "clusters: [{name: e, network: 'a b', manifests: e/}]\n", [
        '2: clusters[0].network: "a b" is not one word; at most 253 characters without spaces are possible'
    ]),
]  # fmt: skip

# Whole files that only the checker refuses.
WHOLE_BEYOND = [
    ("tls: {certificate: c, key: k}\nclusters: [{name: e, manifests: e/}]\n", [f"1: tls: {NOBODY}"]),
    (TLS + "clusters: [{name: e, manifests: e/}, {name: e, manifests: f/}]\n", [
        '2: clusters: two clusters are called "e"; give one another name'
    ]),
    (TLS + "clusters: [{name: e, kubeconfig: k}]\n", [
        "2: clusters[0].kubeconfig: not in this version yet (0.1): use manifests, a directory that a job keeps up to date"
    ]),
    (TLS + "clusters: [{name: e, domain: clusterset.local, manifests: e/}]\n", [
        "2: clusters[0].domain: clusterset.local belongs to ServiceImports of all clusters; write the cluster's own domain"
    ]),
]  # fmt: skip


def parse(text: str) -> config.ControlConfig:
    return config.parse(text.encode(), "/etc/meshdns/control.yaml")


def problems(text: str) -> list[str]:
    """The problems as `line: reason`."""
    try:
        config.parse(text.encode(), "control.yaml")
    except Invalid as error:
        return [f"{problem.line}: {problem.reason}" for problem in error.problems]
    return []


class ValueTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        """The defaults of the contract, all of them."""
        found = parse(HEAD)
        self.assertEqual((Endpoint("0.0.0.0", 15012),), found.listen)
        self.assertEqual(Endpoint("127.0.0.1", 15014), found.status)
        self.assertEqual((names.parse("cluster.local"), None), (found.trust_domain, found.tokens))
        self.assertEqual(("istio-system", ("*",)), (found.root_namespace, found.export_to))
        self.assertEqual((ip_network("240.240.0.0/16"), ip_network("2001:2::/48")), (found.vips.ipv4, found.vips.ipv6))
        self.assertEqual("sqlite:/var/lib/meshdns/vips.sqlite", found.vips.store)

    def test_contract(self) -> None:
        """The contract's example, but for live API servers."""
        found = parse(
            """
            listen: ["0.0.0.0:15012"]
            tls: {certificate: server.pem, key: server.key, client_ca: root.pem}
            trust_domain: cluster.local
            tokens: tokens.yaml
            clusters:
              - {name: east, network: east-net, domain: cluster.local, manifests: east/}
              - {name: west, network: west-net, domain: cluster.local, manifests: west/}
            vips: {ipv4: 240.240.0.0/16, ipv6: "2001:2::/48", store: "sqlite:/var/lib/meshdns/vips.sqlite"}
            root_namespace: istio-system
            export_to: ["*"]
            status: 127.0.0.1:15014
            """
        )
        domain = names.parse("cluster.local")
        east = Cluster(name="east", network="east-net", domain=domain, manifests="/etc/meshdns/east/")
        west = Cluster(name="west", network="west-net", domain=domain, manifests="/etc/meshdns/west/")
        self.assertEqual((east, west), found.clusters)
        self.assertEqual("/etc/meshdns/root.pem", found.tls.client_ca)
        self.assertEqual("/etc/meshdns/tokens.yaml", found.tokens)

    def test_relative_store(self) -> None:
        """Like every path it starts at the configuration's directory."""
        self.assertEqual("sqlite:/etc/meshdns/v.sqlite", parse(HEAD + "vips: {store: 'sqlite:v.sqlite'}").vips.store)

    def test_tokens_alone(self) -> None:
        self.assertEqual(
            [], problems("tls: {certificate: c, key: k}\ntokens: t\nclusters: [{name: e, manifests: e/}]\n")
        )


class BadFileTests(SynchronousTestCase):
    """Each kind of wrong value of each key, and exactly what is said about it, with its line."""

    def test_behind_head(self) -> None:
        for text, expected in BAD + BEYOND:
            self.assertEqual(sorted(expected), sorted(problems(HEAD + text)), text)

    def test_whole(self) -> None:
        for text, expected in WHOLE + WHOLE_BEYOND:
            self.assertEqual(sorted(expected), sorted(problems(text)), text)

    def test_unreadable(self) -> None:
        error = self.assertRaises(Invalid, config.load, "/nowhere/control.yaml")
        self.assertEqual("/nowhere/control.yaml:1: cannot be read: No such file or directory", str(error))

    def test_every_key_has_a_bad_value(self) -> None:
        """No key is left out of the tables above; a file's name can only be empty, which `tokens` shows."""
        said = " ".join(reason for _, reasons in BAD + BEYOND + WHOLE + WHOLE_BEYOND for reason in reasons)
        said = said.replace("clusters[0].", "clusters.")
        missing = {key for key, _ in keys(config.ControlConfig) if f" {key}" not in said}
        self.assertEqual({"clusters.manifests"}, missing)


class SchemaTests(SynchronousTestCase):
    """etc/control.schema.json, for editors, and our checker agree."""

    def _takes(self, text: str) -> bool:
        tree = yamltext.tree(text.encode(), yamltext.Sheet("f"))
        return bool(Draft202012Validator(SCHEMA).is_valid(instance(tree)))

    def test_is_a_schema(self) -> None:
        Draft202012Validator.check_schema(SCHEMA)

    def test_same_keys(self) -> None:
        """Every key of the classes, no other."""

        def found(schema: dict[str, Any], front: str = "") -> Iterator[str]:
            schema = {**schema, **SCHEMA["$defs"].get(schema.get("$ref", "").rpartition("/")[2], {})}
            for key, inner in schema.get("properties", {}).items():
                yield front + key
                yield from found(inner, f"{front}{key}.")
            if "items" in schema:
                yield from found(schema["items"], front)

        self.assertEqual(sorted(key for key, _ in keys(config.ControlConfig)), sorted(set(found(SCHEMA))))

    def test_agreement(self) -> None:
        for text in GOOD:
            self.assertEqual([], problems(HEAD + text), text)
            self.assertTrue(self._takes(HEAD + text), text)
        for text, _ in BAD:
            self.assertFalse(self._takes(HEAD + text), text)
        for text, _ in WHOLE:
            self.assertFalse(self._takes(text), text)
        for text, _ in BEYOND:
            self.assertTrue(self._takes(HEAD + text), text)
        for text, _ in WHOLE_BEYOND:
            self.assertTrue(self._takes(text), text)


class DocumentTests(SynchronousTestCase):
    """What users read: etc/control.yaml and docs/control-plane.md name every key, and the sample states the defaults."""

    def setUp(self) -> None:
        self.sample = (ROOT / "etc" / "control.yaml").read_text()

    def test_sample(self) -> None:
        found = parse(self.sample)
        expected = parse(HEAD)
        self.assertEqual(expected, attrs.evolve(found, tls=expected.tls, clusters=expected.clusters))
        self.assertEqual((), found.clusters[1:])

    def test_keys(self) -> None:
        text = (ROOT / "docs" / "control-plane.md").read_text()
        for key, _ in keys(config.ControlConfig):
            self.assertRegex(self.sample, rf"(?m)\b{key.rpartition('.')[2]}:", f"etc/control.yaml does not show {key}")
            self.assertIn(f"`{key.replace('clusters.', 'clusters[].')}`" if "." in key else key, text, key)
