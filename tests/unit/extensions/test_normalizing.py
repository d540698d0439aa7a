"""What normalize_text does to a prompt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamline_extensions.normalize_text.config import NormalizeConfig
from beamline_extensions.normalize_text.extension import NormalizeText
from beamline_extensions.normalize_text.text import normalized
from beamline_sdk import ExtensionRequest

SEED = NormalizeConfig(lowercase=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "  Hello   World \t", "hello world", id="blanks at the ends go, runs of blanks become one"
        ),
        pytest.param("a\u00a0\u2003b", "a b", id="other blanks are blanks"),
        pytest.param("cafe\u0301", "caf\u00e9", id="a letter and its accent are composed"),
        pytest.param("a\x00b\x1b[31mc\x7f", "ab[31mc", id="control characters go"),
        pytest.param("one \r\n\r\n\r\n\r\n two", "one\n\ntwo", id="line breaks stay, empty lines become one"),
        pytest.param("👨‍👩‍👧", "👨‍👩‍👧", id="joined emoji stay joined"),
        pytest.param("", "", id="nothing stays nothing"),
    ],
)
def test_a_prompt_is_tidied(text: str, expected: str) -> None:
    assert normalized(text, SEED) == expected


@given(
    st.text(max_size=60),
    st.builds(
        NormalizeConfig,
        lowercase=st.booleans(),
        trim_whitespace=st.booleans(),
        unicode_form=st.sampled_from(["NFC", "none"]),
        strip_control=st.booleans(),
    ),
)
def test_doing_it_twice_changes_nothing_more(text: str, config: NormalizeConfig) -> None:
    once = normalized(text, config)
    assert normalized(once, config) == once


async def test_only_what_changed_is_in_the_patch() -> None:
    extension = NormalizeText()
    tidy = await extension.handle(ExtensionRequest(prompt="tidy"), NormalizeConfig())
    assert tidy is not None
    assert tidy.to_wire() == {}
    messages = [{"role": "user", "content": " a  b "}, {"role": "tool", "content": None}]
    patch = await extension.handle(ExtensionRequest(messages=messages), NormalizeConfig())
    assert patch is not None
    assert patch.to_wire() == {
        "messages": [{"role": "user", "content": "a b"}, {"role": "tool", "content": None}]
    }
