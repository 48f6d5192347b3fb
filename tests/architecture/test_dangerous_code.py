"""Nothing in the package evaluates text, unpickles, starts a shell, parses XML or uses a broken hash, and no secret is
written down in the repository."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DANGEROUS = re.compile(
    r"(eval|exec|compile|__import__|os\.(system|popen|exec\w+|spawn\w+)|pickle\.\w+|marshal\.\w+|shelve\.\w+"
    r"|yaml\.(load|unsafe_load|full_load)|tempfile\.mktemp|ssl\._create_unverified_context"
    r"|hashlib\.(md5|sha1|new)|random\.\w+|jose_jwt\.\w+|uuid\.uuid[13])"
)
DANGEROUS_MODULES = {"pickle", "marshal", "shelve", "telnetlib", "ftplib", "crypt", "xmlrpc", "xml", "lxml", "requests"}
ALLOWED = {
    ("codeagent/providers/repair/mend", "exec"): "inside a sandbox: it runs the tests of whoever asked for it",
    ("codeagent/providers/repair/mend", "compile"): "as above",
    ("codeagent/sandboxes/inside/pod.py", "os.execvpe"): "inside a sandbox: it becomes the command it was sent for",
    ("codeagent/identity/jwt.py", "jose_jwt.encode"): "the one place that knows the library",
    ("codeagent/identity/jwt.py", "jose_jwt.decode"): "as above",
    ("codeagent/sandboxes/patch_text.py", "hashlib.sha1"): "git names its objects so, and nothing is trusted for it",
    ("codeagent/sandboxes/inside/forward.py", "os.execvp"): "inside a sandbox: it becomes the command",
    ("codeagent/telemetry/traces.py", "random.getrandbits"): "ids of traces are no secrets",
    ("codeagent/edge/sse.py", "random.randint"): "spreads reconnects",
    ("codeagent/providers/retry.py", "random.uniform"): "spreads load",
    ("codeagent/workers/resting.py", "random.uniform"): "spreads load",
    ("codeagent/cli/patience.py", "random.random"): "spreads retries",
    ("codeagent/embedded/ports.py", "random.randint"): "a port is no secret",
    ("codeagent/relay/sweeps.py", "random.uniform"): "spreads load",
    ("codeagent/secrets/vault.py", "random.uniform"): "spreads load",
    ("codeagent/cli/sandboxd.py", "os.execve"): "our own program, so that the helper has nothing of its caller",
}
"""Where such a call is right, and why."""


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    for path in sorted((ROOT / "codeagent").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path.relative_to(ROOT).as_posix(), ast.unparse(node.func), node


def allowed(path: str, call: str) -> bool:
    return any(path.startswith(place) and call == name for place, name in ALLOWED)


def test_nothing_dangerous_is_called() -> None:
    found, used = [], set()
    for path, call, node in calls():
        shell = [word for word in node.keywords if word.arg == "shell" and ast.unparse(word.value) != "False"]
        blind = [word for word in node.keywords if word.arg == "verify" and ast.unparse(word.value) == "False"]
        if not (DANGEROUS.fullmatch(call) or shell or blind):
            continue
        if allowed(path, call):
            used |= {key for key in ALLOWED if path.startswith(key[0]) and call == key[1]}
        else:
            found.append(f"{path}:{node.lineno} {call}")
    assert found == []
    assert used == set(ALLOWED), "no longer needed"


def test_nothing_dangerous_is_imported() -> None:
    for path in sorted((ROOT / "codeagent").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & DANGEROUS_MODULES, path


SECRET = re.compile(
    r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\n[A-Za-z0-9+/=\n]{64}"
    r"|\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{24,}|\bgh[pousr]_[A-Za-z0-9]{30,}|\bAKIA[0-9A-Z]{16}\b|\bxox[abprs]-[0-9A-Za-z-]{20,}"
    r"|\bAIza[0-9A-Za-z_-]{35}|\bhvs\.[A-Za-z0-9_-]{20,}|\bc(?:ak|rt|ac|st|as)_[A-Za-z0-9_-]{40,}"
    r"|\beyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}|glpat-[A-Za-z0-9_]{20}"
)


def test_no_secret_is_written_down() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    found = []
    for name in listed.decode().split("\0"):
        path = ROOT / name
        if not name or not path.is_file() or path.stat().st_size > 5_000_000:
            continue
        found += [f"{name}: {match.group()[:12]}..." for match in SECRET.finditer(path.read_text(errors="replace"))]
    assert found == []


def test_a_secret_would_be_found() -> None:
    for secret in ("sk-ant-" + "a1" * 20, "AKIA" + "A1B2" * 4, "cak_" + "x1" * 25, "ghp_" + "a1" * 18):
        assert SECRET.search(f'key = "{secret}"')
