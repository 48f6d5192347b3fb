"""Features that an operator has switched off, as clients meet them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openfeature import api as openfeature

from codeagent.flags import evaluation, file_provider
from codeagent.flags.evaluation import Features, features_of
from codeagent.flags.file_provider import FileProvider
from codeagent.messages.commands import CancelRun
from tests.integration.edge.conftest import Api
from tests.integration.edge.test_sessions import SOURCE, Work, begin, digest, say

GIT = {"task": "t", "source": {"kind": "git", "url": "https://github.com/o/r"}}


@pytest.fixture
def durable() -> bool:
    return True


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(evaluation, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(file_provider, "LOOK_EVERY_SECONDS", 0.0)
    path = tmp_path / "flags.yaml"
    path.write_text("")
    yield path
    openfeature.clear_providers()


@pytest.fixture
def features(flags: Path) -> Features:
    return features_of(FileProvider(flags))


async def test_new_runs_of_a_tenant_are_switched_off_and_on_again(api: Api, flags: Path) -> None:
    accepted = await api.submit(GIT, "k1")
    assert accepted.status_code == 202
    flags.write_text("runs_submission: {value: true, rules: [{tenants: [ten_mine], value: false}]}")
    refused = await api.submit(GIT, "k2")
    assert (refused.status_code, refused.json()["code"]) == (503, "temporary_reduced_capacity")
    assert refused.headers["retry-after"] == "30"
    assert refused.json()["retryable"] is True
    others = await api.stranger.post("/v1/runs", json=GIT, headers={"Idempotency-Key": "k1"})
    assert others.status_code == 202
    # What was accepted is not touched.
    path = accepted.headers["location"]
    assert (await api.http.get(path)).status_code == 200
    assert (await api.http.post(f"{path}/cancel")).status_code == 202
    flags.write_text("")
    assert (await api.submit(GIT, "k2")).status_code == 202


async def test_git_sources_are_switched_off_for_one_principal(api: Api, flags: Path) -> None:
    flags.write_text("git_sources: {value: true, rules: [{principals: [usr_mine], value: false}]}")
    refused = await api.submit(GIT)
    assert (refused.status_code, refused.json()["code"]) == (422, "unsupported_source")
    assert refused.json()["errors"][0]["pointer"] == "/source/kind"
    archive = {"task": "t", "source": {"kind": "archive", "digest": "sha256:" + "a" * 64}}
    assert (await api.submit(archive)).json()["code"] == "unknown_artifact"
    others = await api.stranger.post("/v1/runs", json=GIT, headers={"Idempotency-Key": "k1"})
    assert others.status_code == 202


async def test_messages_of_sessions_are_submissions_too(api: Api, flags: Path) -> None:
    session_id = await begin(api)
    flags.write_text("runs_submission: {value: false}")
    refused = await say(api, session_id, "t", source=SOURCE)
    assert (refused.status_code, refused.json()["code"]) == (503, "temporary_reduced_capacity")
    flags.write_text("git_sources: {value: false}")
    refused = await say(api, session_id, "t", source=SOURCE)
    assert (refused.status_code, refused.json()["code"]) == (422, "unsupported_source")
    flags.write_text("")
    assert (await say(api, session_id, "t", source=SOURCE)).status_code == 202


async def test_the_repository_of_a_project_is_a_git_source(api: Api, flags: Path) -> None:
    wanted = {"name": "shop", "repository": SOURCE["url"]}
    project = (await api.http.post("/v1/projects", json=wanted, headers={"Idempotency-Key": "p"})).json()["id"]
    flags.write_text("git_sources: {value: false}")
    refused = await api.submit({"task": "t", "project_id": project})
    assert (refused.status_code, refused.json()["code"]) == (422, "unsupported_source")
    flags.write_text("")
    assert (await api.submit({"task": "t", "project_id": project})).status_code == 202


async def test_a_session_goes_on_with_its_files_and_fetches_none_that_it_never_had(api: Api, flags: Path) -> None:
    session_id = await begin(api)
    await say(api, session_id, "one", source=SOURCE)
    work = Work(api)
    await work.take(CancelRun(run_id=work.submit.run_id))
    await work.take(work.submit)
    flags.write_text("git_sources: {value: false}")
    refused = await say(api, session_id, "two")
    assert (refused.status_code, refused.json()["code"]) == (422, "unsupported_source")
    flags.write_text("")
    assert (await say(api, session_id, "two")).status_code == 202
    await Work(api).whole(digest("1"), "done")
    flags.write_text("git_sources: {value: false}")
    assert (await say(api, session_id, "three")).status_code == 202
