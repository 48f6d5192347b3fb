"""An agent's tools on a temporary folder, carried out by subprocesses, and the loop that lets a provider drive them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codeagent.messages.conversation import (
    ChatMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
    ToolSpec,
    UserMessage,
)
from codeagent.providers.protocol import ModelReply, ModelRequest, Provider

MOST_SHOWN = 16_000
TOOLS = tuple(
    ToolSpec(name=name, description=name, parameters={"type": "object"})
    for name in ("shell", "read_file", "write_file", "edit_file", "search", "submit")
)


@dataclass
class Workspace:
    """`without` names modules that cannot be imported in it, as on a machine where they are not installed.

    Without `plugins`, pytest starts faster. `longest_test_seconds` cuts plain test runs short, so that endless tests do not hold up ours.
    """

    root: Path
    without: tuple[str, ...] = ()
    plugins: bool = True
    longest_test_seconds: float = 60.0
    commands: list[str] = field(default_factory=list)

    @property
    def temporary(self) -> Path:
        return self.root.parent / f"{self.root.name}-tmp"

    async def carry_out(self, call: ToolCall) -> tuple[str, bool]:
        """The answer's text and whether it is an error."""
        arguments = json.loads(call.arguments)
        match call.name:
            case "shell":
                return await self._shell(arguments["command"], float(arguments.get("timeout_seconds", 60)))
            case "read_file":
                return self._path(arguments).read_text(), False
            case "write_file":
                self._path(arguments).write_text(arguments["content"])
                return f"wrote {len(arguments['content'])} bytes to {arguments['path']}", False
            case "edit_file":
                return self._edit(arguments)
            case _:
                return f"there is no tool {call.name}", True

    def _path(self, arguments: dict[str, Any]) -> Path:
        path = (self.root / arguments["path"]).resolve()
        assert path.is_relative_to(self.root.resolve())
        return path

    def _edit(self, arguments: dict[str, Any]) -> tuple[str, bool]:
        path = self._path(arguments)
        text = path.read_bytes().decode()
        count = text.count(arguments["old"])
        if count != 1:
            return f"error: old occurs {count} times in {arguments['path']}, not once", True
        path.write_bytes(text.replace(arguments["old"], arguments["new"]).encode())
        return f"edited {arguments['path']}", False

    async def _shell(self, command: str, seconds: float) -> tuple[str, bool]:
        self.commands.append(command)
        process = await asyncio.create_subprocess_exec(
            "/bin/bash", "-c", command,
            cwd=self.root, env=self._environment(), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(min(seconds, self.longest_test_seconds) if " -m " in command else seconds):
                output, _ = await process.communicate()
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            return "reason: timeout", True
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        text = f"exit code: {process.returncode}\n{output.decode(errors='replace')}"
        if len(text) > MOST_SHOWN:
            text = f"{text[: MOST_SHOWN // 2]}\n[...]\n{text[-MOST_SHOWN // 2 :]}"
        return text, process.returncode != 0

    def _environment(self) -> dict[str, str]:
        """Little is inherited: the tests' own interpreter, and nothing that points outside."""
        self.temporary.mkdir(exist_ok=True)
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(self.root.parent),
            "TMPDIR": str(self.temporary),
        }
        if not self.plugins:
            environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        if self.without:
            environment["PYTHONPATH"] = str(self._hide())
        return environment

    def _hide(self) -> Path:
        folder = self.root.parent / f"{self.root.name}-without"
        folder.mkdir(exist_ok=True)
        lines = ["import sys", *(f"sys.modules[{name!r}] = None" for name in self.without)]
        (folder / "sitecustomize.py").write_text("\n".join(lines))
        return folder


@dataclass
class Finished:
    """A run to its end: the summary it submitted, or None, and everything that was said."""

    summary: str | None
    messages: tuple[ChatMessage, ...]
    replies: list[ModelReply]

    @property
    def texts(self) -> list[str]:
        return [reply.message.text for reply in self.replies]


async def drive(
    provider: Provider, workspace: Workspace, task: str = "Make the tests pass.", turns: int = 12
) -> Finished:
    """Lets the model work until it submits, says nothing more to do, or has had its turns."""
    messages: list[ChatMessage] = [SystemMessage(text="You are a software engineer."), UserMessage(text=task)]
    replies: list[ModelReply] = []

    async def ignore(_text: str) -> None:
        return None

    while len(replies) < turns:
        reply = await provider.generate(ModelRequest("repair", tuple(messages), TOOLS), ignore)
        replies.append(reply)
        messages.append(reply.message)
        for call in reply.message.tool_calls:
            if call.name == "submit":
                return Finished(json.loads(call.arguments)["summary"], tuple(messages), replies)
            text, is_error = await workspace.carry_out(call)
            messages.append(ToolMessage(tool_call_id=call.id, name=call.name, text=text, is_error=is_error))
        if not reply.message.tool_calls:
            break
    return Finished(None, tuple(messages), replies)
