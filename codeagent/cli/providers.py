"""`codeagent providers`: what calls of the models of this machine's providers cost, and their stored keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codeagent.cli.connected import USAGE, DataDir, failure

if TYPE_CHECKING:
    from codeagent.providers.registry import ProviderSettings

app = typer.Typer(no_args_is_help=True, help="The providers of models.")
credentials = typer.Typer(no_args_is_help=True, help="Stored keys of providers, for operators.")
app.add_typer(credentials, name="credentials")
Provider = Annotated[str, typer.Argument(help="As the providers' file names it.")]
COLUMNS = ("model", "input", "output", "cache_read", "cache_write", "source", "version", "digest")
UNKNOWN = ("-",) * (len(COLUMNS) - 1)


@app.callback()
def providers() -> None:
    """The providers of models."""


@app.command()
def prices(
    model: Annotated[
        str | None, typer.Option(help="As in openai/gpt-5; without it, every model that a provider lists or prices.")
    ] = None,
    on: Annotated[str | None, typer.Option(help="The day of UTC, as in 2026-11-27; now without it.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--providers", envvar="CODEAGENT_PROVIDERS_FILE", help="JSON list of model providers."),
    ] = None,
) -> None:
    """Show the prices in force, in US dollars for a million tokens, for prompts of ordinary length.

    Source, version and digest are those that the fact of each call has, so that its cost can be counted again.
    """
    from codeagent.errors import CodeAgentError
    from codeagent.providers.registry import ProviderRegistry, parse_providers

    try:
        registry = ProviderRegistry([] if file is None else parse_providers(file.read_bytes()))
        if model is not None:
            registry.check(model)
        lines = list(_lines(registry.settings(), model, _moment(on)))
    except OSError as error:
        raise failure(f"{file} cannot be read ({error.strerror})", USAGE) from None
    except CodeAgentError as error:
        raise failure(error.detail, USAGE) from None
    except ValueError as error:
        raise failure(str(error), USAGE) from None
    for line in (COLUMNS, *lines):
        typer.echo("  ".join(line))


def _moment(on: str | None) -> datetime | None:
    return None if on is None else datetime.combine(date.fromisoformat(on), time(), UTC)


def _lines(providers: Sequence[ProviderSettings], model: str | None, at: datetime | None) -> Iterator[tuple[str, ...]]:
    for settings in providers:
        provider, _, name = (model or f"{settings.name}/").partition("/")
        if provider == settings.name:
            for each in (name,) if name else dict.fromkeys((*settings.models, *settings.prices)):
                yield f"{provider}/{each}", *_price(settings, each, at)


def _price(settings: ProviderSettings, name: str, at: datetime | None) -> tuple[str, ...]:
    from codeagent.providers.pricing import FREE
    from codeagent.providers.registry import BUILTIN

    pricing = settings.pricing()
    price, tokens = pricing.price(name, at), pricing.prices(name, at)
    if settings.kind == BUILTIN:
        price, tokens = FREE, FREE.tokens
    if price is None or tokens is None:
        return UNKNOWN
    usd = (tokens.input_usd, tokens.output_usd, *tokens.cache_usd())
    told = price.told
    return *(f"{value.normalize():f}" for value in usd), told.source, told.version.replace(" ", "-"), told.digest or "-"


@credentials.command("add")
def add_credential(
    provider: Provider,
    label: Annotated[str, typer.Option(help="What tells the key apart, as in 2026-11.")],
    file: Annotated[
        Path | None, typer.Option(help="File with the key; standard input without it. Never an argument.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Store a key, sealed, and show its id. Workers use it from a few seconds on, before all others."""
    from codeagent.cli.provider_credentials import add

    raise typer.Exit(add(data_dir, provider, label, file))


@credentials.command("list")
def list_credentials(provider: Provider, data_dir: DataDir = None) -> None:
    """One key a line, newest first: id, state, when it was stored, when it was last used, label."""
    from codeagent.cli.provider_credentials import show

    raise typer.Exit(show(data_dir, provider))


@credentials.command("revoke")
def revoke_credential(
    provider: Provider,
    credential_id: Annotated[str, typer.Argument(help="As in cred_01jd...")],
    data_dir: DataDir = None,
) -> None:
    """Forget a key for good. Within five seconds no worker begins a call with it."""
    from codeagent.cli.provider_credentials import revoke

    raise typer.Exit(revoke(data_dir, provider, credential_id))
