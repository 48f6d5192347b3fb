"""Reads docker-compose.yml and the Dockerfile as an engine would, as far as running the commands without one needs."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "image" / "Dockerfile"
HEALTHY = ROOT / "deploy" / "image" / "healthy.py"
ENTRYPOINT = "codeagent"

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^{}]*))?\}")


def interpolate(text: str, variables: dict[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        return variables.get(name) or default or ""

    return _VARIABLE.sub(value, text)


def _interpolated(node: Any, variables: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _interpolated(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [_interpolated(value, variables) for value in node]
    return interpolate(node, variables) if isinstance(node, str) else node


def load(variables: dict[str, str]) -> dict[str, Any]:
    """The compose file with merges and variables resolved."""
    document = _interpolated(yaml.safe_load(COMPOSE.read_text()), variables)
    assert isinstance(document, dict)
    return document


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, with continued lines joined and comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(head, rest.strip()) for head, _, rest in (line.partition(" ") for line in joined.splitlines()) if head]


def image_environment() -> dict[str, str]:
    """What the image's ENV instructions say about CodeAgent."""
    pairs = [word.partition("=") for head, rest in instructions() if head == "ENV" for word in shlex.split(rest)]
    return {name: value for name, _, value in pairs if name.startswith("CODEAGENT_")}


@dataclass(frozen=True, slots=True)
class Service:
    """One service of ours: its arguments, and its environment as the container would have it."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    definition: dict[str, Any]

    @property
    def is_one_shot(self) -> bool:
        return bool(self.definition.get("restart") == "no")


def services(variables: dict[str, str]) -> dict[str, Service]:
    """The services that run our image. A variable listed without a value is taken from `variables`, or is not set."""
    found = {}
    for name, definition in load(variables)["services"].items():
        if not str(definition.get("image", "")).startswith("codeagent:"):
            continue
        listed = {
            key: variables.get(key) if value is None else value for key, value in definition["environment"].items()
        }
        environment = {**image_environment(), **{key: value for key, value in listed.items() if value is not None}}
        found[name] = Service(name, list(definition["command"]), environment, definition)
    return found
