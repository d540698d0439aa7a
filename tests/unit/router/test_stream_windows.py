"""Post steps on streams: what leaves is what the step would have made of the whole answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamline_contract.errors import ErrorCode, WireError
from beamline_extensions.mask_sensitive_data.config import MaskConfig
from beamline_extensions.mask_sensitive_data.extension import MaskSensitiveData
from beamline_router.core.windows import STEP, TAIL, Window
from beamline_sdk import ExtensionRequest

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


async def mask(text: str) -> str | WireError:
    patch = await MASK.handle(ExtensionRequest(output=text), CONFIG)
    return text if patch.output is None else patch.output


async def streamed(apply: Callable[[str], Awaitable[str | WireError]], chunks: list[str]) -> list[str]:
    window = Window(apply)
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


@settings(max_examples=40, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=25), st.integers(1, 200))
async def test_any_answer_streams_to_what_it_would_have_been_in_one_piece(
    pieces: list[str], size: int
) -> None:
    """Words stand between the pieces: a run of them longer than the tail has no single right reading."""
    text = " and ".join(pieces)
    parts = await streamed(mask, [text[at : at + size] for at in range(0, len(text), size)])
    assert "".join(parts) == await mask(text)


async def test_text_leaves_long_before_the_end_and_little_is_held() -> None:
    window = Window(mask)
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
        window, left, ended = Window(block), "", False
        for chunk in (text[: cut - 100], text[cut - 100 : cut], text[cut:]):
            out = await window.feed(chunk)
            if isinstance(out, WireError):
                ended = True
                break
            left += out
        assert ended
        assert "f" not in left[at:]
        assert "forbidden" not in left


async def test_without_post_steps_nothing_is_held() -> None:
    window = Window(None)
    assert await window.feed("a") == "a"
    assert await window.finish() == ""


async def test_the_work_of_a_long_answer_grows_with_its_length_only() -> None:
    async def cost(length: int) -> int:
        seen = 0

        async def upper(text: str) -> str | WireError:
            nonlocal seen
            seen += len(text)
            return text + "!"  # never agrees to a cut: the dearest case

        window = Window(upper)
        for _ in range(length // 20):
            await window.feed("x" * 20)
        await window.finish()
        return seen

    assert await cost(80_000) < 6 * await cost(20_000)
