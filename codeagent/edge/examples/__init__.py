"""One example of each thing the API takes or answers with, by the name of its schema.

They stand in the OpenAPI document; tests/architecture/test_openapi.py holds them against their schemas.
"""

from __future__ import annotations

from typing import Any

from codeagent.edge.examples import (
    agents,
    approvals,
    credentials,
    evidence,
    operations,
    people,
    projects,
    runs,
    usage,
    webhooks,
)

_MODULES = (agents, approvals, credentials, evidence, operations, people, projects, runs, usage, webhooks)

EXAMPLES: dict[str, dict[str, Any]] = {name: example for each in _MODULES for name, example in each.EXAMPLES.items()}
"""What a schema that is not here shows, its fields show."""
