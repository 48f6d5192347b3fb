"""Programs that attack the machine from inside a sandbox, and what becomes of them."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from codeagent.sandboxes.bwrap import BubblewrapDriver
from codeagent.sandboxes.protocol import Reason, SandboxFailure, Workspace
from tests.integration.sandboxes.support import LIMITS, archive, python, run, shell


def processes_of(uid: int) -> list[int]:
    """Pids that run as `uid`; those that have ended and only wait to be waited for do not count."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                found += [int(entry.name)] if state != "Z" else []
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def slot_of(workspace: Workspace) -> int:
    return workspace.slot_uid  # type: ignore[attr-defined, no-any-return]


async def test_a_fork_bomb_is_held_and_ended_with_the_command(driver: BubblewrapDriver, workspace: Workspace) -> None:
    limits = replace(LIMITS, processes=64, wall_seconds=2.0)
    bomb = "import os\nwhile True:\n try: os.fork()\n except OSError: pass"
    record = await python(driver, workspace, bomb, limits)
    assert record.reason is Reason.TIMEOUT
    assert "pids" in record.limits_hit
    assert processes_of(slot_of(workspace)) == []


async def test_a_memory_bomb_ends_as_out_of_memory_whichever_process_eats(
    driver: BubblewrapDriver, workspace: Workspace
) -> None:
    limits = replace(LIMITS, memory_bytes=64 << 20, tmp_bytes=1 << 20)
    bomb = "import os, time\nif os.fork() == 0:\n  x = bytearray(256 << 20)\n  os._exit(0)\ntime.sleep(15)"
    record = await python(driver, workspace, bomb, limits)
    assert record.reason is Reason.OOM
    assert record.wall_seconds < 10
    assert record.peak_memory_bytes <= 64 << 20


async def test_filling_the_disk_stops_at_the_workspace(driver: BubblewrapDriver, tmp_path: Path) -> None:
    limits = replace(LIMITS, workspace_bytes=8 << 20, workspace_inodes=200)
    workspace = await driver.open("full", archive(tmp_path), b"", limits)
    record = await shell(driver, workspace, "cat /dev/zero > big", limits)
    assert record.reason is Reason.EXIT
    assert "disk" in record.limits_hit
    assert b"No space left" in record.stderr
    record = await shell(
        driver, workspace, "rm big; i=0; while touch f$i 2>/dev/null; do i=$((i+1)); done; echo $i", limits
    )
    assert "inodes" in record.limits_hit
    assert int(record.stdout) < 200


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm", "/home/agent"])
async def test_memory_file_systems_are_bounded(driver: BubblewrapDriver, workspace: Workspace, place: str) -> None:
    record = await shell(driver, workspace, f"head -c 200M /dev/zero > {place}/big; stat -c %s {place}/big")
    assert b"No space left" in record.stderr
    assert int(record.stdout) <= 64 << 20


async def test_endless_output_is_cut_and_ended(driver: BubblewrapDriver, workspace: Workspace) -> None:
    limits = replace(LIMITS, output_kept_bytes=1 << 20, output_hard_bytes=2 << 20)
    record = await shell(driver, workspace, "yes", limits)
    assert record.reason is Reason.OUTPUT_LIMIT
    assert len(record.stdout) == 1 << 20
    assert 2 << 20 <= record.stdout_seen_bytes < 3 << 20
    assert record.wall_seconds < 5


