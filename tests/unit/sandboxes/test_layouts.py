"""Dependencies laid out on a machine: one directory an archive, as long as somebody uses it and there is room."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codeagent.sandboxes import archives
from codeagent.sandboxes import layouts as layouts_module
from codeagent.sandboxes.layouts import Layouts
from codeagent.sandboxes.protocol import Limits, SandboxFailure

LIMITS = Limits(dependencies_bytes=1 << 20)


def packed(folder: Path, name: str, size: int = 4096) -> Path:
    path = folder / f"{name}.tar.gz"
    archives.pack_files({name: name.encode() * (size // len(name))}, path, LIMITS)
    return path


def laid_out(root: Path) -> list[str]:
    return sorted(path.name for layout in root.glob("*/*") for path in layout.iterdir())


def made(root: Path, most_bytes: int = 1 << 30) -> Layouts:
    layouts = Layouts(root, most_bytes)
    layouts.prepare()
    return layouts


async def test_many_at_once_are_given_one_directory(tmp_path: Path) -> None:
    layouts, archive = made(tmp_path / "layouts"), packed(tmp_path, "a")
    found = await asyncio.gather(*(layouts.take(archive, LIMITS) for _ in range(5)))
    assert len(set(found)) == 1
    assert [path.name for path in found[0].iterdir()] == ["a"]


async def test_the_longest_unused_go_when_there_is_no_room_and_those_in_use_stay(tmp_path: Path) -> None:
    root = tmp_path / "layouts"
    layouts = made(root, most_bytes=3 * 4096)
    used = await layouts.take(packed(tmp_path, "used", 8192), LIMITS)
    for name in ("first", "second", "first", "third"):
        await layouts.give_back(await layouts.take(packed(tmp_path, name), LIMITS))
    assert laid_out(root) == ["third", "used"]
    await layouts.take(packed(tmp_path, "large", 1 << 19), LIMITS)
    await layouts.give_back(used)
    assert laid_out(root) == ["large"]


async def test_what_an_earlier_worker_laid_out_is_used_again_and_its_remains_go(tmp_path: Path) -> None:
    root, archive = tmp_path / "layouts", packed(tmp_path, "a")
    layout = await made(root).take(archive, LIMITS)
    (layout / "mark").touch()
    (layout.parent / ".half").mkdir()
    (root / "an-earlier-boot").mkdir()
    again = await made(root).take(archive, LIMITS)
    assert (again / "mark").exists()
    assert [path.name for path in root.iterdir()] == [layout.parent.name]
    assert [path.name for path in layout.parent.iterdir()] == [layout.name]


async def test_nothing_of_a_refused_archive_is_left(tmp_path: Path) -> None:
    root = tmp_path / "layouts"
    layouts, large = made(root), packed(tmp_path, "large", 1 << 19)
    with pytest.raises(SandboxFailure) as caught:
        await layouts.take(large, replace(LIMITS, dependencies_bytes=1 << 10))
    assert caught.value.reason == "archive_refused"
    assert list(root.glob("*/*")) == []
    assert laid_out(root) == []
    await layouts.take(large, LIMITS)
    assert laid_out(root) == ["large"]


async def test_an_archive_that_changes_while_it_is_read_is_not_laid_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, digest_of = tmp_path / "layouts", layouts_module._digest
    layouts, archive, other = made(root), packed(tmp_path, "a"), packed(tmp_path, "b")
    honest = archive.read_bytes()

    def digest(path: Path, *more: Any) -> str:
        found = digest_of(path, *more)
        archive.write_bytes(other.read_bytes())
        return found

    monkeypatch.setattr(layouts_module, "_digest", digest)
    with pytest.raises(SandboxFailure, match="has changed"):
        await layouts.take(archive, LIMITS)
    assert list(root.glob("*/*")) == []
    monkeypatch.undo()
    archive.write_bytes(honest)
    await layouts.take(archive, LIMITS)
    assert laid_out(root) == ["a"]


async def test_an_archive_without_end_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    archive = tmp_path / "endless.tar.gz"
    with archive.open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(SandboxFailure) as caught:
        async with asyncio.timeout(10):
            await made(tmp_path / "layouts").take(archive, LIMITS)
    assert caught.value.reason == "archive_refused"
