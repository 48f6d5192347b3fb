"""Two requests have one key only where nothing that decides the answer is different."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from codeagent.messages.conversation import (
    AssistantMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
    ToolSpec,
    UserMessage,
)
from codeagent.providers.protocol import ModelRequest
from codeagent.response_cache import key as keys
from codeagent.response_cache.key import reply_key
from codeagent.workers.call_documents import request_document

CALL = ToolCall(id="c1", name="shell", arguments='{"command": "ls"}')
SAID = (
    SystemMessage(text="You repair."),
    UserMessage(text="Repair it."),
    AssistantMessage(text="Looking.", tool_calls=(CALL,)),
    ToolMessage(tool_call_id="c1", name="shell", text="setup.py"),
)
SHELL = ToolSpec(name="shell", description="Runs it.", parameters={"type": "object"})
REQUEST = ModelRequest(model="m", messages=SAID, tools=(SHELL,), max_output_tokens=100)


def key_of(request: ModelRequest = REQUEST, tenant: str = "ten_a", label: str = "test/m", settings: str = "") -> str:
    return reply_key(tenant, label, settings, request_document(request))


def test_the_same_request_has_the_same_key_however_long_it_may_take() -> None:
    assert key_of() == key_of(replace(REQUEST, messages=tuple(SAID), timeout_seconds=1.0))
    assert len(key_of()) == 64


def said(place: int, **changed: Any) -> ModelRequest:
    other = SAID[place].model_copy(update=changed)
    return replace(REQUEST, messages=(*SAID[:place], other, *SAID[place + 1 :]))


@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, model="n"),
        replace(REQUEST, max_output_tokens=101),
        replace(REQUEST, messages=SAID[:-1]),
        replace(REQUEST, messages=(SAID[1], SAID[0], *SAID[2:])),
        said(0, text="You report."),
        said(1, text="Repair it. "),
        said(2, tool_calls=(CALL.model_copy(update={"id": "c2"}),)),
        said(2, tool_calls=(CALL.model_copy(update={"arguments": '{"command":"ls"}'}),)),
        said(3, is_error=True),
        replace(REQUEST, tools=()),
        replace(REQUEST, tools=(SHELL.model_copy(update={"description": "Runs it well."}),)),
        replace(REQUEST, tools=(SHELL.model_copy(update={"parameters": {}}),)),
    ],
)
def test_each_part_of_a_request_makes_another_key(other: ModelRequest) -> None:
    assert key_of(other) != key_of()


def test_so_do_the_tenant_the_provider_and_how_it_is_asked() -> None:
    different = {key_of(), key_of(tenant="ten_b"), key_of(label="other/m"), key_of(settings="s")}
    assert len(different) == 4
    assert key_of(tenant="a", label="bc") != key_of(tenant="ab", label="c")


def test_another_version_of_the_program_finds_nothing_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = key_of()
    monkeypatch.setattr(keys, "__version__", "99.0.0")
    assert key_of() != mine
