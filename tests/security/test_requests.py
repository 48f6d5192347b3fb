"""Requests that are well-formed HTTP and nothing that anybody sends in good faith: each is refused with a code, and
tells nothing."""

from __future__ import annotations

import json

import httpx2
from fastapi.routing import iter_route_contexts

from codeagent.edge.app import create_app
from tests.architecture.test_routes import PUBLIC
from tests.integration.edge.test_every_route import Record
from tests.security.attacked import Target
from tests.security.leaks import leaks

ROUTES = [(route.path, sorted(route.methods or ())) for route in iter_route_contexts(create_app(None).routes)]
TRAVERSAL = (
    "/v1/runs/../../etc/passwd",
    "/v1/runs/..%2f..%2f..%2fetc%2fpasswd",
    "/v1/runs/%2e%2e/%2e%2e/etc/passwd",
    "/v1/runs/..%5c..%5cwindows%5cwin.ini",
    "/v1/runs/%252e%252e%252fetc%252fpasswd",
    "/v1/runs/..;/metrics",
    "/v1/artifacts/sha256:..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/v1/artifacts/%2fetc%2fpasswd",
    "/v1/schemas/..%2f..%2fopenapi/1",
    "//v1//me",
    "/v1/me/",
    "/V1/me",
    "/v1/me%20",
    "/v1/me;x=1",
    "/.git/config",
    "/.env",
    "/server-status",
    "/actuator/env",
    "/docs",
    "/redoc",
    "/debug/pprof",
)
STRANGE = (
    "%00",
    "a%00b",
    "%ff",
    "%ed%a0%80",
    "%c0%af",
    "%0d%0aX-Injected:%201",
    "%e2%80%ae",
    "'%20OR%201=1--",
    "x" * 2_000,
)
"""NUL, bytes that are no UTF-8, a lone surrogate, an overlong slash, a line end, a mark that turns text around, SQL."""


def proper(answer: httpx2.Response, *, of: object) -> None:
    """A refusal with a code, and nothing from inside."""
    assert 400 <= answer.status_code < 500, (of, answer.status_code, answer.text)
    assert "x-injected" not in answer.headers, of
    assert leaks(answer.content) == [], of
    if answer.content:
        body = answer.json()
        assert body.get("code") or body.get("error"), of


async def test_paths_lead_nowhere_but_to_routes(target: Target, record_property: Record) -> None:
    async with target.client(target.edge.keys.owner) as http:
        for path in TRAVERSAL:
            # As it stands: a client's own idea of a path must not tidy it first.
            answer = await http.request("GET", httpx2.URL(target.url).copy_with(raw_path=path.encode()))
            proper(answer, of=path)
    record_property("cases", len(TRAVERSAL))


async def test_whatever_stands_in_place_of_an_id_is_not_found(target: Target, record_property: Record) -> None:
    tried = 0
    async with target.client(target.edge.keys.owner) as http:
        for path, methods in ROUTES:
            if "{" not in path:
                continue
            for method in methods:
                for text in STRANGE:
                    raw = "/".join(text if part.startswith("{") else part for part in path.split("/"))
                    url = httpx2.URL(target.url).copy_with(raw_path=raw.encode())
                    headers = {"If-Match": "*", "Idempotency-Key": "k"}
                    proper(await http.request(method, url, headers=headers), of=(method, raw))
                    tried += 1
    record_property("cases", tried)


async def test_whatever_stands_in_a_query_is_refused_or_means_nothing(target: Target, record_property: Record) -> None:
    queries = [
        (route.path, [*(field.alias for field in route.original_route.dependant.query_params), "unknown"])
        for route in iter_route_contexts(create_app(None).routes)
        if "GET" in (route.methods or ()) and "{" not in str(route.path) and route.path not in PUBLIC
    ]
    tried = 0
    async with target.client(target.edge.keys.owner) as http:
        for path, names in queries:
            for name in names:
                for text in STRANGE[:-1]:
                    url = httpx2.URL(target.url).copy_with(raw_path=f"{path}?{name}={text}".encode())
                    answer = await http.get(url)
                    assert answer.status_code < 500, (path, name, text, answer.text)
                    if answer.status_code >= 400:
                        proper(answer, of=(path, name, text))
                    tried += 1
    record_property("cases", tried)


