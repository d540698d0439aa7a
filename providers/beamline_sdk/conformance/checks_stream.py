"""Streams, from the reader's side (docs/wire-contract.md, "Streams")."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson

from beamline_contract.names import (
    HEADER_STREAM,
    HEADER_STREAM_CONTROL,
    HEADER_STREAM_END,
    HEADER_STREAM_SEQUENCE,
    HEADER_STREAM_WINDOW,
)

from .caller import Answer, Asked
from .results import FailedError, NotCheckedError
from .session import Session
from .shapes import end_faults, error_code, reply_faults

_WINDOW: Final = 2
_LONG: Final = "one two three four five six seven eight nine ten eleven twelve"
_PAUSE_SECONDS: Final = 0.3


async def streaming(session: Session) -> str:
    """Numbers, window, end and cancellation; a provider that says nothing of streams may answer whole."""
    if session.target.kind != "provider":
        raise NotCheckedError(f"a {session.target.kind} does not stream")
    declared = ((session.info or {}).get("metadata") or {}).get("beamline.streams") == "true"
    request = session.target.request(_LONG)
    async with Asked(session.caller, request, _headers(_WINDOW)) as asked:
        first = await asked.next(10.0)
        if HEADER_STREAM_SEQUENCE not in first.headers:
            if declared:
                raise FailedError("metadata says beamline.streams, and it answered in one piece")
            faults = reply_faults("provider", first.body, request)
            if faults:
                raise FailedError("; ".join(faults))
            raise NotCheckedError("it answers in one piece, which is allowed")
        chunks, text = await _read(session, asked, first, request)
    await _cancel(session)
    return f"{chunks} chunks, {len(text)} characters, within the window"


async def _read(session: Session, asked: Asked, first: Answer, request: dict[str, Any]) -> tuple[int, str]:
    control = _opening(first)
    read, text = 0, ""
    while True:
        answer = await asked.next(10.0)
        _numbered(answer, read + 1)
        if answer.headers.get(HEADER_STREAM_END) == "1":
            if error_code(answer.body) is not None:
                raise FailedError(f"the stream ended with {error_code(answer.body)}")
            faults = end_faults(answer.body, request)
            if faults:
                raise FailedError(f"the end of the stream: {'; '.join(faults)}")
            return read, text
        body = answer.body
        if not isinstance(body, dict) or not (
            isinstance(body.get("delta"), str) or isinstance(body.get("message"), dict)
        ):
            raise FailedError(f"chunk {read + 1} holds neither delta nor message")
        text += body.get("delta") or ""
        read += 1
        if read == _WINDOW:
            await _nothing_more(asked)
        if read >= _WINDOW:
            await session.caller.nc.publish(control, orjson.dumps({"read": read}))


async def _nothing_more(asked: Asked) -> None:
    """The window is full: only the end may still come, and it is put back by asking for it later."""
    try:
        extra = await asked.next(_PAUSE_SECONDS)
    except FailedError:
        return
    if extra.headers.get(HEADER_STREAM_END) != "1":
        raise FailedError(f"it sent more than the {_WINDOW} chunks that its reader has room for")
    asked.put_back(extra)


async def _cancel(session: Session) -> None:
    """A reader that leaves: the stream ends soon, and the next request is answered."""
    async with Asked(session.caller, session.target.request(_LONG), _headers(1)) as asked:
        control = _opening(await asked.next(10.0))
        await session.caller.nc.publish(control, orjson.dumps({"cancel": True}))
        try:
            async with asyncio.timeout(5.0):
                while (await asked.next(5.0)).headers.get(HEADER_STREAM_END) != "1":
                    pass
        except (TimeoutError, FailedError):
            raise FailedError("it did not end the stream when its reader had cancelled") from None
    await session.answered(session.target.request())


def _headers(window: int) -> dict[str, str]:
    return {HEADER_STREAM: "1", HEADER_STREAM_WINDOW: str(window), "Beamline-Deadline-Ms": "20000"}


def _opening(answer: Answer) -> str:
    _numbered(answer, 0)
    control: str | None = answer.headers.get(HEADER_STREAM_CONTROL)
    if not control:
        raise FailedError(f"the opening message has no {HEADER_STREAM_CONTROL}")
    return control


def _numbered(answer: Answer, wanted: int) -> None:
    given = answer.headers.get(HEADER_STREAM_SEQUENCE)
    if given != str(wanted):
        raise FailedError(f"{HEADER_STREAM_SEQUENCE} is {given!r} where {wanted} was due")
