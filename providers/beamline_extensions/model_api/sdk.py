"""What a provider needs of a vendor's SDK, and of its API's words: two ports, both small.

The official Python SDKs are made by generators with one shape, so one adapter serves them; what differs (how
a client is made, which exceptions it raises) is data. Calls go through the SDKs' documented low level
(``client.post(..., cast_to=...)``): authentication, headers, errors and server-sent events are theirs, but no
model object is built for every answer, which would cost more than all the rest of a call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2

from beamline_sdk import ExtensionRequest, ProviderReply
from beamline_sdk.results import StreamPart

from .config import ModelApiConfig


@dataclass(frozen=True, slots=True)
class Sdk:
    """One vendor's SDK. ``client`` makes a client of (base URL, key or None, HTTP client)."""

    path: str
    client: Callable[[str, str | None, httpx2.AsyncClient], Any]
    stream: Any
    """The class of its streams of plain objects, such as ``AsyncStream[object]``."""
    status_error: type[Exception]
    timeout_error: type[Exception]
    api_error: type[Exception]
    """The base of all its errors that come from a call."""
    without_key: Mapping[str, Any]
    """Headers of a call without a key: the SDK wants to be told."""

    async def whole(self, client: Any, body: bytes, options: Mapping[str, Any]) -> httpx2.Response:
        """The answer in one piece. ``options`` are the SDK's. Raises the SDK's errors."""
        answer: httpx2.Response = await client.post(
            self.path, content=body, cast_to=httpx2.Response, options=options
        )
        return answer

    async def events(self, client: Any, body: bytes, options: Mapping[str, Any]) -> EventStream:
        """The answer as events, each a parsed JSON value. Raises the SDK's errors."""
        stream: EventStream = await client.post(
            self.path, content=body, cast_to=object, stream=True, stream_cls=self.stream, options=options
        )
        return stream


@dataclass(frozen=True, slots=True)
class Asked:
    """What is sent for one request. ``ignored``: parameters that the API has no counterpart for."""

    body: dict[str, Any]
    headers: Mapping[str, Any] | None = None
    ignored: tuple[str, ...] = ()


class EventStream(Protocol):
    """A stream of an SDK."""

    response: httpx2.Response

    def __aiter__(self) -> AsyncIterator[object]:
        """The events."""
        ...

    async def close(self) -> None:
        """Closes the connection, unless the answer was read to its end."""
        ...


class Reader(Protocol):
    """Reads the events of one stream. Raises ``failures.UpstreamError`` on what makes no sense."""

    def feed(self, event: object) -> list[StreamPart]:
        """What the event adds to the answer."""
        ...

    def end(self) -> ProviderReply:
        """The reply at the stream's end, without output. Raises where the stream ended too early."""
        ...


class Words(Protocol):
    """How an API writes a chat request and its answers."""

    def asked(self, request: ExtensionRequest, config: ModelApiConfig, *, stream: bool) -> Asked:
        """What to send. Raises ExtensionError where the request has something that the API can't take."""
        ...

    def reply(self, data: Mapping[str, Any]) -> ProviderReply:
        """The reply of a whole answer. Raises ``failures.UpstreamError``."""
        ...

    def reader(self) -> Reader:
        """A reader for one stream."""
        ...
