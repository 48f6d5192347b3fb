"""Commands that ask the running system: how they find it, and how they end where it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from codeagent.cli.client import ApiError, Client

FAILED, USAGE = 1, 2
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the system of this machine keeps its data.")]


def directory(given: Path | None) -> Path:
    """The data directory that is meant."""
    if given is not None:
        return given.absolute()
    from codeagent.embedded.directories import default_data_dir

    return default_data_dir()


@contextmanager
def connected(data_dir: Path | None) -> Iterator[Client]:
    """A client of the system that is found.

    What it is refused ends the command: with 2 where something else should have been asked, or of somebody else, with
    1 where it cannot be done now.
    """
    from codeagent.cli.client import ApiError, Client
    from codeagent.cli.connection import NotConnected, find_connection

    try:
        client = Client(find_connection(directory(data_dir)))
    except NotConnected as error:
        raise failure(str(error), USAGE) from None
    try:
        yield client
    except ApiError as error:
        raise failure(str(error), FAILED if _may_pass(error) else USAGE) from None
    finally:
        client.close()


def _may_pass(error: ApiError) -> bool:
    """`status` 0: there was no answer."""
    return error.status in {0, 409, 412, 429} or error.status >= 500


def failure(message: str, status: int = FAILED) -> typer.Exit:
    """To be raised: ends the command with a message."""
    typer.echo(f"codeagent: {message}", err=True)
    return typer.Exit(status)
