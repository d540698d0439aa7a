"""How a version takes over, as ``status.canary`` and ``spec.canary`` of its object say. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from beamline_contract.canary import CanaryGates, VersionCanary

from ..objects.port import Held
from .words import Look

_LOOKS: Final[Mapping[str, Look]] = {
    "Progressing": "info",
    "Paused": "warn",
    "Promoted": "good",
    "RolledBack": "bad",
    "Aborted": "bad",
}


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """One step: ``place`` is ``done``, ``now`` or ``later``."""

    weight: int
    pause_seconds: int
    place: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """A canary. ``base`` is what it is a version of."""

    base: str
    state: str
    look: Look
    weight: int
    message: str
    since: str
    steps: tuple[RolloutStep, ...]
    gates: CanaryGates


def rollout_of(held: Held | None) -> Rollout | None:
    """The canary of an object; None where it has none."""
    if held is None or not isinstance(held.spec.get("canary"), Mapping):
        return None
    try:
        canary = VersionCanary.model_validate(held.spec["canary"])
    except ValidationError:
        return None
    status: Mapping[str, Any] = (held.document.get("status") or {}).get("canary") or {}
    state, step = str(status.get("state", "Waiting")), int(status.get("step") or 0)
    over = state == "Promoted"
    return Rollout(
        str(held.spec.get("versionOf", "")),
        state,
        _LOOKS.get(state, "wait"),
        int(status.get("weight") or 0),
        str(status.get("message", "")),
        str(status.get("since", "")),
        tuple(
            RolloutStep(
                one.weight,
                one.pause_seconds,
                "done" if over or number < step else "now" if number == step else "later",
            )
            for number, one in enumerate(canary.steps, 1)
        ),
        canary.gates,
    )
