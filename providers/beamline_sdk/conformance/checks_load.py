"""Many requests at once, and many instances."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from .caller import QUIET_SECONDS, Answer, Asked
from .results import FailedError
from .session import Session

_PARALLEL: Final = 24
_WORK_MS: Final = 200
_ASKED: Final = 12


async def concurrency(session: Session) -> str:
    """All are answered, none with another's answer, and not one after the other."""
    slow = await session.can_be_slow()
    requests = [session.slow_request(_WORK_MS, f"word{number}q") for number in range(_PARALLEL)]
    started = time.monotonic()
    answers = await asyncio.gather(
        *(session.answered(request, _trace(request)) for request in requests), return_exceptions=True
    )
    took = time.monotonic() - started
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    if failed:
        raise FailedError(f"{len(failed)} of {_PARALLEL} parallel requests failed: {failed[0]}")
    traces = {request["trace_id"] for request in requests}
    for number, (request, answer) in enumerate(zip(requests, answers, strict=True)):
        assert isinstance(answer, Answer)
        if _is_anothers(number, request["trace_id"], answer, traces):
            raise FailedError("a request got the answer of another one")
    if slow and took * 1000 > _PARALLEL * _WORK_MS * 0.7:
        raise FailedError(f"{_PARALLEL} requests of {_WORK_MS} ms took {took:.1f} s: one after the other")
    return f"{_PARALLEL} at once in {took * 1000:.0f} ms"


async def queue_group(session: Session) -> str:
    """Every request gets one answer, with two instances where a second one can be started."""
    endpoint = session.endpoint_of(session.info) if session.info is not None else None
    if endpoint is not None and not endpoint.get("queue_group"):
        raise FailedError("the endpoint states no queue_group")
    second = await session.launch() if session.launcher is not None else None
    try:
        counts = await asyncio.gather(*(_count(session) for _ in range(_ASKED)))
    finally:
        if second is not None:
            second.kill()
    if set(counts) != {1}:
        raise FailedError(f"a request got {max(counts)} answers" if max(counts) > 1 else "no answer came")
    return "two instances, one answer" if second else "one answer (--command adds a second instance)"


async def _count(session: Session) -> int:
    async with Asked(session.caller, session.target.request(), None) as asked:
        try:
            await asked.next(5.0)
        except FailedError:
            return 0
        count = 1
        try:
            while True:
                await asked.next(QUIET_SECONDS)
                count += 1
        except FailedError:
            return count


def _trace(request: dict[str, Any]) -> dict[str, str]:
    return {"traceparent": f"00-{request['trace_id']}-00f067aa0ba902b7-01"}


def _is_anothers(number: int, trace_id: str, answer: Answer, traces: set[str]) -> bool:
    others = traces - {trace_id}
    if answer.headers.get("traceparent", "")[3:35] in others:
        return True
    body = answer.body
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and metadata.get("trace_id") in others:
        return True
    text = str(body)
    words = {f"word{other}q" for other in range(_PARALLEL)}
    found = {word for word in words if word in text}
    return bool(found) and f"word{number}q" not in found
