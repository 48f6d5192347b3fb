"""What became of a run between two versions."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel

from codeagent.edge.models import RunModel


class RunChange(BaseModel):
    """A field of the run, before and after."""

    field: str
    before: Any
    after: Any


class RunChanges(BaseModel):
    """The fields that differ between the versions `since` and `until` of a run. Fields that are the same are left
    out."""

    id: str
    since: int
    until: int
    changes: list[RunChange]

    @classmethod
    def between(cls, before: RunModel, after: RunModel) -> Self:
        old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
        changes = [RunChange(field=name, before=old[name], after=new[name]) for name in old if old[name] != new[name]]
        return cls(id=after.id, since=before.version, until=after.version, changes=changes)
