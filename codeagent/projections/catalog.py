"""Every projection, by name."""

from __future__ import annotations

from codeagent.projections.agent_runs import AgentRunsProjector
from codeagent.projections.artifact_references import ArtifactReferences
from codeagent.projections.audit import AuditProjector
from codeagent.projections.projection import Projection
from codeagent.projections.runs import RunsProjector
from codeagent.projections.sessions import SessionsProjector
from codeagent.projections.usage import UsageProjector

PROJECTIONS: dict[str, type[Projection]] = {
    kind.NAME: kind
    for kind in (
        RunsProjector,
        UsageProjector,
        SessionsProjector,
        AgentRunsProjector,
        AuditProjector,
        ArtifactReferences,
    )
}
