"""Dead letters as operators see them over HTTP."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import asdict
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from codeagent.dead_letters.letter import Content, DeadLetter, LetterState
from codeagent.dead_letters.letters import MOST_REASON
from codeagent.edge.models import Strict


class RedriveBody(Strict):
    """Nothing has to be said."""

    again: bool = Field(default=False, description="Also where it was sent before.")


class DiscardBody(Strict):
    """What will be read by whoever asks where it went."""

    reason: str = Field(
        min_length=1,
        max_length=MOST_REASON,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="Why nobody will handle it. It stays in the log.",
    )


class HeaderModel(BaseModel):
    """`value` is null for headers that the system does not know: the content has them."""

    name: str
    size: int
    value: str | None


class PieceModel(BaseModel):
    """Bytes, in base64 where they are no text."""

    name: str
    value: str
    encoding: Literal["utf-8", "base64"]

    @classmethod
    def of(cls, name: str, value: bytes) -> Self:
        try:
            return cls(name=name, value=value.decode(), encoding="utf-8")
        except UnicodeDecodeError:
            return cls(name=name, value=b64encode(value).decode(), encoding="base64")


class ContentModel(BaseModel):
    """The record as it came: its value, and all of its headers."""

    value: PieceModel
    headers: list[PieceModel]

    @classmethod
    def of(cls, content: Content) -> Self:
        headers = [PieceModel.of(name, value) for name, value in content.headers]
        return cls(value=PieceModel.of("value", content.value), headers=headers)


class DeadLetterModel(BaseModel):
    """A record that a consumer group could not handle. `version` is its ETag. `content` is null unless it was asked
    for."""

    id: str
    state: LetterState
    version: int
    topic: str
    consumer_group: str
    partition: int | None
    offset: int | None
    key: str
    message_type: str | None = Field(description="As the record says, which nobody vouches for.")
    tenant_id: str | None = Field(description="As above.")
    run_id: str | None = Field(description="As above.")
    headers: list[HeaderModel]
    headers_omitted: int
    value_bytes: int
    kept: bool = Field(description="Whether its bytes are there: without a key to seal them they are not.")
    error_type: str
    error_message: str
    attempts: int | None
    failed_at: datetime
    received_at: datetime
    redrives: int
    settled_at: datetime | None
    settled_by: str | None
    reason: str
    content: ContentModel | None = None

    @classmethod
    def of(cls, letter: DeadLetter, content: Content | None = None) -> Self:
        told = {name: value for name, value in asdict(letter).items() if name in cls.model_fields}
        return cls(**told, content=None if content is None else ContentModel.of(content))


class DeadLetterPage(BaseModel):
    items: list[DeadLetterModel]
    next_cursor: str | None
