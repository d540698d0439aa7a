"""What the core needs of the outside to stream: an opened reply stream, and a sink for what may be delivered.

As with :mod:`.ports`, expected outcomes are values. Back-pressure is end to end: :meth:`ReplyStream.next` is
only called when the sink has taken what came before, and an implementation grants its sender no more than
``WINDOW`` chunks beyond what was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

from .ports import TransportFault

WINDOW: Final = 64
"""Chunks that a sender may be ahead of its reader: at 1 KiB a chunk, 64 KiB for each stream in flight."""


class StreamFault(Enum):
    """Why a stream that had been opened can't go on."""

    GAP = "a chunk of the stream is missing"
    UNOPENED = "the stream did not begin with an opening message"
    OVERRUN = "the sender is further ahead than it was allowed"


@dataclass(frozen=True, slots=True)
class Chunk:
    """One message of a stream. ``last``: the end; ``whole``: an ordinary reply, not part of a stream."""

    payload: bytes
    last: bool = False
    whole: bool = False


class ReplyStream(Protocol):
    """The chunks of one stream in order, each once."""

    async def next(self, timeout_s: float) -> Chunk | TransportFault | StreamFault:
        """The next chunk; TIMED_OUT when none comes within ``timeout_s``."""
        ...

    async def close(self) -> None:
        """Forgets the stream; a sender that has not ended it is told to stop. Never raises."""
        ...


class Streams(Protocol):
    """Opens streams: plain NATS and a scripted fake implement it; one suite for both."""

    async def open(
        self, subject: str, payload: bytes, headers: Mapping[str, str]
    ) -> ReplyStream | TransportFault:
        """Sends the request. That nobody listens may show only in the first :meth:`ReplyStream.next`."""
        ...


@dataclass(frozen=True, slots=True)
class Delta:
    """What may be shown to the caller now: more text, or more of the message's other parts (tool calls)."""

    text: str = ""
    message: Mapping[str, Any] | None = None


class SinkStalledError(Exception):
    """The caller has stopped reading."""


class Sink(Protocol):
    """The caller's end of a stream."""

    async def emit(self, delta: Delta) -> None:
        """Delivers; returns when there is room for more. Raises :class:`SinkStalledError`."""
        ...
