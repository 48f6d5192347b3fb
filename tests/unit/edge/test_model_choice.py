"""What stands in for a run's model, where neither its request nor its agent says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from codeagent.agent_registry.resolver import Resolved
from codeagent.edge.context import EdgeContext
from codeagent.edge.model_choice import ChosenModels, choose_models
from codeagent.edge.models import RunBody
from codeagent.messages.project_events import ProjectSettings
from codeagent.messages.values import LimitsAsked
from codeagent.projections.view import RunView
from tests.integration.edge.contexts import edge_policy


@dataclass
class Installation:
    """As much of an edge as choosing looks at. `gone/*` is what it had once."""

    policy = edge_policy(default_model="main/model", default_fallbacks=("gone/model", "other/model"))

    def supports_model(self, model: str) -> bool:
        return not model.startswith("gone/")


def chosen(
    *,
    body: RunBody | None = None,
    previous: RunView | None = None,
    project: ProjectSettings | None = None,
    model: str | None = None,
    fallbacks: tuple[str, ...] = (),
) -> ChosenModels:
    agent = Resolved("coder", 1, model, LimitsAsked(), None, None, fallbacks)
    context = cast(EdgeContext, Installation())
    return choose_models(context, body or RunBody(task="look"), previous, project, agent)


def test_the_installation_says_what_stands_in_for_its_default_and_offers_nothing_that_it_has_no_more() -> None:
    assert chosen() == ChosenModels("main/model", ("other/model",))
    assert chosen(fallbacks=("mine/model",)) == ChosenModels("main/model", ("mine/model",))
    assert chosen(fallbacks=("gone/model",)) == ChosenModels("main/model", ())


def test_it_says_nothing_of_what_others_have_named() -> None:
    assert chosen(model="agents/own") == ChosenModels("agents/own", ())
    project = ProjectSettings(name="p", repository="https://git.example.org/p.git", model="projects/own")
    assert chosen(project=project, fallbacks=("mine/model",)) == ChosenModels("projects/own", ())


def test_a_session_goes_on_with_what_it_had() -> None:
    previous = RunView("run_1", "ten_a", model="sessions/own", fallbacks=("sessions/other",))
    assert chosen(previous=previous) == ChosenModels("sessions/own", ("sessions/other",))
    other = RunBody(task="look", model="my/own")
    assert chosen(previous=previous, body=other) == ChosenModels("my/own", ())
