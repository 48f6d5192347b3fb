"""The copy of Python that sandboxes get."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeagent.sandboxes import runtime
from codeagent.sandboxes.protocol import SandboxUnavailable


def test_a_runtime_is_built_once_and_outdated_ones_go(tmp_path: Path) -> None:
    first = runtime.prepare(tmp_path)
    root = first.binds[0].source
    made = root.stat().st_ctime_ns
    (tmp_path / "outdated").mkdir()
    (tmp_path / ".building-left").mkdir()
    assert runtime.prepare(tmp_path) == first
    assert root.stat().st_ctime_ns == made
    assert list(tmp_path.iterdir()) == [root]
    (root / "bin" / "pytest").write_bytes(b"")  # as a power cut may leave it
    assert runtime.prepare(tmp_path) == first
    assert (root / "bin" / "pytest").read_bytes().startswith(b"#!")
    size = sum(path.lstat().st_size for path in root.rglob("*"))
    assert size < 100 << 20
    assert not (root / "lib" / runtime.VERSION / "test").exists()
    assert all(path.is_symlink() or path.stat().st_mode & 0o004 for path in root.rglob("*"))


def test_a_runtime_needs_pytest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_DISTRIBUTIONS", ("no-such-distribution",))
    with pytest.raises(SandboxUnavailable, match="pip install pytest"):
        runtime.prepare(tmp_path)
