"""The agent's tools, carried out on a workspace through a sandbox driver."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from codeagent.agent import tools
from codeagent.sandboxes.protocol import ExecRecord, ExecSpec, Limits, Reason, SandboxDriver, SandboxFailure, Workspace

MODEL_SEES_BYTES = 16_000
"""What of an output the model is told: the beginning and the end. The whole is kept as an artifact."""

FILE_BYTES = 4 << 20
READ_BYTES = 32_000
SEARCH_SECONDS = 30
OnOutput = Callable[[str, bytes], Awaitable[None]]
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """`text` is for the model; `whole` is the full output where `text` had to be cut."""

    text: str
    reason: str
    exit_code: int | None = None
    whole: bytes | None = None
    record: ExecRecord | None = None
    changed: bool = True
    """Whether files may have changed, so that a checkpoint is due."""


class Toolbox:
    """The tools of one workspace."""

    def __init__(self, driver: SandboxDriver, workspace: Workspace, limits: Limits, on_output: OnOutput) -> None:
        self._driver = driver
        self._workspace = workspace
        self._limits = limits
        self._on_output = on_output

    async def carry_out(self, arguments: tools.ToolArguments) -> ToolOutcome:
        """Raises `SandboxFailure` only where the sandbox itself failed; a tool's own failure is an outcome."""
        try:
            match arguments:
                case tools.Shell():
                    return await self._shell(arguments)
                case tools.ReadFile():
                    return await self._read(arguments)
                case tools.WriteFile():
                    return await self._write(arguments)
                case tools.EditFile():
                    return await self._edit(arguments)
                case tools.Search():
                    return await self._search(arguments)
                case _:
                    return ToolOutcome(f"{arguments.TOOL} does not run in the sandbox.", "error", changed=False)
        except SandboxFailure as error:
            if error.reason in _FILE_PROBLEMS:
                return ToolOutcome(f"error: {error.detail}", "error", changed=False)
            raise

    async def _shell(self, arguments: tools.Shell) -> ToolOutcome:
        record = await self._run(("/bin/bash", "-c", arguments.command), arguments.timeout_seconds)
        return _from_record(record, _told(record))

    async def _run(self, argv: tuple[str, ...], seconds: int | None) -> ExecRecord:
        most = self._limits.wall_seconds
        limits = self._limits if seconds is None else replace(self._limits, wall_seconds=min(float(seconds), most))
        spec = ExecSpec(argv=argv, limits=limits)
        record = await self._driver.run(self._workspace, spec, self._on_output)
        if record.reason == "sandbox_error":
            raise SandboxFailure(record.detail or "the command could not be started")
        return record

    async def _read(self, arguments: tools.ReadFile) -> ToolOutcome:
        data = await self._driver.read_file(self._workspace, arguments.path, FILE_BYTES)
        text = data.decode(errors="replace")
        if arguments.start_line is not None or arguments.end_line is not None:
            lines = text.splitlines(keepends=True)
            text = "".join(lines[(arguments.start_line or 1) - 1 : arguments.end_line])
        return ToolOutcome(_cut(text, READ_BYTES), "ok", changed=False)

    async def _write(self, arguments: tools.WriteFile) -> ToolOutcome:
        data = arguments.content.encode()
        await self._driver.write_file(self._workspace, arguments.path, data)
        return ToolOutcome(f"wrote {len(data)} bytes to {arguments.path}", "ok")

    async def _edit(self, arguments: tools.EditFile) -> ToolOutcome:
        text = (await self._driver.read_file(self._workspace, arguments.path, FILE_BYTES)).decode()
        count = text.count(arguments.old)
        if count != 1:
            return ToolOutcome(f"error: old occurs {count} times in {arguments.path}, not once", "error", changed=False)
        data = text.replace(arguments.old, arguments.new).encode()
        await self._driver.write_file(self._workspace, arguments.path, data)
        return ToolOutcome(f"edited {arguments.path}", "ok")

    async def _search(self, arguments: tools.Search) -> ToolOutcome:
        argv = ("grep", "-rnIE", "--exclude-dir=.git", "-m", "200", "-e", arguments.pattern, "--", arguments.path)
        record = await self._run(argv, SEARCH_SECONDS)
        if record.exit_code == 1:
            return ToolOutcome("no match", "ok", 1, record=record, changed=False)
        return replace(_from_record(record, None), changed=False)


_FILE_PROBLEMS = frozenset({"no_such_file", "not_a_file", "bad_path", "too_large", "no_space"})


def _from_record(record: ExecRecord, head: str | None) -> ToolOutcome:
    parts = [part for part in (head, _clean(record.stdout), _clean(record.stderr)) if part]
    whole = "\n".join(parts)
    text = _cut(whole, MODEL_SEES_BYTES)
    if record.limits_hit:
        text += f"\n[limits hit: {', '.join(record.limits_hit)}]"
    cut = text != whole
    return ToolOutcome(
        text, record.reason.value, record.exit_code, whole=whole.encode() if cut else None, record=record
    )


def _told(record: ExecRecord) -> str:
    """How a command ended, for the model: by itself, or by which limit."""
    parts = []
    if record.exit_code is not None:
        parts.append(f"exit code: {record.exit_code}")
    if record.reason not in {Reason.OK, Reason.EXIT}:
        parts.append(f"reason: {record.reason}")
    return "\n".join(parts)


def _clean(output: bytes) -> str:
    """Output as text that cannot steer a terminal."""
    return _CONTROL.sub("", output.decode(errors="replace")).rstrip("\n")


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[… {len(text) - most} characters left out …]\n{text[-half:]}"
