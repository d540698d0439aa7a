"""The router's gate: what it takes, what it refuses and with which words, before anything else sees a
request.
"""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamline_contract.errors import ErrorCode, WireError
from beamline_router.core.deadline import remaining_ms
from beamline_router.core.envelope import Envelope, open_envelope
from beamline_router.core.intake import read_request, too_deep
from beamline_router.core.request import Request

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
NOW = 1000.0
UNIX_MS = 1_700_000_000_000.0


def envelope(headers: dict[str, str] | None = None) -> Envelope:
    return open_envelope(headers or {}, random.Random(7).getrandbits)


def read(body: Any, headers: dict[str, str] | None = None) -> Request | WireError:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    given_headers = headers or {}
    return read_request(raw, given_headers, envelope(given_headers), now=NOW, unix_ms=UNIX_MS)


def nested(levels: int) -> bytes:
    return b'{"prompt":"x","context":' + b'{"a":' * (levels - 1) + b"1" + b"}" * levels


def test_a_minimal_request_gets_the_default_tenant_and_no_deadline() -> None:
    request = read({"prompt": "hi"})
    assert isinstance(request, Request)
    assert (request.tenant_id, request.deadline, request.model, request.policy) == (
        "default",
        None,
        None,
        None,
    )


def test_every_field_reaches_the_request() -> None:
    body = {
        "tenant_id": "acme",
        "environment": "prod",
        "model": "gpt-4",
        "policy": "my-policy",
        "messages": [{"role": "user", "content": "hi"}],
        "parameters": {"temperature": 0},
        "context": {"k": "v"},
    }
    request = read(body)
    assert isinstance(request, Request)
    assert request.policy == "my_policy", "a policy may be named by its object's name"
    assert request.messages == body["messages"]
    assert request.prompt is None
    assert request.parameters == {"temperature": 0}
    assert (request.environment, request.model, request.context) == ("prod", "gpt-4", {"k": "v"})


REFUSALS = [
    pytest.param(b"", "not JSON", id="an empty body"),
    pytest.param(b"{", "not JSON", id="half an object"),
    pytest.param(b'{"prompt": NaN}', "not JSON", id="NaN"),
    pytest.param(
        b'{"prompt": "x", "context": {"a": 1e999}}', "not JSON", id="a number beyond floating point"
    ),
    pytest.param(b'{"prompt": "\xff"}', "not JSON", id="invalid UTF-8"),
    pytest.param(b'{"prompt": "\\ud800"}', "not JSON", id="a lone surrogate"),
    pytest.param([], "must be a JSON object, got a list", id="a list"),
    pytest.param({"prompt": "x", "deadline": 1}, "unknown field 'deadline'", id="an unknown field"),
    pytest.param({}, "exactly one of prompt and messages is required, got neither", id="no prompt"),
    pytest.param({"prompt": "x", "messages": [{"role": "user"}]}, "got both", id="prompt and messages"),
    pytest.param({"prompt": 5}, "prompt must be text, got a number", id="a prompt that is a number"),
    pytest.param({"messages": []}, "messages must have at least one entry", id="no messages"),
    pytest.param(
        {"messages": {"role": "user"}},
        "messages must be a list, got an object",
        id="messages that are an object",
    ),
    pytest.param({"messages": ["x"]}, "messages[0] must be an object, got text", id="a message that is text"),
    pytest.param(
        {"messages": [{"content": "x"}]}, "messages[0].role must be text", id="a message without a role"
    ),
    pytest.param(
        {"prompt": "x", "tenant_id": 5},
        "tenant_id must be text, got a number",
        id="a tenant that is a number",
    ),
    pytest.param(
        {"prompt": "x", "tenant_id": "a b"}, "tenant_id must be 1 to 128 of", id="a blank in the tenant"
    ),
    pytest.param(
        {"prompt": "x", "tenant_id": "acme\n"}, "tenant_id must be", id="a line break after the tenant"
    ),
    pytest.param({"prompt": "x", "tenant_id": ""}, "tenant_id must be", id="an empty tenant"),
    pytest.param(
        {"prompt": "x", "tenant_id": "a" * 129}, "tenant_id must be", id="a tenant of 129 characters"
    ),
    pytest.param({"prompt": "x", "model": "gpt 4"}, "model must be 1 to 256 of", id="a blank in the model"),
    pytest.param(
        {"prompt": "x", "environment": "a/b"}, "environment must be", id="a slash in the environment"
    ),
    pytest.param({"prompt": "x", "policy": "Default"}, "policy must be", id="a policy in upper case"),
    pytest.param(
        {"prompt": "x", "parameters": []},
        "parameters must be an object, got a list",
        id="parameters as a list",
    ),
    pytest.param(
        {"prompt": "x", "context": "c"}, "context must be an object, got text", id="a context that is text"
    ),
    pytest.param({"prompt": True}, "prompt must be text, got true or false", id="a prompt that is true"),
]


