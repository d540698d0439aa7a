"""The port that machines ask: ``/metrics`` for Prometheus, ``/healthz`` and ``/readyz`` for whoever runs the
process.

A few dozen lines of HTTP/1.1 on the process's own event loop instead of a web framework and a thread: that
``/healthz`` is answered at all shows that the loop turns, which is the point of a liveness probe. One request
per connection, GET and HEAD only, a few seconds and a few kilobytes per client; it is meant for probes, not
for users.

Answers of the two probes are JSON: ``{"status": "ok"}`` with 200, or ``{"status": "failing", "reason":
"..."}`` with 503. A reason starts with one word where a machine has to tell it apart: ``CredentialsMissing:
OPENAI_API_KEY is not set``.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import orjson
import structlog
from prometheus_client import REGISTRY, CollectorRegistry

from . import exposition

log = structlog.get_logger()

Probe = Callable[[], str | None]
"""None when all is well, else the reason, for people."""

_CLIENT_SECONDS: Final = 5.0
_MAX_HEAD_BYTES: Final = 16 * 1024
_JSON: Final = "application/json"
_REASON_PHRASES: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class HealthServerError(RuntimeError):
    """The port can't be used; the message is one sentence for the person who started the process."""


class HealthServer:
    """Serves ``/metrics``, ``/healthz`` and ``/readyz`` on ``port`` (0 chooses a free one, see :attr:`port`).

    ``ready`` and ``live`` are called for each probe and must not block. ``registry`` defaults to
    prometheus_client's.
    """

    def __init__(
        self,
        port: int,
        *,
        host: str = "0.0.0.0",  # noqa: S104 -- probes come from outside the pod
        ready: Probe,
        live: Probe,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._host = host
        self._wanted_port = port
        self._ready = ready
        self._live = live
        self._registry = registry if registry is not None else REGISTRY
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port it listens on; before :meth:`start`, the one asked for."""
        if self._server is None or not self._server.sockets:
            return self._wanted_port
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listens. Raises :class:`HealthServerError` when the port is taken or not allowed."""
        try:
            self._server = await asyncio.start_server(
                self._accept, self._host, self._wanted_port, limit=_MAX_HEAD_BYTES
            )
        except (OSError, OverflowError) as error:
            raise HealthServerError(_sentence(self._wanted_port, error)) from error
        log.debug("health.listening", port=self.port)

    async def stop(self) -> None:
        """Stops listening and drops open connections; more than once is fine."""
        server, self._server = self._server, None
        if server is None:
            return
        self._wanted_port = 0 if not server.sockets else int(server.sockets[0].getsockname()[1])
        server.close()
        for task in tuple(self._clients):
            task.cancel()
        if self._clients:
            await asyncio.wait(tuple(self._clients), timeout=1.0)
        with suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), 1.0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            async with asyncio.timeout(_CLIENT_SECONDS):
                await self._serve(reader, writer)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that is slow, gone, or sends too much gets nothing
        except asyncio.CancelledError:
            pass  # only `stop` cancels, and asyncio reports a client's task that ends as cancelled
        finally:
            self._clients.discard(task)
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/"):
            status, kind, body = 400, _JSON, _reason("not an HTTP request")
        elif words[0] not in {"GET", "HEAD"}:
            status, kind, body = 405, _JSON, _reason("only GET and HEAD are served")
        else:
            status, kind, body = self._answer(words[1].partition("?")[0], _accept(head))
        lines = [
            f"HTTP/1.1 {status} {_REASON_PHRASES[status]}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        if words[0] != "HEAD":
            writer.write(body)
        await writer.drain()

    def _answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        try:
            match path:
                case "/metrics":
                    text, kind = exposition.render(self._registry, accept)
                    return 200, kind, text
                case "/healthz":
                    return _probe_answer(self._live())
                case "/readyz":
                    return _probe_answer(self._ready())
                case _:
                    return 404, _JSON, _reason("here are /metrics, /healthz and /readyz")
        except Exception as error:  # a broken probe or collector is an answer
            log.exception("health.probe_failed", path=path)
            return 500, _JSON, _reason(f"the check itself failed: {type(error).__name__}")


def _accept(head: bytes) -> str:
    """The Accept headers of a request, joined."""
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return ",".join(value.decode("latin-1") for name, _, value in lines if name.strip().lower() == b"accept")


def _probe_answer(reason: str | None) -> tuple[int, str, bytes]:
    if reason is None:
        return 200, _JSON, b'{"status":"ok"}'
    return 503, _JSON, _reason(reason)


def _reason(text: str) -> bytes:
    return orjson.dumps({"status": "failing", "reason": text})


def _sentence(port: int, error: Exception) -> str:
    match getattr(error, "errno", None):
        case errno.EADDRINUSE:
            what = "is taken"
        case errno.EACCES:
            what = "needs more rights than this process has"
        case _:
            what = f"can't be used ({error})"
    return (
        f"port {port} for metrics and health {what}: set METRICS_PORT to another one (0 chooses a free port)"
    )
