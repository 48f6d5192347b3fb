"""`make test-sandbox`: attacks every driver that runs here, then weakened ones, and writes what came of it."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REPORT = Path("build/sandbox/report.json")
HERE = "tests/sandbox"


@dataclass
class Figures:
    """Of one category of attacks on one driver."""

    attacks: int = 0
    contained: int = 0
    escaped: int = 0
    seconds: float = 0.0


@dataclass(eq=False)
class Counting:
    """A plugin of pytest."""

    attacks: dict[tuple[str, str], Figures] = field(default_factory=lambda: defaultdict(Figures))
    weakened: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        told: dict[str, Any] = dict(report.user_properties)
        if report.failed:
            self.failed[report.nodeid] = str(report.longrepr)[-2_000:]
        if "weakened" in told and report.when == "call":
            seen = told["weakened"]
            self.weakened.update(attacks=seen["attacks"], escaped=seen["attacks"] - len(seen["contained"]), sandboxes=1)
        elif "attack" in told:
            self._attacked(told["attack"], report)
        elif report.when == "call" or report.skipped:
            self.others[report.outcome] += 1

    def _attacked(self, told: dict[str, str], report: pytest.TestReport) -> None:
        figures = self.attacks[told["category"], told["driver"]]
        figures.seconds += report.duration
        if report.when == "call":
            figures.attacks += 1
            figures.contained += report.passed
            figures.escaped += report.failed

    def document(self) -> dict[str, Any]:
        return {
            "attacks": [
                {"category": category, "driver": driver, **vars(figures)}
                for (category, driver), figures in sorted(self.attacks.items())
            ],
            "weakened": dict(self.weakened),
            "others": dict(self.others),
            "failed": self.failed,
        }


def table(document: dict[str, Any]) -> str:
    names = ("attacks", "contained", "escaped", "seconds")
    rows = [f"{'category':<24}{'driver':<12}" + "".join(f"{name:>11}" for name in names)]
    for row in [*document["attacks"], *_totals(document["attacks"])]:
        figures = "".join(f"{row[name]:>11.0f}" for name in names)
        rows.append(f"{row['category']:<24}{row['driver']:<12}{figures}")
    weakened = Counter(document["weakened"])
    rows.append(
        f"\n{weakened['sandboxes']} weakened sandboxes: {weakened['escaped']} of {weakened['attacks']} attacks got out, "
        "as all of them should"
    )
    rows.append("other tests: " + ", ".join(f"{count} {outcome}" for outcome, count in document["others"].items()))
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
