"""Files of manifests to objects (rule C1): what is read, what is said of what is wrong, and what stays then."""

import time
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from meshdns.control.documents import BadDocument, compose, parts
from meshdns.control.kinds import _READERS
from meshdns.control.manifests import Manifests
from meshdns.control.model import Egress, Object, Ref, Service, ServiceEntry, Sidecar, Update
from tests.control.world import finish

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: ns1}
spec:
  clusterIP: %s
  ports: [{name: http, port: 80}]
"""
ISTIO = "networking.istio.io/v1"
# A right document of every kind with every field that is read, and the paths of those that may not be a list, a map or nonsense.
WHOLE: dict[str, str] = {
    "Service": """
apiVersion: v1
metadata: {name: a, namespace: ns1, annotations: {networking.istio.io/exportTo: "."}, creationTimestamp: "2026-01-01T00:00:00Z"}
spec: {type: ClusterIP, clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ports: [{name: a, port: 1, protocol: TCP}],
  selector: {a: b}, publishNotReadyAddresses: true}""",
    "Endpoints": """
apiVersion: v1
metadata: {name: a, namespace: ns1}
subsets: [{addresses: [{ip: 10.0.0.1, hostname: a}], notReadyAddresses: [{ip: 10.0.0.2}]}]""",
    "EndpointSlice": """
apiVersion: discovery.k8s.io/v1
metadata: {name: a, namespace: ns1, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1], hostname: a, conditions: {ready: true}}]""",
    "Pod": """
apiVersion: v1
metadata: {name: a, namespace: ns1, labels: {a: b}}
spec: {hostname: a, subdomain: b, serviceAccountName: c}
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: "True"}]}""",
    "Namespace": """
apiVersion: v1
metadata: {name: a, labels: {topology.istio.io/network: n}}""",
    "ServiceEntry": """
apiVersion: networking.istio.io/v1
metadata: {name: a, namespace: ns1, labels: {a: b}, creationTimestamp: "2026-01-01T00:00:00Z"}
spec: {hosts: [a.example.com], addresses: [10.0.0.1], ports: [{number: 1, name: a, protocol: TCP}], resolution: DNS,
  endpoints: [{address: 10.0.0.1, network: n}], workloadSelector: {labels: {a: b}}, exportTo: ["."]}
status: {addresses: [{host: a.example.com, value: 10.0.0.1}]}""",
    "WorkloadEntry": """
apiVersion: networking.istio.io/v1
metadata: {name: a, namespace: ns1}
spec: {address: 10.0.0.1, labels: {a: b}, network: n, serviceAccount: s}""",
    "Sidecar": """
apiVersion: networking.istio.io/v1
metadata: {name: a, namespace: ns1, creationTimestamp: "2026-01-01T00:00:00Z"}
spec: {workloadSelector: {labels: {a: b}}, egress: [{hosts: ["./*"], port: {number: 1}}]}""",
    "ServiceImport": """
