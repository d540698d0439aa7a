"""What kopf is given instead of the answers that would kill it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from threading import Thread
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from beamline_operator.edges.kopf_edge import SILENCE_S, STUCK_S, KopfWatch
from beamline_operator.edges.kopf_session import Expired, History, WatchSession

SERVER = "https://api.example"
LIST = f"{SERVER}/apis/apps/v1/deployments?limit=500"
NEXT_PAGE = f"{LIST}&continue=token"
WATCH = f"{SERVER}/apis/apps/v1/deployments?watch=true&resourceVersion=7"
DISCOVERY = f"{SERVER}/apis/apps/v1"
ADDED = b'{"type":"ADDED","object":{"metadata":{}}}\n'
HTML = b"<html><body>504 Gateway Time-out</body></html>"
EMPTY = b'{"kind":"List","metadata":{"resourceVersion":"7"},"items":null}'
GONE = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}


class Answers:
    """A session whose server answers everything with ``status``; a watch tells ``parts``, a list ``text``."""

    def __init__(
        self, status: int = 200, parts: tuple[bytes, ...] = (), text: bytes = EMPTY, **headers: str
    ) -> None:
        self.closed = False
        self._status, self._parts, self._text, self._headers = status, parts, text, headers

    async def request(self, **_: Any) -> Any:
        async def iter_chunked(_: int) -> AsyncIterator[bytes]:
            for part in self._parts:
                yield part

        async def read() -> bytes:
            return self._text

        async def text() -> str:
            return self._text.decode()

        content = SimpleNamespace(iter_chunked=iter_chunked, total_bytes=11)
        return SimpleNamespace(
            status=self._status,
            headers=self._headers,
            content=content,
            close=lambda: None,
            read=read,
            text=text,
        )


def session(answers: Answers, gaps: list[str] | None = None) -> WatchSession:
    told = gaps if gaps is not None else []
    return WatchSession(answers, lambda: told.append("gap"), History())  # type: ignore[arg-type]  # as much as is used


async def heard(response: Any) -> list[dict[str, Any]]:
    stream = b"".join([part async for part in response.content.iter_chunked(1024)])
    assert not stream or stream.endswith(b"\n")
    return [json.loads(line) for line in stream.splitlines()]


@pytest.mark.parametrize("status", [400, 404, 409, 410, 422, 429])
@pytest.mark.parametrize("url", [LIST, WATCH], ids=["a list", "a watch"])
async def test_a_refusal_is_a_broken_connection_and_410_of_a_watch_is_heard_as_such(
    status: int, url: str
) -> None:
    asked = session(Answers(status)).request(method="get", url=url)
    if status == 410 and url == WATCH:
        response = await asked
        assert isinstance(response, Expired)
        assert await heard(response) == [GONE]
    else:
        with pytest.raises(aiohttp.ClientPayloadError, match=f"^{status} to /apis/apps/v1/deployments"):
            await asked


@pytest.mark.parametrize("status", [200, 401, 403, 500, 503])
async def test_what_kopf_knows_what_to_do_with_reaches_it(status: int) -> None:
    for url in (LIST, WATCH):
        assert (await session(Answers(status)).request(method="get", url=url)).status == status


async def test_what_it_asks_for_at_its_start_is_not_touched_unless_somebody_else_answers() -> None:
    assert (await session(Answers(404)).request(method="get", url=DISCOVERY)).status == 404
    known = Answers(text=b'{"kind":"APIResourceList"}')
    assert (await session(known).request(method="get", url=DISCOVERY)).status == 200
    for text in (HTML, b'{"error":"log in"}'):
        with pytest.raises(aiohttp.ClientConnectionError, match="/apis/apps/v1 answered"):
            await session(Answers(text=text)).request(method="get", url=DISCOVERY)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param((ADDED + ADDED[:9], ADDED[9:]), ["ADDED", "ADDED"], id="split anywhere"),
        pytest.param((ADDED + b'{"type":"MOD',), ["ADDED"], id="half a line at the end"),
        pytest.param(
            (ADDED + b'{"type":"ERROR","object":{"code":500}}\n',), ["ADDED", "ERROR"], id="an error"
        ),
        pytest.param((ADDED.replace(b"{}", b'{"note":"ERROR"}'),), ["ADDED"], id="a word alone"),
        pytest.param((), [], id="nothing"),
        pytest.param((b"\n" + ADDED,), ["ADDED"], id="an empty line"),
        pytest.param((ADDED + HTML + b"\n" + ADDED,), ["ADDED"], id="the page of a proxy"),
        pytest.param((ADDED[:20] + b"\n", ADDED), [], id="half a line in the middle"),
        pytest.param((ADDED + ADDED[:20] + ADDED,), ["ADDED"], id="half a line, and another in its middle"),
        pytest.param((b"[]\n" + ADDED,), [], id="JSON, but no event"),
        pytest.param((b'{"kind":"Status","code":500}\n' + ADDED,), [], id="a status that is no event"),
        pytest.param((b'{"type":"ADDED","object":{}}\n' + ADDED,), [], id="an event without an object"),
        pytest.param((b'{"type":"ADDED","object":\xff}\n' + ADDED,), [], id="in no encoding"),
    ],
)
async def test_a_watch_tells_whole_events_until_there_is_something_else_and_every_error_as_expired(
    parts: tuple[bytes, ...], expected: list[str]
) -> None:
    response = await session(Answers(200, parts)).request(method="get", url=WATCH)
    events = await heard(response)
    assert [event["type"] for event in events] == expected
    assert all(event == GONE for event in events if event["type"] == "ERROR")
    assert response.content.total_bytes == 11, "the rest of the stream is the stream's"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(HTML, id="the page of a proxy"),
        pytest.param(b"", id="nothing"),
        pytest.param(EMPTY[:30], id="half of one"),
        pytest.param(b"[]", id="JSON, but no object"),
        pytest.param(b'{"metadata":{}}', id="no items"),
        pytest.param(b'{"metadata":{},"items":[null]}', id="items that are no objects"),
        pytest.param(b'{"metadata":{},"items":{"a":{"metadata":{}}}}', id="items that are no list"),
        pytest.param(b'{"items":[]}', id="no version to watch from"),
    ],
)
async def test_a_list_that_is_none_is_a_broken_connection_and_never_an_empty_one(text: bytes) -> None:
    with pytest.raises(aiohttp.ClientPayloadError, match="no list"):
        await session(Answers(text=text)).request(method="get", url=LIST)


async def test_what_is_asked_and_what_a_watch_tells_is_a_sign_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history, path = History(), "/apis/apps/v1/deployments"
    watched = WatchSession(Answers(parts=(ADDED, ADDED)), print, history)  # type: ignore[arg-type]  # as above
    response = await watched.request(method="get", url=WATCH)
    asked = history.alive[path]
    monkeypatch.setattr("time.monotonic", lambda: asked + 7)
    assert len([part async for part in response.content.iter_chunked(1024)]) == 2
    assert history.alive[path] == asked + 7


async def test_a_list_is_given_as_it_is() -> None:
    response = await session(Answers()).request(method="get", url=LIST)
    assert await response.json() == {"kind": "List", "metadata": {"resourceVersion": "7"}, "items": []}  # type: ignore[union-attr]


async def test_a_refusal_in_no_encoding_is_a_broken_connection() -> None:
    with pytest.raises(aiohttp.ClientPayloadError, match="a 502 in no encoding"):
        await session(Answers(502, text=b"\xff\xfe")).request(method="get", url=WATCH)


async def test_each_page_of_a_list_is_a_gap_and_nothing_else_is() -> None:
    gaps: list[str] = []
    watched = session(Answers(), gaps)
    for url in (WATCH, DISCOVERY):
        await watched.request(method="get", url=url)
    assert gaps == []
    for url in (LIST, NEXT_PAGE):
        await watched.request(method="get", url=url)
    assert gaps == ["gap", "gap"]
    assert watched.closed is False, "the rest of the session is the session's"


def test_watches_that_neither_ask_nor_hear_are_blind_and_an_idle_cluster_is_not() -> None:
    watch = KopfWatch(None, on_object=print, on_owned=print)  # type: ignore[arg-type]  # nothing is asked
    assert watch.blind(1e6) is None, "not started"
    watch._thread = Thread()
    watch._started = 1000.0
    limit = SILENCE_S + STUCK_S
    assert watch.blind(1000 + limit - 1) is None
    assert "it is stuck" in (watch.blind(1000 + limit) or "")
    watch._history.alive.update({"/pods": 1050.0, "/services": 1060.0})
    assert watch.blind(1000 + limit) is None, "an API server that does not answer is asked again and again"
    watch._history.alive["/services"] = 2000.0
    assert "the watch of /pods has" in (watch.blind(1050 + limit) or ""), "one of them alone is stuck"
    watch._history.alive["/pods"] = 2000.0
    assert watch.blind(2000 + limit - 1) is None
    watch.failure = "the watch ended"
    assert watch.blind(2000.0) == "the watch ended"
