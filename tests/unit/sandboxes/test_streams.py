"""Output, uninterrupted work and slots: the small parts the driver is built of."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from codeagent.sandboxes.protocol import SandboxFailure
from codeagent.sandboxes.slots import SlotPool
from codeagent.sandboxes.streams import Capture
from codeagent.sandboxes.uninterrupted import in_thread, to_the_end


def never() -> None:
    raise AssertionError("the output was within its limits")


async def carry(data: bytes, kept_bytes: int, hard_bytes: int) -> tuple[Capture, list[bytes], int]:
    reading, writing = os.pipe()
    pieces: list[bytes] = []
    overflows = 0

    async def sink(stream: str, piece: bytes) -> None:
        assert stream == "stdout"
        pieces.append(piece)

    def overflow() -> None:
        nonlocal overflows
        overflows += 1

    capture = Capture("stdout", reading, sink, kept_bytes, hard_bytes)
    carrier = asyncio.ensure_future(capture.carry(overflow))
    os.set_blocking(writing, False)
    view = memoryview(data)
    while view and not carrier.done():
        try:
            view = view[os.write(writing, view) :]
        except BlockingIOError:
            await asyncio.sleep(0.001)
    os.close(writing)
    await carrier
    os.close(reading)
    return capture, pieces, overflows


async def test_what_is_kept_is_what_the_caller_saw() -> None:
    capture, pieces, overflows = await carry(b"x" * 200_000, 1 << 20, 1 << 20)
    assert (capture.kept, b"".join(pieces)) == (b"x" * 200_000, b"x" * 200_000)
    assert (capture.seen_bytes, capture.truncated, overflows) == (200_000, False, 0)


async def test_beyond_what_is_kept_bytes_are_only_counted() -> None:
    capture, pieces, overflows = await carry(b"abcdef" * 1000, 10, 1 << 20)
    assert (capture.kept, b"".join(pieces)) == (b"abcdefabcd", b"abcdefabcd")
    assert (capture.seen_bytes, capture.truncated, overflows) == (6000, True, 0)


async def test_beyond_the_hard_limit_reading_stops() -> None:
    capture, _, overflows = await carry(b"x" * 1_000_000, 10, 100_000)
    assert overflows == 1
    assert 100_000 < capture.seen_bytes <= 100_000 + (64 << 10)


async def test_what_is_left_in_the_pipe_is_drained() -> None:
    reading, writing = os.pipe()

    async def sink(_stream: str, _piece: bytes) -> None:
        await asyncio.Event().wait()

    capture = Capture("stdout", reading, sink, 100, 100)
    carrier = asyncio.ensure_future(capture.carry(never))
    os.write(writing, b"first ")
    await asyncio.sleep(0.01)
    os.write(writing, b"second")
    os.close(writing)
    carrier.cancel()
    await asyncio.gather(carrier, return_exceptions=True)
    capture.drain()
    os.close(reading)
    assert capture.kept == b"first second"


async def test_work_comes_to_its_end_before_a_cancellation_is_seen() -> None:
    steps: list[str] = []

    async def work() -> str:
        await asyncio.sleep(0.05)
        steps.append("done")
        return "result"

    task = asyncio.ensure_future(to_the_end(work()))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["done"]
    assert await to_the_end(work()) == "result"


async def test_a_failure_of_the_work_is_raised_and_a_cancellation_outweighs_it() -> None:
    async def work() -> None:
        await asyncio.sleep(0.02)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await to_the_end(work())
    task = asyncio.ensure_future(to_the_end(work()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_no_thread_is_left_behind() -> None:
    release, ended = threading.Event(), threading.Event()

    def blocking() -> None:
        release.wait(5)
        ended.set()

    task = asyncio.ensure_future(in_thread(blocking))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


def test_slots_are_lent_once_and_round_robin() -> None:
    pool = SlotPool(range(260_000, 260_003))
    lent = [pool.lend() for _ in range(3)]
    assert lent == [260_000, 260_001, 260_002]
    with pytest.raises(SandboxFailure) as caught:
        pool.lend()
    assert (caught.value.reason, caught.value.retryable) == ("no_slot", True)
    pool.release(260_001)
    assert pool.lend() == 260_001
    other = SlotPool(range(260_000, 260_004))
    assert other.lend() == 260_003
    for uid in range(260_000, 260_004):
        pool.release(uid)
        other.release(uid)


@pytest.mark.parametrize("uids", [range(0), range(0, 10), range(999, 1001)])
def test_system_users_are_never_slots(uids: range) -> None:
    with pytest.raises(ValueError, match="unprivileged"):
        SlotPool(uids)
