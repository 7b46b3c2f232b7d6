"""What holds the project together: the plugin's folder, the declared dependencies, the numbers that CI prints."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from meshdns import names, table

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "twisted" / "plugins" / "meshdns_plugin.py"
OWN = {"meshdns", "tests", "benchmarks"}


def declared(option: str, section: str = "options") -> set[str]:
    """The distributions that setup.cfg asks for, normalised."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    asked = re.findall(r"^([A-Za-z0-9._-]+)", setup[section][option].strip(), re.MULTILINE)
    return {normal(name) for name in asked}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def modules_imported(paths: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Every top module that the files import, wherever in the file."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name.partition(".")[0], path
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0], path


def undeclared(paths: Iterable[Path], allowed: set[str]) -> set[str]:
    """The imports that a fresh installation of these distributions would lack."""
    providers = packages_distributions()
    return {
        f"{path.relative_to(ROOT)} imports {module}"
        for module, path in modules_imported(paths)
        if module not in OWN and module not in sys.stdlib_module_names
        if not allowed & {normal(name) for name in providers.get(module, [module])}
    }


class PluginTests(SynchronousTestCase):
    def test_no_init(self) -> None:
        """An __init__.py in twisted/ or twisted/plugins/ would stand in front of Twisted's own package."""
        self.assertEqual([], list((ROOT / "twisted").rglob("__init__.py*")))

    def test_imports_nothing_of_ours(self) -> None:
        """Every twistd on the machine reads the plugin file: it must be quick, and never break another's start."""
        self.assertEqual({"twisted"}, {module for module, _ in modules_imported([PLUGIN])})

    def test_twistd_finds_it(self) -> None:
        makers = {plugin.tapname: plugin for plugin in getPlugins(IServiceMaker)}
        self.assertEqual("meshdns.daemon", makers["meshdns"].module)


class DependencyTests(SynchronousTestCase):
    """setup.cfg asks for what the code imports, and docs/dependencies.md says why."""

    def test_package(self) -> None:
        self.assertEqual(set(), undeclared(ROOT.glob("meshdns/**/*.py"), declared("install_requires")))

    def test_tests(self) -> None:
        allowed = declared("install_requires") | declared("test", "options.extras_require")
        paths = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]
        self.assertEqual(set(), undeclared(paths, allowed))

    def test_missing_one_is_seen(self) -> None:
        found = undeclared([ROOT / "meshdns" / "yamltext.py"], declared("install_requires") - {"pyyaml"})
        self.assertEqual({"meshdns/yamltext.py imports yaml"}, found)

    def test_each_has_its_reason(self) -> None:
        text = (ROOT / "docs" / "dependencies.md").read_text()
        explained = {normal(name) for name in re.findall(r"^\| \[?([A-Za-z0-9._-]+)", text, re.MULTILINE)}
        extras = declared("test", "options.extras_require") | declared("lint", "options.extras_require")
        self.assertEqual(set(), (declared("install_requires") | extras) - explained)


class ExampleTests(SynchronousTestCase):
    """What `make run` shows is right in itself."""

    def test_table(self) -> None:
        found = table.read((ROOT / "examples" / "nametable.jsonl").read_bytes())
        self.assertEqual(17, len(found.entries))
        pods = {pod for entry in found.entries.values() for pod in entry.pods}
        self.assertEqual(3, len(pods))
        self.assertEqual(set(), pods - {names.parse(host) for host in found.entries})

    def test_check(self) -> None:
        """`meshdns check` has nothing to say about the examples."""
        files = [ROOT / "examples" / name for name in ("agent.yaml", "nametable.jsonl")]
        command = [sys.executable, "-c", "import sys; from meshdns.cli import main; sys.exit(main())", "check", *files]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)


class SummaryTests(SynchronousTestCase):
    """`.ci/summary` counts what trial says."""

    def summary(self, log: str) -> str:
        return subprocess.run([ROOT / ".ci" / "summary"], input=log, capture_output=True, text=True, check=True).stdout

    def test_passed(self) -> None:
        log = "Ran 22 tests in 1s\n\nPASSED (skips=1, expectedFailures=1, successes=20)\n"
        self.assertEqual("21 passed, 0 failed, 1 skipped\n", self.summary(log))

    def test_failed(self) -> None:
        log = (
            "FAILED (skips=12, failures=1, errors=20, unexpectedSuccesses=3, successes=104)\nmake: *** [test] Error 1\n"
        )
        self.assertEqual("104 passed, 24 failed, 12 skipped\n", self.summary(log))

    def test_nothing_ran(self) -> None:
        for log in ("", "PASSED\n", "pip failed\n"):
            self.assertEqual("0 passed, 0 failed, 0 skipped\n", self.summary(log))
