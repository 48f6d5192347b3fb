"""The benchmark measures what it says. Its bounds are for a quiet machine, so none is held here but with much slack."""

from __future__ import annotations

import pytest

from benchmarks.sandbox import BOUNDS, measure, report
from tests.integration.sandboxes.support import require_root_and_bwrap


async def test_every_way_is_measured_and_every_bound_has_its_figure(capsys: pytest.CaptureFixture[str]) -> None:
    require_root_and_bwrap()
    found = await measure(2)
    assert set(BOUNDS) <= set(found)
    assert all(value > 0 for value in found.values())
    for workers in ("1 worker", "2 workers"):
        plain, hand = (found[f"{name} start p50 ms, {workers}"] for name in ("plain process", "by hand"))
        assert plain < hand
        assert found[f"parked start / by hand, {workers}"] < 10
    assert report(dict.fromkeys(BOUNDS, 1e6)) == len(BOUNDS)
    assert "MISSED" in capsys.readouterr().out
