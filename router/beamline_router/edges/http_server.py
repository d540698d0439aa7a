"""The listening socket of the HTTP door, and how it is left.

Shutdown has three parts. A kept connection that is closed just when its client sends the next request costs
that request; so for ``LEAVE_S`` every answer says ``connection: close``, and clients that are at work go
elsewhere of their own accord. Then nobody is let in any more, what is idle is closed, and the rest with its
answer. What is not answered when the time is over is cancelled.

A client that is connected expects an answer, also one that nobody has looked at yet: who stands in line is
let in before the line is closed, and a connection whose first request is on its way is waited for.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from email.utils import formatdate
from typing import Final

from beamline_sdk.listening import listen

from .http_exchange import Exchange, Handler
from .http_protocol import Connection
from .http_refusals import Shedding
from .http_sending import Turn

_BACKLOG: Final = 2048
LEAVE_S: Final = 1.0
"""How long kept connections are asked to go before they are closed: longer than a client at work pauses."""
_LAST_WORDS_S: Final = 1.0
"""For requests that are cancelled to say so, and for their last bytes to leave."""
_TURNS: Final = 3
"""Turns of the loop between the system's word of a client and ours."""


class HttpServer:
    """Serves ``handler`` on a socket of its own, bound at once, so that port 0 is known. Raises
    :class:`~beamline_sdk.listening.ListenError`.
    """

    def __init__(self, handler: Handler, shedding: Shedding, host: str, port: int) -> None:
        self._socket = listen(host, port, purpose="HTTP", backlog=_BACKLOG)
        self.host = host
        self.port = int(self._socket.getsockname()[1])
        self.leaving = False
        self.connections: set[Connection] = set()
        self.refusal = shedding.refusal
        self._handler = handler
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self.turn = Turn(self._loop)
        self._server: asyncio.Server | None = None
        self._empty: asyncio.Future[None] | None = None
        self._second = 0
        self._common = b""

    async def begin(self) -> None:
        """Begins to accept connections on the running loop."""
        self._server = await self._loop.create_server(
            lambda: Connection(self, self._loop), sock=self._socket, backlog=_BACKLOG
        )

    async def stop(self, grace_s: float) -> None:
        """Lets clients leave, stops accepting, waits for answers under way (at most ``grace_s`` seconds from
        now), closes.
        """
        until = self._loop.time() + grace_s
        self.leaving = True
        await self._emptied(min(LEAVE_S, grace_s))
        await self._close_line()
        for connection in tuple(self.connections):
            connection.close_when_idle()
        await self._emptied(until - self._loop.time())
        for task in self._tasks:
            task.cancel()
        await self._emptied(_LAST_WORDS_S)
        for connection in tuple(self.connections):
            connection.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # What connections ask for

    def start(self, exchange: Exchange) -> None:
        """See ``http_doors.Doors``."""
        exchange.start(self._handler, self._tasks, self._loop)

    def common(self) -> bytes:
        """See ``http_doors.Doors``."""
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._common = f"date: {formatdate(now, usegmt=True)}\r\n".encode()
        return self._common

    def gone(self, connection: Connection) -> None:
        """See ``http_doors.Doors``."""
        self.connections.discard(connection)
        if not self.connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    async def _close_line(self) -> None:
        """Takes who stands in line and stops listening."""
        if self._socket.fileno() < 0:
            return
        # A server of asyncio that is closed forgets the clients that it has not yet made connections of.
        self._loop.remove_reader(self._socket)
        await self._turns()
        line = self._socket.dup()
        if self._server is not None:
            self._server.close()
        self._socket.close()
        last: list[socket.socket] = []
        with line, suppress(OSError):  # BlockingIOError: that was the last one
            while True:
                last.append(line.accept()[0])
        for accepted in last:
            with suppress(OSError):
                await self._loop.connect_accepted_socket(lambda: Connection(self, self._loop), accepted)
        await self._turns()

    async def _turns(self) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def _emptied(self, limit_s: float) -> None:
        """Waits until nobody is connected."""
        if self.connections:
            self._empty = self._loop.create_future()
            with suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._empty
            self._empty = None
