"""The model server as demonstrations use it: a process of its own, answering any number of conversations by turn."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anthropic.types import Message
from openai.types.chat import ChatCompletion

from codeagent.messages.conversation import AssistantMessage, UserMessage
from codeagent.providers.protocol import ModelRequest
from codeagent.providers.registry import ProviderRegistry, ProviderSettings

ROOT = Path(__file__).parents[3]
SCRIPT = {
    "mode": "turn",
    "replies": [
        {"text": "Looking.", "tool_calls": [{"name": "shell", "arguments": {"command": "ls"}}]},
        {"text": "Done.", "output_tokens": 3},
        {"fault": {"kind": "status", "status": 503, "headers": {"Retry-After": 2}}},
    ],
}


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    script = tmp_path_factory.mktemp("model") / "script.json"
    script.write_text(json.dumps(SCRIPT))
    command = [sys.executable, "-m", "tests.servers.model_server", "--script", str(script)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(timeout=10)
        process.stdout.close()


def post(url: str, turns: int) -> httpx2.Response:
    said: list[dict[str, Any]] = [
        {"role": "user", "content": "Fix it."},
        *[{"role": "assistant", "content": "x"}] * turns,
    ]
    return httpx2.post(url, json={"model": "m", "max_tokens": 5, "messages": said}, timeout=10)


def test_answers_are_the_vendors_own_documents(addresses: dict[str, str]) -> None:
    completion = ChatCompletion.model_validate(post(addresses["openai"] + "/chat/completions", 0).json())
    assert completion.choices[0].finish_reason == "tool_calls"
    message = Message.model_validate(post(addresses["anthropic"] + "/v1/messages", 1).json())
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 3


def test_a_fault_in_the_script_is_served(addresses: dict[str, str]) -> None:
    refused = post(addresses["openai"] + "/chat/completions", 2)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_a_configured_provider_follows_the_script(addresses: dict[str, str], kind: str) -> None:
    registry = ProviderRegistry([ProviderSettings(name="local", kind=kind, base_url=addresses[kind])])  # type: ignore[arg-type]

    async def ignore(_text: str) -> None:
        return None

    provider, model = registry.resolve("local/m")
    first = await provider.generate(ModelRequest(model, (UserMessage(text="Fix it."),)), ignore)
    assert first.message.tool_calls[0].arguments == '{"command": "ls"}'
    said = (UserMessage(text="Fix it."), AssistantMessage(text="Looking."), UserMessage(text="And?"))
    second = await provider.generate(ModelRequest(model, said), ignore)
    assert second.message.text == "Done."
    await registry.close()
