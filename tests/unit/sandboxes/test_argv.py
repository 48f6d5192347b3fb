"""The command line a sandbox is started with: what it always says, and what it can never say."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeagent.sandboxes import argv, processes, rootfs
from codeagent.sandboxes.box import Bind, Box, Link, Surroundings
from codeagent.sandboxes.protocol import Limits

AROUND = Surroundings(
    top_level=(Bind(Path("/usr"), "/usr"), Link("usr/bin", "/bin")),
    etc=Path("/state/etc"),
    masks=((Path("/state/shared/empty"), "/proc/kallsyms"),),
    tools=(Bind(Path("/state/runtime"), "/opt/python"),),
    environment={"PATH": "/usr/bin"},
)


def build(box: Box | None = None) -> list[str]:
    box = box or Box(command=("echo", "--bind", "/etc", "/workspace/x"), workspace=Path("/state/w1/files"))
    return argv.build("/usr/bin/bwrap", box, AROUND, status=9, filters=[7, 8])


def options(words: list[str]) -> list[str]:
    return words[: words.index("--")]


def targets(words: list[str]) -> dict[str, str]:
    """What is mounted where: target -> option."""
    found = {}
    for position, word in enumerate(options(words)):
        if word in ("--bind", "--ro-bind"):
            found[words[position + 2]] = word
        elif word in ("--tmpfs", "--proc", "--dev"):
            found[words[position + 1]] = word
    return found


def test_every_namespace_is_asked_for_by_name_and_none_is_optional() -> None:
    words = options(build())
    for name in ("user", "ipc", "pid", "net", "uts", "cgroup"):
        assert f"--unshare-{name}" in words
    assert "--unshare-all" not in words
    assert not any(word.endswith("-try") for word in words)


def test_privileges_cannot_come_back() -> None:
    words = options(build())
    assert words[words.index("--cap-drop") + 1] == "ALL"
    assert {"--disable-userns", "--new-session", "--die-with-parent", "--clearenv"} <= set(words)
    assert words[words.index("--uid") + 1] != "0"
    assert "--cap-add" not in words
    assert "--share-net" not in words


def test_both_filters_and_the_status_are_passed() -> None:
    words = options(build())
    assert [words[i + 1] for i, word in enumerate(words) if word == "--add-seccomp-fd"] == ["7", "8"]
    assert words[words.index("--json-status-fd") + 1] == "9"


def test_the_root_is_made_read_only_after_the_last_mount() -> None:
    words = options(build())
    last_mount = max(
        i for i, word in enumerate(words) if word in ("--bind", "--ro-bind", "--tmpfs", "--symlink", "--dir")
    )
    root = [i for i, word in enumerate(words) if word == "--remount-ro" and words[i + 1] == "/"]
    assert len(root) == 1
    assert root[0] > last_mount
    dev = words.index("--remount-ro")
    assert words[dev + 1] == "/dev"
    assert dev > words.index("/dev/shm")


def test_only_the_workspace_is_writable_and_only_if_asked_for() -> None:
    assert [target for target, option in targets(build()).items() if option == "--bind"] == ["/workspace"]
    box = Box(command=("true",), workspace=Path("/state/w1/files"), writable=False)
    assert "--bind" not in targets(build(box)).values()


def test_nothing_is_mounted_below_what_a_command_can_write() -> None:
    for target in targets(build()):
        for writable in ("/workspace", "/tmp", "/home/agent"):
            assert not target.startswith(writable + "/")


@pytest.mark.parametrize(
    "target",
    ["/workspace", "/workspace/.git", "/workspace/a/../b", "/tmp/x", "/home/agent/.cache", "relative", "/", "/opt/.."],
)
def test_a_mount_that_could_be_redirected_from_inside_is_refused(target: str) -> None:
    box = Box(command=("true",), workspace=Path("/state/w1/files"), binds=(Bind(Path("/state/x"), target),))
    with pytest.raises(ValueError, match="nothing may be mounted"):
        build(box)


def test_no_host_path_is_shown_but_the_named_ones() -> None:
    words = options(build())
    sources = {words[i + 1] for i, word in enumerate(words) if word in ("--bind", "--ro-bind")}
    assert sources == {"/usr", "/state/etc", "/state/shared/empty", "/state/runtime", "/state/w1/files"}


def test_what_looks_like_an_option_in_a_command_is_none() -> None:
    words = build()
    assert words[words.index("--") + 1 :] == [
        "/bin/sh", "-c", 'exec "$@"', "sh", "echo", "--bind", "/etc", "/workspace/x",
    ]  # fmt: skip


def test_a_limit_without_groups_is_set_inside() -> None:
    words = build(Box(command=("true",), workspace=Path("/w"), max_processes=11))
    assert words[words.index("--") + 3] == 'ulimit -p 11 && exec "$@"'


def test_memory_file_systems_are_limited() -> None:
    words = options(build(Box(command=("true",), workspace=Path("/w"), tmp_bytes=12345)))
    for place in ("/tmp", "/dev/shm", "/home/agent"):
        position = words.index(place)
        assert words[position - 1] == "--tmpfs"
        assert words[position - 5] == "--size"
    assert words[words.index("/tmp", words.index("12345")) - 4] == "12345"


def test_the_environment_is_the_drivers_and_the_commands_own_wins() -> None:
    words = options(build(Box(command=("true",), workspace=Path("/w"), environment={"PATH": "/mine", "A": "b c"})))
    pairs = [(words[i + 1], words[i + 2]) for i, word in enumerate(words) if word == "--setenv"]
    assert pairs == [("PATH", "/mine"), ("A", "b c")]


def test_the_launcher_joins_the_groups_before_it_gives_up_root() -> None:
    join = [Path("/sys/fs/cgroup/a b/cgroup.procs")]
    shell, flag, script, _ = processes.prelude(join, 200_001, Limits(), bound_data=False)
    lines = script.splitlines()
    assert (shell, flag) == ("/bin/sh", "-ec")
    assert lines[0] == "echo $$ >'/sys/fs/cgroup/a b/cgroup.procs' || exit 125"
    assert lines[-1].startswith("exec setpriv --reuid=200001 --regid=200001 --clear-groups")
    assert {"--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"} <= set(lines[-1].split())
    assert "ulimit -d" not in script


def test_without_groups_each_process_is_limited_instead() -> None:
    script = processes.prelude((), None, Limits(memory_bytes=64 << 20), bound_data=True)[2]
    assert "ulimit -d 65536" in script
    assert "setpriv" not in script


def test_a_limit_is_never_above_the_workers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.resource, "getrlimit", lambda _kind: (100, 100))
    script = processes.prelude((), None, Limits(open_files=1024), bound_data=False)[2]
    assert "ulimit -n 100" in script


def test_the_first_closed_directory_on_the_way_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "deep").mkdir(parents=True)
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 1:
            assert rootfs.unreachable(closed / "deep") is not None
            return
    closed.chmod(0o700)
    assert rootfs.unreachable(closed / "deep") == closed


def test_a_parked_sandbox_is_isolated_before_it_is_told_anything() -> None:
    words = options(argv.parked("/usr/bin/bwrap", status=9, filters=[7, 8], told=5))
    for name in ("user", "ipc", "pid", "net", "uts", "cgroup"):
        assert f"--unshare-{name}" in words
    assert {"--disable-userns", "--new-session", "--die-with-parent", "--json-status-fd"} <= set(words)
    assert words.count("--add-seccomp-fd") == 2
    assert words[-2:] == ["--args", "5"]
    assert targets([*words, "--"]) == {}


def test_a_parked_sandbox_is_told_what_another_is_started_with_and_the_command_last() -> None:
    box = Box(command=("echo", "a b", "it's"), workspace=Path("/state/w1/files"), max_processes=5)
    *told, name, command, end = argv.told_to_parked(box, AROUND).decode().split("\0")
    *fixed, unfinished, mode, _, _ = options(argv.parked("/usr/bin/bwrap", status=9, filters=[7, 8], told=5))
    assert [unfinished, mode, *told[:2]] == ["--perms", "0755", "--dir", "/run"]
    assert [*fixed, *told[2:-1]] == options(build(box))
    assert (told[-1], name, end) == ("--setenv", argv.COMMAND, "")
    assert command == """ulimit -p 5 && exec echo 'a b' 'it'"'"'s'"""


def test_a_parked_sandbox_is_told_of_no_mount_that_somebody_inside_could_have_replaced() -> None:
    box = Box(command=("true",), workspace=Path("/w"), binds=(Bind(Path("/x"), "/workspace/below"),))
    with pytest.raises(ValueError, match="nothing may be mounted"):
        argv.told_to_parked(box, AROUND)
