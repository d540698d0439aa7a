"""``/api/v1``: what the registry holds, for programs. Reading only; writes will go to the objects, never to
rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from beamline_contract.errors import ErrorCode
from beamline_contract.names import EXTENSION_TYPES
from beamline_contract.objects import Kind
from beamline_contract.projection import ExtensionRecord
from beamline_registry.port import AuditQuery, RegistryAudit

from . import shapes
from .catalogue import Catalogue, page_of
from .identity import Identity, Role
from .problems import AdminCode, ProblemError

PREFIX: Final = "/api/v1"
MAX_LIMIT: Final = 200
DEFAULT_LIMIT: Final = 50
_MAX_SEQUENCE: Final = 2**63 - 1
Record = TypeVar("Record")

Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Entries per page.")]
After = Annotated[str, Field(max_length=253, description="Continue after this id: `next` of the last page.")]
Text = Annotated[
    str, Field(max_length=200, description="Only with this text in id, name, namespace or subject.")
]
ObjectId = Annotated[str, Path(min_length=1, max_length=253)]


class _Filter(BaseModel):
    model_config = ConfigDict(extra="forbid")  # a misspelt filter would answer with everything


class PageQuery(_Filter):
    """Which part of a list."""

    q: Text = ""
    after: After = ""
    limit: Limit = DEFAULT_LIMIT


class ExtensionQuery(PageQuery):
    """Which extensions."""

    type: Annotated[str | None, Field(max_length=64, description=f"One of {', '.join(EXTENSION_TYPES)}.")] = (
        None
    )


class ChangeQuery(_Filter):
    """Which changes."""

    kind: Kind | None = None
    object_id: Annotated[str | None, Field(min_length=1, max_length=253, pattern=r"^[^\x00]*$")] = None
    before: Annotated[
        int | None, Field(ge=1, le=_MAX_SEQUENCE, description="Only older than this sequence number: `next`.")
    ] = None
    limit: Limit = DEFAULT_LIMIT


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


def contains(text: str, *values: str) -> bool:
    """Whether one of ``values`` has ``text`` in it, whatever the case."""
    wanted = text.casefold()
    return any(wanted in value.casefold() for value in values)


def api(catalogue: Catalogue, audit: RegistryAudit) -> APIRouter:
    """The routes."""
    problem = {"description": "A problem document", "content": {"application/problem+json": {
        "schema": {"$ref": "#/components/schemas/Problem"}}}}  # fmt: skip
    responses: dict[int | str, dict[str, Any]] = {"4XX": problem, "5XX": problem}
    routes = APIRouter(
        prefix=PREFIX,
        responses=responses,
        dependencies=[Depends(needs(Role.VIEWER)), Security(HTTPBearer(auto_error=False))],
    )

    @routes.get("/extensions", tags=["extensions"])
    async def list_extensions(query: Annotated[ExtensionQuery, Query()]) -> shapes.ExtensionPage:
        """Extensions in order of id."""
        if query.type is not None and query.type not in EXTENSION_TYPES:
            raise ProblemError(
                AdminCode.INVALID_TYPE,
                "there is no such type of extension",
                field="type",
                hint=f"one of {', '.join(EXTENSION_TYPES)}",
            )

        def wanted(record: ExtensionRecord) -> bool:
            return query.type in {None, record.type} and contains(
                query.q, record.id, record.name, record.namespace, record.subject
            )

        view = await catalogue.view()
        page = page_of(view.extensions, after=query.after, limit=query.limit, keep=wanted)
        items = [shapes.ExtensionItem.of(record) for record in page.items]
        return shapes.ExtensionPage(items=items, next=page.next, revision=view.revision)

    @routes.get("/extensions/{extension_id}", tags=["extensions"])
    async def get_extension(extension_id: ObjectId) -> shapes.ExtensionDetail:
        """One extension. Values under keys that speak of a secret are masked."""
        view = await catalogue.view()
        return shapes.ExtensionDetail.of(found(view.extensions.get(extension_id), "extension", "/extensions"))

    @routes.get("/extensions/{extension_id}/health", tags=["extensions"])
    async def get_extension_health(extension_id: ObjectId) -> shapes.HealthAnswer:
        """Health over the last five minutes, of all routers together."""
        view = await catalogue.view()
        record = found(view.extensions.get(extension_id), "extension", "/extensions")
        return shapes.health_answer(await audit.health(record.id))

    @routes.get("/policies", tags=["policies"])
    async def list_policies(query: Annotated[PageQuery, Query()]) -> shapes.PolicyPage:
        """Policies in order of id."""
        view = await catalogue.view()
        page = page_of(
            view.policies,
            after=query.after,
            limit=query.limit,
            keep=lambda policy: contains(query.q, policy.id, policy.name, policy.namespace),
        )
        items = [shapes.PolicyItem.of(record, view) for record in page.items]
        return shapes.PolicyPage(items=items, next=page.next, revision=view.revision)

    @routes.get("/policies/{policy_id}", tags=["policies"])
    async def get_policy(policy_id: ObjectId) -> shapes.PolicyDetail:
        """One policy with its steps, its complexity and hints."""
        view = await catalogue.view()
        return shapes.PolicyDetail.of(found(view.policies.get(policy_id), "policy", "/policies"), view)

    @routes.get("/audit", tags=["audit"])
    async def list_changes(query: Annotated[ChangeQuery, Query()]) -> shapes.AuditPage:
        """Changes of objects, newest first, also of objects that are gone."""
        rows = await audit.audit(AuditQuery(query.kind, query.object_id, query.before, query.limit + 1))
        more = len(rows) > query.limit
        items = [shapes.AuditItem.model_validate(asdict(row)) for row in rows[: query.limit]]
        return shapes.AuditPage(items=items, next=items[-1].sequence if more else None)

    @routes.get("/registry", tags=["registry"])
    async def get_registry() -> shapes.RegistryAnswer:
        """The registry's revision, and how much it holds."""
        view = await catalogue.view()
        by_type = Counter(record.type for record in view.extensions.values())
        return shapes.RegistryAnswer(
            revision=view.revision,
            extensions=len(view.extensions),
            enabled_extensions=sum(record.enabled for record in view.extensions.values()),
            extensions_by_type={name: by_type[name] for name in EXTENSION_TYPES},
            policies=len(view.policies),
        )

    return routes


def found(record: Record | None, what: str, listed_at: str) -> Record:
    """``record``, or a problem where there is none."""
    if record is None:
        raise ProblemError(
            AdminCode.NOT_FOUND,
            f"there is no such {what}",
            field="id",
            hint=f"GET {PREFIX}{listed_at} lists them",
        )
    return record