DEPTH = 40_000
BOMBS: dict[str, bytes] = {
    "a deep list": b"[" * DEPTH,
    "a deep list that ends": b"[" * DEPTH + b"]" * DEPTH,
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "depth in a field": b'{"task": ' + b"[" * DEPTH + b"]" * DEPTH + b"}",
    "a number of many digits": b'{"task": "t", "limits": {"max_steps": ' + b"9" * 50_000 + b"}}",
    "an exponent": b'{"limits": {"max_cost_usd": 1e99999999}}',
    "a fraction of many digits": b'{"limits": {"max_cost_usd": "0.' + b"0" * 50_000 + b'1"}}',
    "not a number": b'{"limits": {"max_steps": NaN, "max_cost_usd": -Infinity}}',
    "bytes that are no UTF-8": b'{"task": "\xff\xfe"}',
    "UTF-16": '{"task": "t"}'.encode("utf-16"),
    "a mark of byte order": b'\xef\xbb\xbf{"task": "t"}',
    "many fields": json.dumps({f"field{number}": 1 for number in range(5_000)}).encode(),
    "a long name": b'{"' + b"a" * 50_000 + b'": 1}',
    "a name with a path in it": b'{"__class__": {"__init__": 1}, "constructor": {"prototype": 1}}',
    "no object": b'"text"',
    "null": b"null",
    "nothing": b"",
    "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "two documents": b'{"task": "a"}{"task": "b"}',
    "a comment": b'{"task": "a" /* b */}',
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
}
TAKE_JSON = [
    (path, method)
    for path, methods in ROUTES
    for method in methods
    if method in {"POST", "PUT", "PATCH"} and path != "/v1/artifacts"
]


async def test_bodies_that_are_bombs_are_refused_by_every_route(target: Target, record_property: Record) -> None:
    tried, accepted = 0, []
    async with target.client(target.edge.keys.owner) as http:
        for path, method in TAKE_JSON:
            for name, body in BOMBS.items():
                headers = {"Content-Type": "application/json", "If-Match": "*", "Idempotency-Key": f"{name} {path}"}
                answer = await http.request(
                    method, path.replace("{run_id}", target.runs[0]), content=body, headers=headers
                )
                assert answer.status_code < 500, (path, name, answer.text)
                if answer.status_code >= 400:
                    proper(answer, of=(path, name))
                elif name not in {"null", "nothing"}:
                    accepted.append((path, name))
                tried += 1
    record_property("cases", tried)
    assert accepted == []


TEXTS: dict[str, str] = {
    "NUL": "a\\u0000b",
    "a lone surrogate": "a\\ud800b",
    "a surrogate that ends": "\\udfff",
    "a turned pair": "\\udc00\\ud800",
}


async def test_text_that_no_database_keeps_is_refused_before_it_gets_there(
    target: Target, record_property: Record
) -> None:
    bodies: list[tuple[str, str, str]] = [
        ("/v1/runs", "/task", '{"task": "TEXT", "source": {"kind": "git", "url": "https://example.org/a"}}'),
        ("/v1/runs", "/source/git/url", '{"task": "t", "source": {"kind": "git", "url": "https://example.org/TEXT"}}'),
        ("/v1/runs", "/agent", '{"task": "t", "source": {"kind": "git", "url": "https://e.org/a"}, "agent": "TEXT"}'),
        ("/v1/runs", "/model", '{"task": "t", "source": {"kind": "git", "url": "https://e.org/a"}, "model": "TEXT"}'),
        (f"/v1/runs/{target.runs[0]}/cancel", "/reason", '{"reason": "TEXT"}'),
        ("/v1/api-keys", "/name", '{"name": "TEXT", "scopes": ["runs:read"]}'),
        ("/v1/service-accounts", "/name", '{"name": "TEXT", "scopes": ["runs:read"]}'),
        ("/v1/stream-tickets", "/run_id", '{"run_id": "TEXT"}'),
    ]
    login = {"client_id": "cli", "email": "a@b.c", "password": "p", "code_challenge": "A" * 43}
    logins = [json.dumps({**login, name: "TEXT"}) for name in ("client_id", "email", "password", "state", "scope")]
    async with target.client(target.edge.keys.owner) as http:
        for text in TEXTS.values():
            for path, pointer, body in bodies:
                headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
                answer = await http.post(path, content=body.replace("TEXT", text).encode(), headers=headers)
                proper(answer, of=(path, body, text))
                assert (answer.status_code, [error["pointer"] for error in answer.json()["errors"]]) == (422, [pointer])
            for body in logins:
                headers = {"Content-Type": "application/json"}
                answer = await http.post("/oauth2/authorize", content=body.replace("TEXT", text), headers=headers)
                proper(answer, of=(body, text))
                assert answer.json()["error"] == "invalid_request"
    record_property("cases", len(TEXTS) * (len(bodies) + len(logins)))


