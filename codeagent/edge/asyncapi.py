"""The AsyncAPI document: what the topics and the WebSocket carry, who writes and who reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from codeagent import __version__
from codeagent.broker.topics import TopicDefinition
from codeagent.edge.websocket.schema import CHANNEL, websocket_channel, websocket_messages, websocket_operations
from codeagent.messages import checkpoints
from codeagent.messages.catalog import CURRENT
from codeagent.messages.results import Delta


def asyncapi(topics: Sequence[TopicDefinition]) -> dict[str, Any]:
    """AsyncAPI 3 of the topics and the WebSocket: one channel each, with what it carries, who writes and who reads."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    for topic in topics:
        names = [name.replace(".", "_") for name in topic.messages]
        channels[topic.name] = {
            "address": topic.name,
            "description": topic.description,
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
            "bindings": {
                "kafka": {
                    "topic": topic.name,
                    "partitions": topic.partitions["medium"],
                    "topicConfiguration": {
                        "cleanup.policy": [topic.config["cleanup.policy"]],
                        "retention.ms": int(topic.config["retention.ms"]),
                    },
                    "bindingVersion": "0.5.0",
                }
            },
        }
        for action, parties in (("send", topic.writers), ("receive", topic.readers)):
            for party in parties:
                operations[f"{party}.{action}.{topic.name}"] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{_pointer(topic.name)}"},
                }
        for dotted, name in zip(topic.messages, names, strict=True):
            messages[name] = _message(dotted)
    channels[CHANNEL] = websocket_channel()
    operations |= websocket_operations()
    messages |= websocket_messages()
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "CodeAgent", "version": __version__},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }


def _pointer(text: str) -> str:
    return text.replace("~", "~0").replace("/", "~1")


def _message(dotted: str) -> dict[str, Any]:
    name, dot, version = dotted.rpartition(".v")
    if not dot:
        schema = Delta.model_json_schema()
        return {"name": dotted, "title": dotted, "payload": _draft7(schema)}
    if dotted == checkpoints.MESSAGE:
        schema = {key: value for key, value in checkpoints.SCHEMA.items() if not key.startswith("$")}
        described = _described(dotted, f"{name} version {version}", schema["description"])
        return {**described, "contentType": checkpoints.CONTENT_TYPE, "payload": schema}
    payload = CURRENT[name]
    summary = (payload.__doc__ or "").split("\n")[0]
    described = _described(dotted, f"{name} version {version}", summary)
    return {**described, "payload": _draft7(payload.model_json_schema(mode="serialization"))}


def _described(dotted: str, title: str, summary: str) -> dict[str, Any]:
    """What is told of every message in an envelope."""
    return {
        "name": f"io.codeagent.{dotted}",
        "title": title,
        "summary": summary,
        "headers": {
            "type": "object",
            "required": ["ce_id", "ce_type", "ce_source", "ce_time", "ce_partitionkey", "ce_correlationid"],
            "properties": {"ce_type": {"type": "string", "const": f"io.codeagent.{dotted}"}},
        },
        "correlationId": {"location": "$message.header#/ce_correlationid"},
    }


def _draft7(schema: dict[str, Any]) -> dict[str, Any]:
    """AsyncAPI's own schema object knows `definitions`, and references inside one payload only."""
    text = json.dumps(schema).replace('"$defs"', '"definitions"')
    document: dict[str, Any] = json.loads(text)
    inlined: dict[str, Any] = _inlined(document, document.get("definitions", {}))
    return inlined


def _inlined(node: Any, definitions: dict[str, Any], within: tuple[str, ...] = ()) -> Any:
    """What holds another of its own kind, `within` those around it, is told once."""
    if isinstance(node, list):
        return [_inlined(item, definitions, within) for item in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        name = reference.rsplit("/", 1)[1]
        if name in within:
            return {"type": "object", "title": name, "description": f"A {name}, as the one that it is in."}
        return _inlined(definitions[name], definitions, (*within, name))
    return {
        name: _inlined(value, definitions, within)
        for name, value in node.items()
        if name not in {"definitions", "discriminator"}
    }
