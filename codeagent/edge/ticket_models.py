"""Bodies of requests and answers about stream tickets."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from codeagent.edge.models import Strict


class TicketBody(Strict):
    run_id: str | None = Field(default=None, max_length=40, description="The one run it is for; all streams if absent.")


class TicketModel(BaseModel):
    """A stream ticket, shown this once."""

    ticket: str = Field(examples=["cst_..."])
    run_id: str | None
    expires_at: datetime