async def test_host_secrets_are_not_there(
    driver: BubblewrapDriver, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEAGENT_TEST_SECRET", "hunter2hunter2")
    script = (
        "cat /etc/shadow; cat /proc/*/environ | tr '\\0' '\\n'; env; ls /root /home /var/lib /proc/1/root/root;"
        "cat /proc/kallsyms /proc/cmdline /proc/keys; cat /etc/passwd; dmesg"
    )
    record = await shell(driver, workspace, script)
    assert b"hunter2" not in record.stdout + record.stderr
    assert Path("/etc/passwd").read_bytes() not in record.stdout
    assert b"shadow: No such file" in record.stderr
    assert b"/var/lib" in record.stderr
    found = await shell(driver, workspace, "cat /proc/kallsyms /proc/cmdline /proc/keys /proc/key-users | wc -c")
    assert found.stdout.strip() == b"0"


async def test_nothing_but_its_own_places_can_be_written(driver: BubblewrapDriver, workspace: Workspace) -> None:
    script = """
    for place in / /usr /usr/bin /etc /dev /run /opt /opt/python /var /proc /proc/sys/kernel; do
      touch $place/x 2>/dev/null && echo wrote $place
    done
    mount -t tmpfs x /workspace 2>/dev/null && echo mounted
    mount -o remount,rw / 2>/dev/null && echo remounted
    mknod /tmp/disk b 254 0 2>/dev/null && echo made a device
    echo 1 > /proc/self/oom_score_adj; echo -1000 2>/dev/null > /proc/self/oom_score_adj && echo unkillable
    chown 0 README 2>/dev/null && echo chowned
    true
    """
    record = await shell(driver, workspace, script)
    assert (record.reason, record.stdout) == (Reason.OK, b"")


@pytest.fixture
def loopback_server() -> Iterator[tuple[int, list[object]]]:
    """A listener on the host's loopback and on an abstract unix socket; collects who connects."""
    visitors: list[object] = []
    tcp = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind("\0codeagent-test-loopback")
    unix.listen()

    def accept(listener: socket.socket) -> None:
        try:
            while True:
                connection, address = listener.accept()
                visitors.append(address)
                connection.close()
        except OSError:
            pass

    threads = [threading.Thread(target=accept, args=(listener,)) for listener in (tcp, unix)]
    for thread in threads:
        thread.start()
    yield tcp.getsockname()[1], visitors
    for listener in (tcp, unix):
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join()


async def test_the_hosts_loopback_and_the_network_cannot_be_reached(
    driver: BubblewrapDriver, workspace: Workspace, loopback_server: tuple[int, list[object]]
) -> None:
    port, visitors = loopback_server
    program = f"""
import socket
targets = [(socket.AF_INET, ("127.0.0.1", {port})), (socket.AF_UNIX, "\\0codeagent-test-loopback"),
           (socket.AF_INET, ("169.254.169.254", 80)), (socket.AF_INET, ("1.1.1.1", 443))]
for family, address in targets:
    try:
        s = socket.socket(family); s.settimeout(2); s.connect(address); print("connected", address)
    except OSError as error:
        pass
try:
    socket.getaddrinfo("example.com", 443); print("resolved")
except OSError:
    pass
print(socket.if_nameindex())
"""
    record = await python(driver, workspace, program)
    assert record.stdout == b"[(1, 'lo')]\n"
    assert visitors == []


async def test_a_daemon_does_not_outlive_the_call(driver: BubblewrapDriver, workspace: Workspace) -> None:
    daemon = "(setsid sh -c 'sleep 1; touch /workspace/survived; sleep 60' >/dev/null 2>&1 &) ; echo started"
    record = await shell(driver, workspace, daemon)
    assert (record.reason, record.stdout) == (Reason.OK, b"started\n")
    assert processes_of(slot_of(workspace)) == []
    await asyncio.sleep(1.5)
    with pytest.raises(SandboxFailure, match="no such file"):
        await driver.read_file(workspace, "survived", 10)


async def test_a_child_that_keeps_the_output_open_does_not_hold_the_call(
    driver: BubblewrapDriver, workspace: Workspace
) -> None:
    record = await shell(driver, workspace, "setsid sleep 60 & echo done")
    assert (record.reason, record.stdout) == (Reason.OK, b"done\n")
    assert record.wall_seconds < 5
    assert processes_of(slot_of(workspace)) == []


async def test_signals_are_of_no_use(driver: BubblewrapDriver, workspace: Workspace) -> None:
    program = """
import os, signal
for name in ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
for pid in (1, os.getppid(), -1, %d):
    try: os.kill(pid, signal.SIGTERM)
    except OSError: pass
while True: pass
""" % os.getpid()
    record = await python(driver, workspace, program, replace(LIMITS, wall_seconds=1.0))
    assert record.reason is Reason.TIMEOUT
    assert processes_of(slot_of(workspace)) == []


async def test_dangerous_system_calls_are_refused(driver: BubblewrapDriver, workspace: Workspace) -> None:
    program = """
import ctypes, errno, os, platform, socket
libc = ctypes.CDLL(None, use_errno=True)
def refused(name, *args):
    ctypes.set_errno(0)
    if libc.syscall(*args) != -1 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
        print("allowed:", name, ctypes.get_errno())
numbers = {"x86_64": dict(ptrace=101, keyctl=250, add_key=248, unshare=272, setns=308, mount=165, bpf=321, clone=56,
                          io_uring=425, userfaultfd=323, perf=298, process_vm_readv=310, clone3=435, open_tree=428,
                          pidfd_getfd=438, personality=135)}
n = numbers[platform.machine()]
refused("ptrace", n["ptrace"], 0, 0, 0, 0)
refused("keyctl", n["keyctl"], 0, -3, 0)
refused("add_key", n["add_key"], b"user", b"x", b"y", 1, -3)
refused("unshare", n["unshare"], 0x10000000)
refused("setns", n["setns"], 0, 0)
refused("mount", n["mount"], b"x", b"/tmp", b"tmpfs", 0, None)
refused("bpf", n["bpf"], 0, None, 0)
refused("io_uring", n["io_uring"], 1, None)
refused("userfaultfd", n["userfaultfd"], 0)
refused("perf", n["perf"], None, 0, -1, -1, 0)
refused("process_vm_readv", n["process_vm_readv"], 1, None, 0, None, 0, 0)
refused("clone3", n["clone3"], None, 0)
refused("open_tree", n["open_tree"], -100, b"/", 1)
refused("pidfd_getfd", n["pidfd_getfd"], 3, 0, 0)
refused("personality", n["personality"], 0x0400000)
for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
    refused(f"clone {flag:#x}", n["clone"], flag | 17, 0, 0, 0, 0)
for family in (40, 17, 38, 44, 40 | 1 << 32):
    refused(f"socket {family}", 41, ctypes.c_long(family), 2, 0)
refused("netlink audit", 41, 16, 3, 9)
import fcntl
for request in (0x5412, 0x5412 | 1 << 32):
    ctypes.set_errno(0)
    if libc.ioctl(0, ctypes.c_ulong(request), b"x") != -1 or ctypes.get_errno() != errno.EPERM:
        print("TIOCSTI", hex(request), ctypes.get_errno())
"""
    record = await python(driver, workspace, program)
    assert (record.reason, record.stdout) == (Reason.OK, b""), record.stderr


async def test_the_other_system_call_interface_kills_its_caller(driver: BubblewrapDriver, workspace: Workspace) -> None:
    program = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")  # mov eax, 20 (getpid); int 0x80; ret
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
print(ctypes.CFUNCTYPE(ctypes.c_int)(address)())
"""
    record = await python(driver, workspace, program)
    assert record.reason is Reason.KILLED
    assert record.signal == 31
    assert "seccomp" in record.limits_hit
    assert record.stdout == b""


async def test_commands_run_as_the_slot_and_as_nobody_else(driver: BubblewrapDriver, workspace: Workspace) -> None:
    running = asyncio.ensure_future(run(driver, workspace, ("sleep", "1.5")))
    await asyncio.sleep(0.7)
    outside = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes_of(slot_of(workspace))]
    assert b"sleep\x001.5\x00" in outside
    assert slot_of(workspace) >= 200_000
    await running


async def test_no_gain_from_setuid_programs(driver: BubblewrapDriver, workspace: Workspace) -> None:
    script = (
        "su -c id; cp /bin/sh ./sh; chmod 4755 ./sh; ./sh -p -c 'id -u'; grep -E 'NoNewPrivs|CapEff' /proc/self/status"
    )
    record = await shell(driver, workspace, script)
    assert record.stdout.split() == [b"1000", b"CapEff:", b"0000000000000000", b"NoNewPrivs:", b"1"]


async def test_hostile_names_and_depths_do_not_keep_a_workspace_from_being_removed(
    driver: BubblewrapDriver, workspace: Workspace
) -> None:
    program = """
import os
for name in (b"new\\nline", b"esc\\x1b[31m", b"bad\\xff\\xfe", b"-rf", b"x" * 255):
    open(name, "w").close()
for _ in range(3000):
    os.mkdir("d"); os.chdir("d")
os.chmod("/workspace/d", 0)
"""
    record = await python(driver, workspace, program)
    assert record.reason is Reason.OK, record.stderr
    await driver.close(workspace)


async def test_no_descriptor_of_the_worker_leaks_in(driver: BubblewrapDriver, workspace: Workspace) -> None:
    secret, other = os.pipe()
    os.set_inheritable(secret, True)
    try:
        record = await python(driver, workspace, "import os; print(sorted(os.listdir('/proc/self/fd')))")
    finally:
        os.close(secret)
        os.close(other)
    assert record.stdout == b"['0', '1', '2', '3']\n"  # 3 reads the directory


async def test_a_command_cannot_see_or_change_another_workspace(
    driver: BubblewrapDriver, workspace: Workspace, tmp_path: Path
) -> None:
    other = await driver.open("other", archive(tmp_path, {"codeagent-other-file": b"for my eyes only"}), b"", LIMITS)
    record = await shell(
        driver, workspace, "find / -name codeagent-other-file 2>/dev/null; mount; ls /proc/[0-9]*/root/workspace"
    )
    assert b"codeagent-other-file" not in record.stdout
    assert slot_of(other) != slot_of(workspace)
