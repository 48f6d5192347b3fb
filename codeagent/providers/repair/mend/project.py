"""What names, attributes and texts a project knows, so that a wrong one can be exchanged for a likely one."""

from __future__ import annotations

import ast
import difflib
import functools
import os
from collections.abc import Iterable
from pathlib import Path

from codeagent.providers.repair.mend.source import FunctionNode, SourceFile, parameters

SKIPPED_FOLDERS = frozenset(
    {"node_modules", "site-packages", "__pycache__", "build", "dist", "venv", "env", "migrations", "vendor"}
)
MOST_FILES = 2000
LARGEST_FILE = 300_000


def is_test_file(path: str) -> bool:
    """Tests are the judge: they are never edited."""
    parts = path.replace(os.sep, "/").split("/")
    name = parts[-1]
    return (
        name.startswith("test_")
        or name.endswith(("_test.py", "_tests.py"))
        or name in {"conftest.py", "tests.py", "test.py"}
        or any(part in {"test", "tests", "testing"} for part in parts[:-1])
    )


def python_files(root: str) -> list[str]:
    """Relative paths of the project's Python files, in a stable order."""
    found: list[str] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in SKIPPED_FOLDERS
            and not Path(folder, name, "pyvenv.cfg").exists()
        )
        found += [os.path.relpath(Path(folder, name), root) for name in sorted(names) if name.endswith(".py")]
        if len(found) > MOST_FILES:
            break
    return found[:MOST_FILES]


def read_source(root: str, path: str) -> SourceFile | None:
    """None for what is too large or not text."""
    full = Path(root, path)
    try:
        if full.stat().st_size > LARGEST_FILE:
            return None
        return SourceFile(path, full.read_bytes().decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, RecursionError):
        return None


class Project:
    """The source files, and what is known across them."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.files: dict[str, SourceFile] = {}
        self.tests: dict[str, SourceFile] = {}
        for path in python_files(root):
            source = read_source(root, path)
            if source is not None:
                (self.tests if is_test_file(path) else self.files)[path] = source
        self.attributes: dict[str, int] = {}
        self.methods: set[str] = set()
        self.strings: dict[str, int] = {}
        self.defined_in: dict[str, list[str]] = {}
        self.expected_exceptions: set[str] = set()
        for source in (*self.files.values(), *self.tests.values()):
            self._learn(source)

    def _learn(self, source: SourceFile) -> None:
        for node in source.nodes():
            if isinstance(node, ast.Attribute):
                self.attributes[node.attr] = self.attributes.get(node.attr, 0) + 1
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) <= 80:
                self.strings[node.value] = self.strings.get(node.value, 0) + 1
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and source.class_of(node) is not None:
                self.methods.add(node.name)
            elif isinstance(node, ast.Call) and source.path in self.tests:
                self._learn_expectation(node)
        if source.tree is not None and source.path in self.files:
            for name in module_names(source):
                self.defined_in.setdefault(name, []).append(source.path)

    def _learn_expectation(self, call: ast.Call) -> None:
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if name in {"raises", "assertRaises", "assertRaisesRegex"} and call.args and isinstance(call.args[0], ast.Name):
            self.expected_exceptions.add(call.args[0].id)


@functools.lru_cache(maxsize=1024)
def module_names(source: SourceFile) -> dict[str, ast.stmt]:
    """Names bound at the top of a module and what binds them."""
    names: dict[str, ast.stmt] = {}
    for statement in source.tree.body if source.tree is not None else ():
        for name in bound_names(statement):
            names[name] = statement
    return names


def bound_names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [statement.name]
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).split(".")[0] for alias in statement.names]
    if isinstance(statement, ast.Assign):
        return [node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    if isinstance(statement, (ast.AnnAssign, ast.AugAssign)) and isinstance(statement.target, ast.Name):
        return [statement.target.id]
    return []


@functools.lru_cache(maxsize=1024)
def local_names(function: FunctionNode) -> list[str]:
    """Parameters and names assigned in a function, parameters first, in the order they appear."""
    names = parameters(function)
    stores = [node for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    names += [node.id for node in sorted(stores, key=lambda node: (node.lineno, node.col_offset))]
    return list(dict.fromkeys(names))


@functools.lru_cache(maxsize=1024)
def own_attributes(owner: ast.ClassDef) -> list[str]:
    """What `self.` offers in a class: attributes it assigns, class variables and methods."""
    names = [name for statement in owner.body for name in bound_names(statement)]
    for node in ast.walk(owner):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            names.append(node.attr)
    return list(dict.fromkeys(names))


def alike(word: str, others: Iterable[str], least: float = 0.0) -> list[tuple[str, float]]:
    """`others` with their likeness to `word`, the most alike first."""
    rated = [(other, likeness(word, other)) for other in dict.fromkeys(others) if other != word]
    return sorted((pair for pair in rated if pair[1] >= least), key=lambda pair: -pair[1])


def likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one.lower(), other.lower()).ratio()
