"""A message that says one of its fields twice is refused; one that only looks like it is not."""

from __future__ import annotations

import pytest

from beamline_router.core.twice import REQUEST_FIELDS, says_twice


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"model":"a","model":"a"}', id="the same value twice"),
        pytest.param(b'{"context":{"model":"a","model":"b"}}', id="further in"),
        pytest.param(b'{"policy":"p","model":"a","tenant_id":"t","policy":"p"}', id="others between"),
        pytest.param(rb'{"model":"a","mode\u006c":"b"}', id="one of the two escaped"),
    ],
)
def test_a_key_twice_is_seen(body: bytes) -> None:
    assert says_twice(body, REQUEST_FIELDS)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"model":"a","parameters":{"model":"b"}}', id="in two objects"),
        pytest.param(b'{"prompt":"model","context":["model","model"]}', id="as values"),
        pytest.param(rb'{"prompt":"say \"model\" and \"model\""}', id="quoted in a text"),
        pytest.param(rb'{"prompt":"caf\u00e9 \u0061"}', id="escapes in a text"),
    ],
)
def test_what_only_looks_like_it_is_let_through(body: bytes) -> None:
    assert not says_twice(body, REQUEST_FIELDS)
