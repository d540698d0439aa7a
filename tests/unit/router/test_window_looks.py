"""When a window asks its step, and what an error means wherever it comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from beamline_contract.errors import ErrorCode, WireError
from beamline_router.core.windows import FIRST_LOOK, STEP, Chain, Looked, Window

BLOCKED = WireError(ErrorCode.VALIDATION_REJECTED, "blocked")
Look = Callable[[str], Awaitable[Looked | WireError]]


def agreeing(reach: int, asked: list[int]) -> Look:
    """A step that treats each character alone, and notes what it is shown."""

    async def look(text: str) -> Looked | WireError:
        asked.append(len(text))
        return Looked(text, reach)

    return look


def refusing(reach: int, asked: list[int]) -> Look:
    """A step that never agrees to a cut."""

    async def look(text: str) -> Looked | WireError:
        asked.append(len(text))
        return Looked(text + "!", reach)

    return look


async def windows_of(look: Callable[[int, list[int]], Look], reach: int, length: int) -> list[int]:
    """How much text stood in the window each time that it was looked at."""
    asked: list[int] = []
    window = Window(look(reach, asked))
    return await looked_at(window, asked, length)


async def looked_at(window: Window, asked: list[int], length: int) -> list[int]:
    seen = []
    for _ in range(length):
        asked.clear()
        assert isinstance(await window.feed("x"), str)
        if asked:
            seen.append(asked[0])
    return seen


F, S = FIRST_LOOK, STEP
LOOKS: dict[str, tuple[Callable[[int, list[int]], Look], int, int, list[int]]] = {
    "after a cut, when a step's worth has come": (agreeing, 10, F + 3 * S, [F, 10 + S, 10 + S, 10 + S]),
    "never sooner than it looks far": (agreeing, F + 100, F + 100 + 3 * S, [F, *[F + 100 + S] * 3]),
    "without a cut, when it has grown by a quarter": (
        refusing,
        10,
        800,
        [F, F + F // 4, 480 + 480 // 4, 750],
    ),
    "without a cut and looking far, when there is a step's worth to let go": (
        refusing,
        F + 300,
        F + 300 + S,
        [F, F + 300 + S],
    ),
}


@pytest.mark.parametrize(("look", "reach", "length", "wanted"), LOOKS.values(), ids=LOOKS.keys())
async def test_a_window_is_looked_at(
    look: Callable[[int, list[int]], Look], reach: int, length: int, wanted: list[int]
) -> None:
    assert await windows_of(look, reach, length) == wanted


@pytest.mark.parametrize(("reach", "first"), [(10, F), (F + 100, F + 100)], ids=["near", "far"])
async def test_another_attempt_is_looked_at_first_when_all_that_the_step_must_see_is_there(
    reach: int, first: int
) -> None:
    asked: list[int] = []
    window = Window(refusing(reach, asked))
    await looked_at(window, asked, 2_000)
    window.reset()
    assert window.held == 0
    assert (await looked_at(window, asked, first))[0] == first


async def test_what_has_all_left_is_not_shown_again_at_the_end() -> None:
    asked: list[int] = []
    window = Window(agreeing(0, asked))
    assert await window.feed("x" * FIRST_LOOK) == "x" * FIRST_LOOK
    asked.clear()
    assert await window.finish() == ""
    assert asked == []


@pytest.mark.parametrize("number", [1, 2, 3], ids=["the window", "what would leave", "what would stay"])
async def test_an_error_about_any_part_of_a_window_ends_the_stream(number: int) -> None:
    asked: list[int] = []
    agreed = agreeing(10, asked)

    async def look(text: str) -> Looked | WireError:
        looked = await agreed(text)
        return BLOCKED if len(asked) == number else looked

    assert await Window(look).feed("x" * 500) is BLOCKED


async def test_where_a_cut_would_divide_what_belongs_together_an_earlier_place_is_taken() -> None:
    asked: list[int] = []

    async def look(text: str) -> Looked | WireError:
        asked.append(len(text))
        return Looked(text.replace("aXb", "[X]"), 3)

    window = Window(look)
    text = "." * 396 + "aXb."  # the latest place, 3 before the end, is behind the a
    left = await window.feed(text)
    assert left == "." * (397 * 3 // 4)
    asked.clear()
    assert await window.feed("." * (STEP - 1)) == ""
    assert asked == []
    assert f"{left}{await window.finish('..')}" == f"{'.' * 396}[X].{'.' * (STEP - 1)}.."


@pytest.mark.parametrize("place", [0, 1], ids=["the first", "the second"])
@pytest.mark.parametrize("ending", [False, True], ids=["in a window", "at the end"])
async def test_an_error_of_one_step_of_several_ends_the_stream(place: int, ending: bool) -> None:
    asked: list[int] = []

    async def block(text: str) -> Looked | WireError:
        return BLOCKED

    looks = [agreeing(10, asked), agreeing(10, asked)]
    looks[place] = block
    chain = Chain([Window(look) for look in looks])
    if ending:
        assert await chain.feed("x" * 100) == ""
        assert await chain.finish() is BLOCKED
    else:
        outs = [await chain.feed("x" * 500) for _ in range(2)]
        assert BLOCKED in outs
    assert len(asked) <= 8


async def test_a_new_attempt_empties_every_window_of_a_chain() -> None:
    asked: list[int] = []
    told: list[str] = []
    chain = Chain([Window(agreeing(10, asked)) for _ in range(2)], on_reset=lambda: told.append("reset"))
    assert await chain.feed("old" * 130) == ""
    chain.reset()
    assert await chain.feed("new") == ""
    assert await chain.finish() == "new"
    assert told == ["reset"]
