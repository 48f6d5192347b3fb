"""Names of models in requests."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MOST_FALLBACKS = 4

ModelName = Annotated[str, Field(max_length=200)]
FallbacksBody = Annotated[
    tuple[ModelName, ...],
    Field(
        max_length=MOST_FALLBACKS,
        description="Models that stand in for the run's, in their order, where it cannot answer. Left out, they come "
        "from where the model comes from: a model that the request names has none.",
        examples=[["builtin/repair"]],
    ),
]