async def test_a_name_that_stands_twice_is_read_once_and_the_same_everywhere(target: Target) -> None:
    twice = b'{"name": "first", "scopes": ["runs:read"], "name": "second"}'
    async with target.client(target.edge.keys.owner) as http:
        headers = {"Content-Type": "application/json", "Idempotency-Key": "twice"}
        made = await http.post("/v1/service-accounts", content=twice, headers=headers)
        shown = await http.get(f"/v1/service-accounts/{made.json()['id']}")
    assert (made.json()["name"], shown.json()["name"]) == ("second", "second")


async def test_methods_that_a_route_does_not_have_do_nothing(target: Target, record_property: Record) -> None:
    tried = 0
    async with target.client(target.edge.keys.owner) as http:
        for path in {path for path, methods in ROUTES if methods}:
            for method in ("TRACE", "CONNECT", "PROPFIND", "DEBUG", "TRACK", "PURGE"):
                url = httpx2.URL(target.url).copy_with(raw_path=path.replace("{", "").replace("}", "").encode())
                answer = await http.request(method, url, headers={"X-Secret": "echo me"})
                assert answer.status_code in {400, 405}, (method, path)  # 400: no method of HTTP at all
                assert "echo me" not in answer.text
                tried += 1
    record_property("cases", tried)


HOSTS = ("evil.example", "evil.example:80", "127.0.0.1@evil.example", "edge/../..", "a" * 300, "")
FORWARDED = {
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-For": "127.0.0.1",
    "Forwarded": "for=127.0.0.1;host=evil.example;proto=https",
    "X-Original-URL": "/v1/api-keys",
    "X-Rewrite-URL": "/v1/api-keys",
    "X-HTTP-Method-Override": "DELETE",
    "X-Real-IP": "127.0.0.1",
    "X-User-ID": "usr_owner",
    "X-Tenant-ID": "ten_others",
}


async def test_no_answer_repeats_a_host_that_a_client_has_made_up(target: Target, record_property: Record) -> None:
    tried = 0
    async with target.client(target.edge.keys.owner) as http:
        for headers in [{"Host": host} for host in HOSTS] + [{name: value} for name, value in FORWARDED.items()]:
            for path in (
                "/v1/me",
                "/v1/runs?limit=1",
                "/openapi.json",
                "/.well-known/oauth-authorization-server",
                "/x",
            ):
                answer = await http.get(path, headers=headers)
                assert b"evil.example" not in answer.content + str(answer.headers).encode(), (headers, path)
                if path == "/v1/me" and answer.status_code == 200:
                    assert answer.json()["tenant_id"] == "ten_mine"
                tried += 1
    record_property("cases", tried)


async def test_what_is_private_is_kept_by_no_shared_cache(target: Target, record_property: Record) -> None:
    paths = [path for path, methods in ROUTES if "GET" in methods and "{" not in path and path not in PUBLIC]
    async with target.client(target.edge.keys.owner) as http:
        for path in paths:
            answer = await http.get(path)
            policy = answer.headers["cache-control"]
            assert "private" in policy or "no-store" in policy, path
            assert "public" not in policy, path
        for path in ("/v1/me/x.css", "/v1/me%2fx.css", "/v1/runs/x.js"):
            answer = await http.get(path)
            assert answer.status_code == 404
            assert answer.headers["cache-control"] == "no-store"
    record_property("cases", len(paths) + 3)
