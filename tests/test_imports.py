"""The import contract, and the checker's own tests."""

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.rooms import problems

ROOT = Path(__file__).resolve().parents[1]
# `meshdns --help` answers at once: what importing meshdns.cli must not load.
SLOW = ("twisted", "OpenSSL", "yaml", "rich", "prometheus_client")


def loaded_by(modules: list[str], suspects: tuple[str, ...]) -> list[str]:
    """Which of the suspects a fresh Python has loaded after importing the modules."""
    script = f"import sys, {', '.join(modules)}; print(*sorted(sys.modules.keys() & {set(suspects)!r}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise AssertionError(f"importing {', '.join(modules)} failed:\n{done.stderr}")
    return done.stdout.split()


class ContractTests(SynchronousTestCase):
    """The package as it is."""

    def test_rooms(self) -> None:
        """Every module stands in its room and imports only what it may."""
        sources = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(ROOT.glob("meshdns/**/*.py"))}
        self.assertIn("meshdns/wire.py", sources)
        found = problems(sources)
        self.assertEqual([], found, "\n" + "\n".join(found))

    def test_command_line_starts_fast(self) -> None:
        """Importing meshdns.cli loads nothing slow: `meshdns --help` needs no Twisted."""
        self.assertEqual([], loaded_by(["meshdns.cli"], SLOW))

    def test_no_command_loads_twisted(self) -> None:
        """Nor does the module of any sub-command, with all that it imports in turn."""
        paths = [path.relative_to(ROOT).with_suffix("") for path in sorted(ROOT.glob("meshdns/cli/**/*.py"))]
        modules = [".".join(path.parts).removesuffix(".__init__") for path in paths]
        self.assertIn("meshdns.cli", modules)
        self.assertEqual([], loaded_by(modules, ("twisted",)))

    def test_slow_import_is_seen(self) -> None:
        self.assertEqual(["twisted"], loaded_by(["twisted.plugin"], SLOW))


GOOD = {
    "meshdns/__init__.py": '"""Vocabulary: the version."""',
    "meshdns/names.py": '"""Vocabulary: x."""\nimport re',
    "meshdns/wire.py": '"""Vocabulary: x."""\nfrom meshdns import names\nfrom .names import parse',
    "meshdns/yamltext.py": '"""Vocabulary: x."""\nimport yaml',
    "meshdns/settings.py": '"""Vocabulary: x."""\nfrom os.path import dirname\nfrom meshdns.yamltext import Node',
    "meshdns/agent/__init__.py": '"""Inside: a package."""',
    "meshdns/agent/search.py": '"""Inside: x."""\nimport attrs\nfrom . import authority\nfrom ..wire import TYPES',
    "meshdns/agent/authority.py": '"""Inside: x."""\nfrom meshdns import __version__',
    "meshdns/agent/doors.py": '"""Outside: x."""\nimport socket\nfrom twisted.names import dns\nfrom .search import a',
    "meshdns/agent/upstream.py": '"""Outside: x."""',
    "meshdns/agent/service.py": '"""Root: x."""\nfrom meshdns.agent import doors\nfrom meshdns.host import resolvconf',
    "meshdns/control/__init__.py": '"""Inside: a package."""',
    "meshdns/control/model.py": '"""Inside: x."""',
    "meshdns/host/__init__.py": '"""Outside: a package."""',
    "meshdns/host/resolvconf.py": '"""Outside: x."""\nimport os\nfrom meshdns import names',
    "meshdns/cli/__init__.py": '"""Root: x."""\ndef main():\n    from twisted.internet import reactor',
    "meshdns/embedded.py": '"""Root: x."""\nfrom meshdns.agent import search\nfrom meshdns.control import model',
}

