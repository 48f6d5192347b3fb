"""Receivers that behave badly, names that change their meaning: what reaches whom, and what it costs."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from codeagent.errors import InvalidInput
from codeagent.relay.webhook_client import AttemptFailed
from codeagent.webhooks.schedule import DELAYS
from codeagent.webhooks.targets import TargetPolicy, Targets
from tests.integration.webhooks.relay import LOOPBACK, World, client, relay_on, working
from tests.servers.git_server import make_certificate
from tests.servers.webhook_receiver import (
    Behaviour,
    WebhookReceiver,
    answer,
    drip,
    hang,
    hang_up,
    nonsense,
    reset,
    unfinished_body,
)

BODY = b'{"type":"run.started"}'


def standing_for(*meanings: str) -> tuple[Targets, list[str]]:
    """Where any name stands for each of the meanings in turn, and for the last one from then on. With what was asked."""
    left, asked = list(meanings), []

    def lookup(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return (left.pop(0) if len(left) > 1 else left[0]).split()

    return Targets(LOOPBACK if meanings == ("127.0.0.1",) else TargetPolicy(), lookup=lookup), asked


@pytest.mark.parametrize(
    ("behaviour", "status", "error"),
    [
        (answer(500), 500, "bad_status"),
        (answer(404, b"x" * 100_000), 404, "bad_status"),
        (answer(302, location="http://localhost:1/elsewhere"), 302, "redirected"),
        (answer(304), 304, "redirected"),
        (reset, None, "connection_lost"),
        (hang_up, None, "no_answer"),
        (nonsense, None, "no_answer"),
        (hang, None, "timeout"),
        (drip, None, "timeout"),
    ],
    ids=["5xx", "4xx", "redirect", "not-modified", "reset", "hang-up", "nonsense", "hang", "drip"],
)
async def test_a_failure_is_told_and_the_message_comes_again(
    here: World, receiver: WebhookReceiver, behaviour: Behaviour, status: int | None, error: str
) -> None:
    receiver.behaviours = [behaviour]
    shown = await here.webhook(receiver.url)
    await here.happen()
    async with working(relay_on(here, through=client(timeout_seconds=1.0))):
        delivery = await here.settled(shown.webhook, 1)
        assert (delivery.state, delivery.last_status, delivery.last_error) == ("pending", status, error)
        assert delivery.last_latency_ms is not None
        assert delivery.last_latency_ms < 5_000
        await here.pass_time(DELAYS[1])
        await here.delivered(shown.webhook, 1)
    assert len(receiver.received) == 2
    assert len(set(receiver.ids())) == 1


async def test_a_success_is_one_whatever_becomes_of_its_body(receiver: WebhookReceiver) -> None:
    receiver.behaviour = unfinished_body
    sending, started = client(), time.monotonic()
    assert (await sending.post(receiver.url, {}, BODY)).status == 200
    assert time.monotonic() - started < 8
    await sending.close()


async def test_an_endless_answer_is_not_taken(receiver: WebhookReceiver) -> None:
    written = 0

    async def flood(_: object, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            await writer.drain()
            written += 0x10000

    receiver.behaviour, sending = flood, client()
    assert (await sending.post(receiver.url, {}, BODY)).status == 200
    await sending.close()
    assert written < 16 << 20  # what the buffers between the two hold


async def test_a_redirect_is_followed_nowhere(receiver: WebhookReceiver) -> None:
    with WebhookReceiver() as inside:
        receiver.behaviour = answer(307, location=inside.url)
        sending = client()
        assert (await sending.post(receiver.url, {}, BODY)).status == 307
        await sending.close()
        assert inside.connections == 0


async def test_nobody_listening_is_a_failure_like_any_other(here: World, receiver: WebhookReceiver) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shown = await here.webhook(f"http://localhost:{free.getsockname()[1]}/")
        await here.happen()
        async with working(relay_on(here)):
            delivery = await here.settled(shown.webhook, 1)
    assert (delivery.state, delivery.last_error) == ("pending", "connection_failed")


async def test_the_address_that_is_dialled_is_the_one_that_was_checked(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def no_names(host: object, *rest: object, **more: object) -> object:
        assert host in {"127.0.0.1", b"127.0.0.1"}, f"{host!r} was looked up a second time"
        return real(host, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    targets, asked = standing_for("127.0.0.1")
    sending = client(targets)
    for number in (1, 2):
        assert (await sending.post(f"http://receiver.example:{receiver.port}/x", {}, BODY)).status == 204
        assert asked == ["receiver.example"] * number  # anew for every attempt
    assert receiver.received[0].headers["host"] == f"receiver.example:{receiver.port}"
    assert receiver.connections == 2
    await sending.close()


async def test_a_name_that_is_public_when_registered_and_ours_when_dialled_is_refused(
    here: World, receiver: WebhookReceiver
) -> None:
    targets, asked = standing_for("8.8.8.8", "127.0.0.1")
    here.webhooks._targets = targets
    shown = await here.webhook("https://rebinding.example:8443/")
    await here.happen()
    async with working(relay_on(here, through=client(targets))):
        delivery = await here.settled(shown.webhook, 1)
        with pytest.raises(InvalidInput):
            await here.webhook("https://rebinding.example/")
    assert (delivery.state, delivery.last_error) == ("pending", "address_refused")
    assert asked == ["rebinding.example"] * 3
    assert receiver.connections == 0


async def test_one_address_that_does_not_answer_does_not_hide_the_other(receiver: WebhookReceiver) -> None:
    sending = client(Targets(LOOPBACK, lookup=lambda *_: ["127.0.0.9", "127.0.0.1"]))
    assert (await sending.post(f"http://two.example:{receiver.port}/", {}, BODY)).status == 204
    await sending.close()


async def test_no_proxy_of_the_environment_is_asked(receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    sending = client()
    assert (await sending.post(receiver.url, {}, BODY)).status == 204
    await sending.close()


async def test_one_receivers_cookies_are_shown_to_nobody(receiver: WebhookReceiver) -> None:
    receiver.behaviour = answer(200, set_cookie="session=1; Path=/")
    sending = client()
    for _ in range(2):
        await sending.post(receiver.url, {}, BODY)
    assert all("cookie" not in request.headers for request in receiver.received)
    await sending.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[WebhookReceiver]:
    with WebhookReceiver(tls=certificate) as listening:
        yield listening


async def test_https_is_spoken_to_whoever_proves_to_be_the_named_host(
    here: World, secure: WebhookReceiver, certificate: tuple[Path, Path]
) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate[1]))
    shown = await here.webhook(secure.url)
    await here.happen()
    async with working(relay_on(here, through=client(context=trusting))):
        [request] = await secure.until(1)
        await here.delivered(shown.webhook, 1)
    assert request.verified(str(shown.secret))["type"] == "run.started"
    assert request.headers["host"] == f"localhost:{secure.port}"


async def test_a_certificate_of_another_host_or_of_nobody_known_is_refused(
    secure: WebhookReceiver, certificate: tuple[Path, Path]
) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate[1]))
    elsewhere, _ = standing_for("127.0.0.1")
    for sending, host in ((client(context=trusting, targets=elsewhere), "other.example"), (client(), "localhost")):
        with pytest.raises(AttemptFailed, match="tls_failed"):
            await sending.post(f"https://{host}:{secure.port}/", {}, BODY)
        await sending.close()
    assert secure.received == []


async def test_neither_urls_nor_secrets_nor_payloads_are_logged(here: World, receiver: WebhookReceiver) -> None:
    receiver.behaviour = answer(410)
    with capture_logs() as lines:
        shown = await here.webhook(receiver.url)
        await here.happen()
        async with working(relay_on(here)):
            await here.settled(shown.webhook, 1)
    assert [line["event"] for line in lines] == ["webhook.disabled"]
    assert "token" not in str(lines)
    assert str(shown.secret) not in str(lines)


async def test_a_slow_name_server_is_bounded_by_the_attempts_own_time(receiver: WebhookReceiver) -> None:
    release = threading.Event()

    def lookup(host: str, port: int) -> Sequence[str]:
        release.wait(30)
        return ["127.0.0.1"]

    sending = client(Targets(LOOPBACK, lookup=lookup), timeout_seconds=0.2)
    with pytest.raises(AttemptFailed, match="timeout"):
        await sending.post(receiver.url, {}, BODY)
    release.set()
    await sending.close()
