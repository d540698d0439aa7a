"""Who may call a route: a dependency for each role, on the identity that the gate has found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Path, Request

from beamline_contract.errors import ErrorCode

from .identity import Identity, Role
from .problems import ProblemError

ObjectId = Annotated[str, Path(min_length=1, max_length=253)]


def needs(role: Role) -> Callable[[Request], Awaitable[Identity]]:
    """A dependency that lets pass who has at least ``role``; the gate has put the identity there."""

    async def identity(request: Request) -> Identity:
        found: Identity | None = getattr(request.state, "identity", None)
        if found is None:
            raise ProblemError(ErrorCode.UNAUTHENTICATED, "nobody is logged in")
        if not found.role.covers(role):
            raise ProblemError(
                ErrorCode.PERMISSION_DENIED,
                f"this needs the role {role.value}",
                hint=f"yours is {found.role.value}",
            )
        return found

    return identity


Viewer = Annotated[Identity, Depends(needs(Role.VIEWER))]
Operator = Annotated[Identity, Depends(needs(Role.OPERATOR))]
Admin = Annotated[Identity, Depends(needs(Role.ADMIN))]
