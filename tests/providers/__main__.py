"""`make test-providers`: the contract of every adapter and every fault of each, with a table of what they became, and
many runs at once over providers that fail."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REPORT = Path("build/providers/report.json")
TESTS = (
    "tests/contract/test_provider_contract.py",
    "tests/contract/test_provider_faults.py",
    "tests/contract/test_provider_billing.py",
    "tests/contract/test_provider_pool.py",
    "tests/integration/providers",
    "tests/providers",
    "tests/unit/providers/test_vendor.py",
)


@dataclass(eq=False)
class Counting:
    """A plugin of pytest."""

    faults: list[dict[str, Any]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed[report.nodeid] = str(report.longrepr)[-2_000:]
        if report.when == "call" or report.skipped:
            self.outcomes[report.outcome] += 1
        if report.when == "call" and report.passed:
            self.faults += [value for name, value in report.user_properties if name == "fault"]

    def document(self) -> dict[str, Any]:
        return {"faults": self.faults, "outcomes": dict(self.outcomes), "failed": self.failed}


def table(document: dict[str, Any]) -> str:
    """A row for each fault: what each adapter makes of it, and in how many milliseconds."""
    adapters = list(dict.fromkeys(fault["adapter"] for fault in document["faults"]))
    cells: dict[str, dict[str, str]] = {}
    for fault in document["faults"]:
        cells.setdefault(fault["fault"], {})[fault["adapter"]] = f"{fault['outcome']} {fault['ms']:.0f}"
    rows = [f"{'fault':<24}" + "".join(f"{name:>24}" for name in adapters)]
    rows += [
        f"{name:<24}" + "".join(f"{outcomes.get(adapter, '-'):>24}" for adapter in adapters)
        for name, outcomes in cells.items()
    ]
    seen = len(document["faults"])
    rows.append(
        f"\n{len(cells)} faults, {seen} outcomes (with milliseconds; - where a vendor's protocol has no such thing)"
    )
    rows.append("tests: " + ", ".join(f"{count} {outcome}" for outcome, count in document["outcomes"].items()))
    return "\n".join(rows)


def main() -> int:
    counting = Counting()
    code = pytest.main(["-q", "-p", "no:cacheprovider", *TESTS], plugins=[counting])
    document = counting.document()
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(document, indent=2) + "\n")
    print(f"\n{table(document)}\n\nwritten to {REPORT}")
    return int(code)


if __name__ == "__main__":
    raise SystemExit(main())