apiVersion: multicluster.x-k8s.io/v1alpha1
metadata: {name: a, namespace: ns1}
spec: {type: ClusterSetIP, ips: [10.0.0.1], ports: [{name: a, port: 1, protocol: TCP}]}""",
}


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.manifests = Manifests("east")

    def feed(self, text: str | bytes, file: str = "a.yaml") -> Update:
        return finish(self.manifests.feed(file, text.encode() if isinstance(text, str) else text))

    def problems(self) -> list[str]:
        return [str(problem) for problem in self.manifests.problems]

    def said(self, text: str | bytes) -> list[str]:
        self.feed(text)
        return self.problems()

    def one(self, text: str) -> Object:
        (found,) = self.feed(text).changed
        return found


class KindTests(Case):
    def test_every_kind(self) -> None:
        """C1: each kind is read whole, without a problem."""
        self.assertEqual(_READERS.keys(), WHOLE.keys())
        for kind, text in WHOLE.items():
            self.assertEqual(kind, self.one(f"kind: {kind}{text}").ref.kind.replace("Endpoints", kind))
            self.assertEqual([], self.problems(), kind)

    def test_wrong_type_at_every_field(self) -> None:
        """C1: whatever stands at a field, it is told with file, line, object and field, and nothing falls over."""
        for kind, text in WHOLE.items():
            tree: Any = _plain(compose(f"kind: {kind}{text}"))
            for path in _paths(tree):
                if path[-1] in ("kind", "apiVersion") or "labels" in path[:-1] or "annotations" in path[:-1]:
                    continue
                for wrong in ("[[1]]", "{x: {y: z}}", '"\\0 ?"'):
                    if isinstance(_at(tree, path), dict) and wrong.startswith("{"):
                        continue  # it may say what it likes
                    self.setUp()
                    self.feed(f"kind: {kind}\n" + _yaml(_with(tree, path, wrong)))
                    told = self.problems()
                    if not told:  # a free text, or a value of the very type
                        self.assertIn(path[-1], _FREE, (kind, path, wrong))
                    for each in told:
                        self.assertRegex(
                            each, rf"^a\.yaml:[1-9]\d*: {kind} ?\S*: [\w.\[\]/-]+(: .| is required)", (kind, path)
                        )

    def test_message(self) -> None:
        """C1: precise enough to mend it."""
        said = self.said(SERVICE % ("reviews", "10.0.0.300"))
        self.assertEqual(['a.yaml:5: Service ns1/reviews: spec.clusterIP: "10.0.0.300" is not an IP address'], said)

    def test_all_at_once(self) -> None:
        self.assertEqual(
            3, len(self.said("kind: Service\napiVersion: v1\nmetadata: {name: A}\nspec: {clusterIP: x, type: y}\n"))
        )

    def test_nothing_is_guessed(self) -> None:
        """C1: YAML 1.1 would make False and 750 of these."""
        found = self.one(
            "kind: Service\napiVersion: v1\nmetadata: {name: no, namespace: on}\nspec: {clusterIP: 10.0.0.1}\n"
        )
        self.assertEqual(Ref("east", "Service", "on", "no"), found.ref)

    def test_default_namespace(self) -> None:
        self.assertEqual("default", self.one("kind: Service\napiVersion: v1\nmetadata: {name: a}\n").ref.namespace)

    def test_other_kinds(self) -> None:
        """C1: kinds that are not known are counted, no mistakes; a Knative Service is none of Kubernetes'."""
        other = "kind: Service\napiVersion: serving.knative.dev/v1\nmetadata: {name: A}\n"
        self.feed("kind: Deployment\napiVersion: apps/v1\n---\n" + other)
        self.assertEqual(([], {"Deployment": 1, "Service": 1}), (self.problems(), self.manifests.counted))

    def test_names_that_are_no_labels(self) -> None:
        """C1: Kubernetes bounds the name of an object at 253, and no word of it at 63 as DNS does; a Service's it does."""
        pod = "kind: Pod\napiVersion: v1\nmetadata: {name: %s}\n"
        self.assertEqual([], self.said(pod % f"{'a' * 64}.{'b' * 100}"))
        self.assertEqual(1, len(self.said(pod % ("a" * 254))))
        self.assertIn("no DNS label", self.said(SERVICE % ("a" * 64, "10.0.0.1"))[0])

    def test_empty_is_none(self) -> None:
        """C1: what charts leave empty is not set, as in Kubernetes; where something is required it is missing."""
        empty = 'spec: {hostname: "", subdomain: "", serviceAccountName: ""}\nstatus: {podIP: ""}\n'
        self.assertEqual([], self.said('kind: Pod\napiVersion: v1\nmetadata: {name: a, namespace: ""}\n' + empty))
        spec = 'spec: {type: "", clusterIP: "", externalName: "", ports: [{port: 80, name: "", protocol: ""}]}\n'
        self.assertEqual([], self.said("kind: Service\napiVersion: v1\nmetadata: {name: a}\n" + spec))
        self.assertIn("metadata.name is required", self.said('kind: Pod\napiVersion: v1\nmetadata: {name: ""}\n')[0])

    def test_flags(self) -> None:
        """C1: a flag is all that YAML 1.1 calls one, without quotes."""
        text = "kind: Service\napiVersion: v1\nmetadata: {name: a}\nspec: {publishNotReadyAddresses: %s}\n"
        for word, flag in (("yes", True), ("On", True), ("true", True), ("no", False), ("OFF", False)):
            self.setUp()
            found = self.one(text % word)
            assert isinstance(found, Service)
            self.assertIs(flag, found.publish_not_ready)
        self.assertEqual(1, len(self.said(text % '"true"')))

    def test_generated_name(self) -> None:
        """C1: a pattern that the cluster makes names from is no object yet, and no mistake."""
        said = self.said("kind: Pod\napiVersion: v1\nmetadata: {generateName: a-}\n")
        self.assertEqual(([], [], {"Pod": 1}), (said, list(self.manifests.objects()), self.manifests.counted))

    def test_partial_wildcard(self) -> None:
        """C1: Istio takes `*rest` and `*-rest` for traffic; no DNS answers them, and the other hosts stay. `*` it refuses."""
        text = f"kind: ServiceEntry\napiVersion: {ISTIO}\nmetadata: {{name: a}}\nspec: {{hosts: [%s]}}\n"
        found = self.one(text % '"*x", "*-y.example.com", "*.z.example.com", b.example.com')
        assert isinstance(found, ServiceEntry)
        self.assertEqual((("*.z.example.com", "b.example.com"), []), (found.hosts, self.problems()))
        self.assertEqual([], self.said(text % '"*x"'))
        for wrong in ("*", "**", "*-", "*..x", "a*"):
            self.assertEqual(1, len(self.said(text % f'"{wrong}"')), wrong)

    def test_egress(self) -> None:
        """C1: a listener on a socket's path has port 0, which is every port; `~` may stand in front of a namespace."""
        text = f"kind: Sidecar\napiVersion: {ISTIO}\nmetadata: {{name: a}}\nspec: {{egress: [%s]}}\n"
        hosts = ("./*", "~/*", "~./a.example.com", "~ns1/*", "~*/*.example.com")
        quoted = ", ".join(f'"{each}"' for each in hosts)
        found = self.one(text % f'{{port: {{number: 0}}, bind: "unix:///a", hosts: [{quoted}]}}')
        assert isinstance(found, Sidecar)
        self.assertEqual(((Egress(hosts),), []), (found.egress, self.problems()))
        for wrong in ("~~/*", "~A/*", "/*", "~ns1"):
            self.assertEqual(1, len(self.said(text % f'{{hosts: ["{wrong}"]}}')), wrong)

    def test_old_version(self) -> None:
        self.assertIn(
            "apiVersion: ", self.said(f"kind: Sidecar\napiVersion: {ISTIO}alpha9\nmetadata: {{name: a}}\n")[0]
        )


