"""`codeagent approvals`: what runs ask before they act, seen and answered from any terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from codeagent.cli.connected import DataDir, connected

app = typer.Typer(no_args_is_help=True, help="What runs ask before they act.")
RunId = Annotated[str, typer.Argument(help="The run, as in run_01jd...")]
ApprovalId = Annotated[str, typer.Argument(help="What it asks, as in apr_01jd...")]


@app.command("list")
def list_approvals(
    run_id: Annotated[str | None, typer.Argument(help="Of this run, answered ones too; else what waits.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Show what waits for an answer, in full."""
    with connected(data_dir) as client:
        runs = [run["id"] for run in client.runs("input_required")] if run_id is None else [run_id]
        found = [approval for each in runs for approval in client.approvals(each)]
    shown = found if run_id is not None else [approval for approval in found if approval["status"] == "pending"]
    for approval in shown:
        _show(approval)
    if not shown:
        typer.echo("nothing waits for an answer")


@app.command()
def allow(
    run_id: RunId,
    approval_id: ApprovalId,
    always: Annotated[bool, typer.Option("--always", help="And each further call of this tool in this run.")] = False,
    comment: Annotated[str, typer.Option(help="For whoever looks at it later.")] = "",
    data_dir: DataDir = None,
) -> None:
    """Let the run do what it asks. Exits 1 when it does not ask any more."""
    _answer(run_id, approval_id, "allow_always" if always else "allow_once", comment, data_dir)


@app.command()
def reject(
    run_id: RunId,
    approval_id: ApprovalId,
    comment: Annotated[str, typer.Option(help="Why, for the model and for whoever looks at it later.")] = "",
    data_dir: DataDir = None,
) -> None:
    """Refuse what the run asks: it goes on without. Exits 1 when it does not ask any more."""
    _answer(run_id, approval_id, "reject", comment, data_dir)


def _answer(run_id: str, approval_id: str, decision: str, comment: str, data_dir: Path | None) -> None:
    from codeagent.clock import new_uuid

    with connected(data_dir) as client:
        _, etag = client.approval(run_id, approval_id)
        body = {"decision": decision, "comment": comment}
        answered = client.answer(run_id, approval_id, etag, body, str(new_uuid()))
    typer.echo("sent" if answered["status"] == "pending" else answered["status"])


def _show(approval: dict[str, Any]) -> None:
    from codeagent.cli.screen import question

    typer.echo(f"{approval['run_id']} {approval['id']}  {approval['status']}  until {approval['expires_at']}")
    for line in question(approval).splitlines():
        typer.echo(f"    {line}")
