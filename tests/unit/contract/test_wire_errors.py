"""Errors: one status each, and whatever an extension sends becomes one of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamline_contract.errors import (
    CLIENT_FAULTS,
    FOREIGN_CODES,
    HTTP_STATUS,
    MAX_MESSAGE_LENGTH,
    RETRYABLE_BY_DEFAULT,
    ErrorCode,
    WireError,
)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["code", "message", "retryable", "retry_after_ms", "details", "step"])
CODES = st.sampled_from([*ErrorCode, *FOREIGN_CODES, "nonsense"])


def test_every_code_has_an_http_status_and_its_own_name() -> None:
    assert set(HTTP_STATUS) == set(ErrorCode)
    assert all(code.name == code.value for code in ErrorCode)


def test_no_client_fault_is_tried_again_by_default() -> None:
    assert not CLIENT_FAULTS & RETRYABLE_BY_DEFAULT


@given(ANYTHING | st.dictionaries(FIELDS, ANYTHING | CODES))
def test_reading_an_error_never_raises_and_gives_a_sound_one(data: Any) -> None:
    error = WireError.from_wire(data)
    assert isinstance(error.code, ErrorCode)
    assert len(error.message) <= MAX_MESSAGE_LENGTH
    assert isinstance(error.retryable, bool)
    assert error.retry_after_ms is None or (type(error.retry_after_ms) is int and error.retry_after_ms >= 0)
    assert error.http_status in {*HTTP_STATUS.values(), 413, 415}
    wire = error.to_wire()
    assert WireError.from_wire(wire).to_wire() == wire or "nan" in json.dumps(wire, default=str).lower()


@pytest.mark.parametrize(
    ("sent", "code", "retryable"),
    [
        ({"code": "UNAVAILABLE"}, ErrorCode.UNAVAILABLE, True),
        ({"code": "UNAVAILABLE", "retryable": False}, ErrorCode.UNAVAILABLE, False),
        ({"code": "provider_error"}, ErrorCode.UNAVAILABLE, True),
        ({"code": "internal_error"}, ErrorCode.INTERNAL, True),
        ({"code": "E_1234"}, ErrorCode.INTERNAL, True),
        ({"code": 7}, ErrorCode.INTERNAL, True),
        ({"code": "INVALID_ARGUMENT", "retryable": "yes"}, ErrorCode.INVALID_ARGUMENT, False),
        (["boom"], ErrorCode.INTERNAL, True),
        (None, ErrorCode.INTERNAL, True),
    ],
    ids=repr,
)
def test_codes_of_any_author_become_ours(sent: Any, code: ErrorCode, retryable: bool) -> None:
    read = WireError.from_wire(sent)
    assert (read.code, read.retryable) == (code, retryable)


@pytest.mark.parametrize(
    ("sent", "read"),
    [(0, 0), (1500, 1500), (1500.9, 1500), (-1, None), (True, None), ("5", None), (float("nan"), None),
     (float("inf"), None)],
    ids=repr,
)  # fmt: skip
def test_a_wait_is_whole_milliseconds_or_unknown(sent: object, read: int | None) -> None:
    assert WireError.from_wire({"code": "RESOURCE_EXHAUSTED", "retry_after_ms": sent}).retry_after_ms == read


@pytest.mark.parametrize(
    ("details", "status"),
    [
        ({}, 400),
        ({"http_status": 413}, 413),
        ({"http_status": 415}, 415),
        ({"http_status": 200}, 400),
        ({"http_status": [413]}, 400),
    ],
)
def test_only_two_other_statuses_can_be_asked_for(details: dict[str, Any], status: int) -> None:
    assert WireError.of(ErrorCode.INVALID_ARGUMENT, "no", details=details).http_status == status
    assert WireError.of(ErrorCode.INTERNAL, "no", details=details).http_status == 500


def test_a_copy_says_where_it_happened() -> None:
    error = WireError.of(ErrorCode.UNAVAILABLE, "nobody").at(step="guard", attempts=2)
    assert error.to_wire() == {
        "code": "UNAVAILABLE",
        "message": "nobody",
        "retryable": True,
        "step": "guard",
        "attempts": 2,
    }
