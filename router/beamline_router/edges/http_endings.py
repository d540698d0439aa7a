"""Parts of how a connection ends: when it is cut off, what it still takes, and what is on its way to it."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl
from math import inf
from termios import FIONREAD
from typing import Final

LINGER_BYTES: Final = 32 * 1024 * 1024
"""What a client may send before it reads that it was refused: a message with a large picture in it."""


class CutOff:
    """Calls ``cut`` when a connection has had its time. One timer that is seldom moved: a request costs none.

    Times are those of ``loop``.
    """

    __slots__ = ("_by", "_cut", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, cut: Callable[[], None]) -> None:
        self._loop = loop
        self._cut = cut
        self._by = inf
        self._timer: asyncio.TimerHandle | None = None

    def at(self, by: float) -> None:
        """Not before ``by``, whatever was said before."""
        self._by = by
        if self._timer is not None:
            if self._timer.when() <= by:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(by, self._look)

    def never(self) -> None:
        """Until something else is said."""
        self._by = inf

    def cancel(self) -> None:
        """The connection has ended; ``cut`` is not kept."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._cut = _nothing

    def _look(self) -> None:
        self._timer = None
        if self._loop.time() >= self._by:
            self._cut()
        elif self._by < inf:
            self.at(self._by)


def _nothing() -> None:
    return


class Deaf(asyncio.Protocol):
    """Takes what the client of ``instead`` still sends, at most ``LINGER_BYTES``, and forgets it."""

    def __init__(self, instead: asyncio.Protocol, transport: asyncio.Transport) -> None:
        self._instead = instead
        self._transport = transport
        self._left = LINGER_BYTES

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._instead.connection_lost(exc)

    def pause_writing(self) -> None:
        self._instead.pause_writing()

    def resume_writing(self) -> None:
        self._instead.resume_writing()


def last_word(transport: asyncio.Transport, instead: asyncio.Protocol) -> None:
    """Says that nothing more is answered, and hears no more, while the client can still read.

    A connection that is closed with unread bytes is reset, and with the reset goes the answer.
    """
    transport.set_protocol(Deaf(instead, transport))
    with suppress(OSError):  # the client was quicker
        transport.write_eof()


def has_unread(transport: asyncio.Transport) -> bool:
    """Whether bytes have arrived that nobody has looked at."""
    count = array("i", [0])
    ioctl(transport.get_extra_info("socket").fileno(), FIONREAD, count)
    return count[0] > 0
