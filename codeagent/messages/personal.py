"""Which fields of messages hold what belongs to a person, and what a message says without them.

A field is marked where it is declared. From the marks come what is sealed under its subject's key when it is stored,
what is left to read once that key is gone, and the record of processing activities.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, from_json, to_json

ERASED_DIGEST = "sha256:" + "0" * 64
"""Stands for a digest that is gone, where there has to be one: the digest of no bytes that anybody knows."""


@dataclass(frozen=True, slots=True)
class Personal:
    """Content of a subject: kept for `purpose`, of the kind `category`. `erased` is what stands in its place when it
    cannot be read any more, as JSON: it has to be valid there."""

    purpose: str
    category: str
    erased: Any = ""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "x-personal-data": self.category}


@dataclass(frozen=True, slots=True)
class OfTenant:
    """What somebody has written for their organisation: it stays when they are gone, and is not sealed."""

    purpose: str
    category: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "x-written-data": self.category}


CONTENT_DIGEST = Personal("finding the content again", "digest of content")
CONTENT_REF = Personal("finding the content again", "digest of content", None)
CONTENT_NAME = Personal("finding the content again", "digest of content", ERASED_DIGEST)
FILE_NAMES = Personal("telling which files", "names of files", [])
COMMENT = Personal("telling the agent why", "what the user wrote")
TASK = Personal("having an agent do it", "what the user wrote", "[erased]")
JUDGE = Personal("judging the patch", "what the user wrote", "[erased]")
ARGV = Personal("telling what a command did", "may hold what is in the repository", [])
GUIDANCE = Personal("telling agents what the repository says", "what is in the repository", [])

Plan = dict[str, "Personal | Plan"]
"""Names of fields, each with its mark or with the plan of the models in it."""


@cache
def plan_of(model: type[BaseModel]) -> Plan:
    """Empty for a model that never holds anything personal."""
    return _pruned(_plan(model, {}), set())


def _plan(model: type[BaseModel], known: dict[type[BaseModel], Plan]) -> Plan:
    plan = known.setdefault(model, {})
    for name, field in model.model_fields.items():
        mark = _mark(field)
        if isinstance(mark, Personal):
            plan[name] = mark
        elif mark is None:
            inner = [known[each] if each in known else _plan(each, known) for each in _models(field.annotation)]
            if len(inner) == 1:
                plan[name] = inner[0]  # the very same, which may be under way: models can hold their own kind
            elif inner:
                plan[name] = {key: node for each in inner for key, node in each.items()}
    return plan


def _pruned(plan: Plan, seen: set[int]) -> Plan:
    """Without the branches that lead to no mark."""
    if id(plan) in seen:
        return plan
    seen.add(id(plan))
    for name, node in list(plan.items()):
        if isinstance(node, dict) and not _pruned(node, seen):
            del plan[name]
    return plan


def _mark(field: FieldInfo) -> Personal | OfTenant | None:
    return next((each for each in field.metadata if isinstance(each, Personal | OfTenant)), None)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def without_content(payload: BaseModel) -> bytes | None:
    """The JSON of a message with nothing personal in it; None where there is nothing personal to leave out."""
    plan = plan_of(type(payload))
    if not plan:
        return None
    document = from_json(payload.__pydantic_serializer__.to_json(payload))
    return to_json(document) if _blank(document, plan) else None


def holds_content(payload: BaseModel) -> bool:
    """Whether a message says anything personal."""
    return without_content(payload) is not None


def _blank(value: Any, plan: Plan) -> bool:
    if isinstance(value, list):
        return any([_blank(each, plan) for each in value])  # noqa: C419  each of them
    if not isinstance(value, dict):
        return False
    found = False
    for name, node in plan.items():
        if name not in value:
            continue
        if isinstance(node, Personal):
            if value[name] not in (None, "", [], {}, node.erased):
                value[name] = node.erased
                found = True
        else:
            found |= _blank(value[name], node)
    return found


def marks(model: type[BaseModel]) -> Mapping[str, Personal | OfTenant]:
    """Every marked field of a message, by its path, such as `request.arguments`."""
    found: dict[str, Personal | OfTenant] = {}
    _collect(model, "", found, ())
    return found


def _collect(
    model: type[BaseModel], prefix: str, found: dict[str, Personal | OfTenant], above: tuple[type[BaseModel], ...]
) -> None:
    for name, field in model.model_fields.items():
        mark = _mark(field)
        if mark is not None:
            found[prefix + name] = mark
            continue
        for each in _models(field.annotation):
            if each not in above:
                _collect(each, f"{prefix}{name}.", found, (*above, model))
