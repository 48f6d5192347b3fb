"""`codeagent sandboxd`: becomes the helper that makes sandboxes."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from codeagent.embedded.sandboxd import PROGRAM


def become_sandboxd(arguments: list[str]) -> NoReturn:
    """Executes the helper in this process's place, so that nothing of our memory and environment is left in it."""
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    os.execve(sys.executable, [sys.executable, *PROGRAM, *arguments], environment)  # noqa: S606  no shell is wanted
