"""Edits of operators: comparisons, arithmetic, logic, and the signs in front of things."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from codeagent.providers.repair.mend.source import Candidate, SourceFile, Splice

# For each operator: its text, and what it may have been meant to be, the likeliest first.
COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[tuple[str, float], ...]]] = {
    ast.Lt: (r"<", (("<=", 1.0), (">", 0.8), (">=", 0.45), ("!=", 0.3), ("==", 0.25))),
    ast.LtE: (r"<=", (("<", 1.0), (">=", 0.8), (">", 0.45), ("==", 0.3), ("!=", 0.25))),
    ast.Gt: (r">", ((">=", 1.0), ("<", 0.8), ("<=", 0.45), ("!=", 0.3), ("==", 0.25))),
    ast.GtE: (r">=", ((">", 1.0), ("<=", 0.8), ("<", 0.45), ("==", 0.3), ("!=", 0.25))),
    ast.Eq: (r"==", (("!=", 0.9), (">=", 0.5), ("<=", 0.5), ("in", 0.35), ("is", 0.3), (">", 0.3), ("<", 0.3))),
    ast.NotEq: (r"!=", (("==", 0.9), ("<", 0.4), (">", 0.4), ("is not", 0.3), ("not in", 0.3))),
    ast.Is: (r"\bis\b", (("==", 0.85), ("is not", 0.85), ("in", 0.3))),
    ast.IsNot: (r"\bis\s+not\b", (("is", 0.85), ("!=", 0.8))),
    ast.In: (r"\bin\b", (("not in", 0.9), ("==", 0.35))),
    ast.NotIn: (r"\bnot\s+in\b", (("in", 0.9), ("!=", 0.35))),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, tuple[tuple[str, float], ...]]] = {
    ast.Add: ("+", (("-", 0.75), ("*", 0.5), ("|", 0.2))),
    ast.Sub: ("-", (("+", 0.85), ("//", 0.3), ("*", 0.3), ("%", 0.25))),
    ast.Mult: ("*", (("/", 0.6), ("+", 0.55), ("**", 0.5), ("//", 0.4))),
    ast.Div: ("/", (("*", 0.7), ("//", 0.75), ("%", 0.3))),
    ast.FloorDiv: ("//", (("/", 0.75), ("%", 0.65), ("*", 0.3))),
    ast.Mod: ("%", (("//", 0.65), ("/", 0.45), ("*", 0.25))),
    ast.Pow: ("**", (("*", 0.7), ("^", 0.1))),
    ast.BitAnd: ("&", (("|", 0.75), ("^", 0.55))),
    ast.BitOr: ("|", (("&", 0.75), ("^", 0.5))),
    ast.BitXor: ("^", (("&", 0.7), ("|", 0.6), ("**", 0.6))),
    ast.LShift: ("<<", ((">>", 0.8), ("*", 0.2))),
    ast.RShift: (">>", (("<<", 0.8), ("//", 0.2))),
}
ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)


def comparison_edits(source: SourceFile, node: ast.Compare) -> Iterator[Candidate]:
    operands = [node.left, *node.comparators]
    for index, operator in enumerate(node.ops):
        pattern, others = COMPARISONS[type(operator)]
        gap = gap_between(source, operands[index], operands[index + 1], pattern)
        if gap is None:
            continue
        for other, prior in others:
            yield source.at(node, (Splice(*gap, other),), "comparison", prior)
        if isinstance(operator, ast.Eq) and source.segment(operands[index + 1]) == "0":
            splice = Splice(gap[0], source.span(operands[index + 1])[1], "<= 1")
            yield source.at(node, (splice,), "comparison", 0.4)


def arithmetic_edits(source: SourceFile, node: ast.BinOp) -> Iterator[Candidate]:
    symbol, others = ARITHMETIC.get(type(node.op), ("", ()))
    gap = gap_between(source, node.left, node.right, re.escape(symbol)) if symbol else None
    left, right = source.segment(node.left), source.segment(node.right)
    if gap is not None:
        for other, prior in others:
            yield source.at(node, (Splice(*gap, other),), "arithmetic", prior)
    if isinstance(node.op, (*ORDERED, ast.Add)) and left != right:
        swapped = (Splice(*source.span(node.left), guarded(right, node.right)),
                   Splice(*source.span(node.right), guarded(left, node.left)))  # fmt: skip
        yield source.at(node, swapped, "operand order", 0.3 if isinstance(node.op, ast.Add) else 0.65)
    step = isinstance(node.op, (ast.Add, ast.Sub)) and is_number(node.right)
    yield source.replace_expression(node, left, "superfluous term", 0.75 if step else 0.35)
    if isinstance(node.op, (ast.Add, ast.Sub, ast.Mult)):
        yield source.replace_expression(node, right, "superfluous term", 0.6 if is_number(node.left) else 0.3)
    yield from precedence_edits(source, node, symbol)


def precedence_edits(source: SourceFile, node: ast.BinOp, symbol: str) -> Iterator[Candidate]:
    """`a + b / c` that was meant as `(a + b) / c`, and the reverse."""
    right = node.right
    strong = (ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)
    if isinstance(node.op, (ast.Add, ast.Sub)) and isinstance(right, ast.BinOp) and isinstance(right.op, strong):
        inner = ARITHMETIC[type(right.op)][0]
        first, middle, last = (source.segment(part) for part in (node.left, right.left, right.right))
        yield source.replace_expression(node, f"({first} {symbol} {middle}) {inner} {last}", "precedence", 0.6)
    left = node.left
    if isinstance(node.op, strong) and isinstance(left, ast.BinOp) and isinstance(left.op, (ast.Add, ast.Sub)):
        outer = ARITHMETIC[type(left.op)][0]
        first, middle, last = (source.segment(part) for part in (left.left, left.right, node.right))
        yield source.replace_expression(node, f"{first} {outer} {middle} {symbol} {last}", "precedence", 0.5)


def logic_edits(source: SourceFile, node: ast.BoolOp) -> Iterator[Candidate]:
    word, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
    for index, operand in enumerate(node.values):
        if index:
            gap = gap_between(source, node.values[index - 1], operand, rf"\b{word}\b")
            if gap is not None:
                yield source.at(node, (Splice(*gap, other),), "logic", 0.85)
        rest = f" {word} ".join(source.segment(item) for item in node.values if item is not operand)
        yield source.replace_expression(node, rest, "superfluous condition", 0.45)
        yield source.replace(operand, f"not ({source.segment(operand)})", "negation", 0.3)


def sign_edits(source: SourceFile, node: ast.UnaryOp) -> Iterator[Candidate]:
    inner = source.segment(node.operand)
    if isinstance(node.op, ast.Not):
        yield source.replace_expression(node, inner, "negation", 0.8)
    elif isinstance(node.op, ast.USub):
        yield source.replace_expression(node, inner, "sign", 0.6)
        if isinstance(node.operand, ast.Constant) and isinstance(node.operand.value, int):
            for value in (1 - node.operand.value, -1 - node.operand.value):
                yield source.replace(node, str(value), "constant", 0.5)
    elif isinstance(node.op, ast.UAdd) and isinstance(source.parents.get(node), ast.Assign):
        statement = source.parents[node]
        start = source.span(statement.targets[0])[1]  # type: ignore[attr-defined]
        yield source.at(node, (Splice(start, source.span(node.operand)[0], " += "),), "assignment", 1.0)


def augmented_edits(source: SourceFile, node: ast.AugAssign) -> Iterator[Candidate]:
    symbol, others = ARITHMETIC.get(type(node.op), ("", ()))
    gap = gap_between(source, node.target, node.value, re.escape(symbol + "=")) if symbol else None
    if gap is None:
        return
    for other, prior in (*others, ("", 0.55)):
        yield source.at(node, (Splice(*gap, other + "="),), "assignment", prior)


def gap_between(source: SourceFile, left: ast.AST, right: ast.AST, pattern: str) -> tuple[int, int] | None:
    """Where the operator stands between two operands; comments in between do not count."""
    start, end = source.span(left)[1], source.span(right)[0]
    between = re.sub(r"#[^\n]*", lambda match: " " * len(match.group()), source.text[start:end])
    found = re.search(pattern, between)
    return (start + found.start(), start + found.end()) if found else None


def guarded(text: str, node: ast.AST) -> str:
    """An operand as it can stand on the other side of its operator."""
    compound = (ast.BinOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Lambda, ast.UnaryOp)
    return f"({text})" if isinstance(node, compound) else text


def is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool)
