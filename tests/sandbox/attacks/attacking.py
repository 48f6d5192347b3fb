"""What the attacking programs share. They try, and say what they got; whoever gets nothing prints nothing.

`bait` is what the machine has laid out for them: where to find it, never what it says.
"""

# ruff: noqa: F401  # imported for the programs

import ctypes
import errno
import json
import os
import platform
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

bait = json.loads(Path("/workspace/bait.json").read_text())
OWN_KERNEL = bait["own_kernel"]
"""Calls that the machine's kernel must refuse do no harm in a kernel that is the sandbox's alone."""

libc = ctypes.CDLL(None, use_errno=True)
NUMBERS_OF = {
    "x86_64": """
    ptrace=101 syslog=103 personality=135 pivot_root=155 adjtimex=159 chroot=161 acct=163 settimeofday=164 mount=165
    umount2=166 swapon=167 reboot=169 sethostname=170 iopl=172 ioperm=173 init_module=175 delete_module=176
    quotactl=179 clock_settime=227 mq_open=240 kexec_load=246 add_key=248 request_key=249 keyctl=250 unshare=272
    move_pages=279 perf_event_open=298 fanotify_init=300 name_to_handle_at=303 open_by_handle_at=304 setns=308
    process_vm_readv=310 process_vm_writev=311 kcmp=312 finit_module=313 kexec_file_load=320 bpf=321 userfaultfd=323
    clone=56 socket=41 shmget=29 shmat=30 msgget=68 semget=64
    """,
    "aarch64": """
    ptrace=117 syslog=116 personality=92 pivot_root=41 adjtimex=171 chroot=51 acct=89 settimeofday=170 mount=40
    umount2=39 swapon=224 reboot=142 sethostname=161 init_module=105 delete_module=106 quotactl=60 clock_settime=112
    mq_open=180 kexec_load=104 add_key=217 request_key=218 keyctl=219 unshare=97 move_pages=239 perf_event_open=241
    fanotify_init=262 name_to_handle_at=264 open_by_handle_at=265 setns=268 process_vm_readv=270
    process_vm_writev=271 kcmp=272 finit_module=273 kexec_file_load=294 bpf=280 userfaultfd=282 clone=220 socket=198
    shmget=194 shmat=196 msgget=186 semget=190
    """,
}
NUMBERS_OF_ALL = """
    io_uring_setup=425 open_tree=428 move_mount=429 fsopen=430 fsmount=432 fspick=433 pidfd_open=434 clone3=435
    pidfd_getfd=438 process_madvise=440 mount_setattr=442 statmount=457 listmount=458
"""
PAIRS = (pair.split("=") for pair in (NUMBERS_OF.get(platform.machine(), "") + NUMBERS_OF_ALL).split())
NUMBERS = {name: int(number) for name, number in PAIRS}


def escaped(*what):
    print("ESCAPED", *what, flush=True)


def attempt(what, action, *arguments):
    """It got out if nothing keeps it from it. Returns what it got."""
    try:
        got = action(*arguments)
    except OSError:
        return None
    escaped(what)
    return got


def change(path, text):
    """Writes to what is the kernel's. What is covered by a device that swallows all was not changed."""
    try:
        with open(path, "w") as file:
            found = os.fstat(file.fileno())
            file.write(text)
    except OSError:
        return
    if not (stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)):
        escaped("wrote", path)


def call(name, *arguments):
    """(result, errno) of a system call."""
    if name not in NUMBERS:
        return -1, errno.ENOSYS
    libc.syscall.restype = ctypes.c_long
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(NUMBERS[name]), *arguments)
    return result, ctypes.get_errno()


def refused(name, *arguments, says=None):
    """A call that the machine's kernel must not even look at: any other error means that it has."""
    result, code = call(name, *arguments)
    if not OWN_KERNEL and (result != -1 or code not in (errno.EPERM, errno.ENOSYS)):
        escaped(says or name, result, errno.errorcode.get(code, code))
    return result


def read(path, most=1 << 16):
    """What a path says; empty where it cannot be read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(handle, most)
    except OSError:
        return b""
    finally:
        os.close(handle)


def show(path):
    """Prints what can be read: it is known on the outside what must not be in it."""
    sys.stdout.buffer.write(read(path))
    sys.stdout.flush()


def write(path, text=bait["mark"]):
    with open(path, "w") as file:
        file.write(text)


def only_loopback():
    """Whether nothing that is sent can leave: asked before anything is sent to an address of others."""
    return [name for _, name in socket.if_nameindex()] == ["lo"]
