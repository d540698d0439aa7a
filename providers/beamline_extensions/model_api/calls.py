"""How a call is written: the SDK writes it, once, and only the body differs from one call to the next.

What an official SDK does before a request leaves (merge options and headers, validate them, build request
objects three layers deep) costs more than all the rest of a call and comes out the same each time. So the SDK
writes a call to a recorder instead of the network, through its documented ``client.post``; the head is kept
and sent before each body. It stays the SDK that decides about path, authentication, versions and user agent.

The recorder is asked twice. Where both heads differ, an SDK has put something into them that belongs to one
call alone (an idempotency key, say); such a head is written anew for each call, and never kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx2

Origin = tuple[str, str, int]
"""Scheme, host and port of a server."""

_OURS: Final = frozenset({b"accept-encoding", b"connection", b"content-length"})
_ABOUT_TIME: Final = (b"x-stainless-read-timeout", b"x-stainless-timeout")
"""The SDK's own timeout, which no call has: each ends with its request's deadline."""


@dataclass(frozen=True, slots=True)
class Written:
    """A call without its body. ``head`` lacks only the length of it; ``request`` is what errors name."""

    origin: Origin
    head: bytes
    request: httpx2.Request
    client: Any
    kept: bool = True
    """Whether the next call may have the same head."""


class Recorder(httpx2.AsyncBaseTransport):
    """Keeps the request and answers with nothing."""

    def __init__(self) -> None:
        self.request: httpx2.Request | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """See httpx2."""
        await request.aread()
        self.request = request
        return httpx2.Response(200, json={}, request=request)


async def written(
    client: Any, recorder: Recorder, path: str, headers: Mapping[str, Any] | None, *, stream: Any | None
) -> Written:
    """The call that ``client`` makes, whose requests go to ``recorder``. ``stream``: its class of streams."""
    first = await _record(client, recorder, path, headers, stream)
    second = await _record(client, recorder, path, headers, stream)
    head = head_of(first)
    url = first.url
    port = url.port or (443 if url.scheme == "https" else 80)
    return Written((url.scheme, url.host, port), head, first, client, head == head_of(second))


async def _record(
    client: Any, recorder: Recorder, path: str, headers: Mapping[str, Any] | None, stream: Any | None
) -> httpx2.Request:
    options: dict[str, Any] = {} if headers is None else {"headers": headers}
    if stream is None:
        await client.post(path, content=b"{}", cast_to=httpx2.Response, options=options)
    else:
        opened = await client.post(
            path, content=b"{}", cast_to=object, stream=True, stream_cls=stream, options=options
        )
        await opened.close()
    request = recorder.request
    assert request is not None
    return request


def head_of(request: httpx2.Request) -> bytes:
    """The request line and headers, but the body's length. Raises :class:`httpx2.LocalProtocolError`."""
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    for name, value in request.headers.raw:
        if name.lower() not in _OURS and name.lower() not in _ABOUT_TIME:
            lines.append(b"%b: %b" % (name, value))
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or b"\0" in head:
        raise httpx2.LocalProtocolError("a header holds a line break", request=request)
    return head + b"\r\naccept-encoding: identity\r\ncontent-length: "
