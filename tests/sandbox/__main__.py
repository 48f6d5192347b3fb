"""`make test-sandbox`: attacks every driver that runs here, then weakened ones, and writes what came of it."""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REPORT = Path("build/sandbox/report.json")
HERE = "tests/sandbox"
WEAKENED = "test_weakened.py"


@dataclass
class Figures:
    """Of one category of attacks on one driver, or of one weakness."""

    attacks: int = 0
    contained: int = 0
    escaped: int = 0
    skipped: int = 0
    seconds: float = 0.0


@dataclass(eq=False)
class Counting:
    """A plugin of pytest. In a weakened sandbox a test passes when its attack has got out."""

    attacks: dict[tuple[str, str], Figures] = field(default_factory=lambda: defaultdict(Figures))
    weakened: Figures = field(default_factory=Figures)
    others: Figures = field(default_factory=Figures)
    failed: dict[str, str] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told: dict[str, Any] = dict(report.user_properties).get("attack", {})  # type: ignore[assignment]
        weakened = WEAKENED in report.nodeid
        figures = self.weakened if weakened else self.others
        if told:
            figures = self.attacks[told["category"], told["driver"]]
        figures.seconds += report.duration
        if report.failed:
            self.failed[report.nodeid] = str(report.longrepr)[-2_000:]
        if report.when == "call":
            figures.attacks += 1
            figures.contained += report.passed is not weakened
            figures.escaped += report.passed is weakened
        elif report.skipped:
            figures.skipped += 1

    def document(self) -> dict[str, Any]:
        return {
            "attacks": [
                {"category": category, "driver": driver, **vars(figures)}
                for (category, driver), figures in sorted(self.attacks.items())
            ],
            "weakened": vars(self.weakened),
            "others": vars(self.others),
            "failed": self.failed,
        }


def table(document: dict[str, Any]) -> str:
    names = ("attacks", "contained", "escaped", "seconds")
    rows = [f"{'category':<24}{'driver':<12}" + "".join(f"{name:>11}" for name in names)]
    for row in [*document["attacks"], *_totals(document["attacks"])]:
        figures = "".join(f"{row[name]:>11.0f}" for name in names)
        rows.append(f"{row['category']:<24}{row['driver']:<12}{figures}")
    weakened, others = document["weakened"], document["others"]
    rows.append(
        f"\nweakened sandboxes: {weakened['escaped']} of {weakened['attacks']} attacks got out, as all of them should"
    )
    rows.append(f"other tests: {others['contained']} of {others['attacks']} passed, {others['skipped']} were skipped")
    return "\n".join(rows)


def _totals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = ("attacks", "contained", "escaped", "seconds")
    return [
        {"category": "total", "driver": driver}
        | {name: sum(row[name] for row in rows if row["driver"] == driver) for name in names}
        for driver in sorted({row["driver"] for row in rows})
    ]


def main() -> int:
    os.environ["CODEAGENT_TEST_ATTACKS"] = "all"
    counting = Counting()
    code = pytest.main(["-q", *sys.argv[1:], HERE], plugins=[counting])
    document = counting.document()
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(document, indent=2) + "\n")
    print(f"\n{table(document)}\n\nwritten to {REPORT}")
    return int(code)


if __name__ == "__main__":
    raise SystemExit(main())
