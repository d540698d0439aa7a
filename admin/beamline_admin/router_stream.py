"""The reading end of a stream: one router's answer to one request, in parts as they come.

The protocol is that of docs/wire-contract.md, "Streams". No window is asked for: an answer is bounded by
what a router lets an extension say, so it is never more than this process can hold, and nothing has to be
published to go on reading. Who closes the generator before its end has left: the subscription ends, which the
router hears from NATS with its next part, and the control subject is told at once where that is allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any, Final

import orjson
from nats import errors
from nats.aio.client import Client

from beamline_contract.names import (
    HEADER_STREAM,
    HEADER_STREAM_CONTROL,
    HEADER_STREAM_END,
    HEADER_STREAM_SEQUENCE,
    SUBJECT_INVOKE,
)

from .routers import RoutersError

_CANCEL: Final = b'{"cancel":true}'


async def streamed(
    nc: Client, request: Mapping[str, Any], headers: Mapping[str, str], seconds: float
) -> AsyncGenerator[dict[str, Any], None]:
    """Every part, ``{"delta": "text"}`` or ``{"message": {...}}``; the last one is the reply without its
    text, or ``{"error": {...}}``. A router that does not stream answers with one delta.

    ``seconds`` bound the whole of it. Raises :class:`RoutersError`.
    """
    loop = asyncio.get_running_loop()
    until, expected, control, over = loop.time() + seconds, 0, "", False
    subscription = await nc.subscribe(nc.new_inbox())
    try:
        await nc.publish(
            SUBJECT_INVOKE,
            orjson.dumps(request),
            reply=subscription.subject,
            headers={**headers, HEADER_STREAM: "1"},
        )
        while not over:
            try:
                message = await subscription.next_msg(max(0.001, until - loop.time()))
            except (TimeoutError, errors.TimeoutError) as error:
                raise RoutersError(f"the answer did not end within {seconds:g} s") from error
            told = message.headers or {}
            if told.get("Status") == "503" and not message.data:
                over = True
                raise RoutersError("no router serves on this NATS")
            wire = _object(message.data)
            number = told.get(HEADER_STREAM_SEQUENCE)
            if number is None:
                over = True
                if (text := wire.pop("output", None)) is not None:
                    yield {"delta": str(text)}
                yield wire
                return
            if number != str(expected):
                raise RoutersError("a part of the answer was lost on its way")
            expected += 1
            control = str(told.get(HEADER_STREAM_CONTROL) or control)
            over = HEADER_STREAM_END in told
            if over or number != "0":
                yield wire
    finally:
        with suppress(errors.Error):
            if control and not over:
                await nc.publish(control, _CANCEL)
            await subscription.unsubscribe()


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RoutersError("a router answered something that is not JSON") from error
    if not isinstance(found, dict):
        raise RoutersError("a router answered something that is not an object")
    return found
