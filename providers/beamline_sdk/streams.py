"""The sending end of a stream: opening message, chunks within the reader's window, end.

A stream is one request whose answer comes in several messages on its reply subject (docs/wire-contract.md,
"Streams"). The reader allows a number of chunks beyond what it has read, and says on this process's control
subject what it has read. Without room the sender waits, and with it the author's generator, which stands at
its ``yield``: back-pressure reaches the model's own connection.

The reader may also say that it has left. Then the generator is closed where it stands, so that its
``finally`` blocks and ``async with`` run and nothing more is generated and paid for. A reader that is gone
without a word is noticed too: every message names the control subject as its reply subject, and where nobody
subscribes to the stream any more, NATS answers there with its status 503.

:class:`StreamSender` is one such end, whoever produces the chunks: :meth:`StreamSender.send` drives a
generator, a router drives :meth:`StreamSender.open`, :meth:`StreamSender.chunk` and :meth:`StreamSender.end`
by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from secrets import token_hex
from typing import Any, Final, Protocol

import orjson

from beamline_contract.names import (
    HEADER_STREAM,
    HEADER_STREAM_CONTROL,
    HEADER_STREAM_END,
    HEADER_STREAM_SEQUENCE,
    HEADER_STREAM_WINDOW,
)

from .extension import Extension, Provider
from .request import ExtensionRequest
from .results import Delta, ProviderReply, StreamPart

Parts = AsyncGenerator[StreamPart, None]
_MAX_WINDOW: Final = 65_536
_GONE: Final[Mapping[str, Any]] = {"cancel": True}
"""What NATS says when nobody subscribes to the stream, in our words."""


class Publish(Protocol):
    """Sends an answer. Raises what it likes when it can't."""

    def __call__(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None, reply: str = ""
    ) -> Awaitable[None]:
        """Sends ``payload`` to ``subject``; ``reply`` is where an answer to it is heard."""
        ...


class StreamCancelledError(Exception):
    """The reader has left."""


def asked_to_stream(extension: Extension[Any, Any], request: ExtensionRequest, config: Any) -> Parts | None:
    """The parts of the answer, where a stream was asked for and the provider can."""
    if request.headers.get(HEADER_STREAM) != "1" or not isinstance(extension, Provider):
        return None
    parts: Parts | None = extension.stream(request, config)
    return parts


class StreamSenders:
    """The streams that one process sends. ``control_prefix`` is where it listens, empty before it does."""

    def __init__(self, publish: Publish) -> None:
        self.control_prefix = ""
        self._publish = publish
        self._open: dict[str, StreamSender] = {}

    def sender(self, reply: str, headers: Mapping[str, str], extra: Mapping[str, str] | None) -> StreamSender:
        """A new stream to ``reply``. ``headers`` are the request's; ``extra`` go with every message."""
        # Not to be guessed from another's: whoever knows it can end the stream.
        subject = f"{self.control_prefix}.{token_hex(8)}"
        made = StreamSender(self._publish, reply, subject, _window(headers), extra or {})
        self._open[subject] = made
        return made

    def forget(self, sender: StreamSender) -> None:
        """The stream is over."""
        self._open.pop(sender.control, None)

    def heard(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Takes one control message; one that makes no sense is ignored."""
        sender = self._open.get(subject)
        if sender is None:
            return
        if not payload and headers and headers.get("Status") == "503":
            sender.heard(_GONE)
            return
        try:
            said = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return
        if isinstance(said, dict):
            sender.heard(said)


class StreamSender:
    """One stream. ``window`` is None where the reader set none; ``on_left`` is called once, when it
    leaves.
    """

    def __init__(
        self, publish: Publish, reply: str, control: str, window: int | None, extra: Mapping[str, str]
    ) -> None:
        self.control = control
        self._publish = publish
        self._reply = reply
        self._window = window
        self._extra = extra
        self._sequence = 0
        self._read = 0
        self._room = asyncio.Event()
        self._left = asyncio.Event()
        self.on_left: Callable[[], None] | None = None

    async def send(self, parts: Parts) -> ProviderReply:
        """Sends every part; returns the last :class:`ProviderReply`, or an empty one.

        Raises :class:`StreamCancelledError` when the reader leaves, and whatever ``parts`` raises.
        """
        await self.open()
        sending = asyncio.ensure_future(self._all(parts))
        leaving = asyncio.ensure_future(self._left.wait())
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise StreamCancelledError
            return sending.result()
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            del sending, leaving  # a fault that is raised here and its task would keep each other

    async def open(self, headers: Mapping[str, str] | None = None) -> None:
        """The opening message, which names the control subject. ``headers`` go with this message alone."""
        await self._message(b"{}", {**(headers or {}), HEADER_STREAM_CONTROL: self.control})

    async def end(self, payload: bytes) -> None:
        """The last message: usage and metadata, or an error. Never raises."""
        try:
            await self._message(payload, {HEADER_STREAM_END: "1"})
        except Exception:  # noqa: BLE001 -- whoever asked is gone with the connection
            return

    def heard(self, said: Mapping[str, Any]) -> None:
        """What the reader said: ``read`` so many chunks, or ``cancel``."""
        read = said.get("read")
        if type(read) is int:
            self._read = max(self._read, read)
        self._room.set()
        if said.get("cancel") is True and not self._left.is_set():
            self._left.set()
            if self.on_left is not None:
                self.on_left()

    async def _all(self, parts: Parts) -> ProviderReply:
        reply = ProviderReply(output="")
        async with aclosing(parts):
            async for part in parts:
                if isinstance(part, ProviderReply):
                    reply = part
                    if part.output:
                        await self.chunk(Delta(part.output))
                else:
                    await self.chunk(part if isinstance(part, Delta) else Delta(part))
        return reply

    async def chunk(self, delta: Delta) -> None:
        """One part of the answer, once the reader has room for it."""
        wire = delta.to_wire()
        if not wire:
            return
        # The opening message is number 0, so the next chunk's number counts the chunks sent and this one.
        while self._window is not None and self._sequence - self._read > self._window:
            self._room.clear()
            await self._room.wait()
        await self._message(orjson.dumps(wire), {})

    async def _message(self, payload: bytes, headers: dict[str, str]) -> None:
        numbered = {**self._extra, HEADER_STREAM_SEQUENCE: str(self._sequence), **headers}
        await self._publish(self._reply, payload, headers=numbered, reply=self.control)
        self._sequence += 1


def _window(headers: Mapping[str, str]) -> int | None:
    stated = headers.get(HEADER_STREAM_WINDOW) or headers.get(HEADER_STREAM_WINDOW.lower()) or ""
    return max(1, min(int(stated), _MAX_WINDOW)) if stated.isdecimal() and len(stated) < 9 else None
