"""Packs the modules of `mend` into one command for a shell: readable once unpacked, small enough to travel inline."""

from __future__ import annotations

import ast
import base64
import functools
import hashlib
import json
import zlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

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
_LINE_LENGTH = 160


@functools.cache
def script() -> str:
    """The script's text: plain Python that defines `main(config)` and runs nothing."""
    folder = resources.files(PACKAGE)
    bodies = [_bare((folder / f"{name}.py").read_text(encoding="utf-8")) for name in ORDER]
    return "from __future__ import annotations\n" + "\n".join(bodies) + "\n"


@functools.cache
def _packed() -> str:
    """The script compressed, as lines of Base85, which has neither quotes nor backslashes."""
    text = base64.b85encode(zlib.compress(script().encode(), 9)).decode()
    return "\n".join(text[start : start + _LINE_LENGTH] for start in range(0, len(text), _LINE_LENGTH))


def command(interpreter: str, config: Mapping[str, Any]) -> str:
    """A shell command that runs the script with `config`. It leaves no file behind."""
    digest = hashlib.sha256(script().encode()).hexdigest()
    document = json.dumps(json.dumps(config, ensure_ascii=True), ensure_ascii=True)
    return (
        f"{interpreter} -B - <<'CODEAGENT_REPAIR'\n"
        f"# {PACKAGE}, compressed; sha256 of its text {digest}\n"
        "import base64, json, zlib\n"
        f'packed = """{_packed()}"""\n'
        'exec(zlib.decompress(base64.b85decode(packed.replace("\\n", ""))).decode())\n'
        f"main(json.loads({document}))\n"
        "CODEAGENT_REPAIR\n"
    )


def _bare(text: str) -> str:
    """A module's code without docstrings, imports from `mend` and the future import, which comes once."""
    tree = ast.parse(text)
    tree.body = [
        statement
        for statement in tree.body
        if not (isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith((PACKAGE, "__future__")))
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
