"""Workspaces: what they begin as, what changed in them, and how they are restored elsewhere."""

from __future__ import annotations

import asyncio
import io
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.protocol import UNCHANGED, SandboxFailure, Workspace
from tests.integration.sandboxes.support import LIMITS, archive, python, shell


def tree(workspace: Workspace) -> dict[str, tuple[str, bytes]]:
    """Every file of the workspace as the host sees it: path -> (mode, content)."""
    root = workspace.files  # type: ignore[attr-defined]
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(root))] = ("link", bytes(path.readlink()))
        elif path.is_file():
            found[str(path.relative_to(root))] = (oct(path.stat().st_mode & 0o111), path.read_bytes())
    return found


CHANGES = r"""
import os
def write(path, data, mode=0o644):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    open(path, "wb").write(data); os.chmod(path, mode)
write("changed.py", b"x = 2\n")
write("crlf.txt", b"one\r\ntwo\r\nthree\n")
write("keyword.txt", b"$Id: something $\n$Id$\n")
write("utf16.txt", "text".encode("utf-16"))
write("utf8-declared-utf16.txt", b"plain bytes\n")
write("script.sh", b"#!/bin/sh\n", 0o755)
write("no-newline", b"no newline at the end")
write("empty", b"")
write("binary", bytes(range(256)) * 40)
write("deep/er/and/deeper", b"x\n")
write("a name with spaces", b"x\n")
write("t\xc3\xa9l\xc3\xa9 \"quoted\" back\\slash", b"x\n")
write("looks like a header", b"diff --git a/etc/passwd b/etc/passwd\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n")
write("-rf", b"x\n")
write("ignored-but-tracked.log", b"changed\n")
os.remove("deleted"); os.remove("link")
os.chmod("becomes-executable", 0o755)
os.remove("becomes-a-directory"); write("becomes-a-directory/file", b"x\n")
write("big-text", b"".join(b"%d\n" % i for i in range(20000) if i % 97))
"""


@pytest.fixture
def varied(tmp_path: Path) -> Path:
    path = tmp_path / "varied.tar.gz"
    files = {
        ".gitattributes": b"*.txt text eol=crlf ident\nutf16.txt working-tree-encoding=UTF-16\n* filter=evil diff=evil\n"
        b"utf8-declared-utf16.txt working-tree-encoding=UTF-16\nbinary -diff\n",
        ".gitignore": b"*.log\nignored/\n",
        "changed.py": b"x = 1\n",
        "kept.txt": b"mixed\r\nline\nendings\r\n",
        "deleted": b"gone soon\n",
        "becomes-executable": b"#!/bin/sh\n",
        "becomes-a-directory": b"x\n",
        "ignored-but-tracked.log": b"original\n",
        "big-text": b"".join(b"%d\n" % i for i in range(20000)),
    }
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "changed.py"
        tar.addfile(link)
    return path


async def test_a_workspace_restored_from_its_diff_is_the_same_byte_for_byte(
    driver: BubblewrapDriver, varied: Path
) -> None:
    first = await driver.open("first", varied, b"", LIMITS)
    assert (await driver.diff(first, LIMITS)).text == b""
    record = await python(driver, first, CHANGES)
    assert record.exit_code == 0, record.stderr
    patch = await driver.diff(first, LIMITS)
    second = await driver.open("second", varied, patch.text, LIMITS)
    assert tree(second) == tree(first)
    assert await driver.diff(second, LIMITS) == patch
    assert {"changed.py", "deleted", "link", "binary", "becomes-a-directory/file"} <= set(patch.files)


async def test_new_ignored_files_are_left_out_but_ignored_base_files_are_not(
    driver: BubblewrapDriver, varied: Path
) -> None:
    workspace = await driver.open("ignored", varied, b"", LIMITS)
    leavings = "mkdir -p empty deep/__pycache__; touch deep/__pycache__/x.pyc deep/new"
    await shell(
        driver,
        workspace,
        f"mkdir ignored; touch ignored/x ignored/y new.log; echo y > ignored-but-tracked.log; touch new; {leavings}",
    )
    patch = await driver.diff(workspace, LIMITS)
    assert patch.files == ("deep/new", "ignored-but-tracked.log", "new")
    assert patch.left_out == ("ignored/", "new.log")


