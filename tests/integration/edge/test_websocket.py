"""`/v1/ws`: who gets in, what is said there, and how it ends."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.exceptions import InvalidStatus

from codeagent.edge.context import SocketLimits
from codeagent.eventlog.database import Database
from codeagent.messages.events import RunCompleted
from tests.integration.edge.served import SUBPROTOCOL, ServedEdge, Socket, served_edge
from tests.integration.edge.test_stream import delta, live
from tests.integration.eventlog.steps import commit_step, new_run, started, step


async def working_run(database: Database, events: int = 2) -> str:
    run_id = new_run()
    await commit_step(database, step(run_id, 0, [started() for _ in range(events)]))
    return run_id


async def still_lives(socket: Socket) -> bool:
    await socket.send(type="ping")
    return await socket.until("pong") == {"type": "pong"}


async def test_a_run_is_followed_from_its_first_event_to_its_end(served: ServedEdge, writer: Database) -> None:
    run_id = await working_run(writer)
    async with served.session() as socket:
        assert socket.connection.subprotocol == SUBPROTOCOL
        await socket.send(type="subscribe", run_id=run_id)
        assert await socket.next() == {"type": "stream.open", "subscription": run_id, "position": "0"}
        first, second = await socket.next(), await socket.next()
        assert (first["type"], first["position"], second["position"]) == ("event", "1", "2")
        assert first["event"]["specversion"] == "1.0"
        assert first["event"]["type"] == "io.codeagent.run.started.v1"
        served.hub.receive(delta(run_id, "thinking"))
        assert (await socket.until("delta"))["data"]["text"] == "thinking"
        made = step(run_id, 2, [RunCompleted()])
        await commit_step(writer, made)
        served.hub.receive(live(made, 0))
        assert (await socket.next())["event"]["type"] == "io.codeagent.run.completed.v1"
        assert await socket.next() == {"type": "stream.end", "subscription": run_id, "reason": "run_ended"}
        assert await still_lives(socket)


async def test_a_client_resumes_by_position_also_on_another_edge(
    served: ServedEdge, other_edge: ServedEdge, writer: Database
) -> None:
    run_id = await working_run(writer, 5)
    async with other_edge.session() as socket:
        await socket.send(type="subscribe", run_id=run_id, after="3")
        assert [frame["position"] for frame in await socket.events(2)] == ["4", "5"]
        await commit_step(writer, step(run_id, 5, [RunCompleted()]))
    async with served.session() as socket:
        await socket.send(type="subscribe", run_id=run_id, after="6")
        assert [(await socket.next())["type"] for _ in range(2)] == ["stream.open", "stream.end"]


async def test_the_feed_and_a_run_share_a_connection(served: ServedEdge, writer: Database) -> None:
    before = await served.now()
    first, second = await working_run(writer), await working_run(writer)
    async with served.session() as socket:
        await socket.send(type="subscribe", subscription="all", feed=True, after=before)
        seen = [frame["event"]["partitionkey"] for frame in await socket.events(4)]
        assert seen == [first, first, second, second]
        await socket.send(type="subscribe", subscription="one", run_id=first, after="1")
        frame = await socket.until("event")
        assert (frame["subscription"], frame["position"]) == ("one", "2")
        await socket.send(type="subscribe", subscription="ends", feed=True, types=["run.completed"], after="latest")
        await socket.until("stream.open")
        made = step(first, 2, [RunCompleted()])
        await commit_step(writer, made)
        served.hub.receive(live(made, 0))
        frames = [await socket.until("event") for _ in range(3)]
        assert {frame["subscription"] for frame in frames} == {"all", "one", "ends"}
        assert len({frame["event"]["id"] for frame in frames}) == 1


async def test_a_subscription_ends_when_told_and_its_name_is_free_again(served: ServedEdge, writer: Database) -> None:
    run_id = await working_run(writer)
    async with served.session() as socket:
        for _ in range(2):
            await socket.send(type="subscribe", subscription="s", run_id=run_id)
            await socket.events(2)
            await socket.send(type="unsubscribe", subscription="s")
            assert (await socket.until("stream.end"))["reason"] == "unsubscribed"
        served.hub.receive(delta(run_id, "for nobody"))
        await socket.send(type="ping")
        assert (await socket.next())["type"] == "pong"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"type": "subscribe", "run_id": "THEIRS"}, "not_found"),
        ({"type": "subscribe", "run_id": "run_x"}, "not_found"),
        ({"type": "subscribe", "run_id": 'run_"},{"'}, "not_found"),
        ({"type": "subscribe", "run_id": "MINE", "after": "x"}, "malformed_cursor"),
        ({"type": "subscribe", "run_id": "MINE", "after": "3"}, "cursor_past_head"),
        ({"type": "subscribe", "feed": True, "after": "3"}, "malformed_cursor"),
        ({"type": "subscribe", "feed": True, "after": "ffffffffffffffff-1"}, "cursor_past_head"),
        ({"type": "subscribe", "feed": True, "types": ["run.exploded"]}, "unsupported_event_type"),
        ({"type": "subscribe", "subscription": "taken", "run_id": "MINE"}, "subscription_exists"),
        ({"type": "unsubscribe", "subscription": "none"}, "not_found"),
        ({"type": "ack", "subscription": "none", "position": "1"}, "not_found"),
        ({"type": "ack", "subscription": "taken", "position": "7"}, "unknown_position"),
    ],
)
async def test_what_cannot_be_had_is_answered_and_costs_nothing_else(
    served: ServedEdge, writer: Database, frame: dict[str, object], code: str
) -> None:
    mine, theirs = await working_run(writer), new_run()
    made = step(theirs, 0, [started()])
    object.__setattr__(made, "tenant_id", "ten_other")
    await commit_step(writer, made)
    wanted = json.loads(json.dumps(frame).replace("MINE", mine).replace("THEIRS", theirs))
    async with served.session() as socket:
        await socket.send(type="subscribe", subscription="taken", run_id=mine, window=10)
        await socket.events(2)
        await socket.send(**wanted)
        error = await socket.until("error")
        assert error["code"] == code
        assert error["detail"]
        assert await still_lives(socket)


async def test_subscriptions_are_bounded(module_database_url: str, writer: Database) -> None:
    runs = [await working_run(writer) for _ in range(3)]
    async with (
        served_edge(module_database_url, sockets=SocketLimits(subscriptions=2)) as served,
        served.session() as socket,
    ):
        for run_id in runs:
            await socket.send(type="subscribe", run_id=run_id)
        error = await socket.until("error")
        assert (error["code"], error["subscription"]) == ("too_many_subscriptions", runs[2])
        assert await still_lives(socket)


DEEP = b"[" * 20_000
TEXT, BINARY, PIECE, LAST_PIECE, COMPRESSED = 0x81, 0x82, 0x01, 0x80, 0xC1
"""First bytes of frames: the opcode, whether it is the last one of its message, and a bit that was not agreed on."""
MALFORMED = {
    "binary": ([(BINARY, b'{"type": "ping"}')], 1003, "not_text"),
    "not UTF-8": ([(TEXT, b"\xff\xfe")], 1007, None),
    "not JSON": ([(TEXT, b"hello")], 1007, "not_json"),
    "empty": ([(TEXT, b"")], 1007, "not_json"),
    "deeply nested": ([(TEXT, DEEP)], 1007, "not_json"),
    "no object": ([(TEXT, b'["ping"]')], 1007, "not_an_object"),
    "no type": ([(TEXT, b"{}")], 1008, "unknown_frame"),
    "unknown type": ([(TEXT, b'{"type": "publish"}')], 1008, "unknown_frame"),
    "unknown field": ([(TEXT, b'{"type": "ping", "x": 1}')], 1008, "unknown_frame"),
    "wrong type of a field": ([(TEXT, b'{"type": "unsubscribe", "subscription": 1}')], 1008, "unknown_frame"),
    "a name that is none": ([(TEXT, b'{"type": "unsubscribe", "subscription": "a\\"b"}')], 1008, "unknown_frame"),
    "two sources": ([(TEXT, b'{"type": "subscribe", "run_id": "r", "feed": true}')], 1008, "unknown_frame"),
    "no source": ([(TEXT, b'{"type": "subscribe"}')], 1008, "unknown_frame"),
    "too large": ([(TEXT, b'{"type": "ping"}' + b" " * 65_536)], 1009, None),
    "too large in pieces": ([(PIECE, b" " * 40_000), (LAST_PIECE, b" " * 40_000)], 1009, None),
    "a piece of nothing": ([(LAST_PIECE, b"x")], 1002, None),
    "compressed without agreement": ([(COMPRESSED, b"{}")], 1002, None),
}


def masked(first_byte: int, data: bytes) -> bytes:
    """A frame as a client sends it, with a mask of zeros."""
    size = len(data)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return bytes([first_byte]) + length + bytes(4) + data


@pytest.mark.parametrize("name", list(MALFORMED))
async def test_a_malformed_frame_closes_with_its_code_and_costs_others_nothing(
    served: ServedEdge, writer: Database, name: str
) -> None:
    pieces, code, reason = MALFORMED[name]
    run_id = await working_run(writer)
    async with served.session() as witness, served.session() as socket:
        await witness.send(type="subscribe", run_id=run_id)
        await witness.events(2)
        for first_byte, data in pieces:
            socket.connection.transport.write(masked(first_byte, data))
        found = await socket.closed()
        assert found == (code, found[1] if reason is None else reason)
        assert await still_lives(witness)


class TestAuthentication:
    async def test_silence_is_ended(self, module_database_url: str) -> None:
        async with (
            served_edge(module_database_url, sockets=SocketLimits(auth_seconds=0.2)) as served,
            served.socket() as socket,
        ):
            assert await socket.closed() == (4408, "auth_timeout")

    @pytest.mark.parametrize(
        ("frame", "expected"),
        [
            ({"type": "ping"}, (4401, "auth_first")),
            ({"type": "subscribe", "feed": True}, (4401, "auth_first")),
            ({"type": "auth", "token": "cak_nonsense"}, (4401, "unauthenticated")),
            ({"type": "auth", "token": "cst_nonsense"}, (4401, "unauthenticated")),
            ({"type": "auth", "token": ""}, (1008, "unknown_frame")),
            ({"type": "auth"}, (1008, "unknown_frame")),
        ],
    )
    async def test_nothing_is_said_before_it(
        self, served: ServedEdge, frame: dict[str, object], expected: tuple[int, str]
    ) -> None:
        async with served.socket() as socket:
            await socket.send(**frame)
            assert await socket.closed() == expected

    @pytest.mark.parametrize(("key", "reason"), [("narrow", "insufficient_scope"), ("elsewhere", "forbidden")])
    async def test_a_key_that_may_not_do_this_or_not_from_here_is_forbidden(
        self, served: ServedEdge, key: str, reason: str
    ) -> None:
        async with served.socket() as socket:
            await socket.send(type="auth", token=served.keys[key])
            assert await socket.closed() == (4403, reason)

    async def test_a_ticket_in_the_address_or_in_the_first_frame_is_good_once(
        self, served: ServedEdge, other_edge: ServedEdge
    ) -> None:
        ticket = await served.ticket()
        async with served.socket(f"?ticket={ticket}") as socket:
            assert (await socket.next())["type"] == "ready"
        async with other_edge.socket(f"?ticket={ticket}") as socket:
            assert await socket.closed() == (4401, "unauthenticated")
        ticket = await served.ticket()
        for expected in ("ready", None):
            async with served.socket() as socket:
                await socket.send(type="auth", token=ticket)
                if expected:
                    assert (await socket.next())["type"] == expected
                else:
                    assert (await socket.closed())[0] == 4401

    async def test_a_ticket_of_one_run_is_for_that_run(self, served: ServedEdge, writer: Database) -> None:
        mine, another = await working_run(writer), await working_run(writer)
        async with served.socket(f"?ticket={await served.ticket(mine)}") as socket:
            for wanted in ({"run_id": another}, {"feed": True}):
                await socket.send(type="subscribe", **wanted)
                assert (await socket.until("error"))["code"] == "forbidden"
            await socket.send(type="subscribe", run_id=mine)
            assert len(await socket.events(2)) == 2

    async def test_an_expired_credential_ends_the_connection(self, served: ServedEdge, writer: Database) -> None:
        run_id = await working_run(writer)
        async with served.session("brief") as socket:
            await socket.send(type="subscribe", run_id=run_id)
            assert (await socket.until("stream.end"))["reason"] == "token_expired"
            assert await socket.closed() == (4401, "token_expired")

    async def test_a_revoked_credential_ends_the_connection_at_once(self, served: ServedEdge, writer: Database) -> None:
        run_id = await working_run(writer)
        async with served.session() as socket, served.session("theirs") as other:
            await socket.send(type="subscribe", run_id=run_id)
            await socket.events(2)
            served.revoke("mine")
            assert (await socket.until("stream.end"))["reason"] == "revoked"
            assert await socket.closed() == (4401, "revoked")
            assert await still_lives(other)

    async def test_a_revocation_that_nobody_tells_is_found_at_the_heartbeat(self, module_database_url: str) -> None:
        async with (
            served_edge(module_database_url, heartbeat_seconds=0.1) as served,
            served.session() as socket,
        ):
            served.revoked.add("key_mine")
            assert await socket.closed() == (4401, "revoked")

    async def test_a_newer_credential_of_the_same_caller_keeps_what_is_open(
        self, served: ServedEdge, writer: Database
    ) -> None:
        run_id = await working_run(writer)
        async with served.session("brief") as socket:
            await socket.send(type="subscribe", run_id=run_id)
            await socket.events(2)
            await socket.send(type="auth", token=served.keys["renewed"])
            assert (await socket.until("ready"))["expires_at"] is None
            await asyncio.sleep(1.1)  # beyond the end of the first one
            served.hub.receive(delta(run_id, "still here"))
            assert (await socket.until("delta"))["data"]["text"] == "still here"
            await socket.send(type="auth", token=served.keys["theirs"])
            assert await socket.closed() == (4403, "another_caller")


class TestHandshake:
    @pytest.mark.parametrize(
        ("origin", "status"),
        [
            (None, 101),
            ("OWN", 101),
            ("https://console.example.com", 101),
            ("https://evil.example", 403),
            ("https://console.example.com.evil.example", 403),
            ("http://console.example.com", 403),
            ("null", 403),
            ("http://[", 403),
        ],
    )
    async def test_pages_of_other_origins_do_not_get_in(
        self, served: ServedEdge, origin: str | None, status: int
    ) -> None:
        headers = {} if origin is None else {"Origin": served.url if origin == "OWN" else origin}
        try:
            async with served.socket(additional_headers=headers):
                found = 101
        except InvalidStatus as refused:
            found = refused.response.status_code
            assert json.loads(refused.response.body)["code"] == "origin_not_allowed"
        assert found == status

    async def test_another_protocol_is_refused(self, served: ServedEdge) -> None:
        with pytest.raises(InvalidStatus) as refused:
            async with served.socket(subprotocols=["graphql-ws"]):
                pass
        assert refused.value.response.status_code == 400
        assert json.loads(refused.value.response.body)["code"] == "unsupported_subprotocol"
