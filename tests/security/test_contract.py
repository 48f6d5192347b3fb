"""Whatever is sent, the edge answers what its OpenAPI document says: no 5xx, no status, media type, header or field
that is not documented, nothing accepted that is forbidden and nothing refused that is allowed.

`make test` sends some hundreds of requests, `make test-security` as many as `CASES` says.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from codeagent.embedded.broker import EmbeddedBroker
from tests.conftest import SEED
from tests.integration.edge.test_every_route import Record
from tests.security.attacked import Target, attacked_edge
from tests.security.fuzzing import ALONE, Figures, campaign
from tests.security.seeds import Seeds

CASES = int(os.environ.get("CODEAGENT_TEST_CASES", "0"))
"""How many requests at least; 0 for a slice of some hundreds."""
SLICE = 250


def attack(target: Target, seeds: Seeds, figures: Figures) -> None:
    """What succeeds, then all phases once, then drawn requests until there are enough."""
    campaign(target, seeds, phases=ALONE, examples=1, seed=SEED, into=figures)
    if not CASES:
        each = max(1, SLICE // len(figures.statuses))
        campaign(target, seeds, phases=("fuzzing",), examples=each, seed=SEED, into=figures)
        return
    campaign(target, seeds, phases=("examples", "coverage", "stateful"), examples=50, seed=SEED, into=figures)
    seed = SEED
    while figures.cases < CASES and not figures.failures:
        seed += 1
        each = min(200, (CASES - figures.cases) // len(figures.statuses) + 10)
        campaign(target, seeds, phases=("fuzzing",), examples=each, seed=seed, into=figures)


@pytest.mark.timeout(120 + CASES)
# What the edge draws in its own thread looks to the library as if a strategy had drawn it.
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
async def test_every_operation_keeps_to_the_document_and_succeeds(
    newest_database_url: str,
    embedded_broker: EmbeddedBroker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Record,
    tell: Callable[[str], None],
) -> None:
    figures = Figures()
    broker = embedded_broker.bootstrap_servers
    async with attacked_edge(newest_database_url, tmp_path, monkeypatch, broker, runs=200) as target:
        seeds = await asyncio.to_thread(Seeds, target)
        await asyncio.to_thread(attack, target, seeds, figures)
        await asyncio.to_thread(seeds.close)
    for operation, counts in sorted(figures.statuses.items()):
        answers = ", ".join(f"{status}: {count}" for status, count in sorted(counts.items()))
        tell(f"{operation:<45} {sum(counts.values()):>6} cases  {answers}")
    tell(f"seed {SEED}: {figures.cases} cases of {len(figures.statuses)} operations")
    record_property("cases", figures.cases)
    record_property("operations", {name: dict(counts) for name, counts in figures.statuses.items()})
    assert figures.errors == []
    assert figures.failures == {}, "\n\n".join(f"{key}\n{text}" for key, text in figures.failures.items())
    assert figures.never_succeeded == []
    assert figures.cases >= CASES
