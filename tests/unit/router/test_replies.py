"""What extensions answer is taken apart strictly; nothing that they send can raise."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.wire import MAX_REPLY_BYTES
from beamline_router.core.replies import READERS, Patch, ProviderReply, Verdict


def read(kind: str, reply: Any) -> Any:
    data = reply if isinstance(reply, bytes) else orjson.dumps(reply)
    return READERS[kind](data, "me")  # type: ignore[index]  # one of the four


def test_a_whole_provider_reply() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    reply = read("provider", {"provider_id": "me", "output": "x", "usage": usage, "metadata": {"model": "m"}})
    assert reply == ProviderReply("x", usage, {"model": "m"})


def test_usage_and_metadata_may_be_absent() -> None:
    assert read("provider", {"output": ""}) == ProviderReply(
        "", {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, {}
    )


def test_an_absent_total_is_the_sum() -> None:
    reply = read("provider", {"output": "", "usage": {"prompt_tokens": 2, "completion_tokens": 3}})
    assert reply.usage["total_tokens"] == 5


MALFORMED = [
    pytest.param("provider", {}, id="a provider without output"),
    pytest.param("provider", {"output": 7}, id="an output that is a number"),
    pytest.param("provider", {"output": None}, id="an output that is null"),
    pytest.param("provider", {"output": "", "usage": []}, id="usage that is a list"),
    pytest.param("provider", {"output": "", "usage": {"prompt_tokens": True}}, id="a bool for tokens"),
    pytest.param("provider", {"output": "", "usage": {"prompt_tokens": -1}}, id="negative tokens"),
    pytest.param("provider", {"output": "", "usage": {"prompt_tokens": 1.0}}, id="a float for tokens"),
    pytest.param(
        "provider", {"output": "", "usage": {"prompt_tokens": 2**60}}, id="more tokens than are believed"
    ),
    pytest.param("provider", {"output": "", "metadata": "x"}, id="metadata that is text"),
    pytest.param("pre", {"prompt": 1}, id="a prompt that is a number"),
    pytest.param("pre", {"messages": ["x"]}, id="messages that are texts"),
    pytest.param("pre", {"messages": {}}, id="messages that are an object"),
    pytest.param("pre", {"messages": []}, id="no messages"),
    pytest.param("pre", {"messages": [{"role": "user"}, {"content": "x"}]}, id="a message without a role"),
    pytest.param("pre", {"messages": [{"role": 1, "content": "x"}]}, id="a role that is a number"),
    pytest.param("pre", {"prompt": "a", "messages": []}, id="prompt and messages together"),
    pytest.param("pre", {"parameters": []}, id="parameters that are a list"),
    pytest.param("post", {"output": ["x"]}, id="an output that is a list"),
    pytest.param("post", {"metadata": 3}, id="metadata that are a number"),
    pytest.param("validator", {}, id="no verdict"),
    pytest.param("validator", {"verdict": "PASS"}, id="a verdict that is none of the two words"),
    pytest.param("validator", {"verdict": True}, id="a verdict that is a bool"),
    pytest.param("validator", {"verdict": "reject", "reason": 5}, id="a reason that is a number"),
    pytest.param("validator", {"verdict": "reject", "details": []}, id="details that are a list"),
    *(
        pytest.param(kind, data, id=f"{words} from a {kind}")
        for kind in READERS
        for words, data in {
            "nothing": b"",
            "text that is not JSON": b"hello",
            "invalid UTF-8": b'{"output": "\xff"}',
            "NaN": b'{"output": "x", "usage": {"prompt_tokens": NaN}}',
            "a list": b"[]",
            "null": b"null",
            "depth 33": b'{"output": "x", "verdict": "pass", "metadata": ' + b'{"a":' * 32 + b"1" + b"}" * 33,
            "depth 10,000": b"[" * 10_000 + b"]" * 10_000,
            "one byte too many": b'{"output": "", "verdict": "pass"}'.ljust(MAX_REPLY_BYTES + 1),
        }.items()
    ),
]


@pytest.mark.parametrize(("kind", "reply"), MALFORMED)
def test_a_malformed_reply_is_an_internal_error_of_the_extension(kind: str, reply: Any) -> None:
    error = read(kind, reply)
    assert isinstance(error, WireError)
    assert (error.code, error.retryable) == (ErrorCode.INTERNAL, False)


@pytest.mark.parametrize("kind", list(READERS))
def test_a_reply_at_the_limits_is_read(kind: str) -> None:
    assert not isinstance(read(kind, b'{"output": "", "verdict": "pass"}'.ljust(MAX_REPLY_BYTES)), WireError)
    deep = b'{"output": "x", "verdict": "pass", "other": ' + b'{"a":' * 31 + b"1" + b"}" * 32
    assert not isinstance(read(kind, deep), WireError)


@pytest.mark.parametrize("kind", list(READERS))
@given(st.binary(max_size=200))
def test_no_bytes_raise(kind: str, data: bytes) -> None:
    assert isinstance(read(kind, data), WireError | Patch | Verdict | ProviderReply)


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "output",
    "usage",
    "metadata",
    "prompt",
    "messages",
    "verdict",
    "reason",
    "details",
    "error",
    "tenant_id",
    "context",
]


@pytest.mark.parametrize("kind", list(READERS))
@given(st.dictionaries(st.sampled_from(FIELDS), ANY_JSON))
def test_no_json_raises_and_what_is_read_has_its_types(kind: str, reply: dict[str, Any]) -> None:
    value = read(kind, reply)
    if isinstance(value, ProviderReply):
        assert isinstance(value.output, str)
        assert all(type(count) is int and count >= 0 for count in value.usage.values())
    elif isinstance(value, Patch):
        assert set(value.fields) <= {"prompt", "messages", "parameters", "context", "output", "metadata"}
    elif isinstance(value, Verdict):
        assert isinstance(value.reason, str)
    else:
        assert isinstance(value, WireError)


@pytest.mark.parametrize(
    ("raw", "code", "retryable"),
    [
        pytest.param({"code": "UNAVAILABLE"}, ErrorCode.UNAVAILABLE, True, id="a code of the list"),
        pytest.param({"code": "provider_error"}, ErrorCode.UNAVAILABLE, True, id="a foreign provider_error"),
        pytest.param(
            {"code": "provider_error", "retryable": False}, ErrorCode.UNAVAILABLE, False, id="that says no"
        ),
        pytest.param({"code": "internal_error"}, ErrorCode.INTERNAL, True, id="a foreign internal_error"),
        pytest.param({"code": "E42"}, ErrorCode.INTERNAL, True, id="an unknown code"),
        pytest.param("boom", ErrorCode.INTERNAL, True, id="an error that is text"),
    ],
)
def test_error_replies(raw: Any, code: ErrorCode, retryable: bool) -> None:
    for kind in READERS:
        error = read(kind, {"error": raw, "output": "ignored"})
        assert (error.code, error.retryable) == (code, retryable)


def test_a_validator_may_reject_by_an_error_too() -> None:
    verdict = read(
        "validator", {"error": {"code": "VALIDATION_REJECTED", "message": "no", "details": {"a": 1}}}
    )
    assert verdict == Verdict(False, "no", {"a": 1})


def test_what_an_extension_may_not_change_is_left_out_and_named() -> None:
    evil = {"tenant_id": "x", "route": "y", "prompt": "hi"}
    assert read("pre", evil) == Patch({"prompt": "hi"}, ("route", "tenant_id"))
    assert read("validator", {**evil, "verdict": "pass"}).dropped == ("route", "tenant_id")
    assert read("provider", {"output": "", "provider_id": "you", "tenant_id": "x"}).dropped == (
        "provider_id",
        "tenant_id",
    )


def test_fields_that_a_type_does_not_know_are_ignored() -> None:
    assert read("post", {"prompt": "changed", "output": "x", "colour": "red"}) == Patch({"output": "x"})


@pytest.mark.parametrize("asked", [10**15, 1e300])
def test_a_pause_that_an_extension_asks_for_is_capped_at_300_s(asked: float) -> None:
    error = read("provider", {"error": {"code": "RESOURCE_EXHAUSTED", "retry_after_ms": asked}})
    assert error.retry_after_ms == 300_000


@pytest.mark.parametrize("status", [[], {}, "413", 200, None])
def test_an_extension_cant_choose_a_status_by_its_details(status: Any) -> None:
    error = read("provider", {"error": {"code": "INVALID_ARGUMENT", "details": {"http_status": status}}})
    assert error.http_status == 400
