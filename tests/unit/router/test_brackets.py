"""How deep JSON text can be is bounded by the brackets in it, found without looking at each byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from beamline_router.core.reading import brackets_within


@given(st.lists(st.sampled_from([b"{", b"[", b"}", b"]", b"text", b'"'])).map(b"".join), st.integers(0, 40))
def test_it_is_the_number_of_opening_brackets_that_is_bounded(text: bytes, most: int) -> None:
    assert brackets_within(text, most) == (text.count(b"{") + text.count(b"[") <= most)
