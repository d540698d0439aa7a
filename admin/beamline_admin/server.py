"""uvicorn on a socket of ours: the port is known at once, and signals stay with the application."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn

from beamline_sdk.listening import listen

from .gate import App

GRACE_S: Final = 10
"""How long a shutdown waits for answers under way."""
_BACKLOG: Final = 128


class _Quiet(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the application."""
        yield


class HttpServer:
    """An ASGI application on ``host`` and ``port`` (0: a free one). Raises
    :class:`~beamline_sdk.listening.ListenError`.
    """

    def __init__(self, app: App, host: str, port: int) -> None:
        self._socket = listen(host, port, purpose="the admin API", backlog=_BACKLOG)
        self.port = int(self._socket.getsockname()[1])
        config = uvicorn.Config(
            app,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,  # a header must never make a stranger local
            timeout_graceful_shutdown=GRACE_S,
            h11_max_incomplete_event_size=16 * 1024,
            limit_concurrency=256,
        )
        self._server = _Quiet(config)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to accept connections on the running loop."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="http")

    async def until(self, stop: asyncio.Event) -> None:
        """Returns when ``stop`` is set; raises where the server itself ended by a fault."""
        assert self._task is not None
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({self._task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        if self._task.done():
            self._task.result()

    async def stop(self) -> None:
        """Stops accepting, waits for answers under way, closes. More than once is fine."""
        self._server.should_exit = True
        task, self._task = self._task, None
        try:
            if task is not None:
                await task
        finally:
            self._socket.close()
