"""Finds what a repository says to agents, in its archive: nothing of it is run, and no link is followed."""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from codeagent.messages.guidance import Guidance, GuidanceFile, Skill
from codeagent.sandboxes import archives
from codeagent.sandboxes.plain_text import plain
from codeagent.sandboxes.protocol import Limits, SandboxFailure
from codeagent.telemetry.logs import get_logger

log = get_logger(__name__)

FILE = "AGENTS.md"
FILE_BYTES = 256 << 10
"""Longer ones are passed over."""
TEXT_CHARACTERS = 16_000
MOST_FILES = 20
MOST_SKILLS = 50
DESCRIPTION_CHARACTERS = 300
_FRONT_CHARACTERS = 4_000
_LOOKED_AT = 1_000
_SKILL = re.compile(r"\.agents/skills/[^/]+/SKILL\.md")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_FRONT = re.compile(r"---\n(.*?)\n---(?:\n|\Z)", re.DOTALL)
_LONGEST_PATH = 300


async def guidance_of(archive: Path, limits: Limits) -> Guidance | None:
    """What the files of `archive` have of it; None where there is nothing. It is no reason for a run to fail."""
    try:
        return await asyncio.to_thread(_found, archive, limits)
    except (SandboxFailure, OSError) as error:
        log.warning("guidance.unreadable", error=type(error).__name__)
        return None


def _found(archive: Path, limits: Limits) -> Guidance | None:
    files: list[GuidanceFile] = []
    skills: list[Skill] = []
    for path, data in _candidates(archive, limits):
        digest = f"sha256:{sha256(data).hexdigest()}"
        if path == FILE or path.endswith(f"/{FILE}"):
            text = _visible(data)[:TEXT_CHARACTERS] if path == FILE else ""
            files.append(GuidanceFile(path=path, digest=digest, size_bytes=len(data), text=text))
        elif (front := _front(data)) is not None:
            skills.append(Skill(name=front[0], description=front[1], path=path, digest=digest))
    # The root's first, then by depth: what most of the work comes under.
    files.sort(key=lambda file: (file.path.count("/"), file.path))
    skills.sort(key=lambda skill: (skill.name, skill.path))
    if not files and not skills:
        return None
    return Guidance(files=tuple(files[:MOST_FILES]), skills=tuple(skills[:MOST_SKILLS]))


def _candidates(archive: Path, limits: Limits) -> Iterator[tuple[str, bytes]]:
    count = 0
    for entry in archives.entries(archive, limits):
        is_named = entry.path == FILE or entry.path.endswith(f"/{FILE}") or _SKILL.fullmatch(entry.path)
        if is_named and entry.content is not None and entry.size <= FILE_BYTES and len(entry.path) <= _LONGEST_PATH:
            count += 1
            if count > _LOOKED_AT:
                return
            yield entry.path, entry.content.read()


def _front(data: bytes) -> tuple[str, str] | None:
    """Name and description of a skill, on one line each; None where there are none that can be told."""
    found = _FRONT.match(_visible(data[: 4 * _FRONT_CHARACTERS])[:_FRONT_CHARACTERS])
    try:
        front: Any = yaml.safe_load(found.group(1)) if found else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    if not isinstance(front, dict):
        return None
    name, description = front.get("name"), front.get("description")
    if not isinstance(name, str) or not isinstance(description, str) or not _NAME.fullmatch(name):
        return None
    return name, " ".join(description.split())[:DESCRIPTION_CHARACTERS]


def _visible(data: bytes) -> str:
    """The text as a person sees it: what is invisible may be written for models alone."""
    return "".join(one for one in plain(data) if unicodedata.category(one) not in {"Cf", "Co", "Cn"})
