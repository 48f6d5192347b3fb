"""What a run asks, on the terminal it is watched on: answered there where somebody can."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from codeagent.cli.client import ApiError, Client
from codeagent.clock import new_uuid

DECISIONS = {"y": "allow_once", "a": "allow_always", "n": "reject"}


class Approver:
    """Answers for the person at the terminal. `interactive`: there is one; otherwise it says how to answer."""

    def __init__(self, client: Client, console: Console, *, interactive: bool) -> None:
        self._client = client
        self._console = console
        self._interactive = interactive

    def asked(self, run_id: str, approval_id: str) -> None:
        """The run waits for an answer. What was answered in the meantime is not asked again."""
        approval, etag = self._client.approval(run_id, approval_id)
        if approval["status"] != "pending":
            return
        body = self._prompt() if self._interactive else None
        if body is None:
            words = f"codeagent approvals allow {run_id} {approval_id}"
            self._console.print(f"  [dim]answer with[/] {escape(words)} [dim](or reject)[/]", soft_wrap=True)
            return
        try:
            self._client.answer(run_id, approval_id, etag, body, str(new_uuid()))
        except ApiError as error:
            if error.status not in {409, 412}:
                raise
            self._console.print(f"[yellow]{escape(str(error))}[/]")

    def _prompt(self) -> dict[str, str] | None:
        """None when the person has closed the input: somebody may still answer from elsewhere."""
        try:
            while (word := self._read("  allow it? y once, a always, n no: ").lower()[:1]) not in DECISIONS:
                pass
            comment = self._read("  why not, for the model: ") if word == "n" else ""
        except EOFError:
            return None
        return {"decision": DECISIONS[word], "comment": comment[:2_000]}

    def _read(self, prompt: str) -> str:
        return self._console.input(prompt, markup=False).strip()
