"""`codeagent`, made to die: `python -m tests.acceptance.dying PLAN up ...` and the like.

PLAN is a directory. `plan.json` in it lists for each role the windows to meet, each with the passage at which. A process
meets the next one that kills it, and on the way all those that it survives; what was met is added to `met`.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import random
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from codeagent.cli import parts, services
from codeagent.cli.main import app
from codeagent.cli.process import Process
from codeagent.settings import Settings
from tests.acceptance import windows
from tests.acceptance.windows import Passage, Window

EVERY_WINDOW = [
    *windows.BY_WORKERS,
    *windows.ASKING_THE_BROKER,
    *windows.ASKING_THE_DATABASE,
    *windows.OF_TWO_OWNERS,
]


class Plan:
    """Which windows are to be met, in which order, and which have been."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def draw(self, seed: int, planned: Iterable[Window]) -> None:
        """Orders the windows and draws the passage of each."""
        chance = random.Random(seed)
        order = list(planned)
        chance.shuffle(order)
        drawn = [(str(window), chance.randint(1, max(window.most, 1))) for window in order]
        self.directory.mkdir()
        # Those who die are not all of one user.
        (self.directory / "met").touch()
        (self.directory / "met").chmod(0o666)
        (self.directory / "plan.json").write_text(json.dumps(drawn))

    def planned(self) -> dict[str, int]:
        """The passage of each window, in order."""
        return dict(json.loads((self.directory / "plan.json").read_text()))

    def met(self) -> dict[str, str]:
        """What each window that was met says of itself, in the order they were met."""
        lines = (self.directory / "met").read_text().splitlines()
        return {name: line for line in lines for name in [line.partition(" (")[0]]}

    def hit(self, window: Window, passage: int) -> None:
        seconds = time.time() - (self.directory / "plan.json").stat().st_mtime
        line = f"{window} (passage {passage}, after {seconds:.1f} s)\n"
        file = os.open(self.directory / "met", os.O_WRONLY | os.O_APPEND)
        os.write(file, line.encode())
        os.close(file)

    def left_for(self, role: str) -> list[tuple[Window, int]]:
        """What a process of this role is to meet now: the next fatal window, and those that are not."""
        passages, met = self.planned(), self.met()
        left = [window for window in EVERY_WINDOW if window.role == role and str(window) in passages.keys() - met]
        left.sort(key=lambda window: list(passages).index(str(window)))
        fatal = [window for window in left if window.is_fatal]
        return [(window, passages[str(window)]) for window in left if not window.is_fatal or window is fatal[0]]


def wrap(plan: Plan, window: Window, at: int) -> None:
    """From now on the window's deed is done to whoever makes the passage."""
    module, _, path = window.target.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    real = getattr(owner, name)
    passages = 0
    met = False

    def hit() -> None:
        nonlocal met
        if not met:
            met = True
            plan.hit(window, passages)

    @functools.wraps(real)
    async def wrapped(*arguments: Any, **named: Any) -> Any:
        nonlocal passages
        passages += window.counts(*arguments)
        here = not met if window.most == 0 else passages == at and window.counts(*arguments)
        if not here:
            return await real(*arguments, **named)
        return await window.deed(Passage(lambda: real(*arguments, **named), arguments, hit))

    setattr(owner, name, wrapped)


def armed(plan: Plan, role: str, build: services.Role) -> services.Role:
    async def build_armed(settings: Settings, listener: socket.socket | None) -> Process:
        for window, passage in plan.left_for(role):
            wrap(plan, window, passage)
            if role == "relay":
                # It is to be the one that finds what others left behind: all of them look for it once a second.
                parts.SWEEP_SECONDS = 0.1
        return await build(settings, listener)

    return build_armed


def main() -> None:
    plan = Plan(Path(sys.argv.pop(1)))
    for role, build in services.ROLES.items():
        services.ROLES[role] = armed(plan, role, build)
    app()


if __name__ == "__main__":
    main()
