"""Which keys are good, and what their files must look like."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamline_contract.errors import ErrorCode, WireError
from beamline_router.core.api_keys import (
    ApiKey,
    KeyFaultError,
    KeyRing,
    key_in,
    new_key,
    read_keys,
    ring_of,
    without_keys,
)

NOW = 1_800_000_000.0


def made(tenant: str = "acme", number: int = 1, **more: Any) -> tuple[str, dict[str, Any]]:
    text, entry = new_key(tenant, None, None, lambda size: bytes([number]) * size)
    return text, {**entry, **more}


def ring(*entries: dict[str, Any]) -> KeyRing:
    return ring_of(read_keys({"keys": list(entries)}, "keys.yaml"))


def test_a_key_is_known_by_its_entry_which_does_not_hold_it() -> None:
    text, entry = made(environment="prod")
    found = ring(entry).check(text, NOW)
    assert isinstance(found, ApiKey)
    assert (found.tenant, found.environment) == ("acme", "prod")
    assert text.split("_")[2] not in str(entry)
    assert entry["hash"] == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_two_keys_of_one_tenant_are_good_at_the_same_time() -> None:
    old, new = made(number=1), made(number=2)
    both = ring(old[1], new[1])
    assert all(isinstance(both.check(text, NOW), ApiKey) for text, _ in (old, new))


WRONG: list[Any] = [
    pytest.param(lambda text: text[:-1] + ("0" if text[-1] != "0" else "1"), id="another last character"),
    pytest.param(lambda text: text + "0", id="a character more"),
    pytest.param(lambda text: text.replace("blm", "BLM"), id="another prefix"),
    pytest.param(lambda text: text.rsplit("_", 1)[0] + "_", id="no secret"),
    pytest.param(lambda text: text.split("_")[2], id="the secret alone"),
    pytest.param(lambda _: "", id="nothing"),
    pytest.param(lambda _: "blm_ffffffffffff_" + "0" * 64, id="an id that nobody has"),
    pytest.param(lambda _: "x" * 100_000, id="a hundred thousand characters"),
    pytest.param(lambda _: "blm_\ud800_x", id="what is no text"),
]


@pytest.mark.parametrize("change", WRONG)
def test_what_is_not_the_key_is_refused_in_the_same_words_whatever_is_wrong(change: Any) -> None:
    text, entry = made()
    given_key = change(text)
    error = ring(entry).check(given_key, NOW)
    assert isinstance(error, WireError)
    assert error.code is ErrorCode.UNAUTHENTICATED
    assert error.message == "the API key is not valid: it is unknown, mistyped or has been withdrawn"


@given(st.text(max_size=300))
def test_no_text_but_the_key_itself_is_good(text: str) -> None:
    assert isinstance(ring(made()[1]).check(text, NOW), WireError)


def test_a_key_is_good_until_the_second_it_expires() -> None:
    text, entry = made(expires="2027-01-15T08:00:00Z")
    keys = ring(entry)
    assert isinstance(keys.check(text, NOW - 0.001), ApiKey)
    error = keys.check(text, NOW)
    assert isinstance(error, WireError)
    assert "expired at 2027-01-15T08:00:00Z" in error.message
    assert text not in error.message


def test_only_who_has_an_expired_key_hears_that_it_expired() -> None:
    text, entry = made(expires="2020-01-01T00:00:00Z")
    error = ring(entry).check(text[:-2] + "zz", NOW)
    assert isinstance(error, WireError)
    assert "expired" not in error.message


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        pytest.param({"authorization": "Bearer k"}, "k", id="a bearer"),
        pytest.param({"authorization": "bearer  k "}, "k", id="in lower case, with blanks"),
        pytest.param({"x-api-key": "k"}, "k", id="x-api-key"),
        pytest.param({"authorization": "Bearer a", "x-api-key": "b"}, "a", id="both: the bearer"),
        pytest.param({"authorization": "Basic Zm9v"}, "Basic Zm9v", id="another scheme is a wrong key"),
        pytest.param({"authorization": ""}, None, id="an empty header"),
        pytest.param({}, None, id="none"),
    ],
)
def test_where_a_key_stands(headers: dict[str, str], key: str | None) -> None:
    assert key_in(headers) == key


def test_headers_behind_the_door_hold_no_key() -> None:
    headers = {"authorization": "Bearer k", "x-api-key": "k", "x-team": "red"}
    assert without_keys(headers) == {"x-team": "red"}


FAULTS: list[Any] = [
    pytest.param({"keys": {}, "extra": 1}, "unknown field 'extra' beside keys", id="a field beside keys"),
    pytest.param("blm_x", "must hold `keys:`", id="text"),
    pytest.param({"keys": ["x"]}, "keys[0] must be an entry", id="an entry that is text"),
    pytest.param({"keys": [{}]}, "keys[0].id must be", id="no id"),
    pytest.param([{**made()[1], "id": "A B"}], "keys[0].id must be", id="an id with a blank"),
    pytest.param([{**made()[1], "hash": "secret-word"}], "keys[0].hash must be sha256:", id="no hash"),
    pytest.param([{**made()[1], "tenant": "a b"}], "keys[0].tenant must be", id="a blank in the tenant"),
    pytest.param([made()[1], {"tenat": "x"}], "keys[1]: unknown field 'tenat'", id="a typo"),
    pytest.param([{**made()[1], "expires": "soon"}], "keys[0].expires must be a time", id="soon"),
    pytest.param([{**made()[1], "environment": 5}], "keys[0].environment must be", id="a number"),
    pytest.param([{**made()[1], "limits": {"rps": 5}}], "keys[0].limits: unknown field 'rps'", id="limits"),
    pytest.param([made()[1], made()[1]], "stands twice", id="one id twice"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "words"), FAULTS)
def test_a_faulty_entry_is_named_with_its_field_and_never_quoted(document: Any, words: str) -> None:
    with pytest.raises(KeyFaultError) as raised:
        ring_of(read_keys(document, "keys.yaml"))
    assert words in str(raised.value)
    assert "sha256:" + "0" not in str(raised.value)
    assert "secret-word" not in str(raised.value)


@pytest.mark.parametrize("document", [None, {"keys": None}, {"keys": []}, []])
def test_an_empty_file_holds_no_key(document: Any) -> None:
    assert len(ring_of(read_keys(document, "keys.yaml"))) == 0


def test_one_entry_may_stand_alone_in_its_file() -> None:
    text, entry = made()
    assert isinstance(ring_of(read_keys(entry, "acme.yaml")).check(text, NOW), ApiKey)
