"""Edits of values: constants, texts, off-by-one places, and one name or attribute taken for another."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator

from codeagent.providers.repair.mend.operators import is_number
from codeagent.providers.repair.mend.project import Project, alike, local_names, module_names, own_attributes
from codeagent.providers.repair.mend.source import Candidate, SourceFile, Splice, parameters

BUILTIN_NAMES = frozenset(dir(builtins))


def constant_edits(source: SourceFile, project: Project, node: ast.Constant) -> Iterator[Candidate]:
    value = node.value
    parent = source.parents.get(node)
    if isinstance(parent, (ast.JoinedStr, ast.FormattedValue, ast.Expr)):
        return
    if isinstance(value, bool):
        yield source.replace(node, str(not value), "constant", 0.8)
    elif isinstance(value, int):
        yield from whole_number_edits(source, node, value)
    elif isinstance(value, float):
        for changed, prior in ((value * 10, 0.4), (value / 10, 0.4), (value * 100, 0.35), (value / 100, 0.35),
                             (round(1 - value, 12), 0.4), (round(1 + value, 12), 0.35), (-value, 0.3)):  # fmt: skip
            yield source.replace(node, repr(round(changed, 12)), "constant", prior)
    elif isinstance(value, str):
        yield from text_edits(source, project, node, value)
    elif value is None and isinstance(parent, (ast.Return, ast.Assign, ast.keyword, ast.IfExp)):
        for other in ("0", '""', "[]", "{}", "False", "True"):
            yield source.replace(node, other, "constant", 0.3)


def whole_number_edits(source: SourceFile, node: ast.Constant, value: int) -> Iterator[Candidate]:
    near = 0.75 if counts(source, node) else 0.5
    if isinstance(source.parents.get(node), ast.UnaryOp):
        near = 0.3
    others = {value + 1: near, value - 1: near, 0: 0.45, 1: 0.45, value * 10: 0.35, -value: 0.35}
    if value % 10 == 0:
        others[value // 10] = 0.35
    if value in {2, -1}:
        others[2 if value == -1 else -1] = 0.3
    for other, prior in others.items():
        if other != value:
            text = str(other) if other >= 0 else f"({other})"
            alone = isinstance(source.parents.get(node), (ast.Return, ast.Call, ast.Assign, ast.keyword, ast.Subscript))
            yield source.replace(node, str(other) if alone else text, "constant", prior)


def counts(source: SourceFile, node: ast.AST) -> bool:
    """Whether a number stands where off-by-one mistakes are made: bounds, indexes, steps."""
    for up in source.ancestors(node):
        if isinstance(up, (ast.Subscript, ast.Slice, ast.Compare)):
            return True
        if isinstance(up, ast.Call):
            return getattr(up.func, "id", "") in {"range", "enumerate", "round", "pow", "islice"}
        if isinstance(up, ast.stmt):
            return False
    return False


def text_edits(source: SourceFile, project: Project, node: ast.Constant, value: str) -> Iterator[Candidate]:
    written = source.segment(node)
    if written[:1] not in "\"'" or written[:3] in {'"""', "'''"}:
        return
    for other, ratio in alike(value, project.strings, least=0.6)[:6]:
        yield source.replace(node, repr(other), "text", 0.2 + 0.6 * ratio)
    pairs = {"": " ", " ": "", ", ": ",", ",": ", ", "\n": "", "w": "a", "r": "rb", "asc": "desc"}
    if value in pairs:
        yield source.replace(node, repr(pairs[value]), "text", 0.5)
    for other in dict.fromkeys((value.strip(), value.lower(), value.upper(), value.capitalize(), value.title())):
        if other != value:
            yield source.replace(node, repr(other), "text", 0.35)
    function = source.function_of(node)
    known = {*(local_names(function) if function else ()), *module_names(source), "self"}
    inside = re.findall(r"\{\s*([A-Za-z_]\w*)[^{}]*\}", value)
    if inside and all(name in known for name in inside):
        yield source.replace(node, "f" + written, "format string", 0.9)


def format_edits(source: SourceFile, node: ast.JoinedStr) -> Iterator[Candidate]:
    """Digits after the point in `{price:.1f}`."""
    start, end = source.span(node)
    for found in re.finditer(r"\.(\d)([fge%])", source.text[start:end]):
        digits = int(found.group(1))
        for other in (digits + 1, digits - 1):
            if other >= 0:
                new = Splice(start + found.start(1), start + found.end(1), str(other))
                yield source.at(node, (new,), "format string", 0.5)


def step_edits(source: SourceFile, node: ast.expr) -> Iterator[Candidate]:
    """A value one too small or too large."""
    prior = step_prior(source, node, source.parents.get(node))
    if prior:
        for sign in ("+", "-"):
            yield source.replace_expression(node, f"{source.segment(node)} {sign} 1", "off by one", prior)


def step_prior(source: SourceFile, node: ast.expr, parent: ast.AST | None) -> float:
    """How often a value in this place is one off."""
    if isinstance(parent, ast.Call):
        return 0.65 if getattr(parent.func, "id", "") == "range" else 0.25 if node in parent.args else 0.0
    if isinstance(parent, (ast.Slice, ast.Subscript)):
        return 0.5 if getattr(parent, "value", None) is not node else 0.0
    if isinstance(parent, (ast.Return, ast.Compare)):
        return 0.35
    if isinstance(parent, ast.Assign) and parent.value is node:
        return 0.5 if any(isinstance(up, ast.While) for up in source.ancestors(node)) else 0.25
    return 0.0


