"""The agent's tools, carried out on a workspace through a sandbox driver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from codeagent.agent import tools
from codeagent.sandboxes.plain_text import plain
from codeagent.sandboxes.protocol import ExecRecord, ExecSpec, Limits, Reason, SandboxDriver, SandboxFailure, Workspace

MODEL_SEES_BYTES = 16_000
"""What of an output the model is told: the beginning and the end. The whole is kept as an artifact."""

FILE_BYTES = 4 << 20
READ_BYTES = 32_000
OnOutput = Callable[[str, bytes], Awaitable[None]]
_NAMES_TOLD = 10
_SEARCH_SECONDS = 30.0


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
    """The tools of one workspace. What a shell command may reach is `egress`."""

    def __init__(
        self,
        driver: SandboxDriver,
        workspace: Workspace,
        limits: Limits,
        on_output: OnOutput,
        egress: tuple[str, ...] = (),
    ) -> None:
        self._driver = driver
        self._egress = egress
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
        record = await self._run(arguments)
        return await asyncio.to_thread(_from_record, record, _told(record))

    async def _run(self, arguments: tools.ToolArguments) -> ExecRecord:
        spec = spec_of(arguments, self._limits, self._egress)
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
        return ToolOutcome(cut(text, READ_BYTES), "ok", changed=False)

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
        record = await self._run(arguments)
        if record.exit_code == 1:
            return ToolOutcome("no match", "ok", 1, record=record, changed=False)
        return replace(await asyncio.to_thread(_from_record, record, None), changed=False)


def spec_of(arguments: tools.ToolArguments, limits: Limits, egress: tuple[str, ...] = ()) -> ExecSpec:
    """The command a tool runs, and its bounds, within `limits` and `egress`. `argv` is empty where it runs no
    program."""
    seconds = limits.wall_seconds
    argv: tuple[str, ...] = ()
    reach: tuple[str, ...] = ()
    match arguments:
        case tools.Shell(command=command):
            seconds = min(float(arguments.timeout_seconds or seconds), seconds)
            argv, reach = ("/bin/bash", "-c", command), egress
        case tools.Search(pattern=pattern, path=path):
            seconds = min(_SEARCH_SECONDS, seconds)
            argv = ("grep", "-rnIE", "--exclude-dir=.git", "-m", "200", "-e", pattern, "--", path)
    # All that it may write is kept: the log names the whole of it.
    kept = limits.output_hard_bytes
    return ExecSpec(argv, limits=replace(limits, wall_seconds=seconds, output_kept_bytes=kept), egress=reach)


def ended_by_operator(outcome: ToolOutcome | None) -> ToolOutcome:
    """What is left of a tool call that somebody has ended from outside."""
    said = "An operator has ended this. The files are as they were before it."
    record = outcome.record if outcome is not None else None
    text = said if outcome is None else f"{outcome.text}\n[{said}]"
    return ToolOutcome(text, "killed", record=record, changed=False)


def told_what_is_left_out(outcome: ToolOutcome, left_out: Sequence[str]) -> ToolOutcome:
    """The same, and that some new files last only as long as this workspace."""
    if not left_out:
        return outcome
    names = ", ".join(name if name.isprintable() else ascii(name) for name in left_out[:_NAMES_TOLD])
    more = f" and {len(left_out) - _NAMES_TOLD} more" if len(left_out) > _NAMES_TOLD else ""
    told = f"[ignored by the repository, so not in the patch and gone with this machine: {names}{more}]"
    return replace(outcome, text=f"{outcome.text}\n{told}")


_FILE_PROBLEMS = frozenset({"no_such_file", "not_a_file", "bad_path", "too_large", "no_space"})


def _from_record(record: ExecRecord, head: str | None) -> ToolOutcome:
    parts = [part for part in (head, *(plain(data).rstrip("\n") for data in (record.stdout, record.stderr))) if part]
    whole = "\n".join(parts)
    text = cut(whole, MODEL_SEES_BYTES)
    if record.limits_hit:
        text += f"\n[limits hit: {', '.join(record.limits_hit)}]"
    shortened = text != whole
    return ToolOutcome(
        text, record.reason.value, record.exit_code, whole=whole.encode() if shortened else None, record=record
    )


def _told(record: ExecRecord) -> str:
    """How a command ended, for the model: by itself, or by which limit."""
    parts = []
    if record.exit_code is not None:
        parts.append(f"exit code: {record.exit_code}")
    if record.reason not in {Reason.OK, Reason.EXIT}:
        parts.append(f"reason: {record.reason}")
    return "\n".join(parts)


def cut(text: str, most: int) -> str:
    """The beginning and the end of a text, `most` characters of it together."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[… {len(text) - most} characters left out …]\n{text[-half:]}"
