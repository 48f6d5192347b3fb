"""Which model a run is given, and which others stand in where it cannot answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from codeagent.agent_registry.resolver import Resolved as ResolvedAgent
from codeagent.edge.context import EdgeContext
from codeagent.edge.models import RunBody
from codeagent.errors import InvalidInput
from codeagent.messages.project_events import ProjectSettings
from codeagent.projections.view import RunView


@dataclass(frozen=True, slots=True)
class ChosenModels:
    """`fallbacks` hold each model once, and none that the installation does not have."""

    model: str
    fallbacks: tuple[str, ...]


def choose_models(
    context: EdgeContext, body: RunBody, previous: RunView | None, project: ProjectSettings | None, agent: ResolvedAgent
) -> ChosenModels:
    """The model as the request says, else the session's run before, the project, the agent, or the installation; its
    fallbacks as the request says, else as whoever has named the model does: nobody else knows what can stand in for it.

    Raises `InvalidInput` (`unsupported_model`).
    """
    model, fallbacks = _named(context, body, previous, project, agent)
    check_model(context, model)
    if body.fallbacks is not None:
        check_fallbacks(context, body.fallbacks)
        fallbacks = body.fallbacks
    return _present(context, model, fallbacks)


def models_of(context: EdgeContext, agent: ResolvedAgent) -> ChosenModels:
    """Of a run that nobody but its agent, or the installation, chooses a model for. Raises as `choose_models`."""
    model = agent.model or context.policy.default_model
    check_model(context, model, "/agent")
    fallbacks = agent.fallbacks or (context.policy.default_fallbacks if agent.model is None else ())
    return _present(context, model, fallbacks)


def _present(context: EdgeContext, model: str, fallbacks: tuple[str, ...]) -> ChosenModels:
    # What an agent or the installation names may be gone by now, which is no fault of the request's.
    known = dict.fromkeys(name for name in fallbacks if name != model and context.supports_model(name))
    return ChosenModels(model, tuple(known))


def _named(
    context: EdgeContext, body: RunBody, previous: RunView | None, project: ProjectSettings | None, agent: ResolvedAgent
) -> tuple[str, tuple[str, ...]]:
    if body.model:
        return body.model, ()
    if previous is not None and previous.model:
        return previous.model, previous.fallbacks
    if project is not None and project.model:
        return project.model, ()
    if agent.model:
        return agent.model, agent.fallbacks
    return context.policy.default_model, agent.fallbacks or context.policy.default_fallbacks


def check_model(context: EdgeContext, model: str, pointer: str = "/model") -> None:
    """Raises `InvalidInput` (`unsupported_model`)."""
    if not context.supports_model(model):
        raise InvalidInput(f"There is no model {model!r}.", code="unsupported_model", pointer=pointer)


def check_fallbacks(context: EdgeContext, models: Iterable[str]) -> None:
    """As `check_model`, each."""
    for place, model in enumerate(models):
        check_model(context, model, f"/fallbacks/{place}")
