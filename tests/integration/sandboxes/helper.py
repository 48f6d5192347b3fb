"""The privileged helper as a process of its own, as an operator starts it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from codeagent.sandboxes import runtime

READY_SECONDS = 30.0


@dataclass
class RunningHelper:
    """A helper with a directory of its own. `start` starts the next one on it."""

    directory: Path
    uid: int
    process: subprocess.Popen[bytes] | None = None
    arguments: Sequence[str] = ()

    def share_runtime(self, other: Path) -> None:
        """Takes the Python runtime of another state directory, which costs seconds to build."""
        runtime.prepare(other / "runtime")
        self.state_dir.mkdir(mode=0o711)
        shutil.copytree(other / "runtime", self.state_dir / "runtime", symlinks=True, copy_function=os.link)

    @property
    def socket(self) -> Path:
        return self.directory / "run" / "sandboxd.sock"

    @property
    def state_dir(self) -> Path:
        return self.directory / "state"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        program = [sys.executable, "-I", "-m", "codeagent.sandboxes.sandboxd"]
        where = ["--socket", str(self.socket), "--state-dir", str(self.state_dir)]
        who = ["--worker-uid", str(self.uid), "--worker-gid", str(self.uid)]
        environment = {"PATH": os.environ["PATH"]}
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*program, *where, *who, *self.arguments], env=environment, stdout=log, stderr=log
            )
        give_up_at = time.monotonic() + READY_SECONDS
        while not self.socket.exists():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < give_up_at, self.log
            time.sleep(0.01)

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)


@contextmanager
def running_helper(runtime_of: Path, uid: int | None = None, arguments: Sequence[str] = ()) -> Iterator[RunningHelper]:
    """A helper for workers of `uid`, ours unless given. It is stopped with the body, and has to leave nothing."""
    directory = Path(tempfile.mkdtemp(prefix="codeagent-helper-"))
    directory.chmod(0o711)
    (directory / "run").mkdir(mode=0o711)
    helper = RunningHelper(directory, os.geteuid() if uid is None else uid, arguments=arguments)
    try:
        helper.share_runtime(runtime_of)
        helper.start()
        yield helper
        if helper.process is not None and helper.process.poll() is None:
            assert helper.stop() == 0, helper.log
            assert list((helper.state_dir / "workspaces").iterdir()) == []
            assert not helper.socket.exists()
    finally:
        if helper.process is not None and helper.process.poll() is None:
            helper.stop(signal.SIGKILL)
        shutil.rmtree(directory)
