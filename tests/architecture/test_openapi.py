"""No operation is added without saying what it does, who may call it, what it answers, and how that looks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate

from codeagent import __version__
from codeagent.edge.app import openapi
from codeagent.edge.examples import EXAMPLES
from codeagent.edge.middleware import HEALTH_PATHS
from codeagent.identity.scopes import Scope
from tests.architecture.test_routes import OWN, PUBLIC

DOCUMENT = openapi()
METHODS = ("get", "head", "post", "put", "patch", "delete")
OPERATIONS = [
    pytest.param(operation, path, id=f"{method} {path}")
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if method in METHODS
]
every_operation = pytest.mark.parametrize(("operation", "path"), OPERATIONS)

Operation = dict[str, Any]


def resolved(node: Any) -> Any:
    """What a reference of the document points to."""
    while isinstance(node, dict) and "$ref" in node:
        target: Any = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/")]
        node = target
    return node


def media(operation: Operation) -> Iterator[dict[str, Any]]:
    """Every body that the operation takes, or answers a success with."""
    bodies = [resolved(operation.get("requestBody", {}))]
    bodies += [resolved(response) for status, response in operation["responses"].items() if status[0] == "2"]
    for body in bodies:
        yield from body.get("content", {}).values()


def has_example(media_type: dict[str, Any]) -> bool:
    schema = resolved(media_type.get("schema", {}))
    return any(key in place for place in (media_type, schema) for key in ("example", "examples"))


def test_the_document_is_valid_and_names_its_version() -> None:
    validate(DOCUMENT)  # type: ignore[arg-type]  # a plain document
    assert DOCUMENT["openapi"] == "3.2.0"
    assert DOCUMENT["info"]["version"] == __version__
    assert DOCUMENT["servers"]


@every_operation
def test_an_operation_says_what_it_does(operation: Operation, path: str) -> None:
    assert len(operation["summary"]) > 10
    assert len(operation["description"]) > 20
    assert operation["operationId"].isidentifier()
    assert set(operation["tags"]) <= {tag["name"] for tag in DOCUMENT["tags"]}
    for parameter in operation.get("parameters", ()):
        assert parameter["in"] == "path" or parameter.get("description"), parameter["name"]
    for status, response in operation["responses"].items():
        assert resolved(response)["description"] not in {"", "Successful Response"}, status


def test_bounds_are_written_as_readers_of_schemas_know_them() -> None:
    """The library keeps those that it cannot place under its own names, where nobody looks for them."""
    assert not re.findall(r'"(?:ge|gt|le|lt|min_length|max_length)": ', json.dumps(DOCUMENT["components"]["schemas"]))


def test_operation_ids_are_names_of_one_operation_each() -> None:
    ids = [item.values[0]["operationId"] for item in OPERATIONS]
    assert len(set(ids)) == len(ids)


@every_operation
def test_an_operation_says_who_may_call_it(operation: Operation, path: str) -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]
    scopes = {scope.value for scope in Scope}
    assert "security" in operation
    for requirement in operation["security"]:
        assert set(requirement) <= set(schemes)
        assert all((needed or path in OWN) and set(needed) <= scopes for needed in requirement.values())
    if path not in PUBLIC:
        assert operation["security"], "a route without a scope"
        assert {"401", "403"} <= set(operation["responses"])


@every_operation
def test_an_operation_says_how_it_fails(operation: Operation, path: str) -> None:
    responses = operation["responses"]
    wanted = {"500"} if path in HEALTH_PATHS else {"429", "500", "503"}
    wanted |= {"400", "422"} if operation.get("parameters") or "requestBody" in operation else set()
    wanted |= {"404"} if "{" in path else set()
    wanted |= {"408", "413", "415"} if "requestBody" in operation else set()
    assert wanted <= set(responses)
    for status, response in responses.items():
        if status[0] in "45" and path not in HEALTH_PATHS:
            content = resolved(response)["content"]
            assert list(content) in (["application/problem+json"], ["application/json"]), status
            schemas = [body["schema"]["$ref"].rpartition("/")[2] for body in content.values()]
            assert schemas == ["Problem"] or (path.startswith("/oauth2/") and schemas == ["OAuthProblem"])


@every_operation
def test_an_operation_shows_an_example(operation: Operation, path: str) -> None:
    bodies = list(media(operation))
    takes_and_answers_nothing = "requestBody" not in operation and set(operation["responses"]) & {"204"}
    assert any(has_example(body) for body in bodies) or takes_and_answers_nothing


def test_examples_fit_their_schemas() -> None:
    shown = 0
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            root = {**schema, "components": DOCUMENT["components"]}
            jsonschema.Draft202012Validator(root).validate(example)
            shown += 1
            assert example == EXAMPLES[name]
            unknown = set(example) - set(schema["properties"]) if schema.get("properties") else set()
            assert unknown == set(), name
    assert shown == len(EXAMPLES), "an example of what is not there"
    for response in DOCUMENT["components"]["responses"].values():
        body = response["content"]["application/problem+json"]
        root = {**resolved(body["schema"]), "components": DOCUMENT["components"]}
        jsonschema.Draft202012Validator(root).validate(body["example"])


def test_every_problem_of_the_code_table_is_a_response_that_can_be_referred_to() -> None:
    codes = {response["content"]["application/problem+json"]["example"]["status"] for response in _responses()}
    assert {400, 401, 403, 404, 409, 412, 413, 415, 422, 428, 429, 500, 503} <= codes


def _responses() -> Iterator[dict[str, Any]]:
    yield from DOCUMENT["components"]["responses"].values()


def test_what_is_committed_is_what_is_served() -> None:
    path = Path(__file__).resolve().parents[2] / "schemas" / "openapi.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(DOCUMENT)), "run `make schemas`"
