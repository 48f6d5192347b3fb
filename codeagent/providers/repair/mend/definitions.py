"""Edits of definitions: self, defaults, imports, scopes, and the guard that was forgotten."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

from codeagent.providers.repair.mend.project import Project, alike, local_names, module_names
from codeagent.providers.repair.mend.source import (
    Candidate,
    FunctionNode,
    SourceFile,
    Splice,
    first_statement,
    is_docstring,
    parameters,
)

# Names that everybody knows where to import from.
WELL_KNOWN = {
    "defaultdict": "collections", "Counter": "collections", "deque": "collections", "OrderedDict": "collections",
    "namedtuple": "collections", "dataclass": "dataclasses", "field": "dataclasses", "Path": "pathlib",
    "Decimal": "decimal", "Fraction": "fractions", "datetime": "datetime", "timedelta": "datetime", "date": "datetime",
    "partial": "functools", "reduce": "functools", "lru_cache": "functools", "wraps": "functools", "cache": "functools",
    "chain": "itertools", "product": "itertools", "permutations": "itertools", "combinations": "itertools",
    "groupby": "itertools", "Optional": "typing", "Any": "typing", "Callable": "typing", "Iterable": "typing",
    "Enum": "enum", "ABC": "abc", "abstractmethod": "abc", "StringIO": "io", "BytesIO": "io", "sqrt": "math",
    "floor": "math", "ceil": "math", "deepcopy": "copy", "contextmanager": "contextlib", "suppress": "contextlib",
    "itemgetter": "operator", "attrgetter": "operator", "ROUND_HALF_UP": "decimal", "uuid4": "uuid",
}  # fmt: skip


def definition_edits(source: SourceFile, function: FunctionNode) -> Iterator[Candidate]:
    yield from self_edits(source, function)
    yield from default_edits(source, function)
    yield from constructor_edits(source, function)
    for name in sorted(unbound_in(source, function)):
        first = first_statement(function)
        start = source.line_start(first.lineno)
        word = "global" if name in module_names(source) else "nonlocal"
        new = f"{source.indent_of(first)}{word} {name}\n"
        yield source.at(first, (Splice(start, start, new),), "scope", 0.9)
    for decorator in function.decorator_list:
        start = source.line_start(decorator.lineno)
        yield source.at(function, (Splice(start, source.line_start(decorator.lineno + 1), ""),), "decorator", 0.25)


def self_edits(source: SourceFile, function: FunctionNode) -> Iterator[Candidate]:
    """A method without self, and the decorators that change what the first parameter is."""
    if not isinstance(source.parents.get(function), ast.ClassDef):
        return
    given = function.args.posonlyargs + function.args.args
    decorated = {getattr(item, "id", getattr(item, "attr", "")) for item in function.decorator_list}
    opening = source.text.index("(", source.span(function)[0] + len(function.name))
    if not decorated & {"staticmethod", "classmethod"} and (not given or given[0].arg not in {"self", "cls"}):
        rest = "self, " if given or function.args.vararg or function.args.kwonlyargs else "self"
        yield source.at(function, (Splice(opening + 1, opening + 1, rest),), "self", 1.0)
    start, indent = source.line_start(function.lineno), source.indent_of(function)
    for name in ("property", "staticmethod", "classmethod"):
        if name not in decorated:
            prior = 0.6 if name == "property" and len(given) == 1 else 0.3
            yield source.at(function, (Splice(start, start, f"{indent}@{name}\n"),), "decorator", prior)


def default_edits(source: SourceFile, function: FunctionNode) -> Iterator[Candidate]:
    """A list or dict made once, at definition, and shared by every call."""
    arguments = function.args.posonlyargs + function.args.args
    pairs = [*zip(arguments[len(arguments) - len(function.args.defaults) :], function.args.defaults),  # noqa: B905
             *zip(function.args.kwonlyargs, function.args.kw_defaults)]  # fmt: skip  # noqa: B905
    first = first_statement(function)
    start, indent = source.line_start(first.lineno), source.indent_of(first)
    for argument, default in pairs:
        shared = isinstance(default, (ast.List, ast.Dict, ast.Set, ast.Call))
        if default is None or not shared or first.lineno == function.lineno:
            continue
        guard = f"{indent}if {argument.arg} is None:\n{indent}    {argument.arg} = {source.segment(default)}\n"
        splices = (Splice(*source.span(default), "None"), Splice(start, start, guard))
        yield source.at(default, splices, "shared default", 1.0)


def constructor_edits(source: SourceFile, function: FunctionNode) -> Iterator[Candidate]:
    """What an `__init__` forgot: its parent's, an attribute the class reads, a class variable that is shared."""
    owner = source.parents.get(function)
    if function.name != "__init__" or not isinstance(owner, ast.ClassDef):
        return
    first = first_statement(function)
    indent = source.indent_of(first)
    start, end = source.line_start(first.lineno), source.whole_lines(function.body[-1])[1]
    if owner.bases and "super()" not in source.segment(function):
        given = parameters(function)[1:]
        for arguments in ("", ", ".join(given), *given[:2]):
            new = f"{indent}super().__init__({arguments})\n"
            yield source.at(first, (Splice(start, start, new),), "constructor", 0.5)
    for name in parameters(function)[1:]:
        if f"self.{name}" not in source.segment(function):
            yield source.at(first, (Splice(end, end, f"{indent}self.{name} = {name}\n"),), "constructor", 0.6)
    for statement in owner.body:
        value = getattr(statement, "value", None)
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and isinstance(
            value, (ast.List, ast.Dict, ast.Set, ast.Call)
        ):
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            new = f"{indent}self.{source.segment(target)} = {source.segment(value)}\n"
            yield source.at(statement, (Splice(start, start, new),), "shared attribute", 0.7)