async def test_of_very_many_ignored_files_the_first_are_told(driver: BubblewrapDriver, varied: Path) -> None:
    workspace = await driver.open("many", varied, b"", LIMITS)
    await shell(driver, workspace, "seq -f 'n%g.log' 2000 | xargs touch; echo kept > kept")
    patch = await driver.diff(workspace, LIMITS)
    assert (patch.files, len(patch.left_out)) == (("kept",), 1000)


async def test_of_modes_the_executable_bit_is_kept_and_nothing_else(driver: BubblewrapDriver, varied: Path) -> None:
    workspace = await driver.open("modes", varied, b"", LIMITS)
    await shell(
        driver, workspace, "echo x > run; chmod 0711 run; echo y > secret; chmod 0600 secret; chmod +x changed.py"
    )
    states = (await driver.diff(workspace, LIMITS)).states
    assert {path: state.mode for path, state in states.items()} == {
        "changed.py": "100755",
        "run": "100755",
        "secret": "100644",
    }
    assert states["changed.py"].blob == UNCHANGED


SAME_SIZE_AND_TIME = "for f in file*; do cp -p $f /tmp/t; printf 'bbbb\\n' > $f; touch -r /tmp/t $f; done"


async def test_a_change_of_the_same_size_and_time_is_seen(driver: BubblewrapDriver, tmp_path: Path) -> None:
    files = {f"file{number}": b"aaaa\n" for number in range(5)}
    for attempt in range(8):
        await asyncio.sleep(1.0 - time.time() % 1.0)
        workspace = await driver.open(f"racy {attempt}", archive(tmp_path, files), b"", LIMITS)
        assert (await shell(driver, workspace, SAME_SIZE_AND_TIME)).exit_code == 0
        made, changed = (workspace.base / "index").stat().st_mtime, (workspace.files / "file0").stat().st_ctime  # type: ignore[attr-defined]
        await asyncio.sleep(1.1)
        assert (await driver.diff(workspace, LIMITS)).files == tuple(sorted(files))
        if int(made) == int(changed):
            return  # within one second, which is as fine as git looks: the hard case was seen
    pytest.skip("this machine is too busy to change a file within a second of its workspace's start")


async def test_a_change_of_the_same_size_and_time_is_seen_later_too(driver: BubblewrapDriver, tmp_path: Path) -> None:
    workspace = await driver.open("later", archive(tmp_path, {"file": b"aaaa\n"}), b"", LIMITS)
    await asyncio.sleep(2.1)
    assert (await shell(driver, workspace, SAME_SIZE_AND_TIME)).exit_code == 0
    assert (await driver.diff(workspace, LIMITS)).files == ("file",)


HOSTILE_GIT = r"""
mkdir -p hooks
cat > evil.sh <<'END'
#!/bin/sh
touch /tmp/evil /workspace/evil-ran 2>/dev/null; echo "evil ran" >&2; cat
END
chmod +x evil.sh
git init -q . 2>/dev/null
cat > .git/config <<'END'
[core]
    repositoryformatversion = 0
    fsmonitor = /workspace/evil.sh
    hooksPath = /workspace/hooks
    attributesFile = /workspace/.gitattributes
    sshCommand = /workspace/evil.sh
[filter "evil"]
    clean = /workspace/evil.sh
    smudge = /workspace/evil.sh
    process = /workspace/evil.sh
    required = true
[diff "evil"]
    command = /workspace/evil.sh
    textconv = /workspace/evil.sh
[diff]
    external = /workspace/evil.sh
END
cp .git/config .gitconfig
for hook in pre-commit post-index-change post-checkout fsmonitor-watchman; do cp evil.sh hooks/$hook; cp evil.sh .git/hooks/$hook; done
echo '* filter=evil diff=evil merge=evil' > .gitattributes
echo '* filter=evil' > .git/info/attributes
echo x > victim
"""


