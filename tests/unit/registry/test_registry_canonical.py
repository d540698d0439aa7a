"""Canonical JSON: equal values have equal bytes, whatever way they took."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamline_registry.canonical import NotStorableError, canonical, encode, stored_form

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
documents = st.dictionaries(
    text,
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
        max_leaves=12,
    ),
    max_size=5,
)


@given(documents)
def test_a_document_that_was_stored_and_read_is_the_same(document: dict[str, Any]) -> None:
    assert canonical(orjson.loads(encode(stored_form(document)))) == canonical(document)


@given(documents)
def test_the_canonical_form_of_a_canonical_form_is_itself(document: dict[str, Any]) -> None:
    assert canonical(stored_form(document)) == canonical(document)


@given(documents)
def test_it_says_the_same_as_the_document(document: dict[str, Any]) -> None:
    assert json.loads(canonical(document)) == document


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"a": 1, "b": 2}, {"b": 2, "a": 1}, id="keys in another order"),
        pytest.param(1e2, 100, id="a whole number with a point"),
        pytest.param(-0.0, 0, id="minus nothing"),
        pytest.param((1, 2), [1, 2], id="a tuple and a list"),
    ],
)
def test_spelling_does_not_matter(one: object, other: object) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(True, 1, id="true and 1"),
        pytest.param(False, 0, id="false and 0"),
        pytest.param("1", 1, id="text and a number"),
        pytest.param({"a": None}, {}, id="null and absent"),
        pytest.param([1, 2], [2, 1], id="another order of a list"),
    ],
)
def test_meaning_does(one: object, other: object) -> None:
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("a\0b", id="U+0000"),
        pytest.param({"\0": 1}, id="U+0000 in a key"),
        pytest.param("\udc00", id="half a surrogate pair"),
        pytest.param(float("inf"), id="infinity"),
        pytest.param(float("nan"), id="not a number"),
        pytest.param(2**64, id="an integer beyond 64 bits"),
        pytest.param({1: 2}, id="a key that is no string"),
        pytest.param(object(), id="something else"),
        pytest.param(b"bytes", id="bytes"),
    ],
)
def test_what_a_database_can_not_hold_is_refused(value: object) -> None:
    with pytest.raises(NotStorableError):
        canonical([value])


def test_something_bottomless_is_refused_and_does_not_crash() -> None:
    bottomless: list[Any] = []
    bottomless.append(bottomless)
    with pytest.raises(NotStorableError):
        canonical(bottomless)
