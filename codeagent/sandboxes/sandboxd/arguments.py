"""What an operator tells the helper at its start. Nothing that asks it for sandboxes can change any of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from codeagent import hosts
from codeagent.errors import InvalidInput
from codeagent.sandboxes.bounds import BOUNDS, limited
from codeagent.sandboxes.offers import Containers, Host
from codeagent.sandboxes.protocol import IsolationLevel, Limits
from codeagent.sandboxes.sandboxd.requests import Ceiling
from codeagent.sandboxes.select import AUTO
from codeagent.sandboxes.sources import TrustedHost

_MOST = Limits(wall_seconds=1800.0)
"""What an operator allows who says nothing: the limits of every command, and the longest time a tool may be given."""


@dataclass(frozen=True, slots=True)
class Orders:
    """`minimum_level`, `driver` and `host` say what makes the sandboxes, `ceiling` what workers may ask for, and the
    rest where and for whom."""

    socket: Path
    worker_uid: int
    worker_gid: int
    minimum_level: IsolationLevel
    driver: str
    host: Host
    ceiling: Ceiling


def parse(arguments: Sequence[str] | None = None) -> Orders:
    """Raises `SystemExit` (2) for what cannot be, and says why on standard error."""
    parser = _parser()
    told = parser.parse_args(arguments)
    try:
        ceiling = Ceiling(_most(told.most), told.egress_hosts, told.registries, told.install_seconds)
    except (InvalidInput, ValueError) as error:
        parser.error(f"--most: {error}")
    host = Host(
        told.state_dir,
        trusted_hosts=told.trusted_hosts,
        parked=bool(told.parked),
        images=told.images,
        containers=Containers(told.image, tuple(told.engine_arguments), told.engine_runtime),
    )
    level = IsolationLevel(told.minimum_level)
    return Orders(told.socket, told.worker_uid, told.worker_gid, level, told.driver, host, ceiling)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="codeagent sandboxd",
        description="Make sandboxes for the unprivileged worker of this machine: the one process that needs root.",
    )
    add = parser.add_argument
    add("--socket", type=_absolute, required=True, help="where it listens")
    add("--state-dir", type=_absolute, required=True, help="its own directory, below /var/lib or so")
    add("--worker-uid", type=int, required=True, help="who may connect")
    add("--worker-gid", type=int, required=True, help="the group that the socket belongs to")
    add("--minimum-level", type=int, choices=(1, 2, 3), default=2, help="isolation it must prove")
    add("--driver", default=AUTO, help="auto, or the only driver that will do")
    add("--parked", type=int, choices=(0, 1), default=1, help="sandboxes started ahead for each workspace")
    add("--image", default="", help="what docker and podman make sandboxes of, pinned")
    add("--engine-arguments", type=_words, default=(), metavar="JSON", help="words for every request to an engine")
    add("--engine-runtime", default="", help="the engine's OCI runtime")
    add("--trusted-hosts", type=_trusted, default=(), metavar="JSON", help="as CODEAGENT_TRUSTED_GIT_HOSTS")
    add("--images", type=_images, default={}, metavar="JSON", help="as CODEAGENT_SANDBOX_IMAGES, or nothing")
    add("--registries", type=_hosts, default=(), metavar="JSON", help="as CODEAGENT_SANDBOX_REGISTRIES")
    add("--install-seconds", type=float, default=900.0, help="as CODEAGENT_SANDBOX_INSTALL_SECONDS")
    add("--egress-hosts", type=_hosts, default=(), metavar="JSON", help="as CODEAGENT_EGRESS_HOSTS")
    add(
        "--most",
        action="append",
        default=[],
        metavar="NAME=VALUE,...",
        help="highest limits that a worker may ask for: " + ", ".join(BOUNDS),
    )
    return parser


def _absolute(text: str) -> Path:
    return Path(text).absolute()


def _words(text: str) -> tuple[str, ...]:
    words = json.loads(text)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise argparse.ArgumentTypeError("no list of words as JSON")
    return tuple(words)


def _images(text: str) -> dict[str, str]:
    images = json.loads(text or "{}")
    if not isinstance(images, dict) or not all(isinstance(place, str) for place in images.values()):
        raise argparse.ArgumentTypeError("no images by name as JSON")
    return images


def _trusted(text: str) -> tuple[TrustedHost, ...]:
    trusted = []
    try:
        for entry in json.loads(text):
            certificates = entry.get("certificates")
            trusted.append(TrustedHost(entry["host"], int(entry.get("port", 443)), certificates and Path(certificates)))
    except (ValueError, TypeError, LookupError, AttributeError):
        raise argparse.ArgumentTypeError("no list of hosts as JSON") from None
    return tuple(trusted)


def _hosts(text: str) -> tuple[str, ...]:
    try:
        return tuple(map(hosts.listed, _words(text)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _most(changes: Sequence[str]) -> Limits:
    """Raises `InvalidInput`."""
    pairs = [change.partition("=") for several in changes for change in several.split(",")]
    most = limited(_MOST, {name: text for name, _, text in pairs})
    # What a command writes may all be kept.
    return replace(most, output_kept_bytes=max(most.output_kept_bytes, most.output_hard_bytes))
