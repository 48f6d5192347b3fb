"""Which model a call is put to when another one cannot answer it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from codeagent.errors import InvalidInput
from codeagent.providers.protocol import ModelReply, ModelRequest, Price, ProviderError, TextSink
from codeagent.providers.retry import Admit, CallListener

PATIENCE_SECONDS = 30.0
"""For how long a model is asked again while there is another one to ask."""

_ANOTHER_MAY_ANSWER = frozenset(
    {
        "rate_limited",
        "overloaded",
        "timeout",
        "connection",
        "authentication",
        "permission",
        "not_found",
        "bad_response",
        "internal",
        "circuit_open",
    }
)
"""Reasons that lie with the provider. What lies with the request, every other model would say as well."""


class Model(Protocol):
    """A provider with its retries and breaker around it."""

    name: str

    def context_window(self, model: str) -> int: ...

    def price(self, model: str) -> Price | None: ...

    async def generate(
        self,
        request: ModelRequest,
        on_text: TextSink,
        listener: CallListener = ...,
        patience_seconds: float = ...,
        admit: Admit = ...,
    ) -> ModelReply: ...


Resolve = Callable[[str], tuple[Model, str]]
"""The model behind `<provider>/<name>`, and its provider's name of it. Raises `InvalidInput` where there is none."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that a call may be put to. `label` is `<provider>/<name>`, `name` its provider's name of it."""

    label: str
    model: Model
    name: str

    @property
    def window(self) -> int:
        return self.model.context_window(self.name)

    @property
    def price(self) -> Price | None:
        return self.model.price(self.name)


def candidates(labels: Sequence[str], resolve: Resolve) -> list[Candidate]:
    """Those of `labels` that are there, in their order. Raises `InvalidInput` where none is."""
    found, unknown = [], None
    for label in labels:
        try:
            found.append(Candidate(label, *resolve(label)))
        except InvalidInput as error:
            unknown = unknown or error
    if not found and unknown is not None:
        raise unknown
    return found


def successor(error: ProviderError, chain: Sequence[Candidate], place: int) -> int | None:
    """The place of the model that may answer what the one at `place` has not; None where none may. A conversation that
    is too long for one goes on with the next that takes more."""
    if error.reason == "context_overflow":
        longer = (after for after in range(place + 1, len(chain)) if chain[after].window > chain[place].window)
        return next(longer, None)
    return place + 1 if error.reason in _ANOTHER_MAY_ANSWER and place + 1 < len(chain) else None
