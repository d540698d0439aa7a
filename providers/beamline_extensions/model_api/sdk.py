"""What a provider needs of a vendor's SDK, and of its API's words: two ports, both small.

The official Python SDKs are made by generators with one shape, so one adapter serves them; what differs (how
a client is made, which exceptions it raises) is data. Calls use the SDKs' documented low level
(``client.post(..., cast_to=...)``): path, authentication, headers (:mod:`.calls`) and server-sent events are
theirs, but no model object is built for every answer, which would cost more than all the rest of a call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2

from beamline_sdk import ExtensionRequest, ProviderReply
from beamline_sdk.results import StreamPart

from .calls import Recorder, Written, written
from .config import ModelApiConfig


@dataclass(frozen=True, slots=True)
class Sdk:
    """One vendor's SDK. ``client`` makes a client of (base URL, key or None, HTTP client)."""

    path: str
    client: Callable[[str, str | None, httpx2.AsyncClient], Any]
    stream: Any
    """The class of its streams of plain objects, such as ``AsyncStream[object]``."""
    api_error: type[Exception]
    """The base of all its errors."""
    without_key: Mapping[str, Any]
    """Headers of a call without a key: the SDK wants to be told."""

    async def written(
        self, base_url: str, key: str | None, headers: Mapping[str, Any] | None, *, stream: bool
    ) -> Written:
        """A call without its body. ``headers`` come on top of the SDK's own. Raises the SDK's errors."""
        recorder = Recorder()
        async with httpx2.AsyncClient(transport=recorder, trust_env=False) as http:
            client = self.client(base_url, key, http)
            more = headers if key is not None else {**self.without_key, **(headers or {})}
            return await written(client, recorder, self.path, more, stream=self.stream if stream else None)

    def events(self, call: Written, answer: httpx2.Response) -> EventStream:
        """The answer as events, each a parsed JSON value; reading it raises the SDK's errors."""
        stream: EventStream = self.stream(cast_to=object, response=answer, client=call.client)
        return stream


class StatusError(Exception):
    """The API answered with another status than success. ``body`` is its parsed JSON, or the text."""

    def __init__(self, response: httpx2.Response, body: object) -> None:
        super().__init__(f"status {response.status_code}")
        self.response = response
        self.body = body


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