async def test_nothing_a_workspace_holds_runs_when_it_is_diffed(driver: BubblewrapDriver, workspace: Workspace) -> None:
    record = await shell(driver, workspace, HOSTILE_GIT)
    assert record.exit_code == 0, record.stderr
    patch = await driver.diff(workspace, LIMITS)
    assert "victim" in patch.files
    assert not any(path.startswith(".git/") for path in patch.files)
    assert "evil-ran" not in tree(workspace)
    # The same traps do spring for a git that reads the workspace's own repository; otherwise this test shows nothing.
    await shell(driver, workspace, "git status; git diff; git add -A")
    assert "evil-ran" in tree(workspace)


async def test_a_nested_repository_is_refused_rather_than_left_out(
    driver: BubblewrapDriver, workspace: Workspace
) -> None:
    make = "mkdir sub && cd sub && git init -q . && echo x > y && git add y && git commit -qm x"
    assert (await shell(driver, workspace, make)).exit_code == 0
    assert (await shell(driver, workspace, f"cd sub; {HOSTILE_GIT}")).exit_code == 0
    with pytest.raises(SandboxFailure, match="sub") as caught:
        await driver.diff(workspace, LIMITS)
    assert (caught.value.reason, caught.value.retryable) == ("patch_refused", False)
    assert "evil-ran" not in tree(workspace)


async def test_an_empty_nested_repository_is_refused_too(driver: BubblewrapDriver, workspace: Workspace) -> None:
    await shell(driver, workspace, "mkdir sub && cd sub && git init -q . && echo x > y")
    with pytest.raises(SandboxFailure, match="sub") as caught:
        await driver.diff(workspace, LIMITS)
    assert (caught.value.reason, caught.value.retryable) == ("patch_refused", False)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("ln -s /etc/passwd link", "patch_refused"),
        ("touch \"$(printf 'new\\nline')\"", "patch_refused"),
        ("touch \"$(printf 'bad\\377')\"", "patch_refused"),
        ("touch \"$(printf '\\342\\200\\256bidi')\"", "patch_refused"),
        ("mkdir 'git~1' && touch 'git~1/config'", "patch_refused"),
        ("i=0; while [ $i -lt 501 ]; do echo $i > f$i; i=$((i+1)); done", "patch_too_large"),
        ("head -c 6M /dev/urandom > noise", "patch_too_large"),
        ("head -c 40M /dev/zero > zeros", "patch_too_large"),
    ],
)
async def test_what_cannot_be_a_patch_is_refused_with_a_reason(
    driver: BubblewrapDriver, workspace: Workspace, script: str, reason: str
) -> None:
    assert (await shell(driver, workspace, script)).exit_code == 0
    with pytest.raises(SandboxFailure) as caught:
        await driver.diff(workspace, LIMITS)
    assert (caught.value.reason, caught.value.retryable) == (reason, False)


async def test_a_patch_that_does_not_fit_is_refused(driver: BubblewrapDriver, tmp_path: Path) -> None:
    patch = b"diff --git a/README b/README\n--- a/README\n+++ b/README\n@@ -1 +1 @@\n-other\n+text\n"
    index = b"index " + b"0" * 40 + b".." + b"1" * 40 + b" 100644\n"
    patch = patch.replace(b"--- a", index + b"--- a")
    with pytest.raises(SandboxFailure) as caught:
        await driver.open("conflict", archive(tmp_path, {"README": b"hello\n"}), patch, LIMITS)
    assert (caught.value.reason, caught.value.retryable) == ("patch_conflict", False)


async def test_opening_again_starts_afresh_and_ends_what_ran(driver: BubblewrapDriver, tmp_path: Path) -> None:
    source = archive(tmp_path, {"README": b"hello\n"})
    first = await driver.open("same", source, b"", LIMITS)
    running = asyncio.ensure_future(shell(driver, first, "touch old; sleep 60"))
    await asyncio.sleep(0.3)
    second = await driver.open("same", source, b"", LIMITS)
    assert (await running).reason == "canceled"
    assert set(tree(second)) == {"README"}
    with pytest.raises(SandboxFailure, match="closed"):
        await driver.read_file(first, "README", 10)
    await driver.close(first)
    assert await driver.read_file(second, "README", 10) == b"hello\n"


