"""What keeps a sandbox worker from starting before any driver is tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeagent.sandboxes.offers import Host
from codeagent.sandboxes.protocol import IsolationLevel, SandboxUnavailable
from codeagent.sandboxes.select import choose_driver
from codeagent.sandboxes.sources import TrustedHost


async def test_certificates_of_a_trusted_host_that_are_not_there_or_not_certificates(tmp_path: Path) -> None:
    (tmp_path / "ca.txt").write_text("not a certificate\n")
    trusted = [
        TrustedHost("one.internal", certificates=tmp_path / "missing.pem"),
        TrustedHost("two.internal", certificates=tmp_path / "ca.txt"),
        TrustedHost("three.internal"),
    ]
    with pytest.raises(SandboxUnavailable) as caught:
        await choose_driver(IsolationLevel.KERNEL, None, Host(tmp_path / "state", trusted_hosts=tuple(trusted)))
    assert caught.value.reasons == (
        f"trusted host one.internal: {tmp_path}/missing.pem cannot be used: No such file or directory",
        f"trusted host two.internal: {tmp_path}/ca.txt cannot be used: no certificates in PEM form",
    )
    assert not (tmp_path / "state").exists()
