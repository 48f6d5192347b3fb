"""`codeagent config`: what is set, whether it can be used, and what can be set at all."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The configuration of processes on this machine.")
MISCONFIGURED = 2


@app.command()
def check(
    role: Annotated[str | None, typer.Option(help="A role, as in `serve`; all of them without it.")] = None,
    database: Annotated[
        bool, typer.Option("--database", help="Also ask the database whether it has room for every pool.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Say everything that is wrong with the configuration, without starting anything. Exits 2 if anything is."""
    from codeagent.cli.configuration import Configuration, examine
    from codeagent.cli.pools import pool_problems
    from codeagent.cli.services import ROLES

    if role is not None and role not in ROLES:
        typer.echo(f"codeagent: there is no role {role!r}; roles: {', '.join(ROLES)}", err=True)
        raise typer.Exit(MISCONFIGURED)

    async def looked() -> Configuration:
        found = await examine(role)
        if not database or found.problems:
            return found
        return Configuration(found.settings, tuple(await pool_problems(found.settings)), found.warnings)

    found = asyncio.run(looked())
    if as_json:
        report = {
            "usable": not found.problems,
            "environment": found.settings.env.value,
            "role": role,
            "problems": [problem.as_json() for problem in found.problems],
            "warnings": [problem.as_json() for problem in found.warnings],
        }
        typer.echo(json.dumps(report, indent=2))
    else:
        for problem in found.warnings:
            typer.echo(f"warning: {problem}")
        for problem in found.problems:
            typer.echo(f"problem: {problem}")
        count = len(found.problems)
        typer.echo(f"{found.settings.env.value}: {f'{count} problems' if count else 'the configuration can be used'}")
    raise typer.Exit(MISCONFIGURED if found.problems else 0)


@app.command()
def reference() -> None:
    """Print every setting as Markdown: docs/configuration.md."""
    from codeagent.settings.reference import markdown

    typer.echo(markdown(), nl=False)
