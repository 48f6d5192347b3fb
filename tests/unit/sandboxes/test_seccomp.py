"""The lists of system calls, and the programs made of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from codeagent.sandboxes import seccomp, syscalls
from codeagent.sandboxes.protocol import SandboxUnavailable

NEVER = """
    ptrace process_vm_readv process_vm_writev keyctl add_key request_key bpf perf_event_open io_uring_setup
    userfaultfd mount umount2 pivot_root move_mount open_tree fsopen unshare setns kexec_load init_module
    finit_module reboot swapon open_by_handle_at name_to_handle_at clone3 socket socketpair personality chroot
    pidfd_getfd kcmp acct quotactl settimeofday clock_settime iopl ioperm syslog vhangup
"""


def test_no_call_is_both_allowed_and_denied_or_named_twice() -> None:
    assert not set(syscalls.ALLOWED) & set(syscalls.DENIED)
    assert len(set(syscalls.ALLOWED)) == len(syscalls.ALLOWED)
    assert len(set(syscalls.DENIED)) == len(syscalls.DENIED)


@pytest.mark.parametrize("name", NEVER.split())
def test_dangerous_calls_are_not_allowed_whatever_their_arguments(name: str) -> None:
    assert name not in syscalls.ALLOWED


def test_only_harmless_socket_families_are_allowed() -> None:
    assert syscalls.SOCKET_FAMILIES == (1, 2, 10)


def test_programs_are_written_whole_and_readable(tmp_path: Path) -> None:
    paths = seccomp.write_programs(tmp_path)
    first = [path.read_bytes() for path in paths]
    assert all(data and len(data) % 8 == 0 for data in first)
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in paths)
    assert [path.read_bytes() for path in seccomp.write_programs(tmp_path)] == first
    assert len(list(tmp_path.iterdir())) == 2


def test_a_missing_library_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    with pytest.raises(SandboxUnavailable, match="apt-get install libseccomp2"):
        seccomp.write_programs(tmp_path)
