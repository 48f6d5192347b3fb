"""Commands about an installation itself: its topics, its tenants and the keys that it signs with."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from codeagent.cli.connected import DataDir

topics = typer.Typer(no_args_is_help=True, help="The broker's topics.")
admin = typer.Typer(no_args_is_help=True, help="Tenants, for operators.")
auth = typer.Typer(no_args_is_help=True, help="The keys that sign access tokens, for operators.")


@topics.command("plan")
def topics_plan(data_dir: DataDir = None) -> None:
    """Show what `apply` would change. Exits 2 where only a new topic would help."""
    from codeagent.cli.operate import reconcile_topics

    raise typer.Exit(reconcile_topics(data_dir, apply=False))


@topics.command("apply")
def topics_apply(data_dir: DataDir = None) -> None:
    """Make the cluster's topics what topics/*.yaml says."""
    from codeagent.cli.operate import reconcile_topics

    raise typer.Exit(reconcile_topics(data_dir, apply=True))


@admin.command("bootstrap")
def admin_bootstrap(
    email: Annotated[str, typer.Option(help="The owner's e-mail address.")],
    name: Annotated[str, typer.Option(help="What the tenant is called.")] = "default",
    tenant_id: Annotated[
        str | None, typer.Option(help="Id of the tenant, such as one whose API keys are in use; else a new one.")
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the owner's password from standard input.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Make the first tenant and its owner. Refuses where there is a tenant."""
    from codeagent.cli.administer import BootstrapOrder, bootstrap_installation

    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    raise typer.Exit(bootstrap_installation(data_dir, BootstrapOrder(email, name, tenant_id, password)))


@admin.command("suspend")
def admin_suspend(tenant_id: Annotated[str, typer.Argument()], data_dir: DataDir = None) -> None:
    """Refuse a tenant's logins and tokens, on every edge within a second."""
    from codeagent.cli.administer import change_tenant

    raise typer.Exit(change_tenant(data_dir, tenant_id, suspended=True))


@admin.command("resume")
def admin_resume(tenant_id: Annotated[str, typer.Argument()], data_dir: DataDir = None) -> None:
    """Let a suspended tenant in again, on every edge within a second."""
    from codeagent.cli.administer import change_tenant

    raise typer.Exit(change_tenant(data_dir, tenant_id, suspended=False))


@admin.command("audit")
def admin_audit(
    actor: Annotated[str | None, typer.Option(help="As operator:0, or the key of an operator.")] = None,
    action: Annotated[str | None, typer.Option(help="Event type, as in dead_letter.read or audit.read.")] = None,
    resource: Annotated[str | None, typer.Option(help="Id of what it was done to.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Lines at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One CloudEvent a line.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show the audit of the installation itself, newest first: what operators did and read, and its keys."""
    from codeagent.cli.installation_audit import show
    from codeagent.projections.audit_search import AuditFilter

    wanted = AuditFilter(actor=actor, action=action, resource_id=resource)
    raise typer.Exit(show(data_dir, wanted, limit, as_json=as_json))


@auth.command("rotate-keys")
def auth_rotate_keys(
    revoke: Annotated[
        bool,
        typer.Option("--revoke", help="Sign with a new key at once, and refuse everything that the others signed."),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Publish the next signing key, a day before it signs. Edges do so by themselves every SIGNING_KEY_DAYS."""
    from codeagent.cli.administer import rotate_keys

    raise typer.Exit(rotate_keys(data_dir, revoke=revoke))
