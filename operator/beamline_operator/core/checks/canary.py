"""Canary: how far a version got on its way to all requests. Versions with ``spec.canary`` only: True when it
has them, False when it was turned back, Unknown on the way.
"""

from __future__ import annotations

from typing import Final

from beamline_contract.conditions import Reason

from ..canary import State
from ..view import Decided, Finding, View, no, unknown, yes

_VERDICTS: Final = {
    State.WAITING: (unknown, Reason.CANARY_WAITING),
    State.PROGRESSING: (unknown, Reason.CANARY_PROGRESSING),
    State.PAUSED: (unknown, Reason.CANARY_PAUSED),
    State.PROMOTED: (yes, Reason.CANARY_PROMOTED),
    State.ROLLED_BACK: (no, Reason.CANARY_ROLLED_BACK),
    State.ABORTED: (no, Reason.CANARY_ABORTED),
}


def stands(view: View, _: Decided) -> Finding | None:
    """What the state machine remembers."""
    if view.canary is None:
        return None
    verdict, reason = _VERDICTS[view.canary.state]
    after = {
        State.ROLLED_BACK: " It takes no request any more; change its spec to try again.",
        State.ABORTED: " It takes no request any more; change its spec to try again.",
        State.PROMOTED: f" It takes every request to {_base(view)}.",
    }
    return verdict(reason, view.canary.message + after.get(view.canary.state, ""))


def _base(view: View) -> str:
    return f"Extension {view.extension.spec.version_of}" if view.extension is not None else "its base"


CHECKS: Final = (stands,)
