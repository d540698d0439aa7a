"""Streams at the NATS door: numbered chunks, the window, a reader that stalls, leaves or is gone, the commit
point.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from beamline_contract.names import SUBJECT_INVOKE
from beamline_router.edges import nats_answers
from beamline_sdk import Config, ExtensionRequest, ProviderReply, provider

from .conftest import Served, Site, eventually, extension, policy, running
from .openai_world import FILLER, chatting, serving_extension

TALK = {"action": "select_provider", "provider_id": "long"}


class Reader:
    """The reading end of one stream, spelled out."""

    def __init__(self, nc: Client) -> None:
        self.nc = nc
        self.inbox = nc.new_inbox()
        self.messages: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.subscription: Any = None

    async def ask(self, body: dict[str, Any], **headers: str) -> None:
        async def note(message: Msg) -> None:
            self.messages.append((dict(message.headers or {}), orjson.loads(message.data)))

        self.subscription = await self.nc.subscribe(self.inbox, cb=note)
        await self.nc.publish(
            SUBJECT_INVOKE, orjson.dumps(body), reply=self.inbox, headers=dict(headers) or None
        )

    async def tell(self, **said: Any) -> None:
        await self.nc.publish(self.messages[0][0]["Beamline-Stream-Control"], orjson.dumps(said))

    @property
    def ended(self) -> bool:
        return bool(self.messages) and "Beamline-Stream-End" in self.messages[-1][0]

    @property
    def chunks(self) -> list[str]:
        return [body["delta"] for _, body in self.messages if "delta" in body]

    @property
    def end(self) -> dict[str, Any]:
        return self.messages[-1][1]


class Long:
    """A provider that says a word as often as it is asked to, and knows where its generator stands."""

    def __init__(self) -> None:
        self.yielded = 0
        self.closed = asyncio.Event()
        owner = self

        @provider(name="long")
        async def long(request: ExtensionRequest, config: Config) -> AsyncGenerator[Any, None]:
            try:
                for _ in range(int(request.prompt or "0")):
                    owner.yielded += 1
                    yield "x"
                yield ProviderReply("", prompt_tokens=1, completion_tokens=owner.yielded)
            finally:
                owner.closed.set()

        self.extension = long


async def is_idle(served: Served) -> bool:
    text = (await served.http.get("/metrics")).text
    rows = [row for row in text.splitlines() if row.startswith("router_requests_in_flight")]
    return bool(rows) and float(rows[0].rpartition(" ")[2]) == 0.0


@pytest.mark.parametrize("transport", ["fast", "plain"])
@pytest.mark.parametrize("by", ["the body", "the header"])
async def test_an_answer_comes_in_numbered_chunks_and_its_end_says_everything_else(
    site: Site, transport: str, by: str
) -> None:
    async with chatting(site, transport=transport):
        reader = Reader(site.nc)
        wish = {"stream": True} if by == "the body" else {}
        headers = {} if by == "the body" else {"Beamline-Stream": "1"}
        await reader.ask(
            {"model": "fast", "prompt": "Hi", **wish}, **{"Beamline-Request-Id": "n-1", **headers}
        )
        await eventually(lambda: reader.ended, "the end")
    numbers = [int(sent["Beamline-Stream-Sequence"]) for sent, _ in reader.messages]
    assert numbers == list(range(len(reader.messages)))
    assert reader.messages[0][1] == {}
    assert "".join(reader.chunks) == "Hello there"
    assert len(reader.chunks) == 3
    assert {sent["Beamline-Request-Id"] for sent, _ in reader.messages} == {"n-1"}
    assert (reader.end["request_id"], reader.end["provider_id"]) == ("n-1", "talk")
    assert reader.end["usage"]["total_tokens"] > 0
    assert [step["outcome"] for step in reader.end["steps"]] == ["ok"]
    assert "output" not in reader.end


async def test_without_the_wish_the_same_request_is_answered_in_one_piece(site: Site) -> None:
    async with chatting(site):
        reply = await site.nc.request(SUBJECT_INVOKE, b'{"model":"fast","prompt":"Hi"}', timeout=10)
    assert orjson.loads(reply.data)["output"] == "Hello there"
    assert "Beamline-Stream-Sequence" not in (reply.headers or {})


async def test_an_address_that_is_cut_by_every_chunk_is_masked(site: Site) -> None:
    async with chatting(site):
        reader = Reader(site.nc)
        await reader.ask({"model": "leaky", "prompt": "Hi", "stream": True})
        await eventually(lambda: reader.ended, "the end")
    assert "".join(reader.chunks) == f"{FILLER * 12}write to [EMAIL] or don't. {FILLER * 12}"
    assert len(reader.chunks) > 5


async def test_a_request_that_is_refused_gets_one_ordinary_error(site: Site) -> None:
    async with chatting(site):
        reader = Reader(site.nc)
        await reader.ask({"model": "fast", "stream": True})
        await eventually(lambda: reader.messages, "the refusal")
    headers, body = reader.messages[0]
    assert body["error"]["code"] == "INVALID_ARGUMENT"
    assert "Beamline-Stream-Sequence" not in headers


@pytest.mark.parametrize(
    ("model", "code"),
    [("nobody", "NOT_FOUND"), ("guarded", "VALIDATION_REJECTED"), ("absent", "UNAVAILABLE")],
)
async def test_an_error_before_the_first_chunk_is_the_end_of_the_stream(
    site: Site, model: str, code: str
) -> None:
    async with chatting(site):
        reader = Reader(site.nc)
        await reader.ask({"model": model, "prompt": "Hi", "stream": True})
        await eventually(lambda: reader.ended, "the end")
    assert (len(reader.messages), reader.end["error"]["code"]) == (2, code)


async def test_after_the_first_chunk_the_end_is_an_interruption_that_says_what_was_delivered(
    site: Site,
) -> None:
    async with chatting(site):
        reader = Reader(site.nc)
        await reader.ask({"model": "breaking", "prompt": "Hi", "stream": True})
        await eventually(lambda: reader.ended, "the end")
    error = reader.end["error"]
    assert error["code"] == "STREAM_INTERRUPTED"
    assert error["details"]["delivered_characters"] == len("".join(reader.chunks)) > 0
    assert error["details"]["delivered_chunks"] == len(reader.chunks)


async def test_before_the_first_chunk_the_fallback_answers_and_the_caller_sees_one_stream(site: Site) -> None:
    long = Long()
    await site.put(
        extension("nobody", "provider", retry=0),
        extension("long", "provider"),
        policy("both", [{**TALK, "provider_id": "nobody", "fallback": ["long"]}]),
    )
    async with serving_extension(long.extension, site, "beamline.provider.long.v1"), running(site.settings()):
        reader = Reader(site.nc)
        await reader.ask({"policy": "both", "prompt": "5", "stream": True})
        await eventually(lambda: reader.ended, "the end")
    assert reader.chunks == ["x"] * 5
    assert [(step["extension_id"], step["outcome"]) for step in reader.end["steps"]] == [
        ("nobody", "error"),
        ("long", "ok"),
    ]


async def put_long(site: Site) -> Long:
    await site.put(extension("long", "provider", timeout_ms=60_000), policy("long", [TALK]))
    return Long()


async def test_back_pressure_reaches_the_providers_generator(site: Site) -> None:
    long = await put_long(site)
    async with serving_extension(long.extension, site, "beamline.provider.long.v1"), running(site.settings()):
        reader = Reader(site.nc)
        await reader.ask(
            {"policy": "long", "prompt": "2000", "stream": True}, **{"Beamline-Stream-Window": "8"}
        )
        await eventually(lambda: len(reader.chunks) == 8, "the window is full")
        await asyncio.sleep(0.2)
        assert len(reader.chunks) == 8
        # The caller's window, the router's own window on the provider, and what stands between them.
        assert long.yielded < 300
        await reader.tell(read=8)
        await eventually(lambda: len(reader.chunks) == 16, "the next window is full")
        await reader.tell(read=10_000)
        await eventually(lambda: reader.ended, "the end")
    assert len(reader.chunks) == 2000


async def test_a_reader_that_makes_no_room_is_given_up_and_the_provider_is_stopped(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_answers, "STALLED_S", 0.3)
    long = await put_long(site)
    async with serving_extension(long.extension, site, "beamline.provider.long.v1"), running(site.settings()):
        reader = Reader(site.nc)
        await reader.ask(
            {"policy": "long", "prompt": "100000", "stream": True}, **{"Beamline-Stream-Window": "4"}
        )
        await eventually(lambda: reader.ended, "the end")
        await asyncio.wait_for(long.closed.wait(), 10)
    assert reader.chunks == ["x"] * 4
    assert reader.end["error"]["code"] == "CANCELLED"


@pytest.mark.parametrize("how", ["says so", "is gone without a word"])
async def test_a_reader_that_leaves_cancels_its_request_down_to_the_provider(site: Site, how: str) -> None:
    long = await put_long(site)
    async with (
        serving_extension(long.extension, site, "beamline.provider.long.v1"),
        running(site.settings()) as served,
    ):
        reader = Reader(site.nc)
        window = {"Beamline-Stream-Window": "1"} if how == "says so" else {}
        await reader.ask({"policy": "long", "prompt": "1000000", "stream": True}, **window)
        await eventually(lambda: reader.chunks, "the first chunk")
        if how == "says so":
            await reader.tell(cancel=True)
            await eventually(lambda: reader.ended, "the end")
            assert reader.end["error"]["code"] == "CANCELLED"
        else:
            await reader.subscription.unsubscribe()
        await asyncio.wait_for(long.closed.wait(), 10)
        await eventually(lambda: is_idle(served), "the request is over")
        text = (await served.http.get("/metrics")).text
    assert long.yielded < 1_000_000
    assert 'router_requests_total{code="cancelled",door="nats"} 1.0' in text
