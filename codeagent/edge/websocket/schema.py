"""The WebSocket as AsyncAPI has it: one channel, with what clients and the edge say."""

from __future__ import annotations

from typing import Any, get_args

from codeagent.edge.websocket.frames import SERVER_FRAMES, FromClient
from codeagent.edge.websocket.route import SUBPROTOCOL

CHANNEL = "websocket"
ADDRESS = "/v1/ws"


def websocket_messages() -> dict[str, dict[str, Any]]:
    """Every frame by the name it has among the document's messages."""
    said = {f"client_{frame.__name__.lower()}": _by_client(frame) for frame in get_args(FromClient)}
    return said | {f"server_{name.replace('.', '_')}": _by_server(name) for name in SERVER_FRAMES}


def websocket_channel() -> dict[str, Any]:
    return {
        "address": ADDRESS,
        "title": f"WebSocket, subprotocol {SUBPROTOCOL}",
        "description": "Streams of runs and of the tenant's feed. See docs/streaming.md.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in websocket_messages()},
        "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
    }


def websocket_operations() -> dict[str, Any]:
    """From the edge's side, as all operations of the document are."""
    channel = f"#/channels/{CHANNEL}"

    def operation(action: str, prefix: str) -> dict[str, Any]:
        names = [name for name in websocket_messages() if name.startswith(prefix)]
        messages = [{"$ref": f"{channel}/messages/{name}"} for name in names]
        return {"action": action, "channel": {"$ref": channel}, "messages": messages}

    return {
        f"edge.receive.{CHANNEL}": operation("receive", "client_"),
        f"edge.send.{CHANNEL}": operation("send", "server_"),
    }


def _by_client(frame: Any) -> dict[str, Any]:
    schema = frame.model_json_schema()
    kind = schema["properties"]["type"]["const"]
    return {"name": kind, "title": f"{kind}, by the client", "summary": _summary(frame.__doc__), "payload": schema}


def _by_server(name: str) -> dict[str, Any]:
    fields = SERVER_FRAMES[name]
    payload = {
        "type": "object",
        "properties": {"type": {"const": name}, **fields},
        "required": ["type", *fields],
        "additionalProperties": False,
    }
    return {"name": name, "title": f"{name}, by the edge", "payload": payload}


def _summary(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())
