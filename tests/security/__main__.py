"""`make test-security`: runs the attack sets and writes what was tried and what failed, as a table and as JSON."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REPORT = Path("build/security/report.json")
EDGE, IDENTITY, SANDBOXES = "tests/integration/edge", "tests/integration/identity", "tests/integration/sandboxes"
SETS: dict[str, tuple[str, ...]] = {
    "the contract": ("tests/security/test_contract.py",),
    "raw HTTP": ("tests/security/test_raw_requests.py", f"{EDGE}/test_connections.py"),
    "hostile requests": ("tests/security/test_requests.py", f"{EDGE}/test_failures.py"),
    "another tenant's ids": (
        f"{EDGE}/test_every_route.py",
        "tests/integration/eventlog/test_tenants.py",
        f"{IDENTITY}/test_tenants.py",
    ),
    "forged tokens": ("tests/unit/identity/test_jwt.py", f"{IDENTITY}/test_access_tokens.py"),
    "logins and sessions": (
        "tests/security/test_sessions.py",
        f"{IDENTITY}/test_logins.py",
        f"{IDENTITY}/test_refresh.py",
        f"{IDENTITY}/test_sessions.py",
        f"{IDENTITY}/test_service_accounts.py",
    ),
    "WebSocket frames": (
        f"{EDGE}/test_websocket.py",
        f"{EDGE}/test_websocket_pressure.py",
        "tests/unit/edge/test_websocket_frames.py",
    ),
    "pages of other origins": (f"{EDGE}/test_browsers.py", f"{EDGE}/test_origins.py"),
    "too much": (f"{EDGE}/test_rate_limits.py", f"{EDGE}/test_load.py"),
    "requests from inside": (
        "tests/unit/edge/test_git_urls.py",
        "tests/unit/test_addresses.py",
        "tests/unit/sandboxes/test_addresses.py",
        "tests/unit/sandboxes/test_egress.py",
        "tests/unit/webhooks/test_targets.py",
        "tests/integration/webhooks/test_faults.py",
        f"{SANDBOXES}/test_fetch.py",
    ),
    "archives": (
        "tests/unit/artifacts/test_archive_bombs.py",
        "tests/unit/artifacts/test_archive_damage.py",
        "tests/unit/artifacts/test_archive_refusals.py",
    ),
    "ways out of a sandbox": ("tests/sandbox/test_attacks.py", "tests/sandbox/test_races.py"),
    "the security log": ("tests/security/test_security_log.py", "tests/unit/cli/test_redaction.py"),
    "claims and code": (
        "tests/architecture/test_compliance.py",
        "tests/architecture/test_dangerous_code.py",
        "tests/architecture/test_documented_limits.py",
        "tests/architecture/test_routes.py",
    ),
}
"""What is attacked, and by which tests."""


@dataclass
class Figures:
    """Of one set. A test that says nothing of cases is one."""

    tests: int = 0
    cases: int = 0
    failures: int = 0
    skipped: int = 0
    seconds: float = 0.0


@dataclass(eq=False)
class Counting:
    """A plugin of pytest that counts by set."""

    sets: dict[str, Figures] = field(default_factory=lambda: {name: Figures() for name in SETS})
    operations: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        path = report.nodeid.partition("::")[0]
        figures = next(self.sets[name] for name, paths in SETS.items() if path in paths)
        figures.seconds += report.duration
        figures.skipped += report.skipped
        if report.failed:
            figures.failures += 1
            self.failed.append(report.nodeid)
        if report.when == "call":
            told = dict(report.user_properties)
            figures.tests += 1
            figures.cases += int(str(told.get("cases", 1)))
            self.operations |= told.get("operations", {})  # type: ignore[arg-type]

    def document(self) -> dict[str, Any]:
        total: Counter[str] = Counter()
        for figures in self.sets.values():
            total.update({name: getattr(figures, name) for name in ("tests", "cases", "failures", "skipped")})
        return {
            "total": dict(total),
            "sets": {name: {**vars(each), "seconds": round(each.seconds, 1)} for name, each in self.sets.items()},
            "operations": self.operations,
            "failed": self.failed,
        }


def table(document: dict[str, Any]) -> str:
    names = ("tests", "cases", "failures", "skipped")
    rows = [f"{'attack':<26}" + "".join(f"{name:>10}" for name in names)]
    for title, figures in [*document["sets"].items(), ("total", document["total"])]:
        rows.append(f"{title:<26}" + "".join(f"{figures[name]:>10}" for name in names))
    return "\n".join(rows)


def main() -> int:
    counting = Counting()
    paths = [path for paths in SETS.values() for path in paths]
    code = pytest.main(["-q", *sys.argv[1:], *paths], plugins=[counting])
    document = {"requested_cases": int(os.environ.get("CODEAGENT_TEST_CASES", "0")), **counting.document()}
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(document, indent=2) + "\n")
    print(f"\n{table(document)}\n\nwritten to {REPORT}")
    return int(code)


if __name__ == "__main__":
    raise SystemExit(main())
