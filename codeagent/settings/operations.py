"""Where this runs, and what leaves the process for those who watch it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from codeagent.settings.about import About, Group, parsed
from codeagent.settings.profiles import Environment, Risk


class OperationSettings(Group):
    """Environment, logs and traces."""

    env: Environment = Environment.DEVELOPMENT
    """What kind of system this is part of. `production` refuses to start on an insecure value, `staging` warns."""
    accepted_risks: Annotated[
        dict[Risk, Annotated[str, Field(min_length=10, max_length=500)]],
        NoDecode,
        BeforeValidator(parsed),
        About(unit="risks"),
    ] = Field(default_factory=dict)
    """JSON object of what `production` may tolerate, each with the reason, as in
    `{"open_monitor": "only the cluster's network reaches it"}`. Told in the log at every start."""
    flags_file: Annotated[Path | None, About(reloads="within a second")] = None
    """Feature flags, JSON or YAML; see feature-flags.md. Without it every feature has its default."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""
    otlp_endpoint: str | None = Field(default=None, pattern=r"^https?://[^\s@]+$", max_length=500)
    """Where spans go (OTLP over HTTP); none leave the process without it."""
    trace_ratio: Annotated[float, About(unit="share")] = Field(default=1.0, ge=0, le=1)
    """Share of traces that are recorded."""
