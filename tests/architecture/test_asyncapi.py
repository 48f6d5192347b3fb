"""The AsyncAPI document: valid, whole, and about the messages that there are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema

from codeagent.edge.websocket.frames import SERVER_FRAMES, FromClient

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).resolve().parents[2] / "schemas" / "asyncapi.json").read_text())
MESSAGES: dict[str, dict[str, Any]] = DOCUMENT["components"]["messages"]
OPERATIONS: dict[str, dict[str, Any]] = DOCUMENT["operations"]


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolved(reference: str) -> Any:
    """What a reference into the document leads to; raises `KeyError` where it leads nowhere."""
    assert reference.startswith("#/")
    found = DOCUMENT
    for part in reference[2:].split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found


def test_the_document_is_asyncapi_3_as_others_read_it() -> None:
    read = ApplicationSchema.model_validate(DOCUMENT)
    assert set(read.channels) == set(DOCUMENT["channels"])
    assert set(read.operations) == set(OPERATIONS)


def test_every_reference_leads_somewhere() -> None:
    assert all(resolved(reference) for reference in references(DOCUMENT))


def test_every_channel_is_written_and_read() -> None:
    for name in DOCUMENT["channels"]:
        actions = {
            op["action"]
            for op in OPERATIONS.values()
            if resolved(op["channel"]["$ref"]) is resolved(f"#/channels/{name}")
        }
        assert actions == {"send", "receive"}, name


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_an_operation_has_messages_of_its_own_channel_only(name: str) -> None:
    operation = OPERATIONS[name]
    channel = operation["channel"]["$ref"]
    assert all(message["$ref"].startswith(f"{channel}/messages/") for message in operation.get("messages", ()))


@pytest.mark.parametrize("name", list(MESSAGES))
def test_a_message_has_a_payload_that_is_a_schema(name: str) -> None:
    jsonschema.Draft7Validator.check_schema(MESSAGES[name]["payload"])
    assert not list(references(MESSAGES[name]["payload"])), "AsyncAPI knows no references within a payload"


def test_every_frame_of_the_websocket_is_there() -> None:
    def said(operation: str) -> set[str]:
        return {resolved(resolved(ref["$ref"])["$ref"])["name"] for ref in OPERATIONS[operation]["messages"]}

    assert said("edge.send.websocket") == set(SERVER_FRAMES)
    assert said("edge.receive.websocket") == {
        get_args(frame.model_fields["type"].annotation)[0] for frame in get_args(FromClient)
    }
