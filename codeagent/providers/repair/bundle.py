"""Joins the modules of `mend` into the one script that is sent to the sandbox."""

from __future__ import annotations

import ast
import functools
from importlib import resources

PACKAGE = "codeagent.providers.repair.mend"
# Each module after those it imports from.
ORDER = (
    "source",
    "project",
    "operators",
    "values",
    "calls",
    "statements",
    "definitions",
    "syntax",
    "recording",
    "runner",
    "evidence",
    "candidates",
    "snippets",
    "search",
)


@functools.cache
def script() -> str:
    """The script's text: plain Python that defines `main(config)` and runs nothing."""
    folder = resources.files(PACKAGE)
    texts = [(folder / f"{name}.py").read_text(encoding="utf-8") for name in ORDER]
    return "from __future__ import annotations\n" + "".join(_without_imports_of_siblings(text) for text in texts)


def _without_imports_of_siblings(text: str) -> str:
    """A module's text less its docstring, its imports from `mend` and the future import, which may come only once."""
    lines = text.splitlines(keepends=True)
    tree = ast.parse(text)
    for statement in reversed(tree.body):
        sibling = isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith((PACKAGE, "__future__"))
        docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if sibling or docstring:
            del lines[statement.lineno - 1 : statement.end_lineno]
    return "".join(lines).lstrip("\n")
