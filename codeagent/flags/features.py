"""Features that can be switched while the system runs. What is not named here cannot be switched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Feature:
    """`default` holds without a flag, and whenever a flag cannot be evaluated. `meaning` is for the documentation."""

    name: str
    default: bool
    meaning: str


RUNS_SUBMISSION = Feature(
    "runs_submission",
    True,
    "`POST /v1/runs`, `POST /v1/runs/{id}/replays` and `POST /v1/sessions/{id}/messages` accept runs. Off: 503 "
    "`temporary_reduced_capacity` with `Retry-After`, repeats of accepted runs included; what was accepted goes on.",
)
GIT_SOURCES = Feature(
    "git_sources",
    True,
    "New runs may fetch git sources, repositories of projects included. Off: 422 `unsupported_source`; archives are "
    "accepted all the same, and sessions go on with the files that they have.",
)
LIVE_DELTAS = Feature(
    "live_deltas",
    True,
    "Workers send text while a model writes it and output while a command prints it. Off: streams hold durable events "
    "only, and the broker has less to carry. Evaluated for the tenant alone.",
)

FEATURES: tuple[Feature, ...] = (RUNS_SUBMISSION, GIT_SOURCES, LIVE_DELTAS)
