"""What `codeagent projections` does, on the database itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from codeagent.cli.databases import command_database
from codeagent.cli.operate import FAILED, guarded, load_settings, say
from codeagent.errors import InvalidInput
from codeagent.projections.catalog import PROJECTIONS
from codeagent.projections.rebuild import Rebuilt, make_anew, standings


def show(data_dir: Path | None) -> int:
    async def list_them() -> int:
        async with command_database(load_settings(data_dir)) as database:
            found = {standing.name: standing for standing in await standings(database)}
        say(f"{'projection':22} {'behind':>9}  {'position':24} made anew")
        for name in PROJECTIONS:
            if (standing := found.get(name)) is None:
                say(f"{name:22} {'':>9}  {'not begun':24} -")
            else:
                anew = "-" if standing.rebuilt_at is None else f"{standing.rebuilt_at:%Y-%m-%d %H:%M:%S}"
                say(f"{name:22} {standing.behind_seconds:8.1f}s  {standing.place!s:24} {anew}")
        return 0

    return guarded(list_them())


def make(data_dir: Path | None, names: Sequence[str], *, swap: bool) -> int:
    async def make_them() -> int:
        for name in names:
            if name not in PROJECTIONS:
                raise InvalidInput(f"there is no projection {name}; there are {', '.join(PROJECTIONS)}")
        async with command_database(load_settings(data_dir)) as database:
            differing, began = 0, time.monotonic()
            kinds = [PROJECTIONS[name] for name in dict.fromkeys(names or PROJECTIONS)]
            async for made in make_anew(database, kinds, swap=swap):
                _tell(made, time.monotonic() - began, swap=swap)
                differing += bool(made.differences)
        return FAILED if differing and not swap else 0

    return guarded(make_them())


def _tell(made: Rebuilt, seconds: float, *, swap: bool) -> None:
    verdict = "as the log says" if not made.differences else "made anew" if swap else "NOT as the log says"
    say(f"{made.kind.NAME}: {verdict} ({made.events} events, {seconds:.1f} s)")
    for difference in made.differences:
        say(f"  {difference}")
