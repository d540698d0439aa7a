"""The weights of a policy's providers: read from its spec, and laid into it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from beamline_contract.errors import ErrorCode
from beamline_contract.names import object_id

from ..problems import ProblemError

MAX_WEIGHT: Final = 1_000
"""As :class:`beamline_contract.policy.ProviderChoice` has it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One candidate. ``field`` names it in forms; ``before`` is its weight now."""

    field: str
    id: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Group:
    """The candidates of one select_provider step."""

    name: str
    strategy: str
    choices: tuple[Choice, ...]

    @property
    def counts(self) -> bool:
        """Whether the strategy looks at weights."""
        return self.strategy in {"weighted", "sticky"}


def groups_of(spec: Mapping[str, Any], asked: Mapping[str, str]) -> list[Group]:
    """The groups of a spec, with the weights of a form laid over. Raises :class:`ProblemError`."""
    found = []
    for number, step in enumerate(spec.get("steps") or ()):
        if not isinstance(step, Mapping) or step.get("action") != "select_provider":
            continue
        choices = []
        for index, provider in enumerate(step.get("providers") or ()):
            field, before = f"w{number}.{index}", int(provider.get("weight", 1))
            name = str((provider.get("extensionRef") or {}).get("name", ""))
            choices.append(Choice(field, object_id(name), before, _weight(asked.get(field), field, before)))
        differ = len({choice.after for choice in choices}) > 1
        strategy = str(step.get("strategy") or ("weighted" if differ else "ordered"))
        found.append(Group(str(step.get("name") or "select_provider"), strategy, tuple(choices)))
    return found


def laid_into(spec: Mapping[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
    """The spec with the new weights. One that stays is not written, so that a default stays a default."""
    made: dict[str, Any] = deepcopy(dict(spec))
    for choice in (choice for group in groups for choice in group.choices):
        if choice.after != choice.before:
            number, _, index = choice.field.removeprefix("w").partition(".")
            made["steps"][int(number)]["providers"][int(index)]["weight"] = choice.after
    return made


def _weight(text: str | None, field: str, before: int) -> int:
    if text is None:
        return before
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and int(text) <= MAX_WEIGHT):
        raise ProblemError(
            ErrorCode.INVALID_ARGUMENT, f"a weight is a whole number from 0 to {MAX_WEIGHT}", field=field
        )
    return int(text)
