"""Acts on running routers: noted in the audit log first, then done.

In this order nothing happens that nobody wrote down. Where no operator leads, or the registry does not
answer, the act is refused; routers' own breakers protect requests meanwhile, and ``beamline isolate`` at a
terminal still works (and says that nobody noted it).
"""

from __future__ import annotations

from typing import Any

from beamline_contract.acts import ActVerb, RouterAct, breakers_of
from beamline_contract.errors import ErrorCode
from beamline_contract.names import ADMIN_FIELD_MANAGER

from .preconditions import Request
from .problems import AdminCode, ProblemError
from .routers import Routers, RoutersError


async def act_on_routers(
    routers: Routers | None, verb: ActVerb, identifier: str, how: Request
) -> list[dict[str, Any]]:
    """Every router's answer. Raises :class:`ProblemError`; then nothing was done."""
    if routers is None:
        raise ProblemError(
            ErrorCode.UNAVAILABLE, "this process was not told where NATS is", hint="set NATS_URL"
        )
    try:
        before = breakers_of(await routers.ask("status", {}), identifier)
        if not before:
            raise ProblemError(ErrorCode.UNAVAILABLE, "no router answered", hint="GET /api/v1/routers")
        noted = await routers.note(
            RouterAct(
                verb=verb,
                extension_id=identifier,
                before=before,
                changed_by=f"{how.identity.subject} ({ADMIN_FIELD_MANAGER})",
                request_id=how.request_id,
            )
        )
        if noted.error == "NOT_FOUND":
            raise ProblemError(AdminCode.NOT_FOUND, "there is no such extension", field="id")
        if noted.error is not None:
            raise ProblemError(ErrorCode.UNAVAILABLE, f"the audit log can't be told: {noted.message}")
        return await routers.ask(verb, {"extension": identifier})
    except RoutersError as error:
        raise ProblemError(ErrorCode.UNAVAILABLE, str(error)) from error
