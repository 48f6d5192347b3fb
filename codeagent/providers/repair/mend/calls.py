"""Edits of calls, subscripts and collections: swapped arguments, sister functions, bounds, copies."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from codeagent.providers.repair.mend.source import Candidate, SourceFile, Splice
from codeagent.providers.repair.mend.values import swap

SISTERS: tuple[tuple[str, ...], ...] = (
    ("min", "max"),
    ("any", "all"),
    ("append", "extend", "insert", "appendleft", "add"),
    ("pop", "popleft", "popitem"),
    ("startswith", "endswith"),
    ("lower", "upper", "casefold", "title", "capitalize"),
    ("strip", "lstrip", "rstrip"),
    ("find", "rfind", "index", "rindex"),
    ("split", "rsplit", "splitlines", "partition"),
    ("keys", "values", "items"),
    ("add", "remove", "discard", "update"),
    ("union", "intersection", "difference", "symmetric_difference"),
    ("issubset", "issuperset", "isdisjoint"),
    ("removeprefix", "removesuffix", "strip"),
    ("isalpha", "isalnum", "isdigit", "isnumeric", "isspace"),
    ("isupper", "islower"),
    ("ljust", "rjust", "center", "zfill"),
    ("floor", "ceil", "trunc", "round"),
    ("int", "float", "round", "str"),
    ("list", "set", "tuple", "sorted", "dict", "iter", "next"),
    ("sum", "len", "max"),
    ("match", "search", "fullmatch", "findall"),
    ("copy", "deepcopy"),
    ("first", "last"),
    ("days", "seconds", "total_seconds"),
    ("read", "readline", "readlines"),
    ("isinstance", "issubclass"),
    ("setdefault", "get", "pop"),
    ("heappush", "heappop", "heappushpop", "heapreplace"),
    ("bisect", "bisect_left", "bisect_right"),
    ("load", "loads"),
    ("dump", "dumps"),
)
UNWRAPPABLE = frozenset({"abs", "int", "round", "sorted", "list", "str", "set", "reversed", "float", "tuple", "not"})


def call_edits(source: SourceFile, node: ast.Call) -> Iterator[Candidate]:
    for index in range(len(node.args) - 1):
        one, other = node.args[index], node.args[index + 1]
        if source.segment(one) != source.segment(other):
            yield source.at(node, swap(source, one, other), "argument order", 0.6 if len(node.args) == 2 else 0.5)
    yield from sister_edits(source, node)
    yield from keyword_edits(source, node)
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    if len(node.args) == 1 and not node.keywords:
        prior = 0.45 if name in UNWRAPPABLE else 0.25
        yield source.replace_expression(node, source.segment(node.args[0]), "superfluous call", prior)
        if not isinstance(node.args[0], ast.Starred):
            start = source.span(node.args[0])[0]
            yield source.at(node, (Splice(start, start, "*"),), "unpacking", 0.2)
    if isinstance(node.func, ast.Attribute) and not node.args:
        yield source.replace(node, source.segment(node.func), "superfluous call", 0.4)
        if not node.keywords:
            yield source.replace(node, source.segment(node.func.value), "superfluous call", 0.35)
    yield from argument_edits(source, node, name)
    yield from recursion_edits(source, node, name)


def recursion_edits(source: SourceFile, node: ast.Call, name: str) -> Iterator[Candidate]:
    """A call of itself that does not get smaller."""
    function = source.function_of(node)
    if function is None or function.name != name:
        return
    for item in node.args:
        if isinstance(item, ast.Name):
            for form, prior in (("{}[1:]", 0.4), ("{}[:-1]", 0.35)):
                yield source.replace(item, form.format(item.id), "slice", prior)


def argument_edits(source: SourceFile, node: ast.Call, name: str) -> Iterator[Candidate]:
    """Arguments that some functions are often called without, or with."""
    if name == "range":
        yield from range_edits(source, node)
    if name == "pop" and isinstance(node.func, ast.Attribute):
        inside = source.segment(node)[len(source.segment(node.func)) :]
        new = "(0)" if inside == "()" else "()"
        yield source.replace(node, source.segment(node.func) + new, "argument", 0.6)
    if name == "enumerate" and len(node.args) == 1 and not node.keywords:
        yield insert_argument(source, node, "start=1", "argument", 0.5)
    if name == "round" and len(node.args) == 1:
        yield insert_argument(source, node, "2", "argument", 0.6)


def sister_edits(source: SourceFile, node: ast.Call) -> Iterator[Candidate]:
    """A function taken for its sister: min for max, lstrip for rstrip."""
    func = node.func
    name = getattr(func, "id", getattr(func, "attr", ""))
    end = source.span(func)[1]
    others = dict.fromkeys(other for family in SISTERS if name in family for other in family if other != name)
    for rank, other in enumerate(others):
        yield source.at(node, (Splice(end - len(name), end, other),), "function", 0.8 - 0.08 * min(rank, 6))


def keyword_edits(source: SourceFile, node: ast.Call) -> Iterator[Candidate]:
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    given = {keyword.arg for keyword in node.keywords}
    if name in {"sorted", "sort"} and "reverse" not in given:
        yield insert_argument(source, node, "reverse=True", "argument", 0.85)
    for keyword in node.keywords:
        if keyword.arg is None:
            continue
        start, end = source.span(keyword.value)
        start = source.text.rfind(keyword.arg, 0, start)
        before = source.text.rfind(",", source.span(node.func)[1], start)
        if before >= 0 and not source.text[before + 1 : start].strip():
            yield source.at(node, (Splice(before, end, ""),), "superfluous argument", 0.45)
    for index in range(len(node.keywords) - 1):
        one, other = node.keywords[index], node.keywords[index + 1]
        if source.segment(one.value) != source.segment(other.value):
            yield source.at(node, swap(source, one.value, other.value), "argument order", 0.45)


def insert_argument(source: SourceFile, node: ast.Call, new: str, kind: str, prior: float) -> Candidate:
    """One more argument, at the end."""
    end = source.span(node)[1] - 1
    inside = source.text[source.span(node.func)[1] : end].strip().lstrip("(").rstrip()
    lead = "" if not inside or inside.endswith(",") else ", "
    return source.at(node, (Splice(end, end, lead + new),), kind, prior)


def range_edits(source: SourceFile, node: ast.Call) -> Iterator[Candidate]:
    texts = [source.segment(item) for item in node.args]
    if len(texts) == 1:
        for new in (f"1, {texts[0]} + 1", f"1, {texts[0]}"):
            yield source.replace(node, f"range({new})", "range", 0.5)
    elif len(texts) == 2:
        for new, prior in (
            (texts[1], 0.4),
            (f"{texts[0]}, {texts[1]}, -1", 0.45),
            (f"{texts[0]}, {texts[1]} + 1", 0.7),
        ):
            yield source.replace(node, f"range({new})", "range", prior)


def subscript_edits(source: SourceFile, node: ast.Subscript) -> Iterator[Candidate]:
    index, value = node.slice, source.segment(node.value)
    if isinstance(index, ast.Slice):
        yield from slice_edits(source, node, index)
        return
    key = source.segment(index)
    if isinstance(node.ctx, ast.Load) and not isinstance(index, ast.Tuple):
        for new, prior in ((f"{value}.get({key})", 0.3), (f"{value}.get({key}, 0)", 0.35)):
            yield source.replace(node, new, "lookup", prior)
    if isinstance(node.value, ast.Subscript) and not isinstance(node.value.slice, (ast.Slice, ast.Tuple)):
        yield source.at(node, swap(source, node.value.slice, index), "index order", 0.6)
    if key in {"0", "-1"}:
        yield source.replace(index, "-1" if key == "0" else "0", "index", 0.65)


def slice_edits(source: SourceFile, node: ast.Subscript, index: ast.Slice) -> Iterator[Candidate]:
    value = source.segment(node.value)
    low, high, step = (source.segment(part) if part else "" for part in (index.lower, index.upper, index.step))
    third = f":{step}" if step else ""
    forms = {f"{high}:{low}": 0.3, f":{high}": 0.4, f"{low}:": 0.4, f"{low}:{high}": 0.5 if step else 0.0}
    if low and not high:
        forms[f":{low}"] = 0.55
    if high and not low:
        forms[f"{high}:"] = 0.55
        forms[f"-{high}:"] = 0.35
    if not high:
        forms[f"{low}:-1"] = 0.4
    if not low:
        forms[f"1:{high}"] = 0.45
    if not step:
        forms[f"{low}:{high}:-1"] = 0.3
    for form, prior in forms.items():
        new = form + third if form.count(":") == 1 and form != f"{low}:{high}" else form
        if prior and new != f"{low}:{high}{third}":
            yield source.replace(node, f"{value}[{new}]", "slice", prior)
    yield source.replace_expression(node, value, "slice", 0.35)


def collection_edits(source: SourceFile, node: ast.AST) -> Iterator[Candidate]:
    """Comprehensions, repeated lists, and lambdas that share one variable."""
    if isinstance(node, ast.DictComp):
        yield source.at(node, swap(source, node.key, node.value), "order", 0.5)
    for clause in getattr(node, "generators", ()):
        for test in clause.ifs:
            yield source.replace(test, f"not ({source.segment(test)})", "negation", 0.5)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and isinstance(node.left, ast.List):
        item, times = source.segment(node.left)[1:-1], source.segment(node.right)
        if isinstance(node.left.elts[0] if node.left.elts else None, (ast.List, ast.BinOp, ast.Dict, ast.Call)):
            yield source.replace_expression(node, f"[{item} for _ in range({times})]", "shared list", 1.0)
    if isinstance(node, ast.IfExp):
        yield source.at(node, swap(source, node.body, node.orelse), "branch order", 0.75)
    if isinstance(node, ast.Lambda):
        yield from late_binding_edits(source, node)


def late_binding_edits(source: SourceFile, node: ast.Lambda) -> Iterator[Candidate]:
    """A lambda made in a loop that sees only the loop's last value."""
    if not node.args.args:
        used = {item.id for item in ast.walk(node.body) if isinstance(item, ast.Name)}
        loops = [up for up in source.ancestors(node) if isinstance(up, (ast.For, ast.ListComp, ast.GeneratorExp))]
        for loop in loops:
            target = loop.target if isinstance(loop, ast.For) else loop.generators[0].target
            if isinstance(target, ast.Name) and target.id in used:
                new = f"lambda {target.id}={target.id}: {source.segment(node.body)}"
                yield source.replace(node, new, "late binding", 1.0)
