"""Root file systems as images: which are refused, and what of them is shown. Nothing of one is followed on the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from codeagent.sandboxes import images
from codeagent.sandboxes.box import Bind, Link, Surroundings
from codeagent.sandboxes.protocol import SandboxUnavailable

MACHINE = Surroundings(
    top_level=(Bind(Path("/usr"), "/usr"),),
    etc=Path("/state/etc"),
    masks=((Path("/state/empty"), "/proc/keys"),),
    tools=(Bind(Path("/state/python"), "/opt/python"),),
    environment={"PATH": "/opt/python/bin:/usr/bin", "HOME": "/home/agent", "LD_LIBRARY_PATH": "/opt/python/shared"},
)
PINNED = "registry.example/go@sha256:" + "0" * 64


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where every user of the machine can pass."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def root(folder: Path) -> Path:
    made = folder / "root"
    for name in ("bin", "usr", "etc", "opt", "dev", "proc", "home", "var"):
        (made / name).mkdir(parents=True)
    return made


@pytest.fixture
def secret(folder: Path) -> Path:
    """A directory of the machine that an image leads to."""
    made = folder / "secret"
    made.mkdir()
    (made / "key").write_text("of the machine")
    return made


def faults(place: object) -> list[str]:
    return [reason.removeprefix("image go: ") for reason in images.unusable_roots({"go": str(place)})]


def seen(root: Path, folder: Path) -> Surroundings:
    return dict(images.surroundings(MACHINE, {"go": str(root)}, folder / "etc-of-images"))["go"]


def test_a_root_file_system_can_be_an_image(root: Path) -> None:
    assert faults(root) == []
    link = root.parent / "newest"
    link.symlink_to(root.name)
    assert faults(link) == []


@pytest.mark.parametrize(
    ("place", "fault"), [(PINNED, "it has to be the absolute path"), ("/nowhere/at/all", "no dir")]
)
def test_what_is_no_directory_of_this_machine_is_refused(place: str, fault: str) -> None:
    [told] = faults(place)
    assert fault in told


def test_a_directory_without_programs_is_no_root_file_system(folder: Path) -> None:
    assert faults(folder) == [f"{folder} is no root file system: it has no /bin"]
    (folder / "file").touch()
    assert faults(folder / "file") == [f"{folder / 'file'} is not a directory"]


def test_an_image_that_others_can_change_is_refused(root: Path) -> None:
    root.chmod(0o777)
    assert faults(root) == [f"others may write to {root}: chmod go-w {root}"]
    root.chmod(0o755)
    root.parent.chmod(0o775)
    assert faults(root) == [f"others may write to {root.parent}: chmod go-w {root.parent}"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away, and has slot users")
def test_an_image_is_roots_and_slot_users_reach_it(root: Path) -> None:
    os.chown(root, 65_534, 65_534)
    assert faults(root) == [f"{root} is not root's: chown root {root}"]
    os.chown(root, 0, 0)
    root.parent.chmod(0o700)
    assert faults(root) == [f"slot users cannot reach it: chmod o+x {root.parent}"]


def test_a_container_engine_takes_pinned_references_only() -> None:
    assert images.unusable_references({"go": PINNED, "id": "sha256:" + "0" * 64}) == []
    [told] = images.unusable_references({"go": "/srv/images/go"})
    assert told.startswith("image go: a container engine takes it pinned")


def test_top_level_directories_are_shown_but_for_the_sandboxs_own(root: Path, folder: Path, secret: Path) -> None:
    (root / "lib").symlink_to("usr/lib")
    (root / "leak").symlink_to(secret)
    (root / "file").write_text("not shown")
    assert seen(root, folder).top_level == (
        *(Bind(root / name, f"/{name}") for name in ("bin",)),
        Link(str(secret), "/leak"),
        Link("usr/lib", "/lib"),
        *(Bind(root / name, f"/{name}") for name in ("opt", "usr")),
    )


def test_the_machines_tools_are_not_shown_and_the_toolchains_own_are_found(root: Path, folder: Path) -> None:
    around = seen(root, folder)
    assert (around.tools, around.masks) == ((), MACHINE.masks)
    assert around.environment == {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/home/agent"}
    for name in ("go/bin", "cargo/bin", "rustup"):
        (root / "usr/local" / name).mkdir(parents=True)
    environment = seen(root, folder).environment
    assert environment["PATH"] == "/usr/local/go/bin:/usr/local/cargo/bin:/usr/local/bin:/usr/bin:/bin"
    assert environment["RUSTUP_HOME"] == "/usr/local/rustup"


def test_etc_is_ours_and_what_everyone_may_read_of_the_images(root: Path, folder: Path) -> None:
    for name, mode in {"passwd": 0o644, "ld.so.cache": 0o644, "shadow": 0o640, "tool/settings": 0o755}.items():
        (root / "etc" / name).parent.mkdir(exist_ok=True)
        (root / "etc" / name).write_text("of the image")
        (root / "etc" / name).chmod(mode)
    (root / "etc/private").mkdir(mode=0o700)
    (root / "etc/private/key").write_text("of the image")
    (root / "etc/alternatives").mkdir()
    (root / "etc/alternatives/java").symlink_to("/usr/lib/jvm/bin/java")
    os.mkfifo(root / "etc/fifo")
    etc = seen(root, folder).etc
    assert "agent:x:1000" in (etc / "passwd").read_text()
    assert (etc / "ld.so.cache").read_text() == (etc / "tool/settings").read_text() == "of the image"
    assert (etc / "tool/settings").stat().st_mode & 0o777 == 0o755
    assert os.readlink(etc / "alternatives/java") == "/usr/lib/jvm/bin/java"
    assert not any((etc / name).exists() for name in ("shadow", "private", "fifo"))
    assert (etc / "resolv.conf").read_text() == ""


def test_no_link_of_an_image_is_followed_to_read_or_to_write(root: Path, folder: Path, secret: Path) -> None:
    (root / "etc/leak").symlink_to(secret)
    (root / "etc/key").symlink_to(secret / "key")
    (root / "etc/ssl").symlink_to(secret)
    etc = seen(root, folder).etc
    assert (etc / "leak").is_symlink()
    assert (etc / "key").is_symlink()
    assert not (etc / "ssl").is_symlink()
    assert [path.name for path in secret.iterdir()] == ["key"]
    (root / "etc/leak").unlink()
    for path in list((root / "etc").iterdir()):
        path.unlink()
    (root / "etc").rmdir()
    (root / "etc").symlink_to(secret)
    assert not (seen(root, folder).etc / "key").exists()


def test_an_etc_that_is_none_is_refused(root: Path, folder: Path) -> None:
    with (root / "etc/huge").open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(SandboxUnavailable, match="image go: its /etc has more than 64 MiB"):
        seen(root, folder)
