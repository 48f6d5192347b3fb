"""The pods of sandboxes, for operators on the machine of a worker whose sandboxes are in a cluster."""

from __future__ import annotations

import asyncio
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from codeagent.sandboxes.kubernetes import OWNER, KubernetesDriver
from codeagent.sandboxes.notes import Note, Notes
from codeagent.sandboxes.pod_survey import FoundPod, survey_pods
from codeagent.sandboxes.protocol import SandboxUnavailable
from codeagent.sandboxes.survey import is_owned


def are_pods(state_dir: Path) -> bool:
    """Whether sandboxes are pods here: by the settings, or by what a worker has left in its directory."""
    return (state_dir / OWNER).exists() or os.environ.get("CODEAGENT_SANDBOX_DRIVER") == KubernetesDriver.name


def pod_rows(state_dir: Path, now: datetime) -> list[dict[str, Any]]:
    """As workspaces are listed, a row for each pod in the namespace. Those of other workers are `elsewhere`: what runs
    in them is noted on their machines. Raises `CodeAgentError` where the cluster cannot be asked."""
    from codeagent.cli.sandbox_host import cluster_of, configured

    found = asyncio.run(survey_pods(state_dir, cluster_of(configured())))
    notes = {note.workspace: note for note in Notes(state_dir).all()}
    try:
        live = is_owned(state_dir)
    except OSError as error:
        raise SandboxUnavailable([f"{error.filename} cannot be looked into: {error.strerror}"]) from None
    return [_row(pod, notes.get(pod.name), live, now) for pod in found]


def _row(pod: FoundPod, note: Note | None, live: bool, now: datetime) -> dict[str, Any]:
    own = "left" if not live else "opening" if note is None else note.state
    return {
        "workspace": pod.name,
        "state": own if pod.own else "elsewhere",
        "run_id": note and note.run_id,
        "tenant_id": note and note.tenant_id,
        "operation": (note and note.operation) or None,
        "driver": KubernetesDriver.name,
        "level": note and note.level,
        "worker_pid": note and note.worker_pid,
        "slot": None,
        "age_seconds": round((now - pod.made_at).total_seconds(), 1),
        "size_bytes": None,
        "processes": None,
        "phase": pod.phase,
    }
