"""Reading requests, configurations and deadlines: the pure parts of the SDK."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from beamline_contract.errors import ErrorCode
from beamline_contract.names import HEADER_DEADLINE_AT, HEADER_DEADLINE_MS
from beamline_sdk import Config, ExtensionError, InvalidConfigError, Patch, ProviderReply, Verdict
from beamline_sdk.config import ConfigCache
from beamline_sdk.deadline import MAX_DEADLINE_MS, BadDeadlineError, remaining_ms
from beamline_sdk.messages import map_texts, texts
from beamline_sdk.request import MalformedRequestError, decode


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        pytest.param("pre", b"", "not JSON", id="nothing"),
        pytest.param("pre", b"{", "not JSON", id="half an object"),
        pytest.param("pre", b'{"prompt": "\\ud800"}', "not JSON", id="half a surrogate pair"),
        pytest.param("pre", b"[" * 100_000, "not JSON", id="a tower of brackets"),
        pytest.param("pre", b"[]", "must be a JSON object", id="a list"),
        pytest.param("pre", b"{}", "prompt or messages is missing", id="no input"),
        pytest.param("post", b'{"prompt": "x"}', "output is missing", id="a post step without an output"),
        pytest.param("pre", b'{"prompt": 5}', "prompt must be a string", id="a number as prompt"),
        pytest.param(
            "pre", b'{"prompt": "x", "config": []}', "config must be an object", id="a list as config"
        ),
        pytest.param("pre", b'{"messages": {}}', "messages must be a list", id="an object as messages"),
        pytest.param(
            "pre", b'{"messages": ["x"]}', "messages must be a list of objects", id="text as message"
        ),
        pytest.param(
            "pre", b'{"prompt": "x", "tenant_id": {}}', "tenant_id must be a string", id="a strange id"
        ),
        pytest.param(
            "pre",
            orjson.dumps({"prompt": "x", "context": nested(32)}),
            "deeper than 32",
            id="33 levels in all",
        ),
    ],
)
def test_what_is_no_request_is_refused_with_the_field_and_without_the_value(
    kind: Any, body: bytes, words: str
) -> None:
    with pytest.raises(MalformedRequestError, match=words):
        decode(body, kind)


def test_a_request_is_read_as_it_was_sent_and_unknown_fields_are_ignored() -> None:
    body = {"prompt": "x", "trace_id": "t", "parameters": {"temperature": 0}, "config": {}, "route": "evil"}
    request = decode(orjson.dumps(body), "provider")
    assert (request.prompt, request.trace_id, request.parameters, request.config) == (
        "x",
        "t",
        {"temperature": 0},
        {},
    )
    assert decode(orjson.dumps({"prompt": "x", "context": nested(31)}), "pre").context == nested(31)
    assert decode(b'{"prompt": "x"}', "pre").config is None


class Limits(Config):
    low: int = 1
    names: tuple[str, ...] = ()


def test_equal_configurations_are_one_object_and_the_oldest_is_forgotten() -> None:
    cache = ConfigCache(Limits, size=2)
    first = cache.get({"low": 1})
    assert cache.get({"low": 2}) is not first
    assert cache.get({"low": 1}) is first
    cache.get({"low": 3})
    assert len(cache) == 2
    assert cache.get({"low": 1}) is first
    cache.get({"low": 4})
    cache.get({"low": 5})
    assert cache.get({"low": 1}) is not first


def test_the_order_of_keys_makes_no_other_configuration() -> None:
    cache = ConfigCache(Limits)
    first = cache.get({"low": 1, "names": ["a"]})
    cache.get({})
    assert cache.get({"names": ["a"], "low": 1}) is first


def test_an_invalid_configuration_is_refused_each_time_with_paths_and_without_values() -> None:
    cache = ConfigCache(Limits)
    for _ in range(2):
        with pytest.raises(InvalidConfigError) as raised:
            cache.get({"low": "s3cret", "names": [5], "more": 1})
        assert [fault.partition(":")[0] for fault in raised.value.faults] == [
            "config.low",
            "config.names.0",
            "config.more",
        ]
        assert "s3cret" not in str(raised.value)
    assert len(cache) == 1


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(None, MAX_DEADLINE_MS, id="without headers there is only the upper bound"),
        pytest.param({}, MAX_DEADLINE_MS, id="the same with empty ones"),
        pytest.param({HEADER_DEADLINE_MS: "250"}, 250, id="what remained when it was sent"),
        pytest.param({HEADER_DEADLINE_AT: "1000300"}, 300, id="a moment in Unix time"),
        pytest.param(
            {HEADER_DEADLINE_MS: "250", HEADER_DEADLINE_AT: "1000100"}, 100, id="the earlier of both"
        ),
        pytest.param(
            {HEADER_DEADLINE_MS: "5000", HEADER_DEADLINE_AT: "999000"}, -1000, id="a second in a buffer"
        ),
        pytest.param({HEADER_DEADLINE_MS: "0"}, 0, id="nothing left"),
        pytest.param({HEADER_DEADLINE_MS: "999999999"}, MAX_DEADLINE_MS, id="more than is allowed"),
    ],
)
def test_the_deadline_is_the_earlier_of_what_the_headers_say(
    headers: dict[str, str] | None, expected: float
) -> None:
    assert remaining_ms(headers, unix_ms=1_000_000) == expected


def test_clocks_may_differ_by_what_the_settings_allow() -> None:
    assert remaining_ms({HEADER_DEADLINE_AT: "999800"}, unix_ms=1_000_000, skew_ms=500) == 300


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "1e400"])
def test_a_deadline_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(BadDeadlineError, match="Beamline-Deadline-Ms"):
        remaining_ms({HEADER_DEADLINE_MS: text}, unix_ms=0)


def test_results_look_on_the_wire_as_the_contract_says() -> None:
    assert Patch().to_wire() == {}
    assert Patch(prompt="").to_wire() == {"prompt": ""}
    assert Verdict.ok().to_wire() == {"verdict": "pass"}
    assert Verdict.reject("no", {"n": 1}).to_wire() == {
        "verdict": "reject",
        "reason": "no",
        "details": {"n": 1},
    }
    assert ProviderReply("hi", 3, 4, model="m", metadata={"region": "eu"}).to_wire("p", "t", 1.23456) == {
        "provider_id": "p",
        "output": "hi",
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        "metadata": {
            "model": "m",
            "finish_reason": "stop",
            "latency_ms": 1.235,
            "trace_id": "t",
            "region": "eu",
        },
    }


def test_an_error_is_retryable_by_its_code_unless_it_says_otherwise() -> None:
    assert ExtensionError("UNAVAILABLE", "busy").retryable
    assert not ExtensionError(ErrorCode.PERMISSION_DENIED, "no").retryable
    assert not ExtensionError("UNAVAILABLE", "gone for good", retryable=False).retryable
    with pytest.raises(ValueError, match="NOT_A_CODE"):
        ExtensionError("NOT_A_CODE", "x")


def test_texts_of_messages_are_found_and_changed_in_both_shapes() -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "image_url", "image_url": {}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": "c"}}]},
    ]
    assert list(texts(messages)) == ["a", "b", "c"]
    changed = map_texts(messages, str.upper)
    assert list(texts(changed)) == ["A", "B", "c"]
    assert list(texts(messages)) == ["a", "b", "c"]