class DocumentTests(Case):
    def test_several(self) -> None:
        """C1: many documents, each with its own line; comments alone are none."""
        text = "# head\n---\n" + SERVICE % ("a", "10.0.0.1") + "---\n# nothing\n---\n" + SERVICE % ("b", "x")
        self.assertEqual(["a"], [each.ref.name for each in self.feed(text).changed])
        self.assertIn("a.yaml:16: Service ns1/b: spec.clusterIP", self.problems()[0])

    def test_list_kinds(self) -> None:
        """C1: a List, and a ServiceList whose items need no kind."""
        items = "items: [{kind: Service, apiVersion: v1, metadata: {name: a}}, {kind: Secret}]\n"
        self.assertEqual(1, len(self.feed("kind: List\napiVersion: v1\n" + items).changed))
        typed = self.feed("kind: ServiceList\napiVersion: v1\nitems: [{metadata: {name: b}}]\n", "b.yaml")
        self.assertEqual(["b"], [each.ref.name for each in typed.changed])

    def test_json(self) -> None:
        text = '{"kind": "Service", "apiVersion": "v1",\n "metadata": {"name": "a"}, "spec": {"clusterIP": "10.0.0.1"}}'
        found = self.one(text)
        self.assertIsInstance(found, Service)

    def test_json_pairs(self) -> None:
        """C1: what lies beyond U+FFFF is two escapes in JSON; a backslash that is escaped begins none, and YAML has none."""
        text = '{"kind": "Service", "apiVersion": "v1", "metadata": {"name": "a"}, "spec": {"selector": {"x": "%s"}}}'
        for written, read in (("\\ud83d\\uDE00", "\U0001f600"), ("\\\\ud83d\\\\ude00", "\\ud83d\\ude00")):
            found = self.one(text % written)
            assert isinstance(found, Service)
            self.assertEqual((("x", read),), found.selector)
        self.assertEqual(1, len(self.said('kind: "\\ud83d\\ude00"\n')))

    def test_null(self) -> None:
        """C1: a document of nothing is passed over, as by kubectl."""
        self.assertEqual([], self.said("null\n---\n~\n---\n...\n---\n" + SERVICE % ("a", "10.0.0.1")))

    def test_twice(self) -> None:
        """C1: Kubernetes lets the last of two keys win. That is told where names hang on it, and is nobody's business elsewhere."""
        twice = "metadata: {name: a}\nspec: {a: 1,\n a: 2, selector: {x: y,\n x: z}, clusterIP: 10.0.0.1}\n"
        self.assertEqual([], self.said("kind: Deployment\napiVersion: apps/v1\n" + twice))
        self.assertEqual(
            ["a.yaml:6: Service default/a: spec.selector.x is there twice; keep one"],
            self.said("kind: Service\napiVersion: v1\n" + twice),
        )
        head = "kind: Service\napiVersion: v1\nmetadata: {name: a}\n"
        for text, told in (
            (head + "spec: {}\nspec: {}\n", "5: Service default/a: spec"),
            ("kind: Service\napiVersion: v1\nmetadata: {name: a,\n name: b}\n", "4: Service: metadata.name"),
            ("kind: Service\napiVersion: v1\napiVersion: v2\n", "3: apiVersion"),
            ("kind: Deployment\nkind: Service\nkind: Pod\n", "3: kind"),
            ("kind: List\nitems: []\nitems: []\n", "3: List: items"),
            (head + "x: &x {type: a,\n type: b}\nspec: {<<: *x}\n", "5: Service default/a: spec.type"),
        ):  # fmt: skip
            self.setUp()
            self.assertEqual([f"a.yaml:{told} is there twice; keep one"], self.said(text))

    def test_anchors(self) -> None:
        """C1: anchors and merges mean what they mean in YAML."""
        text = (
            "kind: Service\napiVersion: v1\nmetadata: {name: a, labels: &l {x: y}}\nspec: {selector: {<<: *l, z: w}}\n"
        )
        found = self.one(text)
        assert isinstance(found, Service)
        self.assertEqual((("x", "y"), ("z", "w")), found.selector)

    def test_bombs(self) -> None:
        """C1: what a few lines of aliases unfold to is counted before anybody goes through it: nested, merged, in chains, again
        and again at one place, in itself."""
        many = 3000
        head = "kind: Service\napiVersion: v1\nmetadata: {name: a}\n"
        nine = ["a: &a [x, x, x, x, x, x, x, x, x]"]
        nine += [
            f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ]
        keys = "x0: &x0 {" + ", ".join(f"k{number}: 1" for number in range(many)) + "}\n"
        again = ", ".join(["*x0"] * many)
        ports = ", ".join(["{port: 1}"] * many)
        one = f"x: &x0 {{kind: Service, apiVersion: v1, metadata: {{name: a}}, spec: {{ports: [{ports}]}}}}\n"
        slice_of = "kind: EndpointSlice\napiVersion: discovery.k8s.io/v1\nmetadata: {name: a}\naddressType: IPv4\n"
        addresses = "x: &x0 {addresses: [" + ", ".join(["10.0.0.1"] * many) + "]}\n"
        too_many = "there are more than 1,000,000 values, aliases unfolded"
        for text, told in (
            ("\n".join([*nine, head]) + "spec: {clusterIPs: *i}\n", too_many),
            (f"{keys}y: {{<<: [{again}]}}\n{head}", too_many),
            (keys + "".join(f"x{n + 1}: &x{n + 1} {{<<: *x{n}}}\n" for n in range(many)) + head, too_many),
            (f"kind: List\napiVersion: v1\n{one}items: [{again}]\n", too_many),
            (f"{slice_of}{addresses}endpoints: [{again}]\n", too_many),
            (f"{head}spec: &s {{ports: [*s]}}\n", 'the alias "*s" stands for a value that it is a part of'),
        ):
            began = time.process_time()
            self.setUp()
            (said,) = self.said(text)
            self.assertIn(told, said)
            self.assertLess(time.process_time() - began, 1.0)

    def test_anchor_used_often(self) -> None:
        """C1: what people use anchors for is no bomb: one text for many objects."""
        text = "kind: List\napiVersion: v1\nitems:\n- {kind: Service, apiVersion: v1, metadata: {name: s, labels: &l {a: b}}}\n"
        text += "".join(
            f"- {{kind: Service, apiVersion: v1, metadata: {{name: s{number}, labels: *l}}, spec: {{selector: *l}}}}\n"
            for number in range(1000)
        )
        self.assertEqual((1001, []), (len(self.feed(text).changed), self.problems()))

    def test_not_yaml(self) -> None:
        """C1: bytes, tabs, NUL, endless depth, a template: one sentence each with a line."""
        for text, line in (
            (b"\xff\xfe", 1), (b"a: 1\nb: \x00", 2), (b"a:\n\t- b", 2), (b"[" * 5000, 1), (b"a: {{ .Values.x }}\nb: *c\n", 1),
            (b"kind: A\nkind: B\n", 2), (b"- 1\n", 1), (b"a: b", 1), (b"? [a]\n: b\n", 1),
        ):  # fmt: skip
            self.setUp()
            said = self.said(text)
            self.assertEqual(1, len(said), (text[:20], said))
            self.assertTrue(said[0].startswith(f"a.yaml:{line}: "), said)

    def test_large(self) -> None:
        """C1: ten MiB in one document are read; more than a file may have is told."""
        one = "- {kind: Secret, data: " + "x" * 1000 + "}\n"
        self.feed("kind: List\napiVersion: v1\nitems:\n" + one * 10_000)
        self.assertEqual({"Secret": 10_000}, self.manifests.counted)
        self.assertIn("split it", self.said(b"#" * ((64 << 20) + 1))[0])

    def test_parts_and_lines(self) -> None:
        found = list(parts("a: 1\n--- # x\nb: |\n  ----\n---\n---\nc: 3"))
        self.assertEqual([1, 2, 6], [part.line for part in found])
        self.assertRaises(BadDocument, compose, "a: *b")


