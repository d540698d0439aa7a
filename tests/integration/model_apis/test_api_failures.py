"""Whatever an API does, a caller gets one error of the closed list, with the right advice, and no secret."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import Any

import pytest

from beamline_sdk import ExtensionError
from harness.model_api import (
    FakeApi,
    claude,
    claude_rows,
    drip,
    error,
    events,
    gpt,
    gpt_chunk,
    gpt_rows,
    raw,
    reset,
    silence,
    whole,
)

STATUSES: dict[int, tuple[str, bool]] = {
    301: ("UNAVAILABLE", False),
    307: ("UNAVAILABLE", False),
    400: ("INVALID_ARGUMENT", False),
    401: ("UNAUTHENTICATED", False),
    402: ("PERMISSION_DENIED", False),
    403: ("PERMISSION_DENIED", False),
    404: ("NOT_FOUND", False),
    408: ("DEADLINE_EXCEEDED", True),
    409: ("UNAVAILABLE", True),
    413: ("INVALID_ARGUMENT", False),
    418: ("INVALID_ARGUMENT", False),
    422: ("INVALID_ARGUMENT", False),
    429: ("RESOURCE_EXHAUSTED", True),
    500: ("UNAVAILABLE", True),
    502: ("UNAVAILABLE", True),
    503: ("UNAVAILABLE", True),
    504: ("DEADLINE_EXCEEDED", True),
    529: ("UNAVAILABLE", True),
    599: ("UNAVAILABLE", True),
}


async def fails(asked: Any, *, streamed: bool = False, **given: Any) -> ExtensionError:
    with pytest.raises(ExtensionError) as raised:
        await (asked.stream if streamed else asked.ask)(**given)
    return raised.value


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("status", sorted(STATUSES))
async def test_each_status_has_its_code_and_advice_and_is_asked_once(
    api: FakeApi, asked: Any, status: int, streamed: bool
) -> None:
    lines = ["location: http://127.0.0.1:1/elsewhere"] if status < 400 else []
    api.says(error(status, "some_error", *lines, message="bad key sk-canary-0123"))
    failure = await fails(asked, streamed=streamed)
    assert (failure.code.value, failure.retryable) == STATUSES[status]
    assert failure.details["http_status"] == status
    assert "canary" not in f"{failure.message} {failure.details}"
    assert len(api.seen) == 1
    assert asked.count("API_provider_requests_total", status="api_error") == 1


@pytest.mark.parametrize(
    ("line", "wait"),
    [
        ("retry-after: 7", 7_000),
        ("retry-after: 0.25", 250),
        ("retry-after-ms: 1500", 1_500),
        ("retry-after: 86400", 300_000),
        (f"retry-after: {formatdate(time.time() + 100_000, usegmt=True)}", 300_000),
        (f"retry-after: {formatdate(time.time() - 100, usegmt=True)}", 0),
        ("retry-after: soon", None),
        ("x-other: 1", None),
    ],
    ids=[
        "seconds",
        "part of a second",
        "milliseconds",
        "a day, capped",
        "a date far ahead, capped",
        "a date in the past",
        "nonsense",
        "none",
    ],
)
@pytest.mark.parametrize("status", [429, 529])
async def test_retry_after_is_passed_on(
    api: FakeApi, asked: Any, line: str, wait: int | None, status: int
) -> None:
    api.says(error(status, "rate_limit_error", line))
    assert (await fails(asked)).retry_after_ms == wait


async def test_an_exhausted_quota_is_not_worth_another_try(api: FakeApi, asked: Any) -> None:
    api.says(error(429, "insufficient_quota", code="insufficient_quota"))
    failure = await fails(asked)
    assert (failure.code.value, failure.retryable) == ("RESOURCE_EXHAUSTED", False)
    assert failure.details["upstream_code"] == "insufficient_quota"


async def test_the_apis_code_field_and_request_id_help_without_its_text(api: FakeApi, asked: Any) -> None:
    lines = ("x-request-id: req_123", "request-id: req_123")
    api.says(
        error(
            400, "invalid_request_error", *lines, code="context_length_exceeded", param="messages[0].content"
        )
    )
    failure = await fails(asked)
    assert failure.details == {
        "http_status": 400,
        "upstream_code": "context_length_exceeded",
        "field": "messages[0].content",
        "upstream_request_id": "req_123",
    }


async def test_a_field_that_repeats_the_key_is_left_out(api: FakeApi, asked: Any) -> None:
    api.says(error(400, "x", param="sk_0123456789abcdef", code="abcdef"))
    failure = await fails(asked)
    assert "9abcdef" not in str(failure.details)


GARBAGE = {
    "no JSON": whole(b"<html>oops</html>"),
    "half of a JSON": whole(b'{"choices": ['),
    "a list": whole([]),
    "null": whole(None),
    "an empty object": whole({}),
    "an empty body": whole(b""),
    "no text in UTF-8": whole(b'{"choices": "\xff"}'),
    "choices and content empty of sense": whole({"choices": [], "content": None}),
    "choices of numbers": whole({"choices": [1], "content": [1]}),
    "text that is a number": whole(
        {"choices": [{"message": {"content": 5}}], "content": [{"type": "text", "text": 5}]}
    ),
    "usage that lies": whole(
        {**gpt(), **claude(), "usage": {"prompt_tokens": -1, "input_tokens": "many", "output_tokens": True}}
    ),
    "a depth of 100000": whole(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE.keys())
async def test_an_answer_that_is_not_one_is_internal_and_counted_as_undecodable(
    api: FakeApi, asked: Any, answer: Any
) -> None:
    api.says(answer)
    failure = await fails(asked)
    assert (failure.code.value, failure.retryable) == ("INTERNAL", False)
    assert asked.count("API_provider_requests_total", status="decode_error") == 1
    assert (await asked.ask()).output == "Hello there"


NO_HTTP = {
    "no HTTP at all": raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a header without an end": raw(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 400_000),
    "two lengths": raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}"),
    "a compressed body nobody asked for": raw(
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}"
    ),
    "a body beyond the bound": raw(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (33 * 1024 * 1024)),
}


@pytest.mark.parametrize("answer", NO_HTTP.values(), ids=NO_HTTP.keys())
async def test_what_is_no_http_answer_is_unavailable(api: FakeApi, asked: Any, answer: Any) -> None:
    api.says(answer)
    failure = await fails(asked)
    assert (failure.code.value, failure.retryable) == ("UNAVAILABLE", True)
    assert asked.count("API_provider_requests_total", status="decode_error") == 1


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "answer",
    [reset, raw(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{"), raw(b"")],
    ids=["a reset", "half an answer", "an end without an answer"],
)
async def test_a_broken_connection_is_unavailable_and_the_next_request_gets_a_new_one(
    api: FakeApi, asked: Any, answer: Any, streamed: bool
) -> None:
    api.says(answer)
    failure = await fails(asked, streamed=streamed)
    assert (failure.code.value, failure.retryable) == ("UNAVAILABLE", True)
    assert (await asked.ask()).output == "Hello there"


async def test_nobody_listening_is_unavailable(open_provider: Any) -> None:
    async with open_provider("openai", FakeApi(port=1)) as asked:
        failure = await fails(asked)
    assert (failure.code.value, failure.retryable) == ("UNAVAILABLE", True)


@pytest.mark.parametrize("answer", [silence, drip(gpt(), 0.05)], ids=["silence", "a byte now and then"])
async def test_the_requests_deadline_ends_the_call_and_closes_the_connection(
    api: FakeApi, asked: Any, answer: Any
) -> None:
    api.says(answer)
    failure = await fails(asked, seconds=0.3)
    assert failure.code.value == "DEADLINE_EXCEEDED"
    async with asyncio.timeout(10):
        await api.left.wait()
    assert asked.count("API_provider_requests_total", status="api_error") == 1


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_cancelled_request_closes_its_connection(api: FakeApi, asked: Any, streamed: bool) -> None:
    rows = (claude_rows() if asked.name == "anthropic" else gpt_rows())[:3]
    api.says(events(*rows, then=silence) if streamed else silence)
    task = asyncio.create_task(asked.stream() if streamed else asked.ask())
    async with asyncio.timeout(10):
        await api.asked.wait()
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(10):
        await api.left.wait()
    assert task.cancelled()
    assert asked.count("API_provider_requests_total", status="cancelled") == 1


async def test_a_reader_that_leaves_a_stream_closes_its_connection(
    api: FakeApi, asked: Any, make_request: Any
) -> None:
    rows = (claude_rows() if asked.name == "anthropic" else gpt_rows())[:5]
    api.says(events(*rows, then=silence))
    stream = asked.provider.stream(make_request(), asked.config())
    assert await anext(stream) == "Hel"
    await stream.aclose()
    async with asyncio.timeout(10):
        await api.left.wait()


BROKEN = {
    "the connection breaks": ({"end": False}, "UNAVAILABLE"),
    "it ends too early": ({}, "UNAVAILABLE"),
    "it stalls": ({"then": silence}, "DEADLINE_EXCEEDED"),
}


@pytest.mark.parametrize(("how", "code"), BROKEN.values(), ids=BROKEN.keys())
async def test_half_a_stream_is_an_error_after_what_came(
    api: FakeApi, asked: Any, make_request: Any, how: dict[str, Any], code: str
) -> None:
    rows = claude_rows()[:5] if asked.name == "anthropic" else gpt_rows()[:4]
    api.says(events(*rows, **how))
    got: list[Any] = []

    async def read() -> None:
        async for part in asked.provider.stream(make_request(seconds=0.5), asked.config()):
            got.append(part)  # noqa: PERF401 -- kept also when it breaks

    with pytest.raises(ExtensionError) as raised:
        await read()
    assert "".join(got).startswith("Hel")
    assert raised.value.code.value == code


@pytest.mark.parametrize(
    "row",
    ["data: {nonsense\n\n", "data: 5\n\n", "event: message_start\ndata: []\n\n", "data: \xff{}\n\n"],
    ids=["half a JSON", "a number", "a list", "no object"],
)
async def test_garbage_in_a_stream_is_undecodable(api: FakeApi, asked: Any, row: str) -> None:
    text = row if "event:" in row else f"event: message_start\n{row}"
    api.says(events(text))
    failure = await fails(asked, streamed=True)
    assert failure.code.value == "INTERNAL"
    assert asked.count("API_provider_requests_total", status="decode_error") == 1


async def test_an_error_event_in_a_stream_has_the_code_of_its_type(api: FakeApi, asked: Any) -> None:
    words = {"type": "overloaded_error", "message": "Overloaded sk-canary-0123"}
    api.says(events({"type": "error", "error": words}))
    failure = await fails(asked, streamed=True)
    assert (failure.code.value, failure.retryable) == ("UNAVAILABLE", True)
    assert "canary" not in failure.message


async def test_a_server_error_in_a_stream_of_openai_has_its_code(api: FakeApi, open_provider: Any) -> None:
    limited = {"error": {"type": "rate_limit_error", "code": "rate_limit_exceeded", "message": "slow"}}
    api.says(events(gpt_chunk({"content": "Hi"}), limited))
    async with open_provider("openai", api) as asked:
        failure = await fails(asked, streamed=True)
    assert failure.code.value == "RESOURCE_EXHAUSTED"
