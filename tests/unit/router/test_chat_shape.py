"""The chat door's body becomes a request or an INVALID_ARGUMENT that names the field, whatever it holds."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.wire import MAX_JSON_DEPTH
from beamline_router.core.envelope import open_envelope
from beamline_router.core.intake import read_request
from beamline_router.core.openai_intake import chat_shape
from beamline_router.core.reading import depth
from beamline_router.core.request import Request
from harness.poison import JUNK

GOOD: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
FIELDS = ("model", "messages", "n", "stream", "stream_options", "max_completion_tokens", "tools", "stop")


def take(document: Any) -> Request | WireError:
    envelope = open_envelope({}, lambda _: 7)
    body = orjson.dumps(document)
    return read_request(body, {}, envelope, now=1_000.0, unix_ms=1.7e12, shape=chat_shape)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize("value", [2, 0, -1, "1", 1.0, True, False, [], {}, [1], {"a": 1}])
def test_any_other_number_of_choices_than_one_is_refused_by_name(value: Any) -> None:
    error = take({**GOOD, "n": value})
    assert isinstance(error, WireError)
    assert (error.code, error.details["field"]) == (ErrorCode.INVALID_ARGUMENT, "n")


@pytest.mark.parametrize("value", [1, None])
def test_one_choice_is_what_there_is(value: Any) -> None:
    assert isinstance(take({**GOOD, "n": value}), Request)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(FIELDS), JUNK, max_size=6), st.booleans())
def test_no_object_raises_at_the_chat_door(document: dict[str, Any], whole: bool) -> None:
    try:
        result = take({**GOOD, **document} if whole else document)
    except orjson.JSONEncodeError:
        return
    if isinstance(result, WireError):
        assert result.code is ErrorCode.INVALID_ARGUMENT
        return
    assert isinstance(result.messages, list)
    assert isinstance(result.model, str)


@pytest.mark.parametrize("where", ["tools", "messages"])
def test_what_an_extension_is_sent_is_never_deeper_than_it_takes(where: str) -> None:
    taken = 0
    for levels in range(MAX_JSON_DEPTH - 4, MAX_JSON_DEPTH + 2):
        deep = nested(levels)
        changed = [{"role": "user", "content": "Hi", "x": deep}] if where == "messages" else deep
        result = take({**GOOD, where: changed})
        if isinstance(result, WireError):
            assert result.code is ErrorCode.INVALID_ARGUMENT
            assert "levels" in result.message
            continue
        sent = {"messages": result.messages, "parameters": result.parameters}
        assert depth(sent) <= MAX_JSON_DEPTH
        taken += 1
    assert taken


def test_a_body_of_32_levels_is_taken_where_nothing_of_it_moves_deeper() -> None:
    deep = {**GOOD, "messages": [{"role": "user", "content": "Hi", "x": nested(MAX_JSON_DEPTH - 3)}]}
    assert depth(deep) == MAX_JSON_DEPTH
    assert isinstance(take(deep), Request)
