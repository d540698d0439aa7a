"""What the mock provider says, and how it fails."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from beamline_contract.errors import ErrorCode
from beamline_extensions.mock_provider.answers import answer, echo, filled, first_characters, tokens
from beamline_extensions.mock_provider.config import MockConfig
from beamline_extensions.mock_provider.extension import MockProvider
from beamline_sdk import ExtensionError, ExtensionRequest

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
