"""Full disks at the edge: 503 until there is room, nothing half-written, and recovery without hands."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.checks import archive_of
from tests.conftest import unavailable
from tests.integration.edge.conftest import Api
from tests.integration.edge.test_api import body, code
from tests.services.postgres import PostgresCluster
from tests.services.small_disk import MakeDisk, MountedDisk, mounted

# What cannot be compressed, so that the archive is as large as it says.
ARCHIVE = archive_of({"a.txt": "".join(random.Random(7).choices("0123456789abcdef", k=800_000))})


async def upload(api: Api) -> httpx2.Response:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(ARCHIVE), 64 << 10):
            yield ARCHIVE[start : start + (64 << 10)]

    return await api.http.post("/v1/artifacts", content=pieces())


def refused(response: httpx2.Response) -> bool:
    assert (response.status_code, code(response)) == (503, "storage_full")
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["retryable"] is True
    return True


@pytest.mark.parametrize("durable", [True], indirect=True)
@pytest.mark.parametrize("leave_bytes", [200 << 10, 4 << 10], ids=["fills up on the way", "full"])
async def test_an_upload_that_the_artifacts_have_no_room_for(
    api: Api, tmp_path: Path, make_disk: MakeDisk, leave_bytes: int
) -> None:
    with make_disk(tmp_path / "artifacts") as disk:
        disk.fill(leave_bytes)
        assert refused(await upload(api))
        assert disk.files() == []
        disk.clear()
        taken = await upload(api)
        assert taken.status_code == 201
        digest = taken.json()["digest"]
        assert len(disk.files()) == 1
        disk.fill(leave_bytes)
        # What is there can be read and started from all the same.
        assert (await api.http.get(f"/v1/artifacts/{digest}")).status_code == 200
        order = {"task": "Do it.", "source": {"kind": "archive", "digest": digest}}
        assert (await api.submit(order)).status_code == 202


@pytest.mark.parametrize("durable", [True], indirect=True)
@pytest.mark.parametrize("leave_bytes", [200 << 10, 0], ids=["fills up on the way", "full"])
async def test_an_upload_that_the_temporary_files_have_no_room_for(
    api: Api, tmp_path: Path, make_disk: MakeDisk, monkeypatch: pytest.MonkeyPatch, leave_bytes: int
) -> None:
    with make_disk(tmp_path / "temporary") as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk.path))
        disk.fill(leave_bytes)
        assert refused(await upload(api))
        assert disk.files() == []
        disk.clear()
        assert (await upload(api)).status_code == 201
        assert disk.files() == []


@contextmanager
def database_on(disk: MountedDisk, cluster: PostgresCluster) -> Iterator[str]:
    """A migrated database whose tables are on that disk. The server's own log of writes is not."""
    owner = Path(cluster.sql("SHOW data_directory")).stat()
    os.chown(disk.path, owner.st_uid, owner.st_gid)
    cluster.sql(f"CREATE TABLESPACE small LOCATION '{disk.path}'")
    cluster.sql("CREATE DATABASE on_small OWNER codeagent TEMPLATE template_migrated TABLESPACE small")
    url = cluster.url("on_small")
    try:
        yield url
    finally:
        cluster.drop_database(url)
        cluster.sql("DROP TABLESPACE small")


async def test_a_run_that_the_database_has_no_room_for(
    api: Api, newest_database_url: str, postgres_18: PostgresCluster, state_dir: Path
) -> None:
    if os.geteuid() != 0:
        unavailable("mounting a small disk needs root")
    wanted = await body(api)
    with mounted(state_dir / "small", "64m") as disk, database_on(disk, postgres_18) as url:
        await api.walled.close()
        api.walled.url = url
        disk.fill()
        for _ in range(2):
            response = await api.submit(wanted)
            assert (response.status_code, code(response)) == (503, "database_unavailable")
            assert int(response.headers["retry-after"]) > 0
        assert api.handed_over == []
        disk.clear()
        taken = await api.submit(wanted)
        assert (taken.status_code, taken.headers.get("idempotent-replayed")) == (202, None)
        await api.walled.close()
