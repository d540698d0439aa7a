"""The fake of ``core.stream_port.Streams``: streams by script, in a :class:`.fakes.FakeClock`'s time."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from .core.ports import TransportFault
from .core.stream_port import Chunk, Delta, ReplyStream, StreamFault
from .fakes import FakeClock, Sent


@dataclass(frozen=True, slots=True)
class Wait:
    """A pause of the sender, in seconds."""

    seconds: float


Item: TypeAlias = "str | dict[str, Any] | Wait | Chunk | TransportFault | StreamFault"
"""Text is a chunk with that delta; an object is the last message; a fault is what the reader gets."""


class FakeStreams:
    """Per subject one script for each stream that is opened; the last one stays. No script: no responders."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock if clock is not None else FakeClock()
        self.sent: list[Sent] = []
        self.cancelled: list[str] = []
        self._scripts: dict[str, list[list[Item]]] = {}

    def script(self, subject: str, *streams: list[Item]) -> None:
        """Sets what a subject streams from now on."""
        self._scripts[subject] = list(streams)

    async def open(
        self, subject: str, payload: bytes, headers: Mapping[str, str]
    ) -> ReplyStream | TransportFault:
        """As the port says."""
        self.sent.append(Sent(subject, payload, dict(headers), 0.0, self.clock.now))
        scripts = self._scripts.get(subject)
        if not scripts:
            return _Scripted(self, subject, [TransportFault.NO_RESPONDERS])
        return _Scripted(self, subject, scripts.pop(0) if len(scripts) > 1 else scripts[0])


class _Scripted:
    def __init__(self, owner: FakeStreams, subject: str, items: list[Item]) -> None:
        self._owner = owner
        self._subject = subject
        self._items = deque(items)
        self._over = False

    async def next(self, timeout_s: float) -> Chunk | TransportFault | StreamFault:
        waited = 0.0
        clock = self._owner.clock
        while self._items and isinstance(pause := self._items[0], Wait):
            if waited + pause.seconds > timeout_s:
                self._items[0] = Wait(pause.seconds - (timeout_s - waited))
                await clock.wait(timeout_s - waited)
                return TransportFault.TIMED_OUT
            waited += pause.seconds
            await clock.wait(pause.seconds)
            self._items.popleft()
        if not self._items:
            await clock.wait(timeout_s - waited)
            return TransportFault.TIMED_OUT
        item = self._items.popleft()
        if isinstance(item, str):
            return Chunk(orjson.dumps({"delta": item}))
        if isinstance(item, dict):
            self._over = True
            return Chunk(orjson.dumps(item), last=True)
        assert not isinstance(item, Wait)
        self._over = not isinstance(item, Chunk) or item.last
        return item

    async def close(self) -> None:
        if not self._over:
            self._owner.cancelled.append(self._subject)


@dataclass
class FakeSink:
    """Remembers what it was given; ``fail`` is raised instead of taking more than ``takes`` deltas."""

    deltas: list[Delta] = field(default_factory=list)
    takes: int | None = None
    fail: Exception | None = None

    async def emit(self, delta: Delta) -> None:
        """Takes one delta."""
        if self.takes is not None and len(self.deltas) >= self.takes and self.fail is not None:
            raise self.fail
        self.deltas.append(delta)

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(delta.text for delta in self.deltas)
