"""A parsed source file that can be edited by character spans, so that formatting and comments survive."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Union

FunctionNode = Union[ast.FunctionDef, ast.AsyncFunctionDef]  # noqa: UP007  # evaluated, also by Python 3.9


@dataclass(frozen=True)
class Splice:
    """Characters `start` to `end` replaced by `new`; an insertion when both are equal."""

    start: int
    end: int
    new: str


@dataclass(frozen=True)
class Candidate:
    """One plausible edit of one file. `prior` says how often such an edit is the right one, before any evidence."""

    path: str
    line: int
    kind: str
    prior: float
    splices: tuple[Splice, ...]

    def apply(self, text: str) -> str:
        for splice in sorted(self.splices, key=lambda item: item.start, reverse=True):
            text = text[: splice.start] + splice.new + text[splice.end :]
        return text


def split_lines(text: str) -> list[str]:
    """Lines with their ends, as Python counts them: a form feed, say, does not end one."""
    return re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text)


class SourceFile:
    """Text, tree and positions of one file. `tree` is None when it does not parse."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.lines = split_lines(text)
        self._starts = [0]
        for line in self.lines:
            self._starts.append(self._starts[-1] + len(line))
        self.parents: dict[ast.AST, ast.AST] = {}
        self.tree: ast.Module | None = None
        self.syntax_error: SyntaxError | None = None
        try:
            self.tree = ast.parse(text)
        except (SyntaxError, ValueError) as error:
            self.syntax_error = error if isinstance(error, SyntaxError) else SyntaxError(str(error))
            return
        for node in ast.walk(self.tree):
            for child in ast.iter_child_nodes(node):
                self.parents[child] = node

    def nodes(self) -> Iterator[ast.AST]:
        return ast.walk(self.tree) if self.tree is not None else iter(())

    def offset(self, line: int, column: int) -> int:
        """The index of a character from the tree's line and column, which counts UTF-8 bytes."""
        content = self.lines[line - 1] if line <= len(self.lines) else ""
        if not content.isascii():
            column = len(content.encode()[:column].decode(errors="ignore"))
        return self._starts[line - 1] + column

    def span(self, node: ast.AST) -> tuple[int, int]:
        start = self.offset(node.lineno, node.col_offset)  # type: ignore[attr-defined]
        return start, self.offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def segment(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.text[start:end]

    def line_start(self, line: int) -> int:
        return self._starts[min(line, len(self._starts)) - 1]

    def indent_of(self, node: ast.AST) -> str:
        line = self.lines[node.lineno - 1]  # type: ignore[attr-defined]
        return line[: len(line) - len(line.lstrip())]

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        while node in self.parents:
            node = self.parents[node]
            yield node

    def function_of(self, node: ast.AST) -> FunctionNode | None:
        return next(
            (up for up in self.ancestors(node) if isinstance(up, (ast.FunctionDef, ast.AsyncFunctionDef))), None
        )

    def class_of(self, node: ast.AST) -> ast.ClassDef | None:
        return next((up for up in self.ancestors(node) if isinstance(up, ast.ClassDef)), None)

    def statement_of(self, node: ast.AST) -> ast.stmt:
        while not isinstance(node, ast.stmt):
            node = self.parents[node]
        return node

    def block_of(self, statement: ast.stmt) -> list[ast.stmt]:
        """The list of statements that holds this one."""
        for _, field in ast.iter_fields(self.parents[statement]):
            if isinstance(field, list) and statement in field:
                return field
        return [statement]

    def replace(self, node: ast.AST, new: str, kind: str, prior: float) -> Candidate:
        start, end = self.span(node)
        return Candidate(self.path, _line(node), kind, prior, (Splice(start, end, new),))

    def replace_expression(self, node: ast.expr, new: str, kind: str, prior: float) -> Candidate:
        """As `replace`, with parentheses where the new expression would otherwise be torn apart."""
        parent = self.parents.get(node)
        tight = (ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.Attribute, ast.Await, ast.Starred, ast.IfExp)
        head = (
            isinstance(parent, (ast.Call, ast.Subscript))
            and getattr(parent, "func", getattr(parent, "value", None)) is node
        )
        return self.replace(node, f"({new})" if isinstance(parent, tight) or head else new, kind, prior)

    def at(self, node: ast.AST, splices: tuple[Splice, ...], kind: str, prior: float) -> Candidate:
        return Candidate(self.path, _line(node), kind, prior, splices)

    def whole_lines(self, statement: ast.stmt) -> tuple[int, int]:
        """The span of a statement's lines, decorators and line ends included."""
        first = min([statement.lineno, *(item.lineno for item in getattr(statement, "decorator_list", ()))])
        return self.line_start(first), self.line_start((statement.end_lineno or first) + 1)


def _line(node: ast.AST) -> int:
    line: int = getattr(node, "lineno", 1)
    return line


def first_statement(function: FunctionNode) -> ast.stmt:
    """The first statement after the docstring."""
    body = function.body
    return body[1] if len(body) > 1 and is_docstring(body[0]) else body[0]


def is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def parameters(function: FunctionNode) -> list[str]:
    """Names of all parameters, in order."""
    given = function.args
    return [item.arg for item in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
