"""A program that answers as a container engine does, without isolating anything: it refuses every word it does not know.

What `docker run` and `podman run` would set up is checked and written down; the command then runs on the machine itself,
with the mounted paths put in the place of the container's. For harmless commands only.

    container_engine.py STATE_DIR SUBCOMMAND ...

Files in STATE_DIR change what it answers: `gone` (no engine), `no-image`, `systemd`, `refuse` (a container is made but not
started), `oom` (the engine says so of every container). `runs.jsonl` holds the arguments of each `run`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

FLAGS = {"--interactive", "--init", "--read-only", "--sig-proxy=false"}
VALUES = {
    *("--pull", "--log-driver", "--name", "--label", "--network", "--ipc", "--cgroupns", "--hostname", "--cap-drop"),
    *("--security-opt", "--user", "--cgroup-parent", "--memory", "--memory-swap", "--pids-limit", "--cpus"),
    *("--shm-size", "--ulimit", "--tmpfs", "--mount", "--entrypoint", "--runtime", "--stop-timeout"),
}
REPEATED = {"--security-opt", "--ulimit", "--tmpfs", "--mount"}
IMAGE = "sha256:" + "0" * 64
NEVER = "0001-01-01T00:00:00Z"


def fail(words: str, status: int = 125) -> int:
    print(f"Error: {words}", file=sys.stderr)
    return status


def parse(words: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Options and what follows them. Raises `ValueError` for anything an engine would not take, or take twice."""
    options: dict[str, list[str]] = {}
    position = 0
    while position < len(words) and words[position].startswith("-"):
        word = words[position]
        if word not in FLAGS | VALUES or (word in options and word not in REPEATED):
            raise ValueError(f"unknown flag: {word}")
        position += 1
        if word in VALUES:
            options.setdefault(word, []).append(words[position])
            position += 1
        else:
            options[word] = []
    return options, words[position:]


def translated(word: str, places: dict[str, str]) -> str:
    """A path, or the value of a variable, as the machine knows it."""
    name, equals, value = word.partition("=")
    if equals and name.isidentifier():
        return name + equals + _outside(value, places)
    return _outside(word, places)


def _outside(text: str, places: dict[str, str]) -> str:
    for inside, outside in places.items():
        if text == inside or text.startswith(f"{inside}/"):
            return outside + text[len(inside) :]
    return text


def run(state: Path, words: list[str]) -> int:
    try:
        options, (image, *command) = parse(words)
        mounts = [dict(part.partition("=")[::2] for part in mount.split(",")) for mount in options["--mount"]]
        if any(mount.keys() - {"type", "source", "target", "readonly"} for mount in mounts):
            raise ValueError("unknown mount option")
    except ValueError as error:
        return fail(str(error))
    if image != IMAGE or (state / "no-image").exists():
        return fail("no such image")
    with (state / "runs.jsonl").open("a") as file:
        file.write(json.dumps(words) + "\n")
    container = state / options["--name"][0]
    told = {"StartedAt": NEVER, "ExitCode": 0, "OOMKilled": (state / "oom").exists()}
    container.write_text(json.dumps(told))
    if (state / "refuse").exists():
        return fail("OCI runtime error: permission denied", 126)
    places = {mount["target"]: mount["source"] for mount in mounts}
    for place in options["--tmpfs"]:
        places[place.partition(":")[0]] = tempfile.mkdtemp(dir=state)
    words = [*options["--entrypoint"], *(translated(word, places) for word in command)]
    process = subprocess.Popen(words, start_new_session=True)
    container.write_text(json.dumps({**told, "StartedAt": "2026-01-01T00:00:00Z", "Pid": process.pid}))
    code = process.wait()
    code = 128 - code if code < 0 else code
    container.write_text(json.dumps({**told, "StartedAt": "2026-01-01T00:00:00Z", "ExitCode": code}))
    return code


def kill(container: Path) -> int:
    pid = json.loads(container.read_text()).get("Pid") if container.exists() else None
    if pid is None:
        return fail("no such container, or it is not running", 1)
    os.killpg(pid, signal.SIGKILL)
    return 0


def answer(state: Path, words: list[str]) -> int:
    if (state / "gone").exists():
        return fail("cannot connect to the engine", 1)
    match words:
        case ["run", *rest]:
            return run(state, rest)
        case ["kill", "--signal", "KILL", name]:
            return kill(state / name)
        case ["rm", "--force", "--volumes", *names]:
            for name in names:
                (state / name).unlink(missing_ok=True)
            return 0
        case ["image", "inspect", image]:
            return 0 if image == IMAGE and not (state / "no-image").exists() else fail("no such image", 1)
    return tell(state, words)


def tell(state: Path, words: list[str]) -> int:
    match words:
        case ["version"] | ["--version"]:
            told = "stub engine 1"
        case ["info", "--format", "{{json .}}"]:
            told = json.dumps({"CgroupDriver": "systemd" if (state / "systemd").exists() else "cgroupfs"})
        case ["ps", "--all", "--quiet", "--no-trunc", "--filter", label] if label.startswith("label="):
            told = "\n".join(path.name for path in state.glob("codeagent-*"))
        case ["container", "inspect", name] if (state / name).exists():
            told = json.dumps([{"State": json.loads((state / name).read_text())}])
        case _:
            return fail(f"unknown: {words}", 1)
    print(told)
    return 0


if __name__ == "__main__":
    sys.exit(answer(Path(sys.argv[1]), sys.argv[2:]))
