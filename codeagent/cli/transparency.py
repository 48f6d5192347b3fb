"""The proof of the log as a part of the relay: it seals, and takes checkpoints out of the database."""

from __future__ import annotations

from codeagent.cli.parts import Parts
from codeagent.settings import Misconfigured, Problem
from codeagent.settings.about import variable
from codeagent.telemetry.logs import get_logger
from codeagent.transparency.anchoring import Anchorer
from codeagent.transparency.anchors import Anchor
from codeagent.transparency.directory import DirectoryAnchor
from codeagent.transparency.keys import LogKeys, parse_log_keys
from codeagent.transparency.sealer import Sealer
from codeagent.transparency.topic import TopicAnchor

log = get_logger(__name__)
SIGNING_KEY = "audit_signing_key"


def log_keys(text: str) -> LogKeys:
    """Raises `Misconfigured`."""
    try:
        return parse_log_keys(text.splitlines())
    except ValueError as error:
        raise Misconfigured([Problem(variable(SIGNING_KEY), f"is wrong: {error}")]) from None


def signing_keys(text: str) -> LogKeys:
    """Keys of which one can sign. Raises `Misconfigured`."""
    keys = log_keys(text)
    if not keys.signing:
        raise Misconfigured([Problem(variable(SIGNING_KEY), "has no private key", "make one: codeagent audit key")])
    return keys


def prove(parts: Parts) -> None:
    """Adds the sealer to a process, where there is a key to sign with, and what keeps its checkpoints elsewhere: in a
    topic, and in a directory where there is one for that."""
    if SIGNING_KEY not in parts.secrets:
        log.warning("seal.off", reason=f"{variable(SIGNING_KEY)} is not set")
        return
    keys, folder = signing_keys(parts.secrets.get(SIGNING_KEY)), parts.settings.audit_anchor_dir
    anchors: list[Anchor] = [TopicAnchor(parts.database, parts.kafka)]
    if folder is not None:
        anchors.append(DirectoryAnchor(folder))
    sealer = Sealer(parts.database, keys, awaits=[anchor.target for anchor in anchors])
    anchorers = (Anchorer(parts.database, anchor, keys, sealer.heard) for anchor in anchors)
    working: list[Sealer | Anchorer] = [sealer, *anchorers]
    for part in working:
        parts.process.start.append(part.start)
        parts.process.stop.append(part.stop)

    async def changed() -> None:
        renewed = signing_keys(parts.secrets.get(SIGNING_KEY))
        for part in working:
            part.use(renewed)

    parts.secrets.watch(SIGNING_KEY, changed)
