"""A request leaves no reference cycle behind, neither in the router nor in extensions: what it was made of
goes with it, and the collector, which a router asks seldom (``collector.py``), finds nothing.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest

from beamline_contract.names import SUBJECT_INVOKE

from .conftest import Served, Site, eventually
from .openai_world import USER, chatting
from .test_router_nats_streams import Reader, is_idle

Ask = Callable[[Site, Served], Awaitable[Any]]
TIMES = 5
_CODE = "cr_code", "ag_code", "gi_code"


class Counted:
    """Something that Beamline made, by its module."""

    __module__ = "beamline_router.test"

    def __init__(self) -> None:
        self.itself: Any = None


@contextmanager
def garbage() -> Iterator[Counter[str]]:
    """What the collector alone could free of what Beamline made within the block, by kind."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        for one in gc.garbage:
            code = next((getattr(one, name) for name in _CODE if hasattr(one, name)), None)
            if type(one).__module__.startswith("beamline_"):
                found[type(one).__qualname__] += 1
            elif code is not None and "/beamline_" in code.co_filename:
                found[code.co_qualname] += 1
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def over_http(path: str, body: dict[str, Any], status: int = 200) -> Ask:
    async def ask(_site: Site, served: Served) -> None:
        reply = await served.http.post(path, json=body)
        assert reply.status_code == status, reply.text

    return ask


def over_nats(body: dict[str, Any], word: str) -> Ask:
    async def ask(site: Site, _served: Served) -> None:
        reply = await site.nc.request(SUBJECT_INVOKE, orjson.dumps(body), timeout=10)
        assert word in orjson.loads(reply.data)

    return ask


async def streamed_over_nats(site: Site, _served: Served) -> None:
    reader = Reader(site.nc)
    await reader.ask({"model": "fast", "prompt": "Hi", "stream": True})
    await eventually(lambda: reader.ended, "the end")


async def left(_site: Site, served: Served) -> None:
    """A client that goes away while its request is on its way."""
    port = served.http.base_url.port
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    body = orjson.dumps({"model": "slow", "prompt": "Hi"})
    writer.write(b"POST /v1/route HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    await asyncio.sleep(0.05)
    writer.close()
    await eventually(lambda: is_idle(served), "the cut")


def route(model: str, status: int = 200, **more: Any) -> Ask:
    return over_http("/v1/route", {"model": model, "prompt": "Hi", **more}, status)


def chat(model: str, status: int = 200, **more: Any) -> Ask:
    return over_http("/v1/chat/completions", {"model": model, "messages": USER, **more}, status)


def test_garbage_of_ours_is_told_from_that_of_others() -> None:
    with garbage() as found:
        ours = Counted()
        ours.itself = ours
        others: list[Any] = []
        others.append(others)
        del ours, others
    assert found == {"Counted": 1}


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(route("fast"), id="route"),
        pytest.param(route("fast", stream=True), id="route, streamed"),
        pytest.param(chat("fast"), id="chat"),
        pytest.param(chat("fast", stream=True), id="chat, streamed"),
        pytest.param(chat("leaky", stream=True), id="chat, streamed through a window"),
        pytest.param(over_nats({"model": "fast", "prompt": "Hi"}, "output"), id="NATS"),
        pytest.param(streamed_over_nats, id="NATS, streamed"),
        pytest.param(route("fast", 404, policy="none"), id="no such policy"),
        pytest.param(
            over_http("/v1/chat/completions", {"model": "fast", "messages": 1}, 400), id="malformed"
        ),
        pytest.param(over_nats({"model": "fast"}, "error"), id="malformed over NATS"),
        pytest.param(route("guarded", 422), id="rejected"),
        pytest.param(route("busy", 429), id="the provider refuses"),
        pytest.param(route("slow", 504), id="the provider is late"),
        pytest.param(route("absent", 503), id="nobody listens"),
        pytest.param(chat("breaking", stream=True), id="the stream breaks"),
        pytest.param(left, id="the client leaves"),
    ],
)
async def test_a_request_leaves_no_garbage(site: Site, ask: Ask) -> None:
    async with chatting(site) as served:
        await ask(site, served)  # what is made once
        with garbage() as found:
            for _ in range(TIMES):
                await ask(site, served)
            await asyncio.sleep(0.05)
    assert not found
