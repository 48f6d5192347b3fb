"""`make demo`: starts everything, repairs a repository over HTTP, proves the result, and stops."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from codeagent.cli.client import Client
from codeagent.cli.connection import find_connection
from codeagent.cli.pack import pack_tracked
from codeagent.cli.run import STATUSES, apply_patch
from codeagent.cli.screen import Screen
from codeagent.clock import new_uuid
from codeagent.embedded.directories import default_data_dir

TASK = "Make the tests pass."
READY_SECONDS = 120.0


def play(repo: Path, data_dir: Path | None, level: int) -> int:
    """0 when the run completed, the repository's tests pass with its patch, and its log verifies."""
    console = Console(highlight=False)
    directory = data_dir if data_dir is not None else default_data_dir() / "demo"
    console.rule("[bold]starting CodeAgent")
    command = [sys.executable, "-m", "codeagent", "up", "--data-dir", str(directory), "--allow-level", str(level)]
    log_path = directory / "demo.log"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with log_path.open("wb") as log:
            server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    except OSError as error:
        console.print(f"[red]{escape(str(log_path))} cannot be written: {error.strerror}[/]")
        return 1
    try:
        if not _ready(server, console):
            for line in _complaints(log_path.read_text(errors="replace")):
                console.print(line, markup=False, soft_wrap=True)
            return server.wait() or 1
        return _perform(console, directory, repo, level)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def _ready(server: subprocess.Popen[bytes], console: Console) -> bool:
    assert server.stdout is not None
    begun = time.monotonic()
    for line in server.stdout:
        text = line.decode(errors="replace").rstrip()
        console.print(text, markup=False, soft_wrap=True)
        if text.startswith("CodeAgent is ready"):
            console.print(f"[dim]ready after {time.monotonic() - begun:.1f} s[/]")
            return True
    return False


def _complaints(log: str) -> list[str]:
    """What a log has to say to people: its plain lines, and the errors among the others, each once."""
    said: dict[str, None] = {}
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            said[line] = None
            continue
        if isinstance(entry, dict) and entry.get("level") == "error":
            said[f"{entry.get('service')}: {entry.get('error') or entry.get('event')}"] = None
    return list(said)


def _perform(console: Console, directory: Path, repo: Path, level: int) -> int:
    client = Client(find_connection(directory))
    console.rule("[bold]a run")
    with tempfile.TemporaryDirectory(prefix="codeagent-demo-") as folder:
        archive = Path(folder) / "source.tar.gz"
        pack_tracked(repo, archive)
        body = {"task": TASK, "source": {"kind": "archive", "digest": client.upload(archive)}}
        run_id = client.submit(body, str(new_uuid()))["id"]
        screen = Screen(console)
        last = None
        for event in client.follow(run_id):
            screen.show(event)
            last = event if event.name in STATUSES else last
        patch = last.data["data"]["patch"] if last is not None else None
        if last is None or last.name != "run.completed" or patch is None:
            console.print("[red]the run brought no patch[/]")
            return 1
        console.rule("[bold]the patch")
        text = client.artifact(patch["digest"])
        screen.patch(text.decode(errors="replace"))
        console.rule("[bold]the repository's tests, with the patch, in a fresh sandbox")
        copy = Path(folder) / "patched"
        shutil.copytree(repo, copy, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
        apply_patch(copy, text)
        if _tests(copy, directory, level) != 0:
            console.print("[red]the tests do not pass[/]")
            return 1
    console.rule("[bold]the log")
    return _codeagent("verify", run_id, "--data-dir", str(directory))


def _tests(copy: Path, directory: Path, level: int) -> int:
    return _codeagent(
        "sandbox", "exec", "--state-dir", str(directory / "demo-sandbox"), "--workspace", str(copy),
        "--allow-level", str(level), "--", "python", "-m", "pytest", "-q",
    )  # fmt: skip


def _codeagent(*arguments: str) -> int:
    sys.stdout.flush()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.run([sys.executable, "-m", "codeagent", *arguments], check=False, env=environment).returncode
