"""The `meshdns` command itself, and `meshdns check` (contract section 4: exit codes, problems as `file:line: reason`)."""

import json
import os
import resource
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from meshdns import __version__, cli, defaults
from meshdns.cli import check

ROOT = Path(__file__).resolve().parents[2]
GOOD = "workload: {namespace: ns1}\ntable: {file: t.jsonl}\n"
TABLE = '{"table": {"a.ns1.svc.cluster.local": {"ips": ["10.0.0.1"], "registry": "Kubernetes"}}}\n'


def run(*words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, in this process."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = cli.main(words)
    return code, out.getvalue(), err.getvalue()


def spawn(*words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """The same in a process of its own."""
    script = "import sys; from meshdns.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=ROOT,
        text=True,
        **{"capture_output": True, "timeout": 60, **options},
    )


class CommandTests(SynchronousTestCase):
    def _command(self, work: Any, shared: tuple[str, ...] = ("config", "json")) -> None:
        """Puts a command `probe` of these tests' own in place of all others."""
        module = SimpleNamespace(add_arguments=lambda parser: parser.add_argument("words", nargs="*"), run=work)
        self.patch(sys, "modules", {**sys.modules, "meshdns.cli.probe": module})
        self.patch(cli, "COMMANDS", {"probe": ("meshdns.cli.probe", "try things", shared)})

    def test_help(self) -> None:
        code, out, err = run("--help")
        self.assertEqual((0, ""), (code, err))
        for name, (_, summary, _) in cli.COMMANDS.items():
            self.assertRegex(out, rf"(?m)^    {name} +{summary}$")
        self.assertIn("0 done, 1 it failed, 2 wrong usage", " ".join(out.split()))

    def test_version(self) -> None:
        self.assertEqual((0, f"meshdns {__version__}\n", ""), run("--version"))

    def test_no_command(self) -> None:
        """It says what there is; usage errors are 2."""
        code, out, err = run()
        self.assertEqual((2, ""), (code, out))
        self.assertIn("explain", err)

    def test_unknown_command(self) -> None:
        code, out, err = run("chekc", "x")
        self.assertEqual((2, ""), (code, out))
        self.assertTrue(err.endswith('meshdns: error: there is no command "chekc"; did you mean "check"?\n'), err)
        self.assertIn("there are check, query, explain, table, status", run("zzz")[2])

    def test_wrong_words(self) -> None:
        for words in (
            ["--nonsense"],
            ["check"],
            ["check", "--nonsense", "x"],
            ["check", "--js", "x"],
            ["--config", "x"],
        ):
            code, out, err = run(*words)
            self.assertEqual((2, ""), (code, out), words)
            self.assertIn("usage: meshdns", err)

    def test_exit_codes(self) -> None:
        """What a command returns is the exit code, all five of the contract."""
        self.assertEqual((0, 1, 2, 3, 4), (cli.DONE, cli.FAILED, cli.USAGE, cli.NOT_RUNNING, cli.DEGRADED))
        for code in range(5):
            self._command(lambda args, code=code: code)
            self.assertEqual(code, run("probe")[0])

    def test_shared_options(self) -> None:
        """--config and --json stand behind the other words of the command, or before them."""
        seen: list[Any] = []
        self._command(lambda args: seen.append((args.words, args.config, args.json)) or 0)
        run("probe")
        run("probe", "a", "b", "--config", "f", "--json")
        run("probe", "--json", "--config=f", "a")
        self.assertEqual([([], defaults.CONFIG_FILE, False), (["a", "b"], "f", True), (["a"], "f", True)], seen)
        self.assertEqual("/etc/meshdns/agent.yaml", defaults.CONFIG_FILE)

    def test_unshared_options(self) -> None:
        """A command that is not about an agent takes no --config."""
        self._command(lambda args: 0, shared=())
        self.assertEqual([2, 2], [run("probe", "--config", "f")[0], run("probe", "--json")[0]])

    def test_pipe_closed(self) -> None:
        """`| head` ends the command without a word."""

        def work(args: object) -> int:
            raise BrokenPipeError(32, "Broken pipe")

        self._command(work)
        self.assertEqual((1, "", ""), run("probe"))

    def test_disk_full(self) -> None:
        def work(args: object) -> int:
            raise OSError(28, "No space left on device")

        self._command(work)
        self.assertEqual((1, "", "meshdns: [Errno 28] No space left on device\n"), run("probe"))

    def test_interrupted(self) -> None:
        def work(args: object) -> int:
            raise KeyboardInterrupt

        self._command(work)
        self.assertEqual((130, "", ""), run("probe"))

    def test_bug(self) -> None:
        """An exception that is a bug is not hidden."""

        def work(args: object) -> int:
            raise LookupError("a bug")

        self._command(work)
        self.assertRaises(LookupError, run, "probe")

    def test_every_command(self) -> None:
        """Each keeps to the protocol and explains itself."""
        for name, (path, _, _) in cli.COMMANDS.items():
            module = import_module(path)
            self.assertTrue(callable(module.add_arguments) and callable(module.run), name)
            code, out, err = run(name, "--help")
            self.assertEqual((0, ""), (code, err))
            self.assertIn(f"usage: meshdns {name}", out)


class ProcessTests(SynchronousTestCase):
    """What only a process of its own can show."""

    def test_help_imports_nothing(self) -> None:
        """`meshdns --help` loads no sub-command and nothing slow."""
        script = (
            "import sys; from meshdns.cli import main; main(['--help']);"
            "print([name for name in sys.modules if name.startswith('meshdns.cli.') or name.split('.')[0] in"
            " ('twisted', 'yaml', 'rich', 'attr', 'attrs', 'prometheus_client')], file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
        self.assertEqual("[]\n", done.stderr)

    def test_help_is_fast(self) -> None:
        """Within 150 ms; counted in CPU time, for the machine may be busy with other things."""
        costs = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            spawn("--help")
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            costs.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        self.assertLess(min(costs), 0.15)

    def _check(self, stdout: Any) -> list[tuple[int, str]]:
        """Exit codes and stderr of `meshdns check` on a bad file: one problem and many, buffered and not."""
        folder = Path(self.mktemp()).resolve()
        folder.mkdir(parents=True)
        found = []
        for count in (1, 90):
            (folder / "bad.yaml").write_text("".join(f"x{number}: y\n" for number in range(count)))
            for unbuffered in ("", "1"):
                env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
                done = spawn(
                    "check",
                    str(folder / "bad.yaml"),
                    capture_output=False,
                    stdout=stdout,
                    stderr=subprocess.PIPE,
                    env=env,
                )
                found.append((done.returncode, done.stderr.partition(" problems in ")[0]))
        return found

    def test_head(self) -> None:
        """A reader that goes away at once: no traceback, not even at exit."""
        reading, writing = os.pipe()
        os.close(reading)
        found = self._check(writing)
        os.close(writing)
        self.assertEqual([(1, "1 file checked, 3"), (1, ""), (1, ""), (1, "")], found)

    def test_full_disk(self) -> None:
        with open("/dev/full", "w") as full:
            found = self._check(full)
        sentence = "meshdns: [Errno 28] No space left on device\n"
        self.assertEqual([1] * 4, [code for code, _ in found])
        self.assertTrue(all(err.endswith(sentence) and "Traceback" not in err for _, err in found[1:]), found)

    def test_poor_terminal(self) -> None:
        """A terminal of ASCII only still shows the problem."""
        folder = Path(self.mktemp()).resolve()
        folder.mkdir(parents=True)
        (folder / "café.yaml").write_text("a: é\n")
        done = spawn("check", str(folder / "café.yaml"), env={**os.environ, "PYTHONIOENCODING": "ascii"})
        self.assertEqual(1, done.returncode)
        self.assertIn("caf\\xe9.yaml:1: unknown key", done.stdout)


class CheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir(parents=True)
        self.good = self._file("good.yaml", GOOD)
        self._file("t.jsonl", TABLE)

    def _file(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def test_fine(self) -> None:
        """Exit 0; nothing on stdout, a summary on stderr; the table it refers to is a file checked."""
        self.assertEqual((0, "", "2 files checked, no problems\n"), run("check", self.good))

    def test_problems(self) -> None:
        """Exit 1; all problems of all files on stdout, files in the order given, problems by line."""
        one = self._file("one.yaml", GOOD + "udp_max: 1\nlisen: []\n")
        two = self._file("two.yaml", "")
        code, out, err = run("check", two, self.good, one)
        self.assertEqual(
            f"{two}:1: the file is empty\n"
            f'{one}:3: udp_max: "1" is out of range; 512 to 4096 is possible\n'
            f'{one}:4: unknown key "lisen"; did you mean "listen"?\n',
            out,
        )
        self.assertEqual((1, "4 files checked, 3 problems in 2\n"), (code, err))

    def test_usage(self) -> None:
        self.assertEqual(2, run("check")[0])

    def test_json(self) -> None:
        bad = self._file("bad.yaml", GOOD + "udp_max: 1\n")
        code, out, err = run("check", bad, "--json")
        problem = {"file": bad, "line": 3, "reason": 'udp_max: "1" is out of range; 512 to 4096 is possible'}
        self.assertEqual((1, ""), (code, err))
        self.assertEqual({"files": 1, "problems": [problem]}, json.loads(out))
        code, out, _ = run("check", "--json", self.good)
        self.assertEqual((0, {"files": 2, "problems": []}), (code, json.loads(out)))

    def test_unreadable(self) -> None:
        missing = str(self.folder / "no.yaml")
        expected = f"{missing}:1: cannot be read: No such file or directory\n"
        self.assertEqual((1, expected), run("check", missing)[:2])

    def test_missing_table(self) -> None:
        """The problem stands where the configuration names the file."""
        path = self._file("lost.yaml", "workload: {namespace: a}\ntable:\n\n  file: lost.json\n")
        expected = f'{path}:4: table.file: "{self.folder}/lost.json" cannot be read: No such file or directory\n'
        short = expected.replace(f"{self.folder}/lost.json", str(self.folder / "lost.json")[:57] + "...")
        code, out, _ = run("check", path)
        self.assertEqual(1, code)
        self.assertIn(out, (expected, short))

    def test_broken_table(self) -> None:
        """Of a configuration's table and of one named itself alike; a file is checked once."""
        table = self._file("t.jsonl", '{"table": 3}\n')
        for words in ([self.good], [table], [table, self.good], [self.good, table], [table, table]):
            code, out, _ = run("check", *words)
            self.assertEqual(1, code)
            self.assertRegex(out, r"\A[^\n]*t\.jsonl:[0-9]+: .+\n\Z")

    def test_lines_of_a_table(self) -> None:
        """A broken line of JSON lines has its number."""
        sample = (ROOT / "examples" / "nametable.jsonl").read_text().splitlines()
        path = self._file("sample.jsonl", "\n".join([*sample[:3], "{broken", *sample[3:]]))
        code, out, _ = run("check", path)
        self.assertEqual(1, code)
        self.assertTrue(out.startswith(f"{path}:4: "), out)

    def test_too_large_table(self) -> None:
        self.patch(defaults, "TABLE_FILE_BYTES", 64)
        code, out, _ = run("check", str(self.folder / "t.jsonl"))
        self.assertEqual((1, "64; is it the right one?"), (code, out.strip().rpartition("than ")[2]))

    def test_nothing_to_wait_for(self) -> None:
        """A pipe that nobody writes into, or a device without end: named, or in the place of a table or manifests."""
        pipe = str(self.folder / "pipe")
        os.mkfifo(pipe)
        table = self._file("table.yaml", "workload: {namespace: a}\ntable: {file: pipe}\n")
        manifests = self._file("manifests.yaml", "workload: {namespace: a}\ntable: {manifests: [pipe]}\n")
        regular, neither = "cannot be read: it is no regular file", "is neither a file nor a directory"
        for path, told in ((pipe, regular), ("/dev/zero", regular), (table, regular), (manifests, neither)):
            done = spawn("check", path, timeout=20)
            self.assertEqual(1, done.returncode, path)
            self.assertRegex(done.stdout, rf"\A\S+:[12]: [^\n]*{told}[^\n]*\n\Z")

    def test_huge(self) -> None:
        """A file of a terabyte is not read to its end, whatever it seems to be."""
        for start in ("", '{"nametable": 1}\n', "apiVersion: v1\nkind: Service\n", "workload: {namespace: a}\n"):
            path = self._file("huge", start)
            os.truncate(path, 1 << 40)
            with mock.patch.object(defaults, "TABLE_FILE_BYTES", 1 << 20):
                code, out, _ = run("check", path)
            self.assertEqual(1, code, start)
            self.assertRegex(out, rf"\A{path}:1: the file is larger than [^\n]*\n\Z")

    def test_told_apart(self) -> None:
        """By content, whatever the name."""
        for content, expected in (
            (b'{"nametable": 1, "generation": "x"}', True),
            (b'\n {"table": {}}', True),
            (b'\xef\xbb\xbf[{"@type": "x", "table": {}}]', True),
            (b"{", True),
            (b"[]", True),
            (b"{nonsense", True),
            (b"{workload: {namespace: a}}", False),
            (b'{"workload": {"namespace": "a"}, "table": {"file": "t"}}', False),
            (b"{table: {file: t}}", False),
            (b"workload: {namespace: a}", False),
            (b"# a comment\n", False),
            (b"", False),
            (b"- a", False),
        ):
            self.assertEqual(expected, check.is_table(content), content)

    def test_manifests(self) -> None:
        """C1: what is wrong with an object, where; in a file, and in a directory of them."""
        (self.folder / "mesh").mkdir()
        path = self._file(
            "mesh/service.yaml", "# x\napiVersion: v1\nkind: Service\nmetadata: {name: A_b, namespace: ns1}\n"
        )
        code, out, err = run("check", path)
        self.assertEqual(1, code)
        self.assertRegex(out, rf"(?m)\A{path}:4: .*A_b")
        self.assertEqual((code, out, err), run("check", os.path.dirname(path)))

    def test_manifests_that_are_right(self) -> None:
        samples = ROOT / "meshdns" / "samples" / "mesh"
        code, out, err = run("check", str(samples / "east"), str(samples / "west"))
        self.assertEqual((0, ""), (code, out))
        self.assertRegex(err, r"\A\d+ files checked, no problems\n\Z")

    def test_control(self) -> None:
        """A control plane's configuration, and the manifests that it names."""
        where = os.path.dirname(self._file("east.yaml", "apiVersion: v1\nkind: Service\nmetadata: {}\n"))
        head = "tls: {certificate: a.pem, key: a.key, client_ca: root.pem}\n"
        path = self._file("../control.yaml", f"{head}clusters: [{{name: east, manifests: {where}}}]\n")
        code, out, _ = run("check", path)
        self.assertEqual(1, code)
        self.assertRegex(out, r"\A\S*east.yaml:3: ")
        bad = self._file("../bad.yaml", f"{head}clusters: [{{name: east, manifest: x}}]\n")
        self.assertRegex(run("check", bad)[1], r'\A\S*bad.yaml:2: .*\n.*did you mean "manifests"')

    def test_manifests_of_an_agent(self) -> None:
        """`table.manifests` is followed, too."""
        manifest = self._file("mesh.yaml", "apiVersion: v1\nkind: Service\nmetadata: {}\n")
        path = self._file("../embedded.yaml", f"workload: {{namespace: ns1}}\ntable: {{manifests: [{manifest}]}}\n")
        self.assertRegex(run("check", path)[1], r"\A\S*mesh.yaml:3: ")

    def test_samples(self) -> None:
        """What we ship is right; etc/agent.yaml lacks only the table that the user brings."""
        code, out, _ = run("check", str(ROOT / "examples" / "agent.yaml"), str(ROOT / "examples" / "nametable.jsonl"))
        self.assertEqual((0, ""), (code, out))
        out = run("check", str(ROOT / "etc" / "agent.yaml"))[1]
        self.assertEqual(1, out.count("\n"), out)
        self.assertIn("table.file: ", out)
