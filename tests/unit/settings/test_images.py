"""The images that an operator lists: names that projects can give, and places that can be one."""

from __future__ import annotations

import json

import pytest

from codeagent.cli.edge_policy import edge_policy
from codeagent.settings import Misconfigured, read_settings

NEEDED = {
    "database_url": "postgresql://127.0.0.1:1/d",
    "kafka_bootstrap_servers": "127.0.0.1:1",
    "sandbox_minimum_level": 2,
}
PINNED = "registry.example/go@sha256:" + "0" * 64


def test_the_edge_offers_what_is_listed_and_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {"go": "/srv/images/go", "rust-1.80": PINNED, "by_id": "sha256:" + "0" * 64}
    monkeypatch.setenv("CODEAGENT_SANDBOX_IMAGES", json.dumps(listed))
    settings = read_settings(**NEEDED)
    assert settings.sandbox_images == listed
    assert edge_policy(settings, ()).images == {"default", *listed}
    monkeypatch.delenv("CODEAGENT_SANDBOX_IMAGES")
    assert edge_policy(read_settings(**NEEDED), ()).images == {"default"}


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        ('{"default": "/srv/images/go"}', "default is what commands see otherwise"),
        ('{"Go": "/srv/images/go"}', "each name should be of lower case letters"),
        ('{"../go": "/srv/images/go"}', "each name should be of lower case letters"),
        ('{"go": "images/go"}', "go should be an absolute path, or an image pinned"),
        ('{"go": "golang:1.22"}', "go should be an absolute path, or an image pinned"),
        ('{"go": 1}', "should be a valid string"),
        ('["go"]', "should be a valid dictionary"),
        ("go=/srv/images/go", "should be JSON"),
    ],
)
def test_what_can_be_no_image_is_refused(monkeypatch: pytest.MonkeyPatch, listed: str, why: str) -> None:
    monkeypatch.setenv("CODEAGENT_SANDBOX_IMAGES", listed)
    with pytest.raises(Misconfigured) as caught:
        read_settings(**NEEDED)
    [problem] = caught.value.problems
    assert problem.variable.startswith("CODEAGENT_SANDBOX_IMAGES")
    assert why in problem.message
