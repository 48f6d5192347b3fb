"""One request to a receiver: to an address that was checked, bounded in time and size, and nothing of it is kept."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import httpx2

from codeagent import __version__
from codeagent.addresses import Address
from codeagent.webhooks.targets import Target, TargetRefused, Targets

TIMEOUT_SECONDS = 15.0
_CONNECT_SECONDS = 5.0
_MOST_BYTES = 16 << 10
_DISCARD_SECONDS = 2.0


class AttemptFailed(Exception):
    """There was no answer. `code` says why, in one word that the webhook's owner may read."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Answer:
    """The receiver's status, and its `Retry-After` if there was one."""

    status: int
    retry_after: str = ""


class WebhookClient:
    """Every attempt looks the host up, judges its addresses and dials one of just those: by the time of a second
    look-up a name may stand for another. So connections are not kept. Redirects are answers like any other, there are
    no cookies, and proxies that the environment names are not asked."""

    def __init__(self, targets: Targets, context: ssl.SSLContext, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._targets = targets
        self._timeout = timeout_seconds
        self._transport = httpx2.AsyncHTTPTransport(
            verify=context,
            trust_env=False,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Raises `AttemptFailed`."""
        try:
            async with asyncio.timeout(self._timeout):
                target = self._targets.parse(url)
                response = await self._send(target, await self._targets.addresses(target), headers, body)
        except TargetRefused:
            raise AttemptFailed("address_refused") from None
        except (TimeoutError, httpx2.TimeoutException):
            raise AttemptFailed("timeout") from None
        except httpx2.ConnectError as error:
            raise AttemptFailed("tls_failed" if _is_tls(error) else "connection_failed") from None
        except httpx2.NetworkError:
            raise AttemptFailed("connection_lost") from None
        except httpx2.HTTPError:
            raise AttemptFailed("no_answer") from None
        await _discard(response)
        return Answer(response.status_code, response.headers.get("retry-after", ""))

    async def _send(
        self, target: Target, addresses: tuple[Address, ...], headers: Mapping[str, str], body: bytes
    ) -> httpx2.Response:
        refused: httpx2.ConnectError | httpx2.ConnectTimeout | None = None
        for address in addresses:
            try:
                return await self._transport.handle_async_request(self._request(target, address, headers, body))
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                refused = error
        assert refused is not None
        raise refused

    def _request(self, target: Target, address: Address, headers: Mapping[str, str], body: bytes) -> httpx2.Request:
        url = httpx2.URL(f"{target.scheme}://host").copy_with(
            host=str(address), port=target.port, raw_path=target.path.encode()
        )
        waits = {"connect": _CONNECT_SECONDS, "read": None, "write": None, "pool": None}
        return httpx2.Request(
            "POST",
            url,
            headers={
                **headers,
                "Host": target.authority,
                "User-Agent": f"CodeAgent/{__version__} (webhooks)",
                "Connection": "close",
            },
            content=body,
            extensions={"timeout": waits, "sni_hostname": target.host},
        )

    async def close(self) -> None:
        await self._transport.aclose()
        self._targets.close()


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


async def _discard(response: httpx2.Response) -> None:
    """Reads a little, since some servers take a connection closed on their answer for an error. The status counts
    whatever becomes of the rest."""
    read = 0
    with suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(_DISCARD_SECONDS):
            async for chunk in response.aiter_raw():
                read += len(chunk)
                if read >= _MOST_BYTES:
                    break
    with suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(_DISCARD_SECONDS):
            await response.aclose()