@pytest.mark.parametrize(("body", "words"), REFUSALS)
def test_what_is_wrong_is_refused_with_the_field_in_words(body: Any, words: str) -> None:
    error = read(body)
    assert isinstance(error, WireError)
    assert error.code is ErrorCode.INVALID_ARGUMENT
    assert words in error.message
    assert error.http_status == 400
    assert not error.retryable
    assert error.request_id


def test_a_field_that_is_said_twice_is_an_invalid_argument() -> None:
    error = read(b'{"prompt": "a", "prompt": "b"}')
    assert isinstance(error, WireError)
    assert (error.code, "twice" in error.message) == (ErrorCode.INVALID_ARGUMENT, True)


def test_a_body_of_256_kib_is_taken_and_a_byte_more_is_413() -> None:
    frame = len(orjson.dumps({"prompt": ""}))
    assert isinstance(read({"prompt": "x" * (256 * 1024 - frame)}), Request)
    error = read({"prompt": "x" * (256 * 1024 - frame + 1)})
    assert isinstance(error, WireError)
    assert error.http_status == 413


def test_32_levels_are_taken_and_33_are_not() -> None:
    assert isinstance(read(nested(32)), Request)
    error = read(nested(33))
    assert isinstance(error, WireError)
    assert "32 levels" in error.message


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 10_000 + b"]" * 10_000, id="ten thousand levels"),
        pytest.param(b'{"a":' * 10_000, id="never closed"),
        pytest.param(b"[}" * 100_000, id="pairs that do not match"),
        pytest.param(
            b'"' + b'\\"' * 100_000 + b"[" * 40, id="quotes escaped without end, brackets inside the string"
        ),
    ],
)
def test_hostile_nesting_is_refused_before_it_is_parsed(body: bytes) -> None:
    assert isinstance(read(body), WireError)


def test_brackets_inside_strings_are_no_nesting() -> None:
    assert isinstance(read({"prompt": "[" * 500 + '\\"{' * 500}), Request)


