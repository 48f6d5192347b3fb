"""What an operator tells the helper at its start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from codeagent.sandboxes.offers import Containers
from codeagent.sandboxes.protocol import Limits
from codeagent.sandboxes.sandboxd.arguments import parse
from codeagent.sandboxes.sources import TrustedHost

ORDERED = ("--socket", "s", "--state-dir", "d", "--worker-uid", "1", "--worker-gid", "2")


def test_an_operator_says_what_makes_sandboxes_who_may_ask_and_for_how_much() -> None:
    hosts = '[{"host": "git.internal", "port": 8443, "certificates": "/ca.pem"}, {"host": "other"}]'
    bounds = (
        "--most",
        "memory_bytes=9M,cpu_cores=2.5",
        "--most",
        "tmp_bytes=7M",
        "--egress-hosts",
        '["a.bc", "*.d.ef:8443"]',
    )
    engine = ("--image", "sha256:ab", "--engine-arguments", '["--host", "unix:///run/x"]', "--engine-runtime", "runc")
    tools = ("--images", '{"go": "/srv/go"}', "--registries", '["pypi.org"]', "--install-seconds", "60")
    chosen = ("--driver", "podman", "--minimum-level", "3", "--parked", "0", "--trusted-hosts", hosts)
    orders = parse([*ORDERED, *bounds, *engine, *tools, *chosen])
    assert (orders.worker_uid, orders.worker_gid, orders.minimum_level, orders.driver) == (1, 2, 3, "podman")
    most = orders.ceiling.most
    assert (most.memory_bytes, most.cpu_cores, most.tmp_bytes, most.processes) == (
        9 << 20,
        2.5,
        7 << 20,
        Limits().processes,
    )
    assert orders.ceiling.egress == ("a.bc:443", "*.d.ef:8443")
    assert (orders.ceiling.registries, orders.ceiling.install_seconds) == (("pypi.org:443",), 60.0)
    assert orders.host.images == {"go": "/srv/go"}
    assert (orders.host.state_dir, orders.host.parked) == (Path("d").absolute(), False)
    assert orders.host.containers == Containers("sha256:ab", ("--host", "unix:///run/x"), "runc")
    assert orders.host.trusted_hosts == (TrustedHost("git.internal", 8443, Path("/ca.pem")), TrustedHost("other"))


def test_an_operator_who_says_nothing_allows_no_host_and_trusts_none() -> None:
    orders = parse(ORDERED)
    assert (orders.driver, orders.minimum_level, orders.host.parked) == ("auto", 2, True)
    assert (orders.ceiling.egress, orders.ceiling.registries, orders.host.trusted_hosts) == ((), (), ())
    assert orders.host.images == parse([*ORDERED, "--images", ""]).host.images == {}
    assert orders.ceiling.most == replace(Limits(), wall_seconds=1800.0, output_kept_bytes=Limits().output_hard_bytes)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--most", "uid=0"),
        ("--most", "processes=many"),
        ("--most", "memory_bytes"),
        ("--most", "cpu_cores=nan"),
        ("--most", "patch_bytes=1000000000"),
        ("--trusted-hosts", "git.internal"),
        ("--trusted-hosts", '[{"port": 1}]'),
        ("--engine-arguments", "--host"),
        ("--engine-arguments", "[1]"),
        ("--egress-hosts", "example.org"),
        ("--egress-hosts", '["127.0.0.1:443"]'),
        ("--minimum-level", "0"),
        ("--images", '["go"]'),
        ("--images", '{"go": 1}'),
        ("--registries", '["*"]'),
    ],
)
def test_what_an_operator_got_wrong_is_told(wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse([*ORDERED, *wrong])
    assert caught.value.code == 2
    assert wrong[0] in capsys.readouterr().err
