"""Asking an extension over NATS, and keeping everything that comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

from .results import FailedError

ANSWER_SECONDS: Final = 10.0
QUIET_SECONDS: Final = 0.25
_NO_RESPONDERS: Final = "503"


@dataclass(frozen=True)
class Answer:
    """One message that came back. ``seconds`` is the time since the request was sent."""

    data: bytes
    headers: Mapping[str, str]
    seconds: float

    @property
    def body(self) -> Any:
        """The decoded JSON, None where it is none."""
        try:
            return orjson.loads(self.data)
        except orjson.JSONDecodeError:
            return None


class Caller:
    """Sends requests to one subject."""

    def __init__(self, nc: Client, subject: str) -> None:
        self.nc = nc
        self.subject = subject
        self.sent = 0
        """Requests published so far."""

    async def ask(
        self,
        request: Mapping[str, Any] | bytes,
        headers: Mapping[str, str] | None = None,
        *,
        seconds: float = ANSWER_SECONDS,
        subject: str | None = None,
    ) -> Answer:
        """The first answer. Raises :class:`FailedError` where none comes within ``seconds``."""
        async with Asked(self, request, headers, subject) as asked:
            return await asked.next(seconds)

    async def heard(self, subject: str, *, seconds: float = ANSWER_SECONDS, least: int = 1) -> list[Any]:
        """What everybody who listens on ``subject`` answers: at least ``least``, then until it is quiet."""
        async with Asked(self, b"", None, subject) as asked:
            found: list[Any] = []
            try:
                while len(found) < least:
                    found.append((await asked.next(seconds)).body)
                while True:
                    found.append((await asked.next(QUIET_SECONDS)).body)
            except FailedError:
                return found


class Asked:
    """One request and its inbox, open as long as the block."""

    def __init__(
        self,
        caller: Caller,
        request: Mapping[str, Any] | bytes,
        headers: Mapping[str, str] | None,
        subject: str | None = None,
    ) -> None:
        self._caller = caller
        self._payload = request if isinstance(request, bytes) else orjson.dumps(request)
        self._headers = None if headers is None else dict(headers)
        self._subject = subject or caller.subject
        self._answers: asyncio.Queue[Answer | None] = asyncio.Queue()
        self._sent = 0.0

    async def __aenter__(self) -> Asked:
        nc = self._caller.nc
        inbox = nc.new_inbox()
        self._subscription = await nc.subscribe(inbox, cb=self._on_message)
        self._sent = time.monotonic()
        await nc.publish(self._subject, self._payload, reply=inbox, headers=self._headers)
        self._caller.sent += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._subscription.unsubscribe()

    async def next(self, seconds: float) -> Answer:
        """The next message. Raises :class:`FailedError` where none comes, or nobody listens."""
        try:
            async with asyncio.timeout(seconds):
                answer = await self._answers.get()
        except TimeoutError:
            raise FailedError(f"no answer within {seconds:g} s") from None
        if answer is None:
            raise FailedError(f"nobody listens on {self._subject}")
        return answer

    def put_back(self, answer: Answer) -> None:
        """Makes ``answer`` the next one again; only for one that was the last to come."""
        self._answers.put_nowait(answer)

    async def _on_message(self, message: Msg) -> None:
        headers = message.headers or {}
        if not message.data and headers.get("Status") == _NO_RESPONDERS:
            self._answers.put_nowait(None)
            return
        self._answers.put_nowait(Answer(message.data, headers, time.monotonic() - self._sent))
