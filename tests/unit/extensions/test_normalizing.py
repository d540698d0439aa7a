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


@pytest.mark.parametrize(
    ("text", "length", "expected"),
    [
        pytest.param("abcdef", 6, "abcdef", id="a text of that length stays"),
        pytest.param("abcdef", 5, "abcde", id="a longer one is cut"),
        pytest.param("  a   b   c", 5, "a b c", id="what counts is the tidied text"),
        pytest.param("abc def", 4, "abc", id="no blank is left at the end"),
        pytest.param("abx\u0323\u0331", 3, "ab", id="a letter goes with its accents"),
        pytest.param("a👨‍👩‍👧", 4, "a", id="joined emoji go together"),
        pytest.param("a👍🏽", 2, "a", id="a skin tone stays with its hand"),
        pytest.param("a🇩🇪", 2, "a", id="a flag stays whole"),
        pytest.param("🇩🇪🇫🇷🇮🇹", 4, "🇩🇪🇫🇷", id="flags in a row are counted in twos"),
        pytest.param("🇩🇪🇫🇷🇮🇹", 5, "🇩🇪🇫🇷", id="and none of them is cut"),
        pytest.param("a" + "\u0331" * 99, 50, "a" + "\u0331" * 49, id="accents without end are cut"),
    ],
)
def test_a_text_that_is_too_long_is_cut(text: str, length: int, expected: str) -> None:
    assert normalized(text, NormalizeConfig(max_characters=length)) == expected


async def test_each_message_has_its_own_length() -> None:
    messages = [{"role": "user", "content": "abcd"}, {"role": "user", "content": "ab"}]
    patch = await NormalizeText().handle(
        ExtensionRequest(messages=messages), NormalizeConfig(max_characters=3)
    )
    assert patch.messages == [{"role": "user", "content": "abc"}, {"role": "user", "content": "ab"}]


@pytest.mark.parametrize("length", [0, -1, 262_145, "many"])
def test_a_length_out_of_bounds_is_refused(length: object) -> None:
    with pytest.raises(ValueError, match="max_characters"):
        NormalizeConfig.model_validate({"max_characters": length})


@given(
    st.text(max_size=60),
    st.builds(
        NormalizeConfig,
        lowercase=st.booleans(),
        trim_whitespace=st.booleans(),
        unicode_form=st.sampled_from(["NFC", "none"]),
        strip_control=st.booleans(),
        max_characters=st.none() | st.integers(1, 70),
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
