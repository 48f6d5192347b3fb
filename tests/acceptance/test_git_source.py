"""A run on a git repository: fetched over TLS in a sandbox of its own, from a host that the operator trusts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from codeagent.cli.client import ApiError, Client
from tests.acceptance.checks import Watched, ledgers, problems_in_log
from tests.acceptance.conversations import BROKEN, ten_tool_calls
from tests.acceptance.system import UpSystem, client
from tests.conftest import unavailable
from tests.servers.git_server import GitServer, backend, git, make_certificate
from tests.servers.model_server import ModelServer


@pytest.fixture
def server(place: Path) -> Iterator[GitServer]:
    """A repository whose fault is on the branch `broken`; the default branch has nothing to repair."""
    if shutil.which("openssl") is None or backend() is None:
        unavailable("openssl and git-http-backend are needed")
    work = place / "work"
    work.mkdir()
    git(work, "init", "-q")
    (work / "README").write_text("nothing here\n")
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "empty")
    git(work, "checkout", "-q", "-b", "broken")
    for name, text in BROKEN.items():
        (work / name).write_text(text)
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "broken")
    git(work, "checkout", "-q", "main")
    git(place, "clone", "-q", "--bare", str(work), "served/repo.git")
    with GitServer(place / "served", *make_certificate(place)) as running:
        yield running


@pytest.fixture
def trusting_system(place: Path, providers_file: Path, server: GitServer) -> Iterator[UpSystem]:
    trusted = [{"host": "localhost", "port": server.port, "certificates": str(server.certificates)}]
    environment = {"CODEAGENT_TRUSTED_GIT_HOSTS": json.dumps(trusted)}
    system = UpSystem(place / "data", "--providers", str(providers_file), **environment)
    yield system
    system.stop()


def start(api: Client, url: str, key: str, ref: str = "HEAD") -> Watched:
    source = {"kind": "git", "url": url, "ref": ref}
    run = api.submit({"task": "Do it.", "source": source, "model": "local/scripted"}, key)
    return Watched(str(run["id"]))


def followed(api: Client, watched: Watched) -> dict[str, object]:
    watched.follow(api)
    assert watched.is_contiguous_to_its_end()
    return api.run(watched.run_id)


@pytest.mark.timeout(240)
def test_a_repository_is_fetched_and_ends_in_a_patch_or_in_a_plain_refusal(
    trusting_system: UpSystem, server: GitServer, model_server: ModelServer
) -> None:
    model_server.script = ten_tool_calls()
    api = client(trusting_system)
    repaired = start(api, server.url(), "repair", "broken")
    run = followed(api, repaired)
    assert (run["status"], run["message"]) == ("completed", "add() adds again.")
    patch = api.artifact(run["artifacts"][0]["digest"]).decode()  # type: ignore[index]
    assert "-    return a - b\n+    return a + b\n" in patch
    assert any(path.startswith("/git/repo.git/info/refs") for path in server.requests)
    assert problems_in_log(trusting_system.database_url, repaired.run_id) == []

    # What the server says about others is not followed, and what it does not have is told.
    server.redirect_to = "https://localhost:1/git/repo.git"
    for path, reason in (("redirect.git", "source_refused"), ("missing.git", "source_not_found")):
        ended = followed(api, start(api, server.url(path), path))
        assert (ended["status"], ended["status_reason"]) == ("failed", reason)

    # Trust is for one host and one port.
    asked = len(server.requests)
    for url in (f"http://localhost:{server.port}/git/repo.git", "https://localhost/repo.git", "https://10.0.0.1/r.git"):
        with pytest.raises(ApiError) as caught:
            start(api, url, url)
        assert (caught.value.status, caught.value.code) == (422, "unsupported_git_url")
    assert len(server.requests) == asked
    assert ledgers(trusting_system.database_url) == {"effects": 0, "outbox": 0}
