"""Every wrong type at every place of every kind (rule C1): told or of no interest, never raised, and the last good object stays."""

from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from meshdns.control.documents import compose
from meshdns.control.explain import explain
from meshdns.control.manifests import Manifests
from meshdns.control.registry import Registry
from meshdns.control.views import Views
from tests.control.test_manifests import WHOLE, _plain, _Raw, _yaml
from tests.control.world import EAST, NS1, finish, read

WRONG = [
    "~", "[]", "{}", '""', "[[1]]", "[~]", "[{}]", "{x: {y: z}}", '"\\0 ?"', "-1", "99999999999999999999", "1.5", "true", "yes",
    "2026-01-01", "0x10", "!!binary aGk=", "*nothing", '"%s"' % ("x" * 70_000), '"é\\u2028…"', '["a", ["b"]]', "'*'", "'.'", "'/'",
]  # fmt: skip


def places(tree: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key of a map and every item of a list."""
    for key, inner in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*above, key)
        yield from places(inner, (*above, key))


def with_wrong(tree: Any, path: tuple[Any, ...], wrong: str) -> Any:
    if not path:
        return _Raw(wrong)
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = with_wrong(tree[path[0]], path[1:], wrong)
    return copy


class WrongTypeTests(SynchronousTestCase):
    def check_kind(self, kind: str) -> None:
        tree: Any = _plain(compose(f"kind: {kind}{WHOLE[kind]}"))
        good = f"kind: {kind}\n{_yaml(tree)}".encode()
        manifests, registry = Manifests("east"), Registry((EAST,), ("*",), "istio-system")
        views = Views(registry)
        registry.update(finish(manifests.feed("a.yaml", good)))
        (before,) = manifests.objects()
        for path in places(tree):
            for wrong in WRONG:
                bad = f"kind: {kind}\n{_yaml(with_wrong(tree, path, wrong))}"
                registry.update(finish(manifests.feed("a.yaml", bad.encode())))
                if manifests.problems:
                    self.assertEqual([before], list(manifests.objects()), (path, wrong))
                    for each in manifests.problems:
                        self.assertTrue(each.line and len(str(each)) < 400, (path, wrong, str(each)))
                views.adopt(registry.take(), {})
                view = views.view(NS1)
                self.assertEqual(view.generation, read(view.lines()).generation)
                explain(registry, views, {}, manifests.problems, "a.example.com", NS1)
                registry.update(finish(manifests.feed("a.yaml", good)))
                self.assertEqual([], manifests.problems)
        self.assertEqual([before], list(manifests.objects()))


def _test(kind: str) -> Any:
    def test(self: WrongTypeTests) -> None:
        self.check_kind(kind)

    test.__doc__ = f"C1: of a {kind}."
    return test


for _kind in WHOLE:
    setattr(WrongTypeTests, f"test_{_kind}", _test(_kind))
