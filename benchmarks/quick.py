"""`make bench-quick`: what CodeAgent costs, as ratios taken in one run, against the bounds it promises."""

from __future__ import annotations

import sys

from benchmarks import accept, appends, effects, views
from benchmarks.ground import Ground, grounds

BOUNDS = {
    "ratio of accepted": (0.5, "at least"),
    "ms an effect, one run, p50": (15.0, "at most"),
    "effects/s, 100 runs": (500.0, "at least"),
    "ratio of appends": (0.6, "at least"),
    "ratio of cold looks": (2.0, "at least"),
}


def main() -> int:
    missed = 0
    with grounds() as made:
        for ground in made:
            print(f"\n{ground.broker}, durable_accept {'on' if ground.settings.durable_accept else 'off'}", flush=True)
            for name, value in _figures(ground):
                missed += _report(ground, name, value)
    print(f"\n{missed} bounds missed" if missed else "\nall bounds kept")
    return 1 if missed else 0


def _figures(ground: Ground) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for part in (appends, effects, views, accept):
        found += part.measure(ground).items()
    return found


def _report(ground: Ground, name: str, value: float) -> int:
    bound = BOUNDS.get(name)
    if bound is None or (name == "ratio of accepted" and ground.settings.durable_accept):
        print(f"  {name:34} {value:10.2f}", flush=True)
        return 0
    limit, kind = bound
    kept = value >= limit if kind == "at least" else value <= limit
    print(f"  {name:34} {value:10.2f}   {kind} {limit:g}: {'kept' if kept else 'MISSED'}", flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
