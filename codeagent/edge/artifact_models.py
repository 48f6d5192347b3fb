"""Answers about artifacts."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel

from codeagent.messages.values import Artifact


class ArtifactModel(BaseModel):
    """A named blob of a run. `href` has its bytes."""

    name: str
    media_type: str
    size_bytes: int
    digest: str
    href: str

    @classmethod
    def of(cls, artifact: Artifact) -> Self:
        return cls(**artifact.model_dump(), href=f"/v1/artifacts/{artifact.digest}")


class ArtifactPage(BaseModel):
    """What a run has made. It is all on one page: `next_cursor` is null."""

    items: list[ArtifactModel]
    next_cursor: None = None


class UploadModel(BaseModel):
    """A source archive as it was taken in: normalised, so that its digest may differ from the upload's."""

    digest: str
    size_bytes: int
    files: int
    dropped: int
    href: str
