"""What the audit log says about a change, and what it never says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_registry.changes import MASK, changes_between, masked, same_content

EXTENSION = ExtensionRecord(
    id="mock", type="provider", subject="a.b", namespace="default", name="mock", uid="u", generation=1,
    config={"model": "a"}, spec={"concurrency": 64, "timeoutMs": 5000, "config": {"model": "a"}},
)  # fmt: skip
POLICY = PolicyRecord(
    "p", "default", "p", "u", 1, policy={"priority": 0, "steps": [{"action": "extension_pre"}]}
)


def test_free_form_fields_are_taken_apart_one_level() -> None:
    after = replace(EXTENSION, generation=2, config={"mode": {"x": 1}}, metadata={"team": "red"})
    assert changes_between(EXTENSION, after) == {
        "config.mode": {"from": None, "to": {"x": 1}},
        "config.model": {"from": "a", "to": None},
        "generation": {"from": 1, "to": 2},
        "metadata.team": {"from": None, "to": "red"},
    }


def test_what_has_a_column_of_its_own_is_not_said_twice() -> None:
    after = replace(EXTENSION, timeout_ms=1, spec={**EXTENSION.spec, "timeoutMs": 1, "concurrency": 1})
    assert changes_between(EXTENSION, after).keys() == {"timeout_ms", "spec.concurrency"}


def test_creation_and_removal_name_every_field() -> None:
    created, deleted = changes_between(None, POLICY), changes_between(POLICY, None)
    assert created["policy.steps"] == {"from": None, "to": [{"action": "extension_pre"}]}
    assert deleted == {
        field: {"from": change["to"], "to": change["from"]} for field, change in created.items()
    }


def test_nothing_changed_says_nothing() -> None:
    assert changes_between(EXTENSION, replace(EXTENSION, revision=9)) == {}


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        pytest.param("api_key", "sk-1", MASK, id="an API key"),
        pytest.param("apiKey", "sk-1", MASK, id="an API key in camel case"),
        pytest.param("X-Api-Key", "sk-1", MASK, id="an API key as a header"),
        pytest.param("password", 1234, MASK, id="a password of digits"),
        pytest.param("clientSecret", {"a": 1}, MASK, id="everything under a secret"),
        pytest.param("Authorization", "Bearer x", MASK, id="an authorization header"),
        pytest.param("access_token", "x", MASK, id="a token"),
        pytest.param("auth", "x", MASK, id="auth"),
        pytest.param("max_tokens", 2048, 2048, id="a number of tokens is no secret"),
        pytest.param("author", "anna", "anna", id="an author is no secret"),
        pytest.param("model", "gpt-4", "gpt-4", id="a plain value"),
        pytest.param("password", None, None, id="no password"),
        pytest.param(
            "a", {"b": [{"token": "x", "c": 1}]}, {"b": [{"token": MASK, "c": 1}]}, id="deep inside"
        ),
    ],
)
def test_secrets_are_masked(key: str, value: Any, shown: Any) -> None:
    assert masked(key, value) == shown


def test_a_changed_secret_is_seen_to_have_changed() -> None:
    before, after = replace(EXTENSION, config={"token": "a"}), replace(EXTENSION, config={"token": "b"})
    assert changes_between(before, after) == {"config.token": {"from": MASK, "to": MASK}}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param({"revision": 7}, True, id="the revision is the registry's own"),
        pytest.param(
            {"created_at": "2026-01-01T00:00:00Z"}, True, id="an unknown creation time agrees with any"
        ),
        pytest.param({"generation": 2}, False, id="another generation"),
        pytest.param({"uid": "v"}, False, id="another object"),
        pytest.param({"config": {"model": True}}, False, id="another config"),
        pytest.param({"spec": {}}, False, id="another spec"),
        pytest.param({"enabled": False}, False, id="enabled"),
    ],
)
def test_content_is_everything_an_author_decides(change: dict[str, Any], same: bool) -> None:
    assert same_content(EXTENSION, replace(EXTENSION, **change)) is same


def test_two_known_creation_times_must_agree() -> None:
    one = replace(EXTENSION, created_at="2026-01-01T00:00:00Z")
    assert not same_content(one, replace(EXTENSION, created_at="2026-01-02T00:00:00Z"))
