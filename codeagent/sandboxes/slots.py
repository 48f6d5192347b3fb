"""Slots: unprivileged host uids, one lent to each live workspace, never shared by two workers of a machine."""

from __future__ import annotations

import socket

from codeagent.sandboxes.protocol import SandboxFailure


class SlotPool:
    """Lends uids of a range.

    A lent uid is held by an abstract unix socket of that name: the kernel frees it when the worker dies, so no
    lock file can go stale and two workers with the same range cannot lend the same uid.
    """

    def __init__(self, uids: range) -> None:
        if not uids or min(uids) < 1000:
            raise ValueError("slot uids must be a non-empty range of unprivileged uids")
        self._uids = uids
        self._next = 0
        self._held: dict[int, socket.socket] = {}

    def lend(self) -> int:
        """A free uid. Raises `SandboxFailure` (retryable) when all are lent."""
        for offset in range(len(self._uids)):
            position = (self._next + offset) % len(self._uids)
            uid = self._uids[position]
            if uid not in self._held and self._hold(uid):
                self._next = (position + 1) % len(self._uids)
                return uid
        raise SandboxFailure("every sandbox slot is in use", reason="no_slot")

    def _hold(self, uid: int) -> bool:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0codeagent.sandbox.slot.{uid}")
        except OSError:
            claim.close()
            return False
        self._held[uid] = claim
        return True

    def release(self, uid: int) -> None:
        """Gives a uid back. Only when it is proven that no process of it is left."""
        claim = self._held.pop(uid, None)
        if claim is not None:
            claim.close()
