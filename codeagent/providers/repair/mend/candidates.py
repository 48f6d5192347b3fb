"""Every plausible single edit of the suspicious lines, the likeliest first."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from codeagent.providers.repair.mend.calls import call_edits, collection_edits, subscript_edits
from codeagent.providers.repair.mend.definitions import (
    definition_edits,
    guard_edits,
    import_edits,
    imported_name_edits,
    missing_attribute_edits,
)
from codeagent.providers.repair.mend.evidence import Evidence
from codeagent.providers.repair.mend.operators import (
    arithmetic_edits,
    augmented_edits,
    comparison_edits,
    logic_edits,
    sign_edits,
)
from codeagent.providers.repair.mend.project import Project
from codeagent.providers.repair.mend.source import Candidate, SourceFile
from codeagent.providers.repair.mend.statements import (
    condition_edits,
    handler_edits,
    jump_edits,
    loop_edits,
    missing_return_edits,
    placement_edits,
    raise_edits,
    return_edits,
)
from codeagent.providers.repair.mend.syntax import syntax_edits
from codeagent.providers.repair.mend.values import (
    attribute_edits,
    constant_edits,
    format_edits,
    known_attribute_edits,
    name_edits,
    step_edits,
    step_worthy,
    target_edits,
)

MOST_CANDIDATES = 6000


def ranked(project: Project, evidence: Evidence) -> list[tuple[float, Candidate]]:
    """Candidates with their score: how likely the kind of edit, times how suspicious the place."""
    scored: list[tuple[float, Candidate]] = []
    for source in project.files.values():
        if source.syntax_error is not None:
            scored += [(2.0 * item.prior, item) for item in syntax_edits(source)]
            continue
        for suspicion, candidate in suspected(source, project, evidence):
            scored.append((suspicion * candidate.prior * evidence.boost(candidate.kind), candidate))
    scored.sort(key=lambda pair: (-pair[0], pair[1].path, pair[1].line))
    return scored[:MOST_CANDIDATES]


def suspected(source: SourceFile, project: Project, evidence: Evidence) -> Iterator[tuple[float, Candidate]]:
    if evidence.unknown_names and any(path == source.path for path, _ in evidence.suspicion):
        for candidate in import_edits(source, project, evidence.unknown_names):
            yield 1.0, candidate
    for node in source.nodes():
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from weighed(evidence.within(source, node), function_candidates(source, node))
        elif isinstance(node, ast.ClassDef) and node.name in evidence.named:
            for name in sorted(evidence.missing_attributes):
                yield from weighed(0.8, missing_attribute_edits(source, node, name))
        if isinstance(node, (ast.stmt, ast.expr, ast.ExceptHandler)):
            yield from weighed(evidence.of(source, node), node_candidates(source, project, evidence, node))


def weighed(suspicion: float, candidates: Iterator[Candidate]) -> Iterator[tuple[float, Candidate]]:
    """The candidates with their suspicion; none, and no work, when nothing is suspected."""
    if suspicion:
        for candidate in candidates:
            yield suspicion, candidate


def function_candidates(source: SourceFile, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Candidate]:
    yield from definition_edits(source, node)
    yield from missing_return_edits(source, node)
    yield from guard_edits(source, node)


def node_candidates(source: SourceFile, project: Project, evidence: Evidence, node: ast.AST) -> Iterator[Candidate]:
    if isinstance(node, ast.stmt):
        yield from statement_candidates(source, project, evidence, node)
    elif isinstance(node, ast.ExceptHandler):
        yield from handler_edits(source, node, evidence.raised)
    elif isinstance(node, ast.expr):
        yield from expression_candidates(source, project, evidence, node)
        yield from collection_edits(source, node)
        if step_worthy(source, node) and not isinstance(getattr(node, "ctx", None), ast.Store):
            yield from step_edits(source, node)


def statement_candidates(
    source: SourceFile, project: Project, evidence: Evidence, node: ast.stmt
) -> Iterator[Candidate]:
    yield from placement_edits(source, node)
    if isinstance(node, ast.Return):
        yield from return_edits(source, node)
    elif isinstance(node, (ast.If, ast.While)):
        yield from condition_edits(source, node)
    elif isinstance(node, ast.For):
        yield from loop_edits(source, node)
    elif isinstance(node, (ast.Break, ast.Continue)):
        yield from jump_edits(source, node)
    elif isinstance(node, ast.Raise):
        yield from raise_edits(source, node, project.expected_exceptions)
    elif isinstance(node, ast.AugAssign):
        yield from augmented_edits(source, node)
    elif isinstance(node, ast.Assign):
        yield from target_edits(source, node)
    elif isinstance(node, ast.ImportFrom):
        yield from imported_name_edits(source, project, node)


# Which edits suit which kind of expression.
EXPRESSION_EDITS: dict[type[ast.expr], Callable[..., Iterator[Candidate]]] = {
    ast.Compare: comparison_edits,
    ast.BinOp: arithmetic_edits,
    ast.BoolOp: logic_edits,
    ast.UnaryOp: sign_edits,
    ast.JoinedStr: format_edits,
    ast.Call: call_edits,
    ast.Subscript: subscript_edits,
}
NAMING_EDITS: dict[type[ast.expr], Callable[..., Iterator[Candidate]]] = {
    ast.Constant: constant_edits,
    ast.Attribute: attribute_edits,
}


def expression_candidates(
    source: SourceFile, project: Project, evidence: Evidence, node: ast.expr
) -> Iterator[Candidate]:
    if type(node) in EXPRESSION_EDITS:
        yield from EXPRESSION_EDITS[type(node)](source, node)
    elif type(node) in NAMING_EDITS:
        yield from NAMING_EDITS[type(node)](source, project, node)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield from name_edits(source, project, node)
    if isinstance(node, ast.Attribute) and node.attr in evidence.missing_attributes:
        yield from known_attribute_edits(source, project, node, evidence.named)
