"""A run as it happens, on a terminal: steps, tool calls, output, tokens, cost."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.markup import escape

from codeagent.cli.client import ServerEvent

OUTPUT_LINES = 12
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNSEEN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
_STEPS = {
    "prepare": "preparing the files",
    "install": "installing dependencies",
    "think": "thinking",
    "collect": "collecting the patch",
    "verify": "judging the patch in a fresh checkout",
}
_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan", "d": "bold"}


class Screen:
    """Prints one event at a time. Text that is streamed live is not printed again when it is complete."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._calls: dict[str, str] = {}
        self._current_call = ""
        self._live_text: set[str] = set()
        self._live_output: set[str] = set()
        self._midline = False
        self._tokens = 0
        self._cost = Decimal(0)

    def show(self, event: ServerEvent) -> None:
        shown = getattr(self, f"_on_{event.name.replace('.', '_')}", None)
        if shown is not None:
            shown(event.data.get("data", event.data))

    def _line(self, text: str, *, as_it_is: bool = False) -> None:
        """`as_it_is`: not broken into lines of the screen's width."""
        if self._midline:
            self._console.print()
            self._midline = False
        self._console.print(text, highlight=False, soft_wrap=as_it_is)

    def _write(self, text: str) -> None:
        self._console.out(_plain(text), end="", highlight=False)
        self._midline = not text.endswith("\n")

    def _on_run_submitted(self, data: dict[str, Any]) -> None:
        agent = f"{data['agent']}@{data['agent_version']}"
        self._line(f"[bold]run[/] {data['run_id']}  [dim]agent[/] {agent}  [dim]model[/] {_safe(data['model'])}")
        if ((data.get("definition") or {}).get("assignment") or {}).get("deprecated"):
            self._line(f"[yellow]{agent} is deprecated: another version has taken its place[/]")
        belongs = [f"[dim]{name}[/] {data[f'{name}_id']}" for name in ("project", "session") if data.get(f"{name}_id")]
        if belongs:
            self._line("  ".join(belongs))
        if (asks := data.get("approvals")) is not None:
            tools = "all that may change files" if asks["tools"] == "all_changing" else ", ".join(asks["tools"])
            self._line(f"[dim]asks before[/] {_safe(tools)}")

    def _on_run_step_started(self, data: dict[str, Any]) -> None:
        self._line(f"[cyan]step {data['step']}[/] [dim]{_STEPS.get(data['name'], data['name'])}[/]")

    def _on_message_delta(self, data: dict[str, Any]) -> None:
        self._live_text.add(data["effect_id"])
        self._write(data["text"])

    def _on_message_completed(self, data: dict[str, Any]) -> None:
        if data["text"] and data["effect_id"] not in self._live_text:
            self._line(_safe(data["text"]))
        for call in data["tool_calls"]:
            self._calls[call["id"]] = _summary(call["name"], call["arguments"])
        usage = data["usage"]
        self._tokens += usage["input_tokens"] + usage["output_tokens"]
        self._cost += Decimal(data["cost_usd"] or 0)
        self._line(f"[dim]  {self._tokens} tokens, {self._cost:.4f} USD so far[/]")

    def _on_tool_call_started(self, data: dict[str, Any]) -> None:
        self._current_call = data["tool_call_id"]
        self._line(f"[yellow]  $ {_safe(self._calls.get(data['tool_call_id'], data['name']))}[/]")

    def _on_tool_output_delta(self, data: dict[str, Any]) -> None:
        self._live_output.add(data["effect_id"])
        self._write(data["text"])

    def _on_tool_call_completed(self, data: dict[str, Any]) -> None:
        if data["tool_call_id"] != self._current_call:
            # Of calls that run side by side, the end of one says which it is.
            self._on_tool_call_started(data)
        if data["effect_id"] not in self._live_output:
            self._output(data["output"])
        status = data["reason"] if data["exit_code"] is None else f"exit {data['exit_code']}"
        self._line(f"[dim]  {status}, {data['duration_seconds']:.2f} s[/]")

    def _output(self, text: str) -> None:
        lines = text.splitlines()
        for line in lines[:OUTPUT_LINES]:
            self._line(f"    [dim]{_safe(line)}[/]")
        if len(lines) > OUTPUT_LINES:
            self._line(f"    [dim]… {len(lines) - OUTPUT_LINES} more lines[/]")

    def _on_tool_call_failed(self, data: dict[str, Any]) -> None:
        self._line(f"[red]  {_safe(data['error'])}[/]")

    def _on_run_input_required(self, data: dict[str, Any]) -> None:
        self._line("[bold yellow]the run asks[/]")
        for line in question(data["request"]).splitlines():
            self._line(f"  [yellow]{escape(line)}[/]", as_it_is=True)

    def _on_run_input_received(self, data: dict[str, Any]) -> None:
        words = {"allow_once": "allowed", "allow_always": "allowed always", "reject": "refused"}
        said = words.get(data["decision"], data["decision"])
        comment = f": {_safe(data['comment'])}" if data["comment"] else ""
        self._line(f"[yellow]  {said}[/] [dim]by {_safe(data['principal'])}[/]{comment}")

    def _on_run_input_expired(self, _: dict[str, Any]) -> None:
        self._line("[red]  nobody answered in time[/]")

    def _on_run_cancel_requested(self, data: dict[str, Any]) -> None:
        reason = f": {_safe(data['reason'])}" if data["reason"] else ""
        self._line(f"[yellow]cancel requested[/]{reason}")

    def _on_subagent_started(self, data: dict[str, Any]) -> None:
        self._line(f"[yellow]  handed to {_safe(data['agent'])}[/] [dim]{_safe(data['child_run_id'])}[/]")

    def _on_run_nudged(self, data: dict[str, Any]) -> None:
        self._line(f"[yellow]  told the model: {_safe(data['message'])}[/]")

    def _on_run_guidance_found(self, data: dict[str, Any]) -> None:
        found = data["guidance"]
        names = [*(file["path"] for file in found["files"]), *(skill["path"] for skill in found["skills"])]
        self._line(f"[dim]  guidance of the repository: {_safe(', '.join(names))}[/]")

    def _on_run_compacted(self, data: dict[str, Any]) -> None:
        told = data["compaction"]
        self._line(f"[dim]  conversation compacted: {told['before_tokens']} to {told['after_tokens']} tokens[/]")

    def _on_run_verified(self, data: dict[str, Any]) -> None:
        if data["output"] and data["effect_id"] not in self._live_output:
            self._output(data["output"])
        status = data["reason"] if data["exit_code"] is None else f"exit {data['exit_code']}"
        style = "green" if data["verdict"] == "passed" else "red"
        self._line(f"[{style}]  {data['verdict']}[/] [dim]{status}, {data['duration_seconds']:.2f} s[/]")
        for path in data["restored"]:
            self._line(f"[yellow]  judged without its change to {_safe(path)}[/]")

    def _on_stream_lagging(self, data: dict[str, Any]) -> None:
        self._line(f"[dim]  … {data['dropped']} live fragments left out[/]")

    def _on_run_completed(self, data: dict[str, Any]) -> None:
        self._line(f"[bold green]completed[/] {_safe(data['message'])}")

    def _on_run_failed(self, data: dict[str, Any]) -> None:
        self._line(f"[bold red]failed[/] ({data['status_reason']}) {_safe(data['message'])}")

    def _on_run_canceled(self, data: dict[str, Any]) -> None:
        self._line(f"[bold yellow]canceled[/] {_safe(data['message'])}")

    def _on_run_rejected(self, data: dict[str, Any]) -> None:
        self._line(f"[bold red]rejected[/] {_safe(data['message'])}")

    def patch(self, text: str) -> None:
        for line in _plain(text).splitlines():
            style = _DIFF_STYLES.get(line[:1], "") if not line.startswith(("+++", "---")) else "bold"
            self._console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


