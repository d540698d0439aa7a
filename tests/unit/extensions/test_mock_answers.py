"""What the mock provider says, and how it fails."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from beamline_contract.errors import ErrorCode
from beamline_extensions.mock_provider.answers import answer, echo, filled, first_characters, tokens
from beamline_extensions.mock_provider.config import MockConfig
from beamline_extensions.mock_provider.extension import MockProvider
from beamline_sdk import ExtensionError, ExtensionRequest
from beamline_sdk.results import Delta

FAMILY = "👨‍👩‍👧‍👦"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("x" * 100, "x" * 100, id="exactly a hundred characters stay whole"),
        pytest.param("x" * 101, "x" * 100, id="the hundred and first is left out"),
        pytest.param("é" * 150, "é" * 100, id="two-byte characters count as one"),
        pytest.param("x" * 99 + "e\u0301" + "y", "x" * 99, id="a letter is not cut from its accent"),
        pytest.param("x" * 98 + FAMILY, "x" * 98, id="a family emoji is not cut into its members"),
        pytest.param("x" * 99 + "👍🏽", "x" * 99, id="a skin tone is not cut from its hand"),
        pytest.param("x" * 99 + "🇩🇪🇫🇷", "x" * 99, id="a flag is not halved"),
        pytest.param("x" * 98 + "🇩🇪🇫🇷", "x" * 98 + "🇩🇪", id="a whole flag before the next one stays"),
        pytest.param("x" * 99 + "\r\ny", "x" * 99, id="a line break of two characters is not halved"),
        pytest.param(
            "e" + "\u0301" * 200, "e" + "\u0301" * 99, id="a character longer than the limit is cut anyway"
        ),
    ],
)
def test_the_first_hundred_characters_never_end_inside_one(text: str, expected: str) -> None:
    assert first_characters(text, 100) == expected


def test_the_echo_is_the_contracts_sentence() -> None:
    assert echo("hello", "mock_provider", full=False) == "Mock response to: hello [provider=mock_provider]"
    assert echo("y" * 500, "m", full=True) == "y" * 500


def test_messages_are_echoed_by_their_last_user_text() -> None:
    request = ExtensionRequest(
        messages=[
            {"role": "user", "content": "first"},
            {"role": "user", "content": [{"type": "text", "text": "second"}, {"type": "image_url"}]},
            {"role": "assistant", "content": "third"},
        ]
    )
    assert answer(request, MockConfig(), "m") == "Mock response to: second [provider=m]"


def test_a_template_is_filled_once_and_what_the_prompt_says_is_not_a_template() -> None:
    request = ExtensionRequest(prompt="{tenant_id}", tenant_id="acme")
    assert filled("{prompt} {model} {unknown} { {tenant_id}", request, "m", "mock-1.0") == (
        "{tenant_id} mock-1.0 {unknown} { acme"
    )


def test_tokens_are_utf8_bytes_divided_by_four() -> None:
    assert [tokens("abc"), tokens("abcd"), tokens("éé"), tokens("ab", "cd")] == [0, 1, 1, 1]


async def test_usage_totals_prompt_and_completion() -> None:
    reply = await MockProvider().handle(
        ExtensionRequest(prompt="a" * 40), MockConfig(mode="fixed", answer="b" * 8)
    )
    assert reply.to_wire("m", "t", 1.0)["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "total_tokens": 12,
    }


async def test_a_script_is_followed_in_order_and_repeats() -> None:
    mock = MockProvider()
    config = MockConfig.model_validate(
        {
            "mode": "scripted",
            "script": [{"output": "one"}, {"error": "RESOURCE_EXHAUSTED", "retry_after_ms": 7}],
        }
    )
    heard: list[Any] = []
    for _ in range(4):
        try:
            heard.append((await mock.handle(ExtensionRequest(prompt=""), config)).output)
        except ExtensionError as error:
            heard.append((error.code, error.retry_after_ms, error.retryable))
    refused = (ErrorCode.RESOURCE_EXHAUSTED, 7, True)
    assert heard == ["one", refused, "one", refused]


async def test_a_script_can_stay_at_its_last_entry() -> None:
    mock = MockProvider()
    config = MockConfig.model_validate(
        {"mode": "scripted", "script_end": "last", "script": [{"output": "one"}, {"output": "two"}]}
    )
    outputs = [(await mock.handle(ExtensionRequest(prompt=""), config)).output for _ in range(4)]
    assert outputs == ["one", "two", "two", "two"]


async def test_the_same_seed_fails_the_same_requests() -> None:
    async def outcomes(config: MockConfig) -> list[bool]:
        mock, seen = MockProvider(), []
        for _ in range(50):
            try:
                await mock.handle(ExtensionRequest(prompt="x"), config)
                seen.append(True)
            except ExtensionError:
                seen.append(False)
        return seen

    first = await outcomes(MockConfig(error_rate=0.5, seed=7))
    assert first == await outcomes(MockConfig(error_rate=0.5, seed=7))
    assert first != await outcomes(MockConfig(error_rate=0.5, seed=8))


async def test_an_error_rate_of_one_fails_with_what_the_config_says() -> None:
    config = MockConfig(
        error_rate=1,
        error_code=ErrorCode.UNAVAILABLE,
        error_message="busy",
        retryable=False,
        retry_after_ms=9,
    )
    with pytest.raises(ExtensionError) as raised:
        await MockProvider().handle(ExtensionRequest(prompt="x"), config)
    assert raised.value.to_wire_error().to_wire() == {
        "code": "UNAVAILABLE",
        "message": "busy",
        "retryable": False,
        "retry_after_ms": 9,
    }


@pytest.mark.parametrize(
    "value", [pytest.param(-1, id="negative"), pytest.param("5", id="text"), pytest.param(True, id="boolean")]
)
async def test_a_latency_parameter_that_is_no_number_of_milliseconds_is_refused(value: object) -> None:
    with pytest.raises(ExtensionError, match=r"parameters\.latency_ms"):
        await MockProvider().handle(
            ExtensionRequest(prompt="x", parameters={"latency_ms": value}), MockConfig()
        )


def test_a_script_is_needed_to_be_scripted_and_unknown_names_are_refused() -> None:
    with pytest.raises(ValidationError, match="at least one entry"):
        MockConfig(mode="scripted")
    with pytest.raises(ValidationError, match="latency"):
        MockConfig.model_validate({"latency": 5})


DISTRIBUTIONS: dict[str, tuple[dict[str, Any], float, float]] = {
    "fixed": ({"distribution": "fixed", "ms": 20}, 20, 0),
    "uniform": ({"distribution": "uniform", "min_ms": 10, "max_ms": 30}, 20, 0.5),
    "normal": ({"distribution": "normal", "mean_ms": 20, "stddev_ms": 3}, 20, 0.5),
    "exponential": ({"distribution": "exponential", "mean_ms": 20}, 20, 2),
    "percentiles": (
        {
            "distribution": "percentiles",
            "points": [
                {"percentile": 0, "ms": 10}, {"percentile": 50, "ms": 20}, {"percentile": 100, "ms": 30},
            ],
        },
        20,
        0.5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_has_its_mean_and_the_same_seed_draws_the_same(name: str) -> None:
    stated, mean, tolerance = DISTRIBUTIONS[name]
    latency = MockConfig.model_validate({"latency": stated}).latency
    assert latency is not None
    drawn = [latency.draw(rng) for rng in [random.Random(3)] for _ in range(4_000)]
    assert abs(sum(drawn) / len(drawn) - mean) <= tolerance
    assert min(drawn) >= 0
    assert drawn == [latency.draw(rng) for rng in [random.Random(3)] for _ in range(4_000)]


def test_measured_percentiles_come_out_as_they_went_in() -> None:
    points = [{"percentile": p, "ms": ms} for p, ms in ((50, 100), (95, 500), (99, 2_000))]
    latency = MockConfig.model_validate(
        {"latency": {"distribution": "percentiles", "points": points}}
    ).latency
    assert latency is not None
    rng = random.Random(5)
    drawn = sorted(latency.draw(rng) for _ in range(20_000))
    assert drawn[9_000] == 100
    assert abs(drawn[19_000] - 500) < 60
    assert drawn[-1] == 2_000


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"latency": {"distribution": "zipf"}}, id="a distribution that does not exist"),
        pytest.param(
            {"latency": {"distribution": "uniform", "min_ms": 9, "max_ms": 1}},
            id="bounds turned round",
        ),
        pytest.param({"latency": {"distribution": "normal", "mean_ms": -1, "stddev_ms": 1}}, id="negative"),
        pytest.param(
            {"latency": {"distribution": "percentiles", "points": [{"percentile": 9, "ms": 2}] * 2}},
            id="percentiles that do not rise",
        ),
        pytest.param(
            {"error_rate": 0.6, "errors": [{"rate": 0.6, "code": "INTERNAL"}]}, id="rates of more than all"
        ),
        pytest.param({"errors": [{"rate": 0.1, "code": "TEAPOT"}]}, id="a code that is not in the list"),
    ],
)
def test_a_config_that_means_nothing_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MockConfig.model_validate(config)


async def test_every_code_can_be_drawn_and_each_as_often_as_its_rate_says() -> None:
    share = 1 / len(ErrorCode)
    config = MockConfig.model_validate(
        {"seed": 1, "errors": [{"rate": share, "code": code.value} for code in ErrorCode]}
    )
    mock, seen = MockProvider(), Counter[ErrorCode]()
    for _ in range(4_400):
        with pytest.raises(ExtensionError) as raised:
            await mock.handle(ExtensionRequest(prompt="x"), config)
        seen[raised.value.code] += 1
    assert set(seen) == set(ErrorCode)
    assert all(300 < times < 500 for times in seen.values()), seen


async def test_tool_calls_come_whole_and_in_a_stream_as_a_chat_message_holds_them() -> None:
    config = MockConfig.model_validate(
        {"tool_calls": [{"name": "look", "arguments": '{"at":1}'}], "answer": ""}
    )
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}
    reply = await MockProvider().handle(ExtensionRequest(prompt="x"), config)
    assert (reply.finish_reason, reply.metadata) == ("tool_calls", {"message": {"tool_calls": [call]}})
    parts = [part async for part in MockProvider().stream(ExtensionRequest(prompt="x"), config)]
    assert isinstance(parts[-2], Delta)
    assert parts[-2].message == {"tool_calls": [{"index": 0, **call}]}


async def test_usage_is_what_the_config_states() -> None:
    config = MockConfig.model_validate({"usage": {"prompt_tokens": 7, "completion_tokens": 9}})
    reply = await MockProvider().handle(ExtensionRequest(prompt="x"), config)
    assert (reply.prompt_tokens, reply.completion_tokens) == (7, 9)
