"""``/api/v1``: what the registry holds, for programs. Writes are in :mod:`.change_api`: they go to the
objects, never to rows.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, Query, Response, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from beamline_contract.names import EXTENSION_TYPES, TENANT_PATTERN
from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_registry.port import RegistryAudit

from . import shapes
from .access import ObjectId, Viewer, needs
from .catalogue import Catalogue, View, page_of
from .identity import Identity, Role
from .problems import AdminCode, ProblemError
from .scope import Scope, concerned_rows, tenants_of
from .shapes import HealthWord

PREFIX: Final = "/api/v1"
MAX_LIMIT: Final = 200
DEFAULT_LIMIT: Final = 50
Record = TypeVar("Record")

Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Entries per page.")]
After = Annotated[str, Field(max_length=253, description="Continue after this id: `next` of the last page.")]
Text = Annotated[
    str, Field(max_length=200, description="Only with this text in id, name, namespace or subject.")
]


Tenant = Annotated[
    str | None, Field(pattern=TENANT_PATTERN, description="Only what may concern this tenant's requests.")
]


class _Filter(BaseModel):
    model_config = ConfigDict(extra="forbid")  # a misspelt filter would answer with everything


class PageQuery(_Filter):
    """Which part of a list."""

    q: Text = ""
    after: After = ""
    limit: Limit = DEFAULT_LIMIT


class ExtensionQuery(PageQuery):
    """Which extensions."""

    type: Annotated[
        str | None,
        Field(max_length=64, description=f"One of {', '.join(EXTENSION_TYPES)}."),
        WithJsonSchema({"anyOf": [{"type": "string", "enum": list(EXTENSION_TYPES)}, {"type": "null"}]}),
    ] = None
    tenant: Tenant = None
    health: Annotated[
        HealthWord | None,
        Field(description="By the score: 95 and more, 50 and more, less, none."),
    ] = None


class PolicyQuery(PageQuery):
    """Which policies."""

    tenant: Tenant = None


def contains(text: str, *values: str) -> bool:
    """Whether one of ``values`` has ``text`` in it, whatever the case."""
    wanted = text.casefold()
    return any(wanted in value.casefold() for value in values)


def api(catalogue: Catalogue, audit: RegistryAudit, *others: APIRouter) -> APIRouter:
    """The routes, with those of ``others`` under the same roof."""
    problem = {"description": "A problem document", "content": {"application/problem+json": {
        "schema": {"$ref": "#/components/schemas/Problem"}}}}  # fmt: skip
    responses: dict[int | str, dict[str, Any]] = {"4XX": problem, "5XX": problem}
    routes = APIRouter(
        prefix=PREFIX,
        responses=responses,
        dependencies=[Depends(needs(Role.VIEWER)), Security(HTTPBearer(auto_error=False))],
    )

    @routes.get("/extensions", tags=["extensions"])
    async def list_extensions(who: Viewer, query: Annotated[ExtensionQuery, Query()]) -> shapes.ExtensionPage:
        """Extensions in order of id."""
        if query.type is not None and query.type not in EXTENSION_TYPES:
            raise ProblemError(
                AdminCode.INVALID_TYPE,
                "there is no such type of extension",
                field="type",
                hint=f"one of {', '.join(EXTENSION_TYPES)}",
            )

        view = await catalogue.view()
        scope, asked = Scope(who.tenants), Scope(frozenset({query.tenant}) if query.tenant else None)
        words = await _health_words(audit) if query.health is not None else {}

        def wanted(record: ExtensionRecord) -> bool:
            if query.type not in {None, record.type}:
                return False
            if query.health is not None and words.get(record.id, "no_data") != query.health:
                return False
            if not contains(query.q, record.id, record.name, record.namespace, record.subject):
                return False
            if who.tenants is None and query.tenant is None:
                return True
            concerned = concerned_rows(record.id, view)
            return scope.sees(concerned) and asked.sees(concerned)

        page = page_of(view.extensions, after=query.after, limit=query.limit, keep=wanted)
        items = [shapes.ExtensionItem.of(record) for record in page.items]
        return shapes.ExtensionPage(items=items, next=page.next, revision=view.revision)

    @routes.get("/extensions/{identifier}", tags=["extensions"])
    async def get_extension(who: Viewer, identifier: ObjectId, response: Response) -> shapes.ExtensionDetail:
        """One extension. Values under keys that speak of a secret are masked. `ETag` is its generation."""
        view = await catalogue.view()
        record = seen_extension(view, identifier, who)
        response.headers["etag"] = f'"{record.generation}"'
        return shapes.ExtensionDetail.of(record)

    @routes.get("/extensions/{identifier}/health", tags=["extensions"])
    async def get_extension_health(who: Viewer, identifier: ObjectId) -> shapes.HealthAnswer:
        """Health over the last five minutes, of all routers together."""
        view = await catalogue.view()
        record = seen_extension(view, identifier, who)
        return shapes.health_answer(await audit.health(record.id))

    @routes.get("/policies", tags=["policies"])
    async def list_policies(who: Viewer, query: Annotated[PolicyQuery, Query()]) -> shapes.PolicyPage:
        """Policies in order of id."""
        view = await catalogue.view()
        scope, asked = Scope(who.tenants), Scope(frozenset({query.tenant}) if query.tenant else None)
        page = page_of(
            view.policies,
            after=query.after,
            limit=query.limit,
            keep=lambda policy: (
                contains(query.q, policy.id, policy.name, policy.namespace)
                and scope.sees([tenants_of(policy)])
                and asked.sees([tenants_of(policy)])
            ),
        )
        items = [shapes.PolicyItem.of(record, view) for record in page.items]
        return shapes.PolicyPage(items=items, next=page.next, revision=view.revision)

    @routes.get("/policies/{identifier}", tags=["policies"])
    async def get_policy(who: Viewer, identifier: ObjectId, response: Response) -> shapes.PolicyDetail:
        """One policy with its steps, its complexity and hints. `ETag` is its generation."""
        view = await catalogue.view()
        record = seen_policy(view, identifier, who)
        response.headers["etag"] = f'"{record.generation}"'
        return shapes.PolicyDetail.of(record, view)

    @routes.get("/registry", tags=["registry"])
    async def get_registry(who: Viewer) -> shapes.RegistryAnswer:
        """The registry's revision, and how much it holds."""
        Scope(who.tenants).must_be_whole()
        view = await catalogue.view()
        by_type = Counter(record.type for record in view.extensions.values())
        return shapes.RegistryAnswer(
            revision=view.revision,
            extensions=len(view.extensions),
            enabled_extensions=sum(record.enabled for record in view.extensions.values()),
            extensions_by_type={name: by_type[name] for name in EXTENSION_TYPES},
            policies=len(view.policies),
        )

    for other in others:
        routes.include_router(other)
    return routes


async def _health_words(audit: RegistryAudit) -> dict[str, str]:
    return {health.extension_id: shapes.health_word(health) for health in await audit.healths()}


def seen_extension(view: View, identifier: str, who: Identity) -> ExtensionRecord:
    """The extension of an id, as far as it concerns the tenants of ``who``. Raises :class:`ProblemError`."""
    record = found(view.extensions.get(identifier), "extension", "/extensions")
    seen = Scope(who.tenants).sees(concerned_rows(identifier, view))
    return found(record if seen else None, "extension", "/extensions")


def seen_policy(view: View, identifier: str, who: Identity) -> PolicyRecord:
    """The policy of an id, as far as it concerns the tenants of ``who``. Raises :class:`ProblemError`."""
    record = found(view.policies.get(identifier), "policy", "/policies")
    return found(record if Scope(who.tenants).sees([tenants_of(record)]) else None, "policy", "/policies")


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