class CommandScreen(Screen):
    """The commands alone: what was run, what it wrote, how it ended."""

    def show(self, event: ServerEvent) -> None:
        if event.name.startswith("tool.") or event.name == "message.completed":
            super().show(event)

    def _on_message_completed(self, data: dict[str, Any]) -> None:
        for call in data["tool_calls"]:
            self._calls[call["id"]] = _summary(call["name"], call["arguments"])


def question(asked: dict[str, Any]) -> str:
    """What a run asks, in full: whoever allows a call has to see all of it. What would not show, or show as something
    else, is spelt out."""
    if asked["arguments_ref"] is not None:
        return f"{asked['tool']} with the arguments of artifact {asked['arguments_ref']}"
    arguments = json.loads(asked["arguments"] or "{}")
    lines = [asked["tool"]]
    for name, value in arguments.items():
        text = value if isinstance(value, str) else json.dumps(value)
        first, *rest = text.split("\n")
        lines += [f"{name}: {first}", *(f"  {line}" for line in rest)]
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", "\n".join(lines))


def _plain(text: str) -> str:
    """Text that cannot steer the terminal: models, commands and repositories say whatever they like."""
    return _CONTROL.sub("", text)


def _safe(text: str) -> str:
    return escape(_plain(text))


def _summary(name: str, arguments: str) -> str:
    """A tool call in one line."""
    try:
        values = json.loads(arguments or "{}")
    except ValueError:
        return name
    first = next((str(values[key]) for key in ("command", "path", "pattern") if key in values), "")
    first = next((line for line in first.splitlines() if line.strip()), "")
    text = first if name == "shell" and first else f"{name} {first or '(long)'}"
    return text if len(text) <= 140 else f"{text[:140]}…"
