"""How many files and connections this process may have open."""

from __future__ import annotations

import resource


def allow_most() -> int:
    """Raises the soft limit of this process to the hard one, and returns it. What is usual, 1024, is meant for programs
    that serve one person."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
