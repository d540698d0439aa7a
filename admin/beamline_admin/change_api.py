"""``/api/v1``: changes of objects. Every one names who asked for it in the object itself, and so in the audit
log.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue, WithJsonSchema

from beamline_contract.errors import ErrorCode
from beamline_contract.model import Fault
from beamline_contract.names import GROUP, NAME_PATTERN, NAMESPACE_PATTERN
from beamline_contract.objects import Kind

from .access import Admin, ObjectId, Operator, Viewer
from .identity import Identity
from .preconditions import Request as How
from .problems import ProblemError
from .shapes import Shape
from .writing import Done, Writer

MAX_WAIT_S: Final = 60.0
Name = Annotated[
    str,
    Field(min_length=1, max_length=63, description="Name of the object."),
    WithJsonSchema({"type": "string", "pattern": NAME_PATTERN}),
]
Namespace = Annotated[
    str,
    Field(min_length=1, max_length=63),
    WithJsonSchema({"type": "string", "pattern": NAMESPACE_PATTERN}),
]
Spec = Annotated[dict[str, JsonValue], Field(description="The spec, in the object's spelling.")]
Generation = Annotated[int, Field(ge=1, le=2**53, description="The generation that you looked at.")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class NewObject(_Body):
    """An object to create."""

    name: Name
    namespace: Namespace = "default"
    spec: Spec


class AnyObject(_Body):
    """An object to check, whatever is wrong with it."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    namespace: Annotated[str, Field(min_length=1, max_length=63)] = "default"
    spec: Spec


class NewSpec(_Body):
    """A spec that takes the place of the object's."""

    spec: Spec
    generation: Generation


class OnlySpec(_Body):
    """A spec to compare with the object's."""

    spec: Spec


class HowQuery(BaseModel):
    """How a change is made."""

    model_config = ConfigDict(extra="forbid")

    wait: Annotated[
        Literal["programmed"] | None, Field(description="Answer when every router serves it, or time is up.")
    ] = None
    timeout_s: Annotated[float, Field(gt=0, le=MAX_WAIT_S, description="How long to wait.")] = 15.0
    force: Annotated[bool, Field(description="Admins: change it although a GitOps tool owns it.")] = False


class HowAtQuery(HowQuery):
    """How a change of a known generation is made."""

    generation: Annotated[
        Generation | None, Field(description="Only where the object is at this generation.")
    ] = None


HowTo = Annotated[HowQuery, Query()]
HowAt = Annotated[HowAtQuery, Query()]


class FaultItem(Shape):
    """One thing about one field."""

    field: str
    message: str


class ProgressItem(Shape):
    """How far a change has come. ``routers`` is ``n/m``: so many of all that report serve it."""

    state: Literal["programmed", "waiting", "refused", "gone"]
    routers: str | None
    message: str | None


class WriteAnswer(Shape):
    """A change. Without ``wait`` there is no ``progress``."""

    id: str
    kind: Kind
    namespace: str
    name: str
    generation: int
    """The object's after the change."""
    changed: bool
    changes: dict[str, Any]
    """``{field: {"from": ..., "to": ...}}``; values of secret-looking keys are masked."""
    warnings: list[FaultItem]
    """What works as written, but maybe not as meant: references that lead nowhere yet."""
    progress: ProgressItem | None


class CheckAnswer(Shape):
    """What a write would meet. ``owner`` is the GitOps tool that would undo it."""

    valid: bool
    faults: list[FaultItem]
    warnings: list[FaultItem]
    changes: dict[str, Any]
    generation: int
    """The object's now; 0 where there is none yet."""
    owner: str | None


class ConditionsAnswer(Shape):
    """The object behind a row: where it stands."""

    kind: Kind
    namespace: str
    name: str
    generation: int
    owner: str | None
    conditions: list[dict[str, Any]]


def change_api(writer: Writer) -> APIRouter:
    """The routes."""
    routes = APIRouter()
    _objects(routes, writer, "Extension", "/extensions", "extensions")
    _objects(routes, writer, "RoutingPolicy", "/policies", "policies")

    @routes.post("/extensions/{identifier}/enable", tags=["extensions"])
    async def enable_extension(
        request: Request,
        identifier: ObjectId,
        query: HowAt,
        who: Operator,
    ) -> WriteAnswer:
        """Puts an extension back into every router."""
        return answer_of(await writer.switch(identifier, True, query.generation, how_of(request, query, who)))

    @routes.post("/extensions/{identifier}/disable", tags=["extensions"])
    async def disable_extension(
        request: Request,
        identifier: ObjectId,
        query: HowAt,
        who: Operator,
    ) -> WriteAnswer:
        """Takes an extension out of every router; its workload goes to zero."""
        return answer_of(
            await writer.switch(identifier, False, query.generation, how_of(request, query, who))
        )

    @routes.post("/extensions/{identifier}/promote", tags=["canaries"])
    async def promote_canary(
        request: Request, identifier: ObjectId, query: HowTo, who: Operator
    ) -> WriteAnswer:
        """Gives a canary all requests at once."""
        how = how_of(request, query, who)
        return answer_of(
            await writer.annotate(identifier, f"{GROUP}/promote", how.request_id, how, acted="promote")
        )

    @routes.post("/extensions/{identifier}/abort", tags=["canaries"])
    async def abort_canary(
        request: Request, identifier: ObjectId, query: HowTo, who: Operator
    ) -> WriteAnswer:
        """Takes all requests from a canary."""
        how = how_of(request, query, who)
        return answer_of(
            await writer.annotate(identifier, f"{GROUP}/abort", how.request_id, how, acted="abort")
        )

    return routes


