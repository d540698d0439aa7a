"""How answers leave: those of one turn of the loop together, at its end.

A write to a socket wakes the process that waits at its other end, and on the way to a process of the same
machine that is the dearest part of a short answer. Of writes in a row only the first has somebody to wake. So
an answer in one piece waits until the turn ends, and what a stream has to say leaves at once, behind whatever
waits on its connection.
"""

from __future__ import annotations

import asyncio
from typing import cast


class Turn:
    """What waits for the end of this turn of ``loop``. All connections of a server share one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._senders: list[Sender] = []

    def join(self, sender: Sender) -> None:
        """Has it flushed at the end."""
        if not self._senders:
            self._loop.call_soon(self._end)
        self._senders.append(sender)

    def _end(self) -> None:
        senders, self._senders = self._senders, []
        for sender in senders:
            sender.flush()


class Sender:
    """The sending half of a connection: keeps the order, and loses nothing when it closes."""

    __slots__ = ("_held", "_transport", "_turn")

    def __init__(self, turn: Turn, transport: asyncio.BaseTransport) -> None:
        self._turn = turn
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._held: list[bytes] = []

    def post(self, data: bytes) -> None:
        """Sends with the end of this turn, unless something else is sent before."""
        if not self._held:
            self._turn.join(self)
        self._held.append(data)

    def write(self, data: bytes) -> None:
        """Sends now."""
        self.flush()
        self._transport.write(data)

    def flush(self) -> None:
        """Sends what waits."""
        held = self._held
        if held:
            data = held[0] if len(held) == 1 else b"".join(held)
            held.clear()
            if not self._transport.is_closing():
                self._transport.write(data)

    def close(self) -> None:
        """Ends the connection behind what was sent."""
        self.flush()
        self._transport.close()
