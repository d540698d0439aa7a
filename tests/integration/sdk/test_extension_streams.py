"""A provider that streams: pace, window, cancellation, and what ends a stream, on a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from beamline_cli.local.nats import LocalNats
from beamline_contract.wire import MAX_REPLY_BYTES
from beamline_extensions.mock_provider.extension import MockProvider
from beamline_sdk import (
    Config,
    Delta,
    ExtensionError,
    ExtensionRequest,
    Patch,
    Post,
    ProviderReply,
    post,
    provider,
)

BODY: dict[str, Any] = {"prompt": "x", "trace_id": "t", "request_id": "r", "tenant_id": "a"}


class Settings(Config):
    chunks: int = 5


class Reader:
    """The reading end of one stream, spelled out."""

    def __init__(self, nc: Client) -> None:
        self.nc = nc
        self.inbox = nc.new_inbox()
        self.messages: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.subscription: Any = None

    async def ask(self, subject: str, body: dict[str, Any], **headers: str) -> None:
        async def note(message: Msg) -> None:
            self.messages.append((dict(message.headers or {}), orjson.loads(message.data)))

        self.subscription = await self.nc.subscribe(self.inbox, cb=note)
        await self.nc.flush()
        await self.nc.publish(
            subject, orjson.dumps(body), reply=self.inbox, headers={"Beamline-Stream": "1", **headers}
        )

    async def tell(self, **said: Any) -> None:
        control = self.messages[0][0]["Beamline-Stream-Control"]
        await self.nc.publish(control, orjson.dumps(said))

    @property
    def ended(self) -> bool:
        return bool(self.messages) and "Beamline-Stream-End" in self.messages[-1][0]

    @property
    def text(self) -> str:
        return "".join(body.get("delta", "") for _, body in self.messages)

    @property
    def end(self) -> dict[str, Any]:
        return self.messages[-1][1]


@provider
async def counting(request: ExtensionRequest, config: Settings) -> AsyncGenerator[Any, None]:
    """Counts."""
    for number in range(config.chunks):
        yield f"{number} "
    yield Delta(message={"tool_calls": [{"index": 0, "id": "c"}]})
    yield ProviderReply("", prompt_tokens=3, completion_tokens=4, model="m", finish_reason="tool_calls")


async def test_a_generator_is_streamed_in_numbered_chunks_with_usage_at_the_end(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    async with tools.serving(counting, nats_server.url, subject):
        reader = Reader(client)
        await reader.ask(subject, BODY, traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
        await tools.eventually(lambda: reader.ended, "the stream ended")
    assert [headers["Beamline-Stream-Sequence"] for headers, _ in reader.messages] == list("01234567")
    assert all("traceparent" in headers for headers, _ in reader.messages)
    assert reader.text == "0 1 2 3 4 "
    assert reader.messages[-2][1] == {"message": {"tool_calls": [{"index": 0, "id": "c"}]}}
    assert reader.end["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert reader.end["metadata"]["finish_reason"] == "tool_calls"
    assert "output" not in reader.end


async def test_without_the_header_the_same_generator_answers_in_one_piece(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    async with tools.serving(counting, nats_server.url, subject):
        reply = await tools.ask(client, subject, BODY)
    assert reply["output"] == "0 1 2 3 4 "
    assert reply["usage"]["total_tokens"] == 7
    assert reply["metadata"]["message"] == {"tool_calls": [{"id": "c"}]}


async def test_a_sender_stays_inside_the_window_until_it_hears_what_was_read(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    yielded = 0

    @provider
    async def eager(request: ExtensionRequest, config: Settings) -> AsyncGenerator[Any, None]:
        nonlocal yielded
        for _ in range(40):
            yielded += 1
            yield "x"

    async with tools.serving(eager, nats_server.url, subject):
        reader = Reader(client)
        await reader.ask(subject, BODY, **{"Beamline-Stream-Window": "8"})
        await tools.eventually(lambda: len(reader.text) == 8, "the window is full")
        await client.flush()
        await asyncio.sleep(0.05)
        assert len(reader.text) == 8
        assert yielded == 9  # the generator stands at its yield
        await reader.tell(read=8)
        await tools.eventually(lambda: len(reader.text) == 16, "the next window is full")
        await reader.tell(read=40)
        await tools.eventually(lambda: reader.ended, "the stream ended")
    assert len(reader.text) == 40


async def test_a_reader_that_leaves_closes_the_generator_where_it_stands(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    closed = asyncio.Event()

    @provider
    async def endless(request: ExtensionRequest, config: Settings) -> AsyncGenerator[Any, None]:
        try:
            yield "x"
            await asyncio.sleep(3600)
        finally:
            closed.set()

    async with tools.serving(endless, nats_server.url, subject):
        reader = Reader(client)
        await reader.ask(subject, BODY)
        await tools.eventually(lambda: reader.text == "x", "the first chunk came")
        await reader.tell(cancel=True)
        await asyncio.wait_for(closed.wait(), 10)
        await tools.eventually(lambda: reader.ended, "the stream ended")
    assert reader.end["error"]["code"] == "CANCELLED"


async def test_a_reader_that_is_gone_without_a_word_closes_the_generator_too(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    closed = asyncio.Event()

    @provider
    async def endless(request: ExtensionRequest, config: Settings) -> AsyncGenerator[Any, None]:
        try:
            while True:
                yield "x"
                await asyncio.sleep(0.01)
        finally:
            closed.set()

    async with tools.serving(endless, nats_server.url, subject):
        reader = Reader(client)
        await reader.ask(subject, BODY)
        await tools.eventually(lambda: reader.text, "the first chunk came")
        assert not closed.is_set()
        await reader.subscription.unsubscribe()
        await asyncio.wait_for(closed.wait(), 10)


async def test_an_error_within_the_stream_is_its_end(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    @provider
    async def failing(request: ExtensionRequest, config: Settings) -> AsyncGenerator[Any, None]:
        yield "x"
        if request.prompt == "known":
            raise ExtensionError("UNAVAILABLE", "upstream is overloaded")
        raise KeyError("sk-secret")

    async with tools.serving(failing, nats_server.url, subject):
        ends = []
        for prompt in ("known", "unknown"):
            reader = Reader(client)
            await reader.ask(subject, {**BODY, "prompt": prompt})
            await tools.eventually(lambda reader=reader: reader.ended, "the stream ended")
            ends.append(reader.end["error"])
    assert [error["code"] for error in ends] == ["UNAVAILABLE", "INTERNAL"]
    assert "sk-secret" not in str(ends)


async def test_the_deadline_ends_a_stream(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    @provider
    async def slow(request: ExtensionRequest, config: Settings) -> AsyncGenerator[Any, None]:
        yield "x"
        await asyncio.sleep(3600)

    async with tools.serving(slow, nats_server.url, subject):
        reader = Reader(client)
        await reader.ask(subject, BODY, **{"Beamline-Deadline-Ms": "300"})
        await tools.eventually(lambda: reader.ended, "the stream ended")
    assert reader.end["error"]["code"] == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"mode": "fixed", "answer": "abcdefgh", "chunk_characters": 3}, ["abc", "def", "gh"]),
        (
            {"mode": "fixed", "answer": "abcdefgh", "chunk_characters": 3, "chunk_delay_ms": 5},
            ["abc", "def", "gh"],
        ),
        ({"mode": "fixed", "answer": "abcd", "chunk_characters": 2, "stream_fault": "error"}, ["ab"]),
    ],
    ids=["in pieces", "with a pace", "with an error after the first chunk"],
)
async def test_the_mock_provider_streams_as_it_is_told(
    client: Any,
    nats_server: LocalNats,
    subject: str,
    tools: Any,
    *,
    config: dict[str, Any],
    wanted: list[str],
) -> None:
    async with tools.serving(MockProvider(), nats_server.url, subject):
        reader = Reader(client)
        await reader.ask(subject, {**BODY, "config": config})
        await tools.eventually(lambda: reader.ended, "the stream ended")
    assert [body["delta"] for _, body in reader.messages if "delta" in body] == wanted
    assert ("error" in reader.end) == ("stream_fault" in config)


async def test_a_post_step_says_how_far_it_looks_and_is_told_which_part_it_sees(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    seen: list[str | None] = []

    @post(max_match_length=17)
    async def far(request: ExtensionRequest, config: Config) -> None:
        seen.append(request.part)

    body = {"trace_id": "t", "request_id": "r", "tenant_id": "a", "output": "x"}
    async with tools.serving(far, nats_server.url, subject):
        replies = [
            await tools.ask(client, subject, {**body, **part})
            for part in ({}, {"part": "message"}, {"part": "window"})
        ]
    assert replies == [{}, {}, {"max_match_length": 17}]
    assert seen == [None, "message", "window"]


class Long(Config):
    longest: int | None = 0


class ByConfig(Post[Long]):
    """Looks as far as its configuration says, and holds for an empty piece."""

    name = "by_config"
    config_model = Long

    def match_length(self, config: Long) -> int | None:
        return config.longest

    async def handle(self, request: ExtensionRequest, config: Long) -> Patch:
        return Patch(hold=not request.output)


async def test_how_far_a_post_step_looks_may_depend_on_its_configuration_and_hold_is_a_word_of_its_own(
    client: Any, nats_server: LocalNats, subject: str, tools: Any
) -> None:
    body = {"trace_id": "t", "request_id": "r", "tenant_id": "a", "output": "x", "part": "window"}
    async with tools.serving(ByConfig(), nats_server.url, subject):
        replies = [
            await tools.ask(client, subject, {**body, **changes})
            for changes in (
                {"config": {"longest": 5}},
                {"config": {"longest": 0}},
                {"config": {"longest": None}},
                {"output": ""},
                {"part": "end"},
            )
        ]
    assert replies == [
        {"max_match_length": 5},
        {"max_match_length": 0},
        {"max_match_length": MAX_REPLY_BYTES},
        {"hold": True},
        {},
    ]
