"""Who may import whom: the rooms of meshdns, read from the source.

The tables are the contract. `problems` takes sources and returns one sentence per breach, so that it can be fed sources
that are wrong, too.
"""

import ast
import re
import sys
from collections.abc import Container, Iterator, Mapping
from fnmatch import fnmatch

import attrs

# Each may import those before it.
VOCABULARY = [
    "",
    "defaults",
    "names",
    "wire",
    "messages",
    "presentation",
    "entries",
    "plain",
    "istio",
    "splitdict",
    "table",
]
VOCABULARY += [
    "values",
    "yamltext",
    "settings",
    "clusters",
    "web",
    "metrics",
    "exchange",
    "pins",
    "certificates",
    "bundles",
]
# The only modules that wire others: they may import all but the room across the wall.
ROOTS = ["meshdns.daemon", "meshdns.embedded", "meshdns.cli", "meshdns.cli.*", "meshdns.*.service", "meshdns.*.config"]
ROOTS += ["meshdns.worker", "meshdns.agent.answering", "meshdns.agent.worker"]
WALLS = [("agent", "control"), ("control", "agent")]
# Within a room; everybody else but a root sees of another room nothing.
REACH = {"Vocabulary": (), "Inside": ("Inside",), "Outside": ("Inside",), "Root": ("Inside", "Outside", "Root")}

# What Inside and Vocabulary must not know, by dotted prefix, and what to do instead.
WORLD = {
    "twisted": "leave Twisted to the module outside",
    **dict.fromkeys(["time", "datetime", "sched"], "it is a clock: take `now: float` as an argument"),
    **dict.fromkeys(["os", "pathlib", "io", "shutil", "tempfile", "glob", "fcntl", "mmap"], "take a file's content"),
    **dict.fromkeys(["socket", "select", "selectors", "ssl", "asyncio"], "sockets belong outside"),
    **dict.fromkeys(["http.client", "http.server", "urllib.request"], "sockets belong outside"),
    **dict.fromkeys(
        ["threading", "multiprocessing", "concurrent", "subprocess", "signal", "queue"], "it runs on its own"
    ),
    **dict.fromkeys(["random", "secrets", "uuid"], "chance is an argument too"),
    **dict.fromkeys(["logging", "warnings"], "return what there is to say"),
}
# Parts of those that only compute.
PURE = ["pathlib.PurePath", "pathlib.PurePosixPath", "os.path.dirname", "os.path.join"]
# The same, for some modules alone: times as people write them.
_TIMES = ["datetime.datetime", "datetime.UTC"]
PURE_IN = {"meshdns.values": _TIMES, "meshdns.certificates": _TIMES}
PURE_CALLS = {"open": "files", "print": "the terminal", "input": "the terminal"}
# Other people's libraries that Inside and Vocabulary may use: everywhere, and by module.
LIBRARIES = {
    "*": ["attrs", "attr"],
    "meshdns.yamltext": ["yaml"],
    "meshdns.control.documents": ["yaml"],
    "meshdns.agent.mmsg": ["_cffi_backend"],
    "meshdns.pins": ["cryptography"],
    "meshdns.certificates": ["cryptography"],
}


