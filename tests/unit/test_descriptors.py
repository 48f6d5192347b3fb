"""Processes that serve many have all the descriptors that they may have, whoever started them with fewer."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

_TELLS = """
import resource

async def tell(*_):
    print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""
_WORKER = """
from codeagent.cli.process import Process, run_process

async def build():
    await tell()
    raise OSError

run_process(build)
"""
_HELPER = """
from codeagent.sandboxes.sandboxd import __main__ as helper

helper._work = tell
helper.main(["--socket", "/s", "--state-dir", "/d", "--worker-uid", "1", "--worker-gid", "1"])
"""


@pytest.mark.parametrize("program", [_WORKER, _HELPER], ids=["worker", "sandboxd"])
def test_the_soft_limit_becomes_the_hard_one(program: str) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))

    done = subprocess.run(
        [sys.executable, "-c", _TELLS + program], preexec_fn=few, capture_output=True, text=True, check=False
    )
    assert "(512, 512)" in done.stdout, done.stderr