async def test_an_archive_larger_than_the_workspace_is_refused(driver: BubblewrapDriver, tmp_path: Path) -> None:
    source = archive(tmp_path, {"a": b"x" * 3_000_000, "b": b"y" * 3_000_000})
    with pytest.raises(SandboxFailure) as caught:
        await driver.open("big", source, b"", replace(LIMITS, workspace_bytes=4 << 20))
    assert (caught.value.reason, caught.value.retryable) == ("archive_refused", False)


async def test_cancelling_an_opening_leaves_nothing(driver: BubblewrapDriver, state_dir: Path, tmp_path: Path) -> None:
    source = archive(tmp_path, {f"f{i}": b"x" * 1000 for i in range(500)})
    for moment in (0.0, 0.01, 0.03, 0.06, 0.1):
        opening = asyncio.ensure_future(driver.open("cancelled", source, b"", LIMITS))
        await asyncio.sleep(moment)
        opening.cancel()
        try:
            await opening
        except asyncio.CancelledError:
            assert list((state_dir / "workspaces").iterdir()) == []


async def test_files_written_by_the_driver_belong_to_the_command(
    driver: BubblewrapDriver, workspace: Workspace
) -> None:
    await driver.write_file(workspace, "new/dir/file", b"one")
    record = await shell(driver, workspace, "echo more >> new/dir/file; rm README; stat -c '%U %a' new new/dir/file")
    assert (record.exit_code, record.stdout) == (0, b"agent 755\nagent 644\n")
    assert await driver.read_file(workspace, "new/dir/file", 100) == b"onemore\n"


async def test_links_are_not_followed_out(driver: BubblewrapDriver, workspace: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "victim"
    target.write_text("host file")
    await shell(driver, workspace, f"ln -s {target} file; ln -s {tmp_path} dir; ln -s README inner; mkfifo pipe")
    for path in ("file", "dir/victim", "inner", "pipe", "."):
        with pytest.raises(SandboxFailure) as read:
            await driver.read_file(workspace, path, 100)
        with pytest.raises(SandboxFailure) as written:
            await driver.write_file(workspace, path, b"overwritten")
        assert (read.value.reason, written.value.reason) == ("not_a_file", "not_a_file")
    assert target.read_text() == "host file"


async def test_links_swapped_in_while_the_driver_writes_lead_nowhere(
    driver: BubblewrapDriver, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    script = f"""
    while true; do
      mkdir d; rmdir d; ln -s {tmp_path}/outside d; rm d; mkdir -p d; rm -rf d
    done 2>/dev/null"""
    race = asyncio.ensure_future(shell(driver, workspace, script, replace(LIMITS, wall_seconds=2.0)))
    ended = time.monotonic() + 1.5
    while time.monotonic() < ended:
        try:
            await driver.write_file(workspace, "d/e/f", b"x")
        except SandboxFailure as failure:
            assert failure.reason in ("no_such_file", "not_a_file")
    await race
    assert list((tmp_path / "outside").iterdir()) == []
    assert (tmp_path / "outside").stat().st_uid == 0


async def test_the_base_cannot_be_changed_once_commands_run(driver: BubblewrapDriver, workspace: Workspace) -> None:
    base = workspace.base  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="Read-only"):
        (base / "config").write_text("[core]\n\tfsmonitor = /bin/sh\n")
    record = await shell(driver, workspace, "ls /base.git; find / -name '*.git' -path '*base*' 2>/dev/null")
    assert record.stdout == b""


async def test_a_repository_of_fifty_files_is_diffed_quickly(driver: BubblewrapDriver, tmp_path: Path) -> None:
    files = {f"src/module{number}.py": b"value = 1\n" * 50 for number in range(50)}
    workspace = await driver.open("fifty", archive(tmp_path, files), b"", LIMITS)
    await driver.write_file(workspace, "src/module7.py", b"value = 2\n")
    times = []
    for _ in range(10):
        began = time.perf_counter()
        await driver.diff(workspace, LIMITS)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.25  # a bar for a busy machine; about 0.025 when it is idle