@given(
    st.recursive(
        st.text() | st.integers() | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_the_depth_check_agrees_with_the_parsed_value(value: Any) -> None:
    def depth(item: Any) -> int:
        if isinstance(item, dict):
            return 1 + max(map(depth, item.values()), default=0)
        return 1 + max(map(depth, item), default=0) if isinstance(item, list) else 0

    try:
        text = orjson.dumps(value)
    except TypeError:  # an integer beyond 64 bits, or a lone surrogate: not JSON that orjson writes
        return
    for extra in (0, 30, 31, 32):
        assert too_deep(b"[" * extra + text + b"]" * extra) == (depth(value) + extra > 32)


@given(st.binary(max_size=300))
def test_any_bytes_give_a_request_or_an_error_and_never_an_exception(body: bytes) -> None:
    assert isinstance(read(body), Request | WireError)


def test_a_valid_traceparent_goes_on_under_a_new_span() -> None:
    opened = envelope({"traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v"})
    assert opened.trace_id == TRACE
    version, trace, span, flags = opened.traceparent.split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span not in {"00f067aa0ba902b7", "0" * 16}
    assert (opened.tracestate, opened.baggage) == ("a=1", "k=v")


@pytest.mark.parametrize(
    "parent",
    [
        pytest.param("", id="empty"),
        pytest.param(PARENT.upper(), id="upper case"),
        pytest.param(PARENT + "-more", id="version 00 with a fifth field"),
        pytest.param("ff" + PARENT[2:], id="version ff"),
        pytest.param(f"00-{'0' * 32}-00f067aa0ba902b7-01", id="a trace id of zeros"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", id="a span id of zeros"),
        pytest.param(PARENT + "\n", id="a line break"),
        pytest.param("x" * 10_000, id="ten thousand characters"),
    ],
)
def test_an_invalid_traceparent_starts_a_new_trace_and_drops_the_state(parent: str) -> None:
    opened = envelope({"traceparent": parent, "tracestate": "a=1"})
    assert opened.trace_id != TRACE
    assert len(opened.trace_id) == 32
    assert opened.tracestate is None


def test_a_later_version_of_traceparent_is_read_as_far_as_we_know_it() -> None:
    assert envelope({"traceparent": f"01-{TRACE}-00f067aa0ba902b7-01-new"}).trace_id == TRACE


@pytest.mark.parametrize(
    ("given", "passed"), [("00", "00"), ("03", "03"), ("ff", "03"), ("05", "01"), ("f8", "00")]
)
def test_flags_of_a_trace_that_nobody_knows_are_not_passed_on(given: str, passed: str) -> None:
    assert envelope({"traceparent": f"{PARENT[:-2]}{given}"}).traceparent[-2:] == passed


LONG = "l=" + "x" * 127
"""An entry of a tracestate that is the first to be left out."""
SHORT = [f"k{number}=" + "y" * 95 for number in range(6)]
"""Entries of which five are just carried."""


@pytest.mark.parametrize(
    ("state", "passed"),
    [
        pytest.param(",".join(SHORT[:5]), ",".join(SHORT[:5]), id="what fits is whole"),
        pytest.param(",".join(SHORT), ",".join(SHORT[:5]), id="the last entries go first"),
        pytest.param(",".join([LONG, *SHORT[:5]]), ",".join(SHORT[:5]), id="long ones go before them"),
        pytest.param(
            f"{LONG},{LONG},{LONG},{LONG},a=1", f"{LONG},{LONG},{LONG},a=1", id="and no more than must"
        ),
        pytest.param("x=" + "y" * 600, None, id="nothing is left of one that is too long"),
        pytest.param("," * 8_193, None, id="what nobody would carry is not looked at"),
    ],
)
def test_a_long_tracestate_loses_whole_entries(state: str, passed: str | None) -> None:
    carried = envelope({"traceparent": PARENT, "tracestate": state}).tracestate
    assert carried == passed
    assert carried is None or len(carried) <= 512


@pytest.mark.parametrize("name", ["x-request-id", "beamline-request-id"])
def test_the_callers_request_id_is_kept(name: str) -> None:
    assert envelope({name: "req-7"}).request_id == "req-7"


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "a\r\nb", "ü"])
def test_a_request_id_that_could_harm_a_log_or_a_header_is_replaced(bad: str) -> None:
    made = envelope({"x-request-id": bad}).request_id
    assert made != bad
    assert len(made) == 32


def test_the_smaller_of_both_deadline_headers_counts() -> None:
    headers = {"beamline-deadline-ms": "5000", "beamline-deadline-at": str(int(UNIX_MS) + 2000)}
    request = read({"prompt": "x"}, headers)
    assert isinstance(request, Request)
    assert request.deadline == NOW + 2.0


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"beamline-deadline-ms": "0"}, id="nothing remains"),
        pytest.param({"beamline-deadline-at": str(int(UNIX_MS) - 1)}, id="the time has passed"),
    ],
)
def test_an_expired_request_is_refused_unexecuted(headers: dict[str, str]) -> None:
    error = read({"prompt": "x"}, headers)
    assert isinstance(error, WireError)
    assert error.code is ErrorCode.DEADLINE_EXCEEDED
    assert error.attempts == 0


@pytest.mark.parametrize("raw", ["-1", "soon", "1e9", "", "NaN", "9" * 30])
def test_a_deadline_that_is_no_number_is_refused_by_name(raw: str) -> None:
    error = read({"prompt": "x"}, {"beamline-deadline-ms": raw})
    assert isinstance(error, WireError)
    assert error.code is ErrorCode.INVALID_ARGUMENT
    assert "Beamline-Deadline-Ms" in error.message


def test_a_callers_deadline_is_cut_to_ten_minutes() -> None:
    assert remaining_ms({"beamline-deadline-ms": "999999999"}, UNIX_MS) == 600_000.0
