"""One JSON line per request, cheap enough for every request.

The lines have the fields of all other logs (contract.md, "Metrics, logs, spans") and go to the same stream,
but not through structlog, whose processors cost more than the rest of the door. Lines are gathered and
written together, at the latest 50 ms after the first: one system call for many. Content never gets here:
only ids, names, times and codes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Final

import orjson

_FLUSH_S: Final = 0.05
_FLUSH_BYTES: Final = 64 * 1024


def _stderr() -> BinaryIO | None:
    return getattr(sys.stderr, "buffer", None)


class AccessLog:
    """Writes lines to ``stream`` (default: stderr, looked up at each flush). Disabled, it costs nothing.

    ``wall`` is Unix seconds.
    """

    def __init__(
        self,
        *,
        enabled: bool = True,
        stream: Callable[[], BinaryIO | None] = _stderr,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.enabled = enabled
        self._stream = stream
        self._wall = wall
        self._lines: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._second = 0
        self._prefix = ""

    def write(self, **fields: Any) -> None:
        """One line: ``fields`` after timestamp, level, event and component."""
        if not self.enabled:
            return
        line = orjson.dumps(
            {
                "timestamp": self._timestamp(),
                "level": "info",
                "event": "request.served",
                "component": "router",
                **fields,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        self._lines.append(line)
        self._size += len(line)
        if self._size >= _FLUSH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_S, self.flush)

    def flush(self) -> None:
        """Writes what has been gathered; a reader that has gone is no reason to stop serving."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines, self._size = self._lines, [], 0
        stream = self._stream()
        if not lines or stream is None:
            return
        try:
            stream.write(b"".join(lines))
            stream.flush()
        except (OSError, ValueError):
            return

    def _timestamp(self) -> str:
        now = self._wall()
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._prefix}.{int((now - second) * 1e6):06d}Z"