def unbound_in(source: SourceFile, function: FunctionNode) -> set[str]:
    """Names a function changes though they live outside of it."""
    declared = {
        name for node in ast.walk(function) if isinstance(node, (ast.Global, ast.Nonlocal)) for name in node.names
    }
    outer = set(module_names(source))
    for up in source.ancestors(function):
        if isinstance(up, (ast.FunctionDef, ast.AsyncFunctionDef)):
            outer |= set(local_names(up))
    changed = {
        node.target.id
        for node in ast.walk(function)
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name)
    }
    assigned = {
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return ((changed | assigned) & outer) - declared - set(parameters(function))


def guard_edits(source: SourceFile, function: FunctionNode) -> Iterator[Candidate]:
    """An early return for the empty, missing or smallest case."""
    first = first_statement(function)
    if first.lineno == function.lineno:
        return
    start, indent = source.line_start(first.lineno), source.indent_of(first)
    for rank, name in enumerate([name for name in parameters(function) if name not in {"self", "cls"}][:3]):
        for value in ("0", "[]", "None", name, "False", '""', "True", "{}", "1"):
            guard = f"{indent}if not {name}:\n{indent}    return {value}\n"
            yield source.at(first, (Splice(start, start, guard),), "guard", 0.22 - 0.04 * rank)


def import_edits(source: SourceFile, project: Project, unknown: set[str]) -> Iterator[Candidate]:
    """An import for each unknown name: the standard library, or a module of the project that defines it."""
    line = import_line(source)
    start = source.line_start(line)
    modules = getattr(sys, "stdlib_module_names", frozenset({"math", "os", "re", "json", "sys", "random", "time"}))
    for name in sorted(unknown):
        lines = []
        if name in WELL_KNOWN:
            lines.append((f"from {WELL_KNOWN[name]} import {name}\n", 1.0))
        if name in modules:
            lines.append((f"import {name}\n", 1.0))
        for path in project.defined_in.get(name, ())[:4]:
            lines += [(f"from {module} import {name}\n", 0.95) for module in module_of(path, source.path)]
        for new, prior in lines:
            yield Candidate(source.path, line, "import", prior, (Splice(start, start, new),))


def module_of(path: str, importer: str) -> list[str]:
    """How a file of the project may be imported from another one."""
    parts = path[: -len(".py")].replace("\\", "/").split("/")
    if parts[-1] == "__init__":
        parts.pop()
    if path == importer or not parts:
        return []
    forms = []
    if path.split("/")[:-1] == importer.split("/")[:-1] and "/" in path:
        forms.append("." + parts[-1])
    forms.append(".".join(parts[1:] if parts[0] == "src" and len(parts) > 1 else parts))
    return forms


def import_line(source: SourceFile) -> int:
    """The line before which a new import goes: after docstring and future imports."""
    line = 1
    for statement in source.tree.body if source.tree is not None else ():
        future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        if not (is_docstring(statement) or future):
            return statement.lineno if isinstance(statement, (ast.Import, ast.ImportFrom)) else line
        line = (statement.end_lineno or 1) + 1
    return line


def imported_name_edits(source: SourceFile, project: Project, node: ast.ImportFrom) -> Iterator[Candidate]:
    """`from module import name` where the module has no such name, but one like it."""
    for alias in node.names:
        defined = [name for name in project.defined_in if name != alias.name]
        for other, ratio in alike(alias.name, defined, least=0.6)[:3]:
            new = source.segment(node).replace(f" {alias.name}", f" {other} as {alias.asname or alias.name}", 1)
            yield source.replace(node, new, "import", 0.5 + 0.4 * ratio)
    modules = [module for path in project.files for module in module_of(path, source.path)]
    written = "." * node.level + (node.module or "")
    for other, ratio in alike(written, modules, least=0.6)[:3]:
        new = source.segment(node).replace(f"from {written} ", f"from {other} ", 1)
        yield source.replace(node, new, "import", 0.4 + 0.4 * ratio)


def missing_attribute_edits(source: SourceFile, owner: ast.ClassDef, name: str) -> Iterator[Candidate]:
    """An attribute that is read but never set: the constructor sets one like it."""
    for node in ast.walk(owner):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr != name:
            for other, ratio in alike(node.attr, [name], least=0.5):
                yield source.replace(node, f"self.{other}", "attribute", 0.5 + 0.4 * ratio)
