"""Edits of statements: returns, conditions, loops, and a line one level too deep or too shallow."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from codeagent.providers.repair.mend.project import local_names
from codeagent.providers.repair.mend.source import (
    Candidate,
    FunctionNode,
    SourceFile,
    Splice,
    is_docstring,
    split_lines,
)
from codeagent.providers.repair.mend.values import swap

SIMPLE = (
    ast.Assign,
    ast.AugAssign,
    ast.AnnAssign,
    ast.Expr,
    ast.Return,
    ast.Continue,
    ast.Break,
    ast.Raise,
)


def return_edits(source: SourceFile, node: ast.Return) -> Iterator[Candidate]:
    function = source.function_of(node)
    if node.value is None:
        for name in reversed(local_names(function) if function else []):
            if name != "self":
                yield source.replace(node, f"return {name}", "return", 0.5)
        return
    yield from returned_value_edits(source, node, node.value)
    if isinstance(node.value, ast.Name):
        for name in local_names(function) if function else []:
            if name not in {node.value.id, "self"}:
                yield source.replace(node.value, name, "return", 0.4)


def returned_value_edits(source: SourceFile, node: ast.Return, value: ast.expr) -> Iterator[Candidate]:
    """The right value in the wrong shape, sign, order or truth."""
    written = source.segment(value)
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "sort":
        yield source.replace(value, f"sorted({source.segment(value.func.value)})", "return", 1.0)
    if isinstance(value, ast.Tuple) and len(value.elts) == 2:
        yield source.at(node, swap(source, value.elts[0], value.elts[1]), "order", 0.5)
    if isinstance(value, (ast.Compare, ast.Call, ast.Name, ast.Attribute, ast.BoolOp)):
        yield source.replace(value, f"not ({written})", "negation", 0.4)
    for form, prior in (("-({})", 0.3), ("round({}, 2)", 0.35), ("list({})", 0.3), ("sorted({})", 0.3),
                        ("max(0, {})", 0.3), ("abs({})", 0.3), ("int({})", 0.25), ("str({})", 0.25),
                        ("tuple({})", 0.2), ("[{}]", 0.3), ("set({})", 0.2), ("len({})", 0.2),
                        ("{}.copy()", 0.3)):  # fmt: skip
        yield source.replace(value, form.format(written), "return", prior)
    function = source.function_of(node)
    names = [name for name in (local_names(function) if function else ()) if name not in {"self", "cls"}]
    for name in names[-6:]:
        if isinstance(value, ast.Constant) and isinstance(value.value, bool):
            for form in ("{} == 0", "not {}", "bool({})"):
                yield source.replace(value, form.format(name), "return", 0.35)
        elif isinstance(value, ast.List) and not value.elts:
            yield source.replace(value, f"[{name}]", "return", 0.4)
        elif not isinstance(value, (ast.Constant, ast.Name)):
            yield source.replace(value, f"{name} + {written}", "return", 0.25)


def condition_edits(source: SourceFile, node: ast.stmt) -> Iterator[Candidate]:
    """If and while: the condition turned round, the wrong one of the two, an `elif` that is an `if`."""
    test: ast.expr = node.test  # type: ignore[attr-defined]
    written = source.segment(test)
    yield source.replace(test, f"not ({written})", "negation", 0.6)
    start = source.span(node)[0]
    word = re.match(r"elif|if|while", source.text[start:])
    if word is None:
        return
    if isinstance(node, ast.While):
        yield source.at(node, (Splice(start, start + 5, "if"),), "loop", 0.35)
        return
    yield source.replace(test, "True", "superfluous condition", 0.25)
    if word.group() == "if" and not node.orelse:  # type: ignore[attr-defined]
        yield source.at(node, (Splice(start, start + 2, "while"),), "loop", 0.35)
    if word.group() == "elif":
        yield source.at(node, (Splice(start, start + 4, "if"),), "branch", 0.4)
    else:
        block = source.block_of(node)
        position = block.index(node)
        if position and isinstance(block[position - 1], ast.If) and not block[position - 1].orelse:  # type: ignore[attr-defined]
            yield source.at(node, (Splice(start, start + 2, "elif"),), "branch", 0.4)


def loop_edits(source: SourceFile, node: ast.For) -> Iterator[Candidate]:
    written = source.segment(node.iter)
    forms = [("{}[1:]", 0.35), ("{}[:-1]", 0.35), ("reversed({})", 0.3), ("sorted({})", 0.35), ("list({})", 0.45)]
    if isinstance(node.target, ast.Tuple):
        forms += [("{}.items()", 0.55), ("enumerate({})", 0.55)]
        if len(node.target.elts) == 2:
            yield source.at(node, swap(source, node.target.elts[0], node.target.elts[1]), "order", 0.5)
    else:
        forms += [("{}.values()", 0.4), ("range({})", 0.35), ("range(len({}))", 0.3)]
    for form, prior in forms:
        yield source.replace_expression(node.iter, form.format(written), "loop", prior)


def jump_edits(source: SourceFile, node: ast.stmt) -> Iterator[Candidate]:
    other = "continue" if isinstance(node, ast.Break) else "break"
    yield source.replace(node, other, "loop", 0.75)
    yield source.replace(node, "pass", "loop", 0.4)


def raise_edits(source: SourceFile, node: ast.Raise, expected: set[str]) -> Iterator[Candidate]:
    kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    if isinstance(kind, ast.Name):
        for name in sorted(expected - {kind.id}):
            yield source.replace(kind, name, "exception", 0.8)


def handler_edits(source: SourceFile, node: ast.ExceptHandler, raised: set[str]) -> Iterator[Candidate]:
    """Exceptions that came through though something like them is handled."""
    if node.type is None:
        return
    names = [source.segment(item) for item in (node.type.elts if isinstance(node.type, ast.Tuple) else [node.type])]
    for name in sorted(raised - set(names) - {"AssertionError", "Failed"}):
        yield source.replace(node.type, name, "exception", 0.85)
        yield source.replace(node.type, f"({', '.join([*names, name])})", "exception", 0.8)


def placement_edits(source: SourceFile, node: ast.stmt) -> Iterator[Candidate]:
    """The statement moved out of its block, into the block before it, past its neighbour, or away."""
    if not isinstance(node, SIMPLE) or is_docstring(node) or node not in source.parents:
        return
    block, parent = source.block_of(node), source.parents[node]
    position = block.index(node)
    start, end = source.whole_lines(node)
    text = source.text[start:end]
    if source.text[start : source.span(node)[0]].strip() or not text.endswith("\n"):
        return
    nested = isinstance(parent, (ast.For, ast.While, ast.If, ast.With, ast.Try, ast.ExceptHandler))
    if nested and position == len(block) - 1 and position:
        prior = 0.75 if isinstance(node, ast.Return) else 0.45
        moved = reindented(text, source.indent_of(node), source.indent_of(parent))
        yield source.at(node, (Splice(start, end, moved),), "indentation", prior)
    before = block[position - 1] if position else None
    if isinstance(before, (ast.For, ast.While, ast.If, ast.With)) and not getattr(before, "orelse", ()):
        deeper = source.indent_of(before.body[-1])
        moved = reindented(text, source.indent_of(node), deeper)
        yield source.at(node, (Splice(start, end, moved),), "indentation", 0.45)
    if before is not None and isinstance(before, SIMPLE) and not is_docstring(before):
        above = source.whole_lines(before)
        if above[1] == start:
            both = text + source.text[above[0] : above[1]]
            yield source.at(node, (Splice(above[0], end, both),), "statement order", 0.45)
    if len(block) > 1 and not isinstance(node, ast.Return):
        yield source.at(node, (Splice(start, end, ""),), "superfluous statement", 0.3)


def reindented(text: str, old: str, new: str) -> str:
    return "".join(new + line[len(old) :] if line.startswith(old) else line for line in split_lines(text))


def missing_return_edits(source: SourceFile, function: FunctionNode) -> Iterator[Candidate]:
    """A function that ends without the value it has worked out."""
    last = function.body[-1]
    if isinstance(last, ast.Expr) and not is_docstring(last) and not isinstance(last.value, (ast.Yield, ast.YieldFrom)):
        start = source.span(last)[0]
        yield source.at(last, (Splice(start, start, "return "),), "return", 0.75)
    if isinstance(last, (ast.Return, ast.Raise)) or function.name == "__init__":
        return
    end = source.whole_lines(last)[1]
    if not source.text[:end].endswith("\n"):
        return
    indent = source.indent_of(function.body[-1])
    names = [name for name in local_names(function) if name not in {"self", "cls"}]
    for rank, name in enumerate(reversed(names)):
        yield source.at(last, (Splice(end, end, f"{indent}return {name}\n"),), "return", max(0.3, 0.7 - 0.1 * rank))
    for value in ("True", "False", "self") if source.class_of(function) else ("True", "False"):
        yield source.at(last, (Splice(end, end, f"{indent}return {value}\n"),), "return", 0.25)
