"""A second look at the few tests that failed: by themselves, twice over. `make test` takes it when not all has passed.

Tests of whole systems share two cores, and now and then one of them waits longer than it may. What fails on a machine
of its own as well has failed; what does not is named, so that it is mended. Many failures are never looked at again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FAILED = Path(".pytest_cache/v/cache/lastfailed")
MOST = 3
TIMES = 2


def failed(found: Path = FAILED) -> list[str]:
    """The tests of the last run that have failed; empty where they are not known."""
    try:
        return sorted(json.loads(found.read_text()))
    except (OSError, ValueError):
        return []


def is_worth_it(tests: list[str]) -> bool:
    """Whole files among them could not even be read."""
    return 0 < len(tests) <= MOST and all("::" in test for test in tests)


def passes(tests: list[str]) -> bool:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, check=False).returncode == 0


def main() -> int:
    tests = failed()
    if not is_worth_it(tests):
        return 1
    print(f"\n{len(tests)} failed beside others. Again, by themselves:", flush=True)
    if not all(passes(tests) for _ in range(TIMES)):
        return 1
    print("FLAKY: failed beside others, and passed by themselves:", *tests, sep="\n  ", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
