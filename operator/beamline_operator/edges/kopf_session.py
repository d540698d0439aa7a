"""kopf's way to the API server, with what kopf itself leaves out.

- kopf dies of every answer of the 4xx class to a list or a watch, 401, 403 and 429 excepted, and takes the
  whole term with it: new epoch, new lists, new threads, half a minute on a busy machine. Such an answer is
  given to it as a broken connection instead, which it survives: it asks again a second later.
- A 410 to a watch it must hear of as such, or it would ask for the expired version for ever. It understands
  only the one inside a stream, so that is what it is given.
- An error inside a watch that is no 410, such as the 500 of a server that loses its etcd, kills it as well,
  and so does half a line at the end of a stream. The first becomes a 410, the second is left out.
- 429 with a long Retry-After would make it sleep for that long, beyond the end of what caused it. It waits
  :data:`RETRY_AFTER_S` at most.
- A watch that the server ends properly it opens again at once, hundreds of times a second where the server
  ends each at once. One resource is watched anew once in :data:`RECONNECT_S` at most.
- Whatever makes it list a resource leaves a gap, and it never tells what was deleted in a gap: at its start
  between our own list and its first one, later between a watch that broke and the list after. So ``on_gap``
  is told of every page of every list.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self

import aiohttp
import orjson
import structlog
from yarl import URL

RECONNECT_S: Final = 1.1
"""Between two watches of one resource: a server that ends each at once is asked once a second at most, by its
own clock, too.
"""
RETRY_AFTER_S: Final = 2.0
_KOPF_KNOWS: Final = frozenset({401, 403})
_GONE: Final = 410
_TOO_MANY: Final = 429

_ERROR: Final = b'"ERROR"'
_EXPIRED: Final = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}\n'

_log = structlog.get_logger()


@dataclass(slots=True)
class History:
    """What is remembered from one session to the next; another thread may read it."""

    asked: float = 0.0
    """Monotonic seconds of the last request for a list or a watch."""


class WatchSession:
    """An aiohttp session as kopf uses one; what is not here is the session's own. It belongs to the loop in
    which ``session`` was made, and so does ``on_gap``.
    """

    def __init__(self, session: aiohttp.ClientSession, on_gap: Callable[[], None], history: History) -> None:
        self._session = session
        self._on_gap = on_gap
        self._history = history
        self._opened: dict[str, float] = {}
        self._refused: dict[str, int] = {}
        """By path: what the last answer was, where it was a refusal."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def request(self, *, method: str, url: str, **how: Any) -> aiohttp.ClientResponse | Expired:
        """One request. Raises what aiohttp raises, and :class:`aiohttp.ClientPayloadError` for a refusal of a
        list or a watch.
        """
        asked = URL(url)
        watches = "watch" in asked.query
        if not watches and "limit" not in asked.query:  # discovery
            return await self._session.request(method=method, url=url, **how)
        if watches:
            await self._pace(asked.path)
        else:
            self._on_gap()
        self._history.asked = time.monotonic()
        response = await self._session.request(method=method, url=url, **how)
        if not 400 <= response.status < 500 or response.status in _KOPF_KNOWS:
            self._refused.pop(asked.path, None)
            if watches:
                response.content = _Lines(response.content)  # type: ignore[assignment]  # all that kopf uses
            return response
        if self._refused.get(asked.path) != response.status:
            self._refused[asked.path] = response.status
            _log.warning("watch.refused", path=asked.path, status=response.status, watch=watches)
        retry_after = _seconds(response.headers.get("Retry-After"))
        response.close()
        if watches and response.status == _GONE:
            return Expired()
        if response.status == _TOO_MANY:
            await asyncio.sleep(min(retry_after, RETRY_AFTER_S))
        raise aiohttp.ClientPayloadError(f"{response.status} to {asked.path}")

    async def _pace(self, path: str) -> None:
        now = asyncio.get_running_loop().time()
        due = max(now, self._opened.get(path, float("-inf")) + RECONNECT_S)
        self._opened[path] = due
        await asyncio.sleep(due - now)


class Expired:
    """A stream that says that the version it should begin with has expired, and ends: as much of a response
    as kopf looks at.
    """

    status = 200
    closed = True

    def __init__(self) -> None:
        self.content = self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is open."""

    async def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        """The whole stream."""
        yield _EXPIRED


class _Lines:
    """What a watch tells: whole lines only, and each error as the one that kopf survives."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        rest = b""
        async for part in self._content.iter_chunked(size):
            whole, newline, rest = (rest + part).rpartition(b"\n")
            if newline:
                yield b"".join(map(_survivable, whole.splitlines())) if _ERROR in whole else whole + newline


def _survivable(line: bytes) -> bytes:
    if _ERROR in line and orjson.loads(line).get("type") == "ERROR":
        return _EXPIRED
    return line + b"\n"


def _seconds(header: str | None) -> float:
    """What a Retry-After asks for; a date counts as the longest pause."""
    with suppress(ValueError):
        return max(float(header or 0), 0.0)
    return RETRY_AFTER_S
