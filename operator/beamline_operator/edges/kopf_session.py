"""kopf's way to the API server, with what kopf itself leaves out.

- kopf dies of every answer of the 4xx class to a list or a watch, 401, 403 and 429 excepted, and takes the
  whole term with it: new epoch, new lists, new threads, half a minute on a busy machine. Such an answer is
  given to it as a broken connection instead, which it survives: it asks again a second later.
- A 410 to a watch it must hear of as such, or it would ask for the expired version for ever. It understands
  only the one inside a stream, so that is what it is given.
- An error inside a watch that is no 410, such as the 500 of a server that loses its etcd, kills it as well,
  and so does half a line at the end of a stream. The first becomes a 410, the second is left out.
- So does a line that is no event, wherever it stands, and a list that is none: half a line, the page of a
  proxy. The watch ends before that line, and is opened again from where it stood; the list is a broken
  connection.
- 429 with a long Retry-After would make it sleep for that long, beyond the end of what caused it. It waits
  :data:`RETRY_AFTER_S` at most, on top of its own pause.
- A watch that the server ends properly it opens again at once, hundreds of times a second where the server
  ends each at once. One resource is watched anew once in :data:`RECONNECT_S` at most.
- Whatever makes it list a resource leaves a gap, and it never tells what was deleted in a gap: at its start
  between our own list and its first one, later between a watch that broke and the list after. So ``on_gap``
  is told of every page of every list.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self

import aiohttp
import orjson
import structlog
from yarl import URL

RECONNECT_S: Final = 1.1
"""Between two watches of one resource: a server that ends each at once is asked once a second at most, by its
own clock, too.
"""
RETRY_AFTER_S: Final = 1.0
_KOPF_KNOWS: Final = frozenset({401, 403})
_GONE: Final = 410
_TOO_MANY: Final = 429

_EXPIRED: Final = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}\n'

_log = structlog.get_logger()


@dataclass(slots=True)
class History:
    """What is remembered from one session to the next; another thread may read it."""

    alive: dict[str, float] = field(default_factory=dict)
    """By path: monotonic seconds of the last request for a list or a watch, or of what a watch told last.
    Each path has a task of kopf's own, and one that dies takes nothing else with it.
    """

    def note(self, path: str) -> None:
        """Something happened there just now."""
        self.alive[path] = time.monotonic()


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
            response = await self._session.request(method=method, url=url, **how)
            if response.status < 400 and "kind" not in _parsed(await response.read()):
                # Of all broken connections the one after which it asks the same again.
                raise aiohttp.ServerDisconnectedError(f"what {asked.path} answered is no API server's")
            return response
        if watches:
            await self._pace(asked.path)
        else:
            self._on_gap()
        self._history.note(asked.path)
        response = await self._session.request(method=method, url=url, **how)
        if not 400 <= response.status < 500 or response.status in _KOPF_KNOWS:
            self._refused.pop(asked.path, None)
            if response.status >= 400:
                await _legible(response)
            elif watches:
                lines = _Lines(response.content, asked.path, self._history)
                response.content = lines  # type: ignore[assignment]  # all that kopf uses
            else:
                given = await _list(response, asked.path)
                response.json = given  # type: ignore[method-assign, assignment]  # parsed once
            return response
        if self._refused.get(asked.path) != response.status:
            self._refused[asked.path] = response.status
            _log.warning("watch.refused", path=asked.path, status=response.status, watch=watches)
        retry_after = _seconds(response.headers.get("Retry-After"))
        response.close()
        if watches and response.status == _GONE:
            return Expired()
        if response.status == _TOO_MANY:
            await asyncio.sleep(min(RETRY_AFTER_S, retry_after))
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
    """What a watch tells: whole lines only, each error as the one that kopf survives, and nothing from the
    first line on that is no event.
    """

    def __init__(self, content: aiohttp.StreamReader, path: str, history: History) -> None:
        self._content = content
        self._path = path
        self._history = history

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        rest = b""
        async for part in self._content.iter_chunked(size):
            self._history.note(self._path)
            whole, newline, rest = (rest + part).rpartition(b"\n")
            if not newline:
                continue
            told, garbled = _survivable(whole)
            if told:
                yield b"".join(told)
            if garbled is not None:
                _log.warning("watch.garbled", path=self._path, line=_start(garbled))
                return


def _survivable(lines: bytes) -> tuple[list[bytes], bytes | None]:
    """The lines up to the first that is no event, and that one."""
    told: list[bytes] = []
    for line in lines.split(b"\n"):
        event = _parsed(line)
        if event.get("type") == "ERROR":
            told.append(_EXPIRED)
        elif isinstance(event.get("type"), str) and _is_object(event.get("object")):
            told.append(line + b"\n")
        elif line.strip():
            return told, line
    return told, None


async def _list(response: aiohttp.ClientResponse, path: str) -> Callable[[], Awaitable[Any]]:
    """Gives the list. Raises :class:`aiohttp.ClientPayloadError` where it is none: an empty one would be
    taken for the truth.
    """
    text = await response.read()
    listed = _parsed(text)
    items = listed["items"] or [] if "items" in listed else None
    if not (_is_object(listed) and isinstance(items, list) and all(map(_is_object, items))):
        _log.warning("watch.garbled", path=path, line=_start(text))
        raise aiohttp.ClientPayloadError(f"what {path} answered is no list")

    async def given() -> Any:
        return {**listed, "items": items}

    return given


async def _legible(response: aiohttp.ClientResponse) -> None:
    """kopf reads what a refusal says, and dies where that is in no encoding."""
    try:
        await response.text()
    except (UnicodeDecodeError, LookupError) as error:
        raise aiohttp.ClientPayloadError(f"a {response.status} in no encoding") from error


def _is_object(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("metadata"), dict)


def _parsed(text: bytes) -> dict[str, Any]:
    """A JSON object, or an empty one."""
    with suppress(ValueError):
        document = orjson.loads(text)
        if isinstance(document, dict):
            return document
    return {}


def _start(text: bytes) -> str:
    return text[:80].decode(errors="replace")


def _seconds(header: str | None) -> float:
    """What a Retry-After asks for; a date counts as the longest pause."""
    with suppress(ValueError):
        return max(float(header or 0), 0.0)
    return RETRY_AFTER_S