# Module, first word of its docstring, the line behind it, and what must be said about it.
BAD = [
    ("names", "Names", "", "the docstring must begin"),
    ("names", "Insides", "", "the docstring must begin"),
    ("names", "Inside", "", "modules at the top are Vocabulary"),
    ("extra", "Vocabulary", "", "a vocabulary module needs its place"),
    ("agent/search", "Vocabulary", "", "the word of the modules at the top"),
    ("agent/search", "Root", "", "Root is the word of"),
    ("agent/service", "Outside", "", "Root is the word of"),
    (
        "names",
        "Vocabulary",
        "from meshdns import wire",
        "imports meshdns.wire: vocabulary imports only what stands before",
    ),
    (
        "names",
        "Vocabulary",
        "from meshdns.agent import search",
        "imports meshdns.agent.search: it may import vocabulary",
    ),
    ("wire", "Vocabulary", "import yaml", "Vocabulary module imports yaml"),
    ("settings", "Vocabulary", "import os.path", "imports os.path: take a file's content"),
    ("agent/search", "Inside", "import twisted.names", "Inside module imports twisted.names: leave Twisted"),
    ("agent/search", "Inside", "from time import monotonic", "imports time.monotonic: it is a clock"),
    ("agent/search", "Inside", "import socket", "imports socket: sockets belong outside"),
    ("agent/search", "Inside", "import re, os", "imports os: take a file's content"),
    ("agent/search", "Inside", "from secrets import token_bytes", "chance is an argument too"),
    ("agent/search", "Inside", "import threading", "imports threading: it runs on its own"),
    ("agent/search", "Inside", "import logging", "imports logging: return what there is to say"),
    ("agent/search", "Inside", "import dns.message", "of other people's libraries it may use attrs"),
    ("agent/search", "Inside", "def f(): import select", "Inside module imports select"),
    ("agent/search", "Inside", "if TYPE_CHECKING: import twisted", "Inside module imports twisted"),
    ("agent/search", "Inside", "open('/etc/hosts')", "Inside module calls open()"),
    ("agent/search", "Inside", "from . import doors", "imports meshdns.agent.doors: that is Outside"),
    ("agent/search", "Inside", "from .doors import Doors", "imports meshdns.agent.doors: that is Outside"),
    ("agent/search", "Inside", "from .service import Options", "that is Root"),
    ("agent/doors", "Outside", "from . import upstream", "imports meshdns.agent.upstream: that is Outside"),
    ("agent/doors", "Outside", "from .. import embedded", "it belongs to another room, a root"),
    ("agent/doors", "Outside", "from meshdns.host import resolvconf", "another room, host"),
    ("agent/doors", "Outside", "import meshdns.control.model", "agent and control never import each other"),
    ("agent/service", "Root", "from meshdns.control import model", "agent and control never import each other"),
    ("control/model", "Inside", "from ..agent import search", "control and agent never import each other"),
    ("host/resolvconf", "Outside", "from meshdns.agent import search", "it may import vocabulary only"),
    ("host/resolvconf", "Outside", "from twisted.logger import Logger", "must start fast"),
    ("cli/__init__", "Root", "from twisted.internet import reactor", "import it in the function that needs it"),
]


class CheckerTests(SynchronousTestCase):
    """The checker lets the good pass, and each breach fails it."""

    def test_good(self) -> None:
        self.assertEqual([], problems(GOOD))

    def test_bad(self) -> None:
        """One wrong file among good ones gives exactly one sentence, with its file, line and import."""
        for module, word, line, expected in BAD:
            file = f"meshdns/{module}.py"
            found = problems({**GOOD, file: f'"""{word}: x."""\n{line}'})
            self.assertEqual(1, len(found), f"{file}: {line} gave {found}")
            self.assertIn(expected, found[0])
            self.assertTrue(found[0].startswith(f"{file}:{2 if line else 1}: "), found[0])

    def test_no_docstring(self) -> None:
        found = problems({**GOOD, "meshdns/names.py": "import re"})
        self.assertIn("meshdns/names.py:1: the docstring must begin", found[0])

    def test_every_breach_is_named(self) -> None:
        source = '"""Inside: x."""\nimport socket\nimport time\nprint(1)\nfrom twisted.internet import defer'
        found = problems({**GOOD, "meshdns/agent/search.py": source})
        self.assertEqual({"2", "3", "4", "5"}, {sentence.split(":")[1] for sentence in found})