def _objects(routes: APIRouter, writer: Writer, kind: Kind, path: str, tag: str) -> None:
    """The routes that both kinds have. Operation ids are made from ``tag``, because they must differ."""

    @routes.post(path, status_code=201, tags=[tag], operation_id=f"create_{tag}")
    async def create(request: Request, body: NewObject, query: HowTo, who: Admin) -> WriteAnswer:
        """Creates an object."""
        how = how_of(request, query, who)
        return answer_of(await writer.create(kind, body.namespace, body.name, body.spec, how))

    @routes.post(f"{path}/validate", tags=[tag], operation_id=f"validate_{tag}")
    async def validate(request: Request, body: AnyObject, who: Viewer) -> CheckAnswer:
        """Checks an object as a write would, and as the reconcile core will; writes nothing."""
        how = How(who, request.state.request_id)
        return _checked(await writer.rehearse(kind, body.namespace, body.name, body.spec, how))

    @routes.put(f"{path}/{{identifier}}", tags=[tag], operation_id=f"update_{tag}")
    async def update(
        request: Request,
        identifier: ObjectId,
        body: NewSpec,
        query: HowTo,
        who: Admin,
    ) -> WriteAnswer:
        """Puts a spec in place of the object's, where it is still at the generation that you looked at. The
        header `If-Match` may state that, too, as with every change of an object.
        """
        how = how_of(request, query, who)
        return answer_of(await writer.update(kind, identifier, body.spec, body.generation, how))

    @routes.delete(f"{path}/{{identifier}}", tags=[tag], operation_id=f"delete_{tag}")
    async def delete(request: Request, identifier: ObjectId, query: HowAt, who: Admin) -> WriteAnswer:
        """Deletes the object; its audit history stays."""
        return answer_of(await writer.delete(kind, identifier, query.generation, how_of(request, query, who)))

    @routes.post(f"{path}/{{identifier}}/diff", tags=[tag], operation_id=f"diff_{tag}")
    async def diff(request: Request, identifier: ObjectId, body: OnlySpec, who: Viewer) -> CheckAnswer:
        """What a spec would change, field by field, and what is wrong with it; writes nothing."""
        how = How(who, request.state.request_id)
        return _checked(await writer.compare(kind, identifier, body.spec, how))

    @routes.get(f"{path}/{{identifier}}/conditions", tags=[tag], operation_id=f"conditions_{tag}")
    async def conditions(
        request: Request, response: Response, identifier: ObjectId, who: Viewer
    ) -> ConditionsAnswer:
        """The object's conditions: accepted, synced, programmed, ready."""
        held = await writer.held(kind, identifier, How(who, request.state.request_id))
        response.headers["etag"] = f'"{held.generation}"'
        status = held.document.get("status") or {}
        return ConditionsAnswer(
            kind=kind,
            namespace=held.key.namespace,
            name=held.key.name,
            generation=held.generation,
            owner=held.owner,
            conditions=[dict(entry) for entry in status.get("conditions") or ()],
        )


def how_of(request: Request, query: HowQuery, who: Identity) -> How:
    """How a change is asked for, from its query, its caller and its header ``If-Match``. Raises
    :class:`ProblemError` where that is none that we could have given.
    """
    wait = query.timeout_s if query.wait == "programmed" else None
    return How(who, request.state.request_id, query.force, wait, _matched(request))


def _matched(request: Request) -> int | None:
    """The generation that ``If-Match`` names; None where any will do."""
    given = request.headers.getlist("if-match")
    if not given or given == ["*"]:
        return None
    found = re.fullmatch(r'"([1-9][0-9]{0,15})"', given[0]) if len(given) == 1 else None
    if found is None:
        raise ProblemError(
            ErrorCode.INVALID_ARGUMENT,
            "If-Match must be a generation in quotes, or *",
            field="if-match",
            hint='as in If-Match: "3"; GET answers it as ETag',
        )
    return int(found[1])


def answer_of(done: Done) -> WriteAnswer:
    """The answer that tells of a change."""
    progress = done.progress
    return WriteAnswer(
        id=done.id,
        kind=done.key.kind,
        namespace=done.key.namespace,
        name=done.key.name,
        generation=done.generation,
        changed=bool(done.changes),
        changes=dict(done.changes),
        warnings=_items(done.warnings),
        progress=None
        if progress is None
        else ProgressItem(state=progress.state, routers=progress.routers, message=progress.message),
    )


def _checked(done: Done) -> CheckAnswer:
    return CheckAnswer(
        valid=not done.faults,
        faults=_items(done.faults),
        warnings=_items(done.warnings),
        changes=dict(done.changes),
        generation=done.generation,
        owner=done.owner,
    )


def _items(faults: tuple[Fault, ...]) -> list[FaultItem]:
    return [FaultItem(field=fault.path, message=fault.message) for fault in faults]
