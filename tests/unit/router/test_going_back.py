"""A registry that went back does not take the table away before it is filled."""

from __future__ import annotations

from beamline_router.core.going_back import LONGEST_S, SETTLED_S, GoingBack


def test_a_registry_that_is_not_behind_is_taken_at_once() -> None:
    state = GoingBack()
    assert not state.holds(7, 7, empty=False, now=0.0)
    assert not state.holds(7, 8, empty=True, now=0.0)
    assert not state.under_way


def test_an_empty_registry_never_takes_the_table_away() -> None:
    state = GoingBack()
    assert all(state.holds(7, 0, empty=True, now=float(now)) for now in range(0, 100_000, 1_000))
    assert state.under_way


def test_one_that_is_being_filled_is_taken_when_it_has_stood_still() -> None:
    state = GoingBack()
    for second in range(10):
        assert state.holds(70, 1 + second, empty=False, now=float(second))
    assert state.holds(70, 10, empty=False, now=9.0 + SETTLED_S - 0.01)
    assert not state.holds(70, 10, empty=False, now=9.0 + SETTLED_S)
    assert not state.under_way


def test_one_that_catches_up_while_it_is_filled_is_waited_for_too() -> None:
    state = GoingBack()
    assert state.holds(7, 3, empty=False, now=0.0)
    assert state.holds(7, 9, empty=False, now=0.1)
    assert not state.holds(7, 9, empty=False, now=0.1 + SETTLED_S)
    assert not state.under_way


def test_one_that_never_stands_still_is_taken_in_the_end() -> None:
    state = GoingBack()
    assert state.holds(7, 0, empty=True, now=0.0)
    held = [state.holds(7, 1 + write, empty=False, now=1_000.0 + write) for write in range(200)]
    assert held == [write < LONGEST_S for write in range(200)]
    assert not state.under_way
    assert state.holds(7, 1, empty=False, now=5_000.0)


def test_each_time_is_a_time_of_its_own() -> None:
    state = GoingBack()
    assert state.holds(7, 3, empty=False, now=0.0)
    assert not state.holds(7, 3, empty=False, now=SETTLED_S)
    assert state.holds(5, 3, empty=False, now=100.0)
