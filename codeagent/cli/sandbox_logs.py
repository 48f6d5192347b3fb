"""A run's commands on the terminal: of all that its events tell, what was run and what came of it."""

from __future__ import annotations

from rich.console import Console

from codeagent.cli.client import Client
from codeagent.cli.screen import CommandScreen


def show_commands(client: Client, run_id: str, *, follow: bool) -> None:
    """All there are by now, or with `follow` until the run has ended. Raises `ApiError`."""
    screen = CommandScreen(Console(highlight=False))
    newest = 0 if follow else client.run(run_id)["version"]
    if not follow and not newest:
        return
    for event in client.follow(run_id):
        screen.show(event)
        if not follow and event.id is not None and event.id >= newest:
            return
