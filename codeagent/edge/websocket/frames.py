"""What client and server say to each other over a WebSocket, one JSON object a text frame."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from codeagent.edge.joined import Frame, Kind
from codeagent.edge.websocket.closing import Closed, Code

Name = Annotated[str, Field(pattern=r"^[0-9A-Za-z_.:-]{1,64}$")]
Position = Annotated[str, Field(max_length=40)]


class _ClientFrame(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Auth(_ClientFrame):
    """Who is calling: an API key, an access token or a stream ticket. First of all, and again before it expires."""

    type: Literal["auth"]
    token: str = Field(min_length=1, max_length=8_192)


class Subscribe(_ClientFrame):
    """Follows a run, or with `feed` all runs of the tenant, beyond `after`. What belongs to it carries the name
    `subscription`, which is the run's id, or `feed`, unless given.

    With a `window`, so many events are sent ahead of the newest that the client has acknowledged.
    """

    type: Literal["subscribe"]
    subscription: Name | None = None
    run_id: Annotated[str, Field(max_length=40)] | None = None
    feed: bool = False
    types: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=50)] | None = None
    after: Position = ""
    window: Annotated[int, Field(ge=1, le=1_000)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.feed == (self.run_id is not None) or (self.types is not None and not self.feed):
            raise ValueError("a run or the feed, and types of the feed only")
        return self

    @property
    def name(self) -> str:
        return self.subscription or self.run_id or "feed"


class Unsubscribe(_ClientFrame):
    type: Literal["unsubscribe"]
    subscription: Name


class Ack(_ClientFrame):
    """The client has dealt with everything up to a position."""

    type: Literal["ack"]
    subscription: Name
    position: Position


class Ping(_ClientFrame):
    type: Literal["ping"]


FromClient = Auth | Subscribe | Unsubscribe | Ack | Ping
_FROM_CLIENT: TypeAdapter[FromClient] = TypeAdapter(Annotated[FromClient, Field(discriminator="type")])


def parse(text: str) -> FromClient:
    """Raises `Closed`: 1007 for what is not a JSON object, 1008 for one that is no frame of ours."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Closed(Code.NOT_JSON, "not_json") from None
    if not isinstance(document, dict):
        raise Closed(Code.NOT_JSON, "not_an_object")
    try:
        return _FROM_CLIENT.validate_python(document)
    except ValidationError:
        raise Closed(Code.UNKNOWN_FRAME, "unknown_frame") from None


_STRING = {"type": "string"}
_NUMBER = {"type": "number"}
_OBJECT = {"type": "object"}
_SUBSCRIPTION = {"subscription": _STRING}
SERVER_FRAMES: dict[str, dict[str, dict[str, Any]]] = {
    "ready": {
        "connection": _STRING,
        "heartbeat_seconds": _NUMBER,
        "subscriptions": {"type": "integer"},
        "expires_at": {"type": ["string", "null"], "format": "date-time"},
    },
    "pong": {},
    "error": {"code": _STRING, "detail": _STRING, "subscription": {"type": ["string", "null"]}},
    "event": {**_SUBSCRIPTION, "position": _STRING, "event": _OBJECT},
    "delta": {**_SUBSCRIPTION, "name": _STRING, "data": _OBJECT},
    "stream.open": {**_SUBSCRIPTION, "position": _STRING},
    "stream.heartbeat": {**_SUBSCRIPTION, "position": _STRING},
    "stream.lagging": {**_SUBSCRIPTION, "dropped": {"type": "integer"}},
    "stream.end": {**_SUBSCRIPTION, "reason": _STRING},
}
"""Every frame that a client may be sent, with the JSON Schema of each of its fields."""


def server_frame(name: str, **fields: Any) -> str:
    """A frame of the server's own: `ready`, `pong`, `error`."""
    return orjson.dumps({"type": name, **fields}).decode()


def stream_frame(subscription: str, frame: Frame) -> str:
    """A frame of a subscription. `data` is JSON already, so it is put in as it is; names need no escaping."""
    if frame.kind is Kind.EVENT:
        head = f'"type":"event","subscription":"{subscription}","position":"{frame.position}"'
        return f'{{{head},"event":{frame.data}}}'
    if frame.kind is Kind.DELTA:
        return f'{{"type":"delta","subscription":"{subscription}","name":"{frame.name}","data":{frame.data}}}'
    return f'{{"type":"{frame.name}","subscription":"{subscription}",{frame.data[1:]}'
