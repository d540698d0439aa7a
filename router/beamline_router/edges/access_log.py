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
_SAME: Final = b'Z","level":"info","event":"request.served","component":"router",'


def _stderr() -> BinaryIO | None:
    return getattr(sys.stderr, "buffer", None)


class AccessLog:
    """Writes lines to ``stream`` (default: stderr, looked up at each flush). Disabled, it costs nothing.

    ``share`` of the requests have a line, evenly spread; one that failed always has. ``wall`` is Unix
    seconds.
    """

    def __init__(
        self,
        *,
        enabled: bool = True,
        share: float = 1.0,
        stream: Callable[[], BinaryIO | None] = _stderr,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.enabled = enabled
        self._share = share
        self._due = 0.0
        self._stream = stream
        self._wall = wall
        self._lines: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._second = 0
        self._prefix = b""

    def wants(self, failed: bool) -> bool:
        """Whether the request that just ended has a line. Asked once for each request."""
        if not self.enabled or self._share >= 1.0:
            return self.enabled
        self._due += self._share
        if self._due >= 1.0:
            self._due -= 1.0
            return True
        return failed

    def write(self, **fields: Any) -> None:
        """One line: ``fields``, of which there must be one, after timestamp, level, event and component."""
        if not self.enabled:
            return
        line = b"".join((self._opening(), orjson.dumps(fields)[1:], b"\n"))
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

    def _opening(self) -> bytes:
        """The line up to its own fields. Of the timestamp only the microseconds are made each time."""
        now = self._wall()
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime('{"timestamp":"%Y-%m-%dT%H:%M:%S.', time.gmtime(second)).encode()
        return b"%b%06d%b" % (self._prefix, int((now - second) * 1e6), _SAME)
