"""A line in a list is all that a condition, or a check of one, needs to be told and to count."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_contract.conditions import ConditionType, Reason
from beamline_operator.core import checks
from beamline_operator.core.view import Decided, Finding, View, no


def never(view: View, _: Decided) -> Finding:
    """A new check, which nothing passes."""
    return no(Reason.REFUSED, f"spec.timeoutMs: {view.generation} is never right.")


def with_line(at: ConditionType, found: tuple[checks.Check, ...]) -> Any:
    """The conditions with another list of checks for one of them."""
    assert at in dict(checks.CONDITIONS)
    return tuple((kind, found if kind is at else known) for kind, known in checks.CONDITIONS)


@pytest.mark.parametrize("condition", [ConditionType.CANARY, ConditionType.SYNCED, ConditionType.PROGRAMMED])
@pytest.mark.parametrize("alone", [True, False], ids=["a new condition", "a new check before the others"])
async def test_it_is_told_and_folded_into_ready_and_stalled(
    world: Any, monkeypatch: pytest.MonkeyPatch, condition: ConditionType, alone: bool
) -> None:
    others = () if alone else dict(checks.CONDITIONS)[condition]
    monkeypatch.setattr(checks, "CONDITIONS", with_line(condition, (never, *others)))
    key = world.extension()
    await world.settle()
    world.report()
    await world.settle()
    assert world.verdict(key, condition) == ("False", "Refused")
    assert world.verdict(key, "Ready") == ("False", "Refused")
    assert world.message(key, "Ready") == f"{condition}: spec.timeoutMs: 1 is never right."
    assert world.verdict(key, "Stalled") == ("True", "Refused")


async def test_what_is_not_in_the_list_is_neither_told_nor_counted(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tuple(line for line in checks.CONDITIONS if line[0] is not ConditionType.PROGRAMMED)
    monkeypatch.setattr(checks, "CONDITIONS", left)
    key = world.extension()
    await world.settle()
    assert world.verdict(key, "Programmed") == ("", "")
    assert world.verdict(key, "Ready") == ("True", "Ready")
