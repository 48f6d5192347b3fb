"""Gives up root, for good, in a process that was forked from it."""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass

from codeagent.embedded.accounts import Account

_PR_SET_KEEPCAPS = 8
_PR_SET_NO_NEW_PRIVS = 38
_CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION = 0x20080522


@dataclass(frozen=True, slots=True)
class Demotion:
    """What a service becomes. `reads_all` leaves it the right to read every file, where what it needs is closed to
    everyone but root; it may then still not write, mount, signal or become anybody."""

    account: Account
    reads_all: bool = False

    def apply(self) -> None:
        """Raises `OSError`. There is no way back: no program that is executed later gives anything either."""
        libc = ctypes.CDLL(None, use_errno=True)
        _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(libc.prctl(_PR_SET_KEEPCAPS, int(self.reads_all), 0, 0, 0))
        os.setgroups([])
        os.setresgid(self.account.gid, self.account.gid, self.account.gid)
        os.setresuid(self.account.uid, self.account.uid, self.account.uid)
        kept = 1 << _CAP_DAC_READ_SEARCH if self.reads_all else 0
        header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
        # Effective, permitted, inheritable; then the same for the capabilities from 32 on.
        _checked(libc.capset(header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)))
        # Root's is closed to it, and libraries look there for files.
        os.environ["HOME"] = "/"


def _checked(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"root cannot be given up: {os.strerror(code)}")
