"""What a person does to running routers, told to the operator's leader before it is done.

Isolating an extension and resetting its breakers change no object, so no reconcile would ever note them.
Whoever asks routers for it therefore asks the leader first, on :data:`.names.SUBJECT_OPERATOR_ACT`: the
leader appends one row to the audit log and answers. Who may publish on that subject is NATS' own business,
as with the subjects that routers act upon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from .names import REQUEST_ID_PATTERN
from .reports import Report

ActVerb = Literal["isolate", "reset"]
STATE_AFTER: Final[Mapping[str, str]] = {"isolate": "isolated", "reset": "closed"}
"""The word for a breaker after an act."""
MAX_ROUTERS: Final = 1_000
_SEVERITY: Final = ("closed", "half-open", "open", "isolated")


class RouterAct(Report):
    """On ``beamline.operator.v1.act``: somebody is about to change breakers in routers."""

    verb: ActVerb
    extension_id: Annotated[str, Field(min_length=1, max_length=253)]
    instance: Annotated[str | None, Field(min_length=1, max_length=128)] = None
    """Only in this router; None is all of them."""
    before: Annotated[dict[str, str], Field(default_factory=dict, max_length=MAX_ROUTERS)]
    """The extension's breaker in each router that answered."""
    changed_by: Annotated[str, Field(min_length=1, max_length=300)]
    request_id: Annotated[str, Field(pattern=REQUEST_ID_PATTERN)]

    def changes(self) -> dict[str, Any]:
        """Field by field, as the audit log states it. Routers that agree are one field."""
        after = STATE_AFTER[self.verb]
        if self.instance is not None:
            before = self.before.get(self.instance, "closed")
            return {f"breaker.{self.instance}": {"from": before, "to": after}}
        if len(set(self.before.values())) <= 1:
            return {"breaker": {"from": next(iter(self.before.values()), "closed"), "to": after}}
        return {
            f"breaker.{name}": {"from": state, "to": after} for name, state in sorted(self.before.items())
        }


class ActNoted(Report):
    """The leader's answer. ``error`` None: the audit log holds it."""

    error: Literal["NOT_FOUND", "INVALID_ARGUMENT", "UNAVAILABLE"] | None = None
    message: str = ""


def breakers_of(answers: Iterable[Mapping[str, Any]], extension_id: str) -> dict[str, str]:
    """The worst breaker of an extension's versions in each router that answered ``status``."""
    found: dict[str, str] = {}
    for answer in answers:
        result = answer.get("result")
        if isinstance(result, Mapping):
            breakers: Mapping[str, Any] = result.get("breakers") or {}
            own = [state for key, state in breakers.items() if str(key).partition("@")[0] == extension_id]
            known = [str(state) for state in own if state in _SEVERITY]
            found[str(answer.get("instance"))] = max(known, key=_SEVERITY.index, default="closed")
    return found