class LastGoodTests(Case):
    """C1: what was good stays when its document goes bad, and never blocks the others."""

    def test_invalid_keeps(self) -> None:
        self.feed(SERVICE % ("a", "10.0.0.1") + "---\n" + SERVICE % ("b", "10.0.0.2"))
        update = self.feed(SERVICE % ("a", "nonsense") + "---\n" + SERVICE % ("b", "10.0.0.3"))
        self.assertEqual((["b"], ()), ([each.ref.name for each in update.changed], update.gone))
        self.assertEqual(1, len(self.problems()))
        self.assertEqual({"a", "b"}, {each.ref.name for each in self.manifests.objects()})

    def test_unreadable_keeps_all(self) -> None:
        """Nobody can say which of a file's objects a broken document was."""
        self.feed(SERVICE % ("a", "10.0.0.1") + "---\n" + SERVICE % ("b", "10.0.0.2"))
        for broken in (b"\xff", SERVICE % ("a", "10.0.0.1") + "---\n{", "kind: [\n"):
            self.assertFalse(self.feed(broken))
        self.assertEqual({"a", "b"}, {each.ref.name for each in self.manifests.objects()})
        self.assertEqual(1, len(self.feed(SERVICE % ("a", "10.0.0.1")).gone))

    def test_no_version(self) -> None:
        """Without an apiVersion that can be read nobody knows whose kind it is: what it was stays."""
        text = "apiVersion: %s\nkind: ServiceEntry\nmetadata: {name: a}\nspec: {hosts: [a.example.com]}\n"
        self.feed(text % ISTIO)
        for wrong in ("[]", "~", "{a: b}", '""'):
            self.assertFalse(self.feed(text % wrong), wrong)
            self.assertEqual(["a.yaml:1: ServiceEntry: apiVersion is required, as a text"], self.problems())
        self.assertEqual(1, len(list(self.manifests.objects())))

    def test_removed(self) -> None:
        self.feed(SERVICE % ("a", "10.0.0.1"))
        self.assertEqual((Ref("east", "Service", "ns1", "a"),), self.feed("# nothing\n").gone)
        self.feed(SERVICE % ("a", "10.0.0.1"))
        self.assertEqual(1, len(self.manifests.drop("a.yaml").gone))

    def test_unchanged_is_no_update(self) -> None:
        """An object that only moved within its file is the same object."""
        self.feed(SERVICE % ("a", "10.0.0.1"))
        self.assertFalse(self.feed("# comment\n---\n" + SERVICE % ("a", "10.0.0.1")))

    def test_duplicate(self) -> None:
        """C1: the first by file and place counts, whatever came first; the other takes over when it goes."""
        self.feed(SERVICE % ("a", "10.0.0.2"), "b.yaml")
        (found,) = self.feed(SERVICE % ("a", "10.0.0.1"), "a.yaml").changed
        assert isinstance(found, Service)
        self.assertEqual(("10.0.0.1",), found.ips)
        self.assertEqual(
            ["b.yaml:1: Service ns1/a: this object stands in a.yaml:1, too, which counts; keep one"], self.problems()
        )
        (found,) = self.manifests.drop("a.yaml").changed
        assert isinstance(found, Service)
        self.assertEqual(("10.0.0.2",), found.ips)
        self.assertEqual([], self.problems())

    def test_twice_in_one_file(self) -> None:
        (found,) = self.feed(SERVICE % ("a", "10.0.0.1") + "---\n" + SERVICE % ("a", "10.0.0.2")).changed
        assert isinstance(found, Service)
        self.assertEqual(("10.0.0.1",), found.ips)
        self.assertIn("a.yaml:8: Service ns1/a: this object stands in line 1 of the file", self.problems()[0])

    def test_one_of_many(self) -> None:
        """Of a file of thousands only the document that changed is read again."""
        text = "---\n".join(SERVICE % (f"s{number}", "10.0.0.1") for number in range(3000))
        self.feed(text)
        with mock.patch("meshdns.control.manifests.compose", side_effect=compose) as composed:
            self.assertEqual(1, len(self.feed(text.replace("name: s1500,", "name: other,")).changed))
        self.assertEqual(1, composed.call_count)


_FREE = {"name", "network", "creationTimestamp", "serviceAccount", "serviceAccountName", "host", "type", "status", "protocol",
         "address", "a"}  # fmt: skip


def _plain(value: Any) -> Any:
    if value.kind == "map":
        return {key: _plain(inner) for key, inner in value.fields.items()}
    return [_plain(each) for each in value.items] if value.kind == "list" else value.text


def _paths(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = []
    for key, inner in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        found += [(*above, key), *_paths(inner, (*above, key))]
    return [path for path in found if isinstance(path[-1], str)]


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    return _at(tree[path[0]], path[1:]) if path else tree


class _Raw(str):
    """YAML that stands as it is."""


def _with(tree: Any, path: tuple[Any, ...], wrong: str) -> Any:
    if not path:
        return _Raw(wrong)
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = _with(tree[path[0]], path[1:], wrong)
    return copy


def _yaml(tree: Any) -> str:
    """The tree as a flow, but for the top level, so that each field has a line."""
    return "".join(f"{key}: {_flow(value)}\n" for key, value in tree.items() if key != "kind")


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}": {_flow(inner)}' for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return value if isinstance(value, _Raw) or value in ("true", "1") else f'"{value}"'