@attrs.frozen
class Module:
    name: str
    file: str
    tree: ast.Module

    @property
    def word(self) -> str:
        """The first word of the docstring: Inside, Outside, Vocabulary or Root, if it is one of them."""
        found = re.match(rf"({'|'.join(REACH)})\b", ast.get_docstring(self.tree) or "")
        return found[1] if found else ""

    @property
    def room(self) -> str:
        """`agent` for meshdns.agent and all in it, "" for the modules at the top."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 2 or (len(parts) == 2 and self.is_package) else ""

    @property
    def is_package(self) -> bool:
        return self.file.endswith("__init__.py")

    @property
    def is_root(self) -> bool:
        return any(fnmatch(self.name, pattern) for pattern in ROOTS)

    @property
    def rank(self) -> int:
        """Its place in the order of the vocabulary."""
        return VOCABULARY.index(self.name.partition(".")[2])


@attrs.frozen
class Import:
    line: int
    target: str
    lazy: bool  # stands in a function

    def within(self, prefix: str) -> bool:
        return f"{self.target}.".startswith(f"{prefix}.")


def read_modules(sources: Mapping[str, str]) -> dict[str, Module]:
    """Sources by file name ("meshdns/wire.py") -> modules by dotted name."""
    found = {}
    for file, source in sources.items():
        name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        found[name] = Module(name, file, ast.parse(source))
    return found


def imports(module: Module, modules: Mapping[str, Module]) -> Iterator[Import]:
    """All imports, those in functions and under TYPE_CHECKING too. A name from one of our modules is that module's."""
    functions = [node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lazy = {id(inner) for function in functions for inner in ast.walk(function)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node)
            targets = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            while target.startswith("meshdns.") and target not in modules:
                target = target.rpartition(".")[0]
            yield Import(node.lineno, target, id(node) in lazy)


def absolute(module: Module, node: ast.ImportFrom) -> str:
    """What `from … import` names, its leading dots resolved."""
    if not node.level:
        return node.module or ""
    package = module.name.split(".")
    up = node.level - 1 if module.is_package else node.level
    return ".".join([*package[: len(package) - up], *([node.module] if node.module else [])])


def problems(sources: Mapping[str, str]) -> list[str]:
    """Every breach of the contract as `file:line: sentence`. A module that is in no room is judged for that alone."""
    modules = read_modules(sources)
    lost = {name: reason for name, module in modules.items() if (reason := misplaced(module))}
    found = [f"{modules[name].file}:1: {reason}" for name, reason in lost.items()]
    for name in modules.keys() - lost.keys():
        found += breaches(modules[name], modules, lost.keys())
    return sorted(found)


def breaches(module: Module, modules: Mapping[str, Module], lost: Container[str]) -> Iterator[str]:
    """What a module in its room imports or calls and must not."""
    for one in imports(module, modules):
        if one.target in lost:
            continue
        target = modules.get(one.target)
        reason = forbidden_own(module, target) if target else forbidden_foreign(module, one)
        if reason:
            yield f"{module.file}:{one.line}: {module.word} module imports {one.target}: {reason}"
    for line, reason in forbidden_calls(module):
        yield f"{module.file}:{line}: {reason}"


def misplaced(module: Module) -> str | None:
    """Why the docstring's word is missing, or not the one that this place asks for."""
    if not module.word:
        return f"the docstring must begin with one of the words {', '.join(REACH)}"
    if module.is_root != (module.word == "Root"):
        return f"the docstring begins with {module.word}; Root is the word of {', '.join(ROOTS)}, and of no others"
    if not module.room and not module.is_root:
        if module.word != "Vocabulary":
            return f"the docstring begins with {module.word}; modules at the top are Vocabulary"
        if module.name.partition(".")[2] not in VOCABULARY:
            return f"a vocabulary module needs its place in the order: {', '.join(filter(None, VOCABULARY))}"
    if module.room and module.word == "Vocabulary":
        return "the docstring begins with Vocabulary, which is the word of the modules at the top"
    return None


def forbidden_own(module: Module, target: Module) -> str | None:
    """Why a module of ours may not import this other one."""
    if (module.room, target.room) in WALLS:
        return f"{module.room} and {target.room} never import each other"
    if module.word == "Root":
        return None
    if target.word == "Vocabulary":
        if module.word == "Vocabulary" and target.rank >= module.rank:
            return "vocabulary imports only what stands before it in the order"
        return None
    if module.word == "Vocabulary" or (module.room == "host" and target.room != "host"):
        return "it may import vocabulary only"
    if target.room == "net" and module.word == "Outside" and module.room in ("agent", "control"):
        return None
    if target.room != module.room and not (module.room.startswith("control") and target.room.startswith("control")):
        return f"it belongs to another room, {target.room or 'a root'}"
    if target.word not in REACH[module.word] and module.room != "net":
        return f"that is {target.word}; {module.word} may import Inside and Vocabulary"
    return None


def forbidden_foreign(module: Module, one: Import) -> str | None:
    """Why a module of ours may not import this of Python's or of others'."""
    if module.room == "host" and one.within("twisted"):
        return "the command line uses the host room, and must start fast"
    if module.room == "cli" and one.within("twisted") and not one.lazy:
        return "the command line must start fast: import it in the function that needs it"
    if module.word in ("Root", "Outside") or one.target in [*PURE, *PURE_IN.get(module.name, [])]:
        return None
    for prefix, reason in WORLD.items():
        if one.within(prefix):
            return reason
    allowed = LIBRARIES["*"] + LIBRARIES.get(module.name, [])
    top = one.target.partition(".")[0]
    if top not in sys.stdlib_module_names and top not in allowed:
        return f"of other people's libraries it may use {', '.join(allowed)}"
    return None


def forbidden_calls(module: Module) -> Iterator[tuple[int, str]]:
    """Builtins by which an inside module would reach the world without an import."""
    if module.word in ("Root", "Outside"):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PURE_CALLS:
            yield node.lineno, f"{module.word} module calls {node.func.id}(): {PURE_CALLS[node.func.id]} belong outside"
