"""The words of ``POST /v1/route``: its replies, and its stream of events.

With ``stream: true`` each event is ``data: {"delta": ...}`` or ``data: {"message": ...}``; the last is
``event: end`` with the reply as it would have been in one piece, but for the output, which was sent; or
``event: error`` with the error.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Protocol

import orjson

from ..core.envelope import Envelope
from ..core.intake import Shape
from ..core.request import Answer, Request
from ..core.stream_port import Delta, Sink, SinkStalledError
from .http_exchange import Exchange
from .http_replies import Events, add_error_headers, served_headers
from .serving import Served


class Format(Protocol):
    """How one exchange is read and answered."""

    shape: Shape | None
    """See ``Serving.serve``."""

    def sink_of(self, request: Request, envelope: Envelope) -> Sink | None:
        """See ``Serving.serve``."""
        ...

    async def finish(self, served: Served, *, close: bool = False) -> None:
        """Writes the reply, or the end of the stream. ``close``: the connection is not used again."""
        ...


class RouteFormat:
    """One exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self.shape: Shape | None = None
        self._exchange = exchange
        self._events = Events(exchange)

    async def finish(self, served: Served, *, close: bool = False) -> None:
        """See :class:`Format`."""
        if self._events.begun:
            body: dict[str, Any] = orjson.loads(served.body())
            body.pop("output", None)
            with suppress(SinkStalledError):
                await self._events.data(body, event="end" if isinstance(served.result, Answer) else "error")
            self._events.end()
            return
        headers = served_headers(served)
        status = 200
        if not isinstance(served.result, Answer):
            status = served.result.error.http_status
            add_error_headers(headers, status, served.result.error)
        self._exchange.answer(status, served.body(), headers, close=close)

    def sink_of(self, request: Request, envelope: Envelope) -> Sink | None:
        """See :class:`Format`."""
        return _RouteSink(self._events, envelope) if request.stream else None


class _RouteSink:
    def __init__(self, events: Events, envelope: Envelope) -> None:
        self._events = events
        self._envelope = envelope

    async def emit(self, delta: Delta) -> None:
        self._events.begin(self._envelope)
        if delta.text:
            await self._events.data({"delta": delta.text})
        if delta.message:
            await self._events.data({"message": delta.message})