def name_edits(source: SourceFile, project: Project, node: ast.Name) -> Iterator[Candidate]:
    """Another name in scope, the likely ones first: alike, local, of the same kind."""
    function, owner, parent = source.function_of(node), source.class_of(node), source.parents.get(node)
    local = local_names(function) if function else []
    top = module_names(source)
    called = isinstance(parent, ast.Call) and parent.func is node
    if called:
        others = [name for name, by in top.items() if not isinstance(by, ast.Assign)] + local
    elif node.id in local or node.id not in top:
        others = local + [name for name, by in top.items() if isinstance(by, (ast.Assign, ast.AnnAssign))]
    else:
        others = list(top) + local
    unknown = node.id not in local and node.id not in top and node.id not in BUILTIN_NAMES
    if not (isinstance(parent, (ast.ExceptHandler, ast.arg)) or (node.id in BUILTIN_NAMES and not called)):
        for other, ratio in alike(node.id, (name for name in others if name not in {"self", "cls"}))[:8]:
            yield source.replace(node, other, "name", (0.6 if unknown else 0.3) + 0.35 * ratio)
    if owner is not None and function is not None and "self" in parameters(function)[:1]:
        attributes = own_attributes(owner)
        for other, ratio in alike(node.id + ".", attributes)[:3]:
            prior = 1.0 if other == node.id else 0.5 if other.strip("_") == node.id else 0.25 * ratio
            yield source.replace(node, f"self.{other}", "name", prior)


def attribute_edits(source: SourceFile, project: Project, node: ast.Attribute) -> Iterator[Candidate]:
    """Another attribute of the same thing, and a method named but not called."""
    value_end, end = source.span(node.value)[1], source.span(node)[1]
    parent, owner = source.parents.get(node), source.class_of(node)
    called = isinstance(parent, ast.Call) and parent.func is node
    own = isinstance(node.value, ast.Name) and node.value.id == "self" and owner is not None
    others = own_attributes(owner) if own and owner is not None else list(project.attributes)
    limit, base = (8, 0.3) if own else (5, 0.2)
    for other, ratio in alike(node.attr, (name for name in others if (name in project.methods) == called or own))[
        :limit
    ]:
        if not own and ratio < 0.4:
            break
        yield source.at(node, (Splice(value_end, end, f".{other}"),), "attribute", base + 0.4 * ratio)
    if own and source.function_of(node) is not None:
        function = source.function_of(node)
        if function is not None and node.attr.strip("_") in parameters(function) and not called:
            yield source.replace(node, node.attr.strip("_"), "attribute", 0.5)
    if not called and node.attr in project.methods and isinstance(node.ctx, ast.Load):
        yield source.at(node, (Splice(end, end, "()"),), "call", 0.6)


def target_edits(source: SourceFile, node: ast.Assign) -> Iterator[Candidate]:
    """The wrong variable assigned, or a plain assignment where something was to be added up."""
    if len(node.targets) != 1:
        return
    target, function = node.targets[0], source.function_of(node)
    start = source.span(target)[1]
    equals = source.text.find("=", start)
    looped = any(isinstance(up, (ast.For, ast.While, ast.AsyncFor)) for up in source.ancestors(node))
    if isinstance(target, (ast.Name, ast.Attribute, ast.Subscript)) and equals >= 0:
        for symbol, prior in (("+=", 0.7 if looped else 0.4), ("-=", 0.35), ("*=", 0.3), ("|=", 0.2)):
            if function is not None:
                yield source.at(node, (Splice(equals, equals + 1, symbol),), "assignment", prior)
    yield from assigned_value_edits(source, node, target)


def assigned_value_edits(source: SourceFile, node: ast.Assign, target: ast.expr) -> Iterator[Candidate]:
    """The right statement with the wrong name, limit or order."""
    function, owner = source.function_of(node), source.class_of(node)
    if isinstance(target, ast.Name) and function is not None:
        for other, ratio in alike(target.id, local_names(function))[:4]:
            if other not in {"self", "cls"}:
                yield source.replace(target, other, "assignment", 0.25 + 0.3 * ratio)
        if owner is not None and target.id in {name.strip("_") for name in own_attributes(owner)}:
            yield source.replace(target, f"self.{target.id}", "assignment", 0.6)
    if function is not None and isinstance(node.value, (ast.BinOp, ast.Call, ast.Name)):
        for form in ("max(0, {})", "abs({})", "int({})"):
            yield source.replace(node.value, form.format(source.segment(node.value)), "assignment", 0.25)
    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple) and len(target.elts) == 2:
        first, second = node.value.elts if len(node.value.elts) == 2 else target.elts
        yield source.at(node, swap(source, first, second), "order", 0.4)


def swap(source: SourceFile, one: ast.AST, other: ast.AST) -> tuple[Splice, Splice]:
    """Two pieces of text in each other's place."""
    return Splice(*source.span(one), source.segment(other)), Splice(*source.span(other), source.segment(one))


def step_worthy(source: SourceFile, node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return getattr(node.func, "id", "") in {"len", "int", "max", "min", "sum", "abs"}
    return isinstance(node, (ast.Name, ast.Attribute, ast.BinOp, ast.Subscript)) and not is_number(node)


def known_attribute_edits(
    source: SourceFile, project: Project, node: ast.Attribute, classes: set[str]
) -> Iterator[Candidate]:
    """The attribute does not exist, and the error says of which class: one that class has."""
    value_end, end = source.span(node.value)[1], source.span(node)[1]
    for other_file in project.files.values():
        for owner in other_file.nodes():
            if isinstance(owner, ast.ClassDef) and owner.name in classes:
                for other, ratio in alike(node.attr, own_attributes(owner))[:10]:
                    yield source.at(node, (Splice(value_end, end, f".{other}"),), "attribute", 0.7 + 0.3 * ratio)
