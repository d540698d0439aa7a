"""Post steps on streams: what leaves is what the step would have made of the whole answer."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamline_contract.errors import ErrorCode, WireError
from beamline_extensions.detectors.folding import LONGEST_RUN
from beamline_extensions.mask_sensitive_data.config import MaskConfig
from beamline_extensions.mask_sensitive_data.extension import MaskSensitiveData
from beamline_router.core.windows import FIRST_LOOK, STEP, WHOLE, Chain, Looked, Window
from beamline_sdk import ExtensionRequest

Apply = Callable[[str], Awaitable[str | WireError]]

MASK = MaskSensitiveData()
CONFIG = MaskConfig(mask_patterns=("email", "phone", "credit_card", "ssn", "iban"))
FILLER = "The weather in Vienna is fine today, and so is the mood of all who live there. "
SECRETS = (
    "jane.doe+tag@mail.example.com",
    "+43 660 1234567",
    "call me at 2025550143",
    "4111 1111 1111 1111",
    "DE89 3704 0044 0532 0130 00",
    f"{'a' * 64}@{'b' * 60}.{'c' * 60}.example.com",
)
TAIL = MASK.match_length(CONFIG)


def masking(config: MaskConfig) -> Apply:
    async def apply(text: str) -> str | WireError:
        patch = await MASK.handle(ExtensionRequest(output=text), config)
        return text if patch.output is None else patch.output

    return apply


mask = masking(CONFIG)


def looking(apply: Apply, reach: int | None) -> Callable[[str], Awaitable[Looked | WireError]]:
    """A step that says how far it looks; None: it says nothing, and so must see the whole answer."""

    async def look(text: str) -> Looked | WireError:
        after = await apply(text)
        return after if isinstance(after, WireError) else Looked(after, WHOLE if reach is None else reach)

    return look


async def streamed(apply: Apply, chunks: list[str], reach: int | None = TAIL) -> list[str]:
    return await through(Window(looking(apply, reach)), chunks)


async def through(window: Window | Chain, chunks: list[str]) -> list[str]:
    left = []
    for chunk in chunks:
        out = await window.feed(chunk)
        assert isinstance(out, str)
        left.append(out)
    rest = await window.finish()
    assert isinstance(rest, str)
    return [*left, rest]


@pytest.mark.parametrize("before", [0, 1, 100, TAIL + STEP - 10, 900])
async def test_an_email_address_cut_at_every_byte_never_leaves(before: int) -> None:
    address = "jane.doe@example.com"
    head = (FILLER * 20)[:before]
    text = f"{head} {address} {FILLER * 12}"
    start = len(head) + 1
    whole = await mask(text)
    for cut in range(start, start + len(address) + 1):
        parts = await streamed(mask, [text[:cut], text[cut:]])
        assert "".join(parts) == whole
        assert "example.com" not in "".join(parts)
        assert "[EMAIL]" in "".join(parts)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 333])
@pytest.mark.parametrize("secret", SECRETS)
async def test_whatever_the_detectors_know_is_masked_across_chunks_of_every_size(
    secret: str, size: int
) -> None:
    text = f"{FILLER * 5}{secret} {FILLER * 6}{secret}. {FILLER * 5}"
    parts = await streamed(mask, [text[at : at + size] for at in range(0, len(text), size)])
    assert "".join(parts) == await mask(text)
    assert secret not in "".join(parts)
    assert len([part for part in parts if part]) > 1


PIECES = st.sampled_from(
    [*SECRETS, FILLER, " ", "x", "\n", ".", "+", "-", "phone: ", "12 ", "a@", "grüße 世界 "]
)


@settings(max_examples=40)
@given(st.lists(PIECES, min_size=1, max_size=25), st.integers(1, 200))
async def test_any_answer_streams_to_what_it_would_have_been_in_one_piece(
    pieces: list[str], size: int
) -> None:
    """Words stand between the pieces: a run of them longer than the tail has no single right reading."""
    text = " and ".join(pieces)
    parts = await streamed(mask, [text[at : at + size] for at in range(0, len(text), size)])
    assert "".join(parts) == await mask(text)


VALUES: dict[str, tuple[str, ...]] = {
    "email": ("jane.doe+tag@mail.example.com",),
    "phone": ("+43 660 1234567", "call me at 2025550143", "phone: (202) 555-0143"),
    "credit_card": ("4111 1111 1111 1111", "4111111111111111"),
    "ssn": ("536-90-4399", "social security number is 536904399"),
    "iban": ("DE89 3704 0044 0532 0130 00",),
}


@settings(max_examples=120)
@given(
    kind=st.sampled_from(sorted(VALUES)),
    data=st.data(),
    size=st.integers(1, 400),
    stretch=st.integers(0, 24),
    before=st.integers(0, 600),
)
async def test_what_is_masked_in_a_whole_answer_is_masked_on_a_stream_however_hidden_characters_stretch_it(
    kind: Any, data: st.DataObject, size: int, stretch: int, before: int
) -> None:
    """With the reach of this one kind alone: the tightest that there is."""
    config = MaskConfig(mask_patterns=(kind,))
    value = data.draw(st.sampled_from(VALUES[kind]))
    every = data.draw(st.integers(1, 5))
    hidden = data.draw(st.sampled_from(["\u200b", "\u00ad", "\ufe0f"]))
    stretched = "".join(
        character + (hidden * stretch if at % every == 0 else "") for at, character in enumerate(value[:-1])
    )
    text = f"{(FILLER * 8)[:before]} {stretched}{value[-1]} {FILLER * 8}"
    whole = await masking(config)(text)
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    parts = await streamed(masking(config), chunks, MASK.match_length(config))
    assert "".join(parts) == whole


@pytest.mark.parametrize("kind", sorted(VALUES))
async def test_a_value_of_the_greatest_length_is_masked_wherever_it_is_cut_and_a_longer_one_nowhere(
    kind: Any,
) -> None:
    config = MaskConfig(mask_patterns=(kind,))
    value, reach = VALUES[kind][0], MASK.match_length(config)
    for length, is_masked in ((reach, True), (reach + 1, False)):
        gaps, more = divmod(length - len(value), len(value) - 1)
        assert gaps < LONGEST_RUN
        stretched = value[0] + "".join(
            "\u200b" * (gaps + (at < more)) + character for at, character in enumerate(value[1:])
        )
        assert len(stretched) == length
        text = f"{FILLER * 6} {stretched} {FILLER * 6}"
        whole = await masking(config)(text)
        assert (stretched not in str(whole)) is is_masked
        start = len(FILLER) * 6
        for cut in range(start, start + length + 2, 7):
            assert "".join(await streamed(masking(config), [text[:cut], text[cut:]], reach)) == whole


async def test_hidden_characters_without_end_hide_no_value_beside_them() -> None:
    text = "jane@example.com" + "\u200b" * 400 + f"x.org {FILLER * 9}"
    whole = await mask(text)
    assert str(whole).startswith("[EMAIL]")
    assert "".join(await streamed(mask, [text[at : at + 9] for at in range(0, len(text), 9)])) == whole


@settings(max_examples=60)
@given(
    values=st.lists(
        st.sampled_from([one for kind in VALUES.values() for one in kind]), min_size=2, max_size=4
    ),
    before=st.integers(0, 500),
    size=st.integers(1, 300),
)
async def test_values_without_anything_between_them_are_masked_on_a_stream_as_in_a_whole(
    values: list[str], before: int, size: int
) -> None:
    text = f"{(FILLER * 8)[:before]} {''.join(values)} {FILLER * 8}"
    parts = await streamed(mask, [text[at : at + size] for at in range(0, len(text), size)])
    assert "".join(parts) == await mask(text)


async def test_text_leaves_long_before_the_end_and_little_is_held() -> None:
    window = Window(looking(mask, TAIL))
    most = 0
    for at in range(0, 8_000, 10):
        assert isinstance(await window.feed((FILLER * 110)[at : at + 10]), str)
        most = max(most, window.held)
    assert most <= TAIL + 2 * STEP


async def test_a_step_that_changes_the_answer_as_a_whole_gets_the_whole_answer() -> None:
    async def footer(text: str) -> str | WireError:
        return text + "\n-- written by a machine"

    parts = await streamed(footer, [FILLER] * 30)
    assert parts[:-1] == [""] * 30
    assert parts[-1] == FILLER * 30 + "\n-- written by a machine"


async def test_what_a_step_blocks_does_not_leave_wherever_it_is_cut() -> None:
    error = WireError(ErrorCode.VALIDATION_REJECTED, "blocked")

    async def block(text: str) -> str | WireError:
        return error if "forbidden" in text else text

    text = f"{FILLER * 8}forbidden {FILLER * 8}"
    at = text.index("forbidden")
    for cut in range(at, at + len("forbidden") + 1):
        window, left, ended = Window(looking(block, len("forbidden"))), "", False
        for chunk in (text[: cut - 100], text[cut - 100 : cut], text[cut:]):
            out = await window.feed(chunk)
            if isinstance(out, WireError):
                ended = True
                break
            left += out
        assert ended
        assert "f" not in left[at:]
        assert "forbidden" not in left


async def test_at_the_end_each_step_of_several_is_asked_once_and_about_all_that_is_left() -> None:
    asked: list[tuple[str, int]] = []

    def step(name: str) -> Window:
        async def look(text: str) -> Looked | WireError:
            asked.append((name, len(text)))
            return Looked(text, WHOLE)

        return Window(look)

    chain = Chain([step("first"), step("second")])
    await chain.feed("x" * 1_000)
    asked.clear()
    assert await chain.finish() == "x" * 1_000
    assert asked == [("first", 1_000), ("second", 1_000)]


async def test_without_post_steps_nothing_is_held() -> None:
    window = Chain()
    assert await window.feed("a") == "a"
    assert await window.finish() == ""


async def test_the_work_of_a_long_answer_grows_with_its_length_only() -> None:
    async def cost(length: int) -> int:
        seen = 0

        async def upper(text: str) -> str | WireError:
            nonlocal seen
            seen += len(text)
            return text + "!"  # never agrees to a cut: the dearest case

        window = Window(looking(upper, 1))
        for _ in range(length // 20):
            await window.feed("x" * 20)
        await window.finish()
        return seen

    assert await cost(80_000) < 6 * await cost(20_000)


LONG = 700
"""Characters of a match that no fixed tail would have held."""


def bracketed(error: bool) -> Apply:
    """A step that hides (or objects to) whatever stands between << and >>, up to LONG characters in all."""
    pattern = re.compile(f"<<[^<>]{{1,{LONG - 4}}}>>")

    async def apply(text: str) -> str | WireError:
        if error and pattern.search(text):
            return WireError(ErrorCode.VALIDATION_REJECTED, "blocked")
        return pattern.sub("[HIDDEN]", text)

    return apply


@pytest.mark.parametrize("before", [0, 5, 383, 384, 1_000])
@pytest.mark.parametrize("reach", [LONG, 5 * LONG, WHOLE, None], ids=["exact", "more", "whole", "unstated"])
async def test_a_long_match_never_leaves_wherever_it_is_cut(before: int, reach: int | None) -> None:
    match = "<<" + "secret " * 99 + "abc>>"
    assert len(match) == LONG
    text = f"{(FILLER * 20)[:before]}{match}{FILLER * 12}"
    whole = await bracketed(False)(text)
    assert isinstance(whole, str)
    for cut in [*range(before, before + LONG + 1, 37), before + 1, before + LONG - 1]:
        for size in (1_000_000, 50):
            chunks = [text[:cut], *(text[at : at + size] for at in range(cut, len(text), size))]
            parts = await streamed(bracketed(False), chunks, reach)
            assert "".join(parts) == whole
            blocked = Window(looking(bracketed(True), reach))
            left = ""
            for chunk in chunks:
                out = await blocked.feed(chunk)
                if isinstance(out, WireError):
                    break
                left += out
            else:
                assert isinstance(await blocked.finish(), WireError)
            assert "secret" not in left


async def test_a_step_that_looks_further_than_it_says_is_what_the_word_is_for() -> None:
    """The same match escapes a step that claims a shorter reach: the test above would notice."""
    text = f"{FILLER * 3}<<{'secret ' * 98}abc>>{FILLER * 12}"
    parts = await streamed(bracketed(False), [text[at : at + 50] for at in range(0, len(text), 50)], 50)
    assert "secret" in "".join(parts)


@settings(max_examples=60)
@given(
    pieces=st.lists(st.sampled_from(["<<", ">>", "x" * 200, "y" * 90, FILLER, " "]), max_size=30),
    size=st.integers(1, 500),
    more=st.integers(0, 2_000),
)
async def test_with_a_true_reach_the_result_is_exactly_that_of_the_whole_answer(
    pieces: list[str], size: int, more: int
) -> None:
    text = "".join(pieces)
    parts = await streamed(
        bracketed(False), [text[at : at + size] for at in range(0, len(text), size)], LONG + more
    )
    assert "".join(parts) == await bracketed(False)(text)


async def test_what_a_step_has_shortened_does_not_shorten_the_next_ones_look() -> None:
    """The second step looks for ten letters that stand far apart before the first one has worked."""

    async def squeeze(text: str) -> str | WireError:
        return re.sub(r"[.]{100}", "", text)

    async def find(text: str) -> str | WireError:
        return text.replace("abcdefghij", "[FOUND]")

    text = f"{FILLER * 4}{('.' * 100).join('abcdefghij')}{FILLER * 12}"
    whole = await find(str(await squeeze(text)))
    for size in (1, 7, 99, 250):
        chain = Chain([Window(looking(squeeze, 100)), Window(looking(find, 10))])
        parts = await through(chain, [text[at : at + size] for at in range(0, len(text), size)])
        assert "".join(parts) == whole
        assert "[FOUND]" in "".join(parts)


async def test_a_step_that_says_nothing_gets_the_whole_answer_and_is_asked_once_before() -> None:
    asked: list[int] = []

    async def same(text: str) -> str | WireError:
        asked.append(len(text))
        return text

    parts = await streamed(same, [FILLER] * 100, None)
    assert parts[:-1] == [""] * 100
    assert len(asked) == 2
    assert FIRST_LOOK <= asked[0] < FIRST_LOOK + len(FILLER)
    assert asked[1] == 100 * len(FILLER)


async def test_while_a_step_does_not_answer_nothing_leaves() -> None:
    answers = False

    async def look(text: str) -> Looked | WireError:
        return Looked(text.replace("secret", "***"), 6) if answers else Looked(text, None)

    window = Window(look)
    for _ in range(20):
        assert await window.feed(f"{FILLER}secret ") == ""
    answers = True
    left = ""
    for _ in range(40):
        out = await window.feed(FILLER)
        assert isinstance(out, str)
        left += out
    assert left.count("***") == 20
    assert "secret" not in left


async def test_an_address_of_the_greatest_length_is_masked_and_a_longer_one_is_none() -> None:
    name, label = "n" * 64, "d" * 60 + "."
    longest = f"{name}@{label * 4}{'e' * 8}.info"
    longest = longest.replace("e" * 8, "e" * (8 + 320 - len(longest)))
    assert len(longest) == 320
    assert "[EMAIL]" in str(await mask(f"to {longest} now"))
    assert "[EMAIL]" not in str(await mask(f"to {longest.replace('.info', 'x.info')} now"))
