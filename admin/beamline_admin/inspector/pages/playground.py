"""``/playground``: send a request through a real router, see the answer and its way; by two policies side by
side. Providers are really called, so a request may cost.

With scripts the page sends the request by the API and shows the answer as it comes; without, the form is sent
here and the page that comes back holds whole answers. An API key that was typed is passed on and never
written into a page: it is in its field until the tab goes elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from pydantic import SecretStr, ValidationError
from starlette.responses import Response

from beamline_contract.errors import ErrorCode
from beamline_contract.names import object_id

from ...access import Operator, Viewer, needs
from ...identity import Role
from ...playground_api import KEY_HEADERS, PlaygroundAnswer, PlaygroundBody, played
from ...problems import ProblemError
from ...scope import Scope, tenants_of
from ..forms import ours
from ..waterfall import Trail

if TYPE_CHECKING:
    from ..site import Site

FIELDS: Final = ("prompt", "model", "tenant", "environment", "policy", "compare", "headers")
"""What a page says again when it comes back: all but the key."""
MAX_FORM: Final = 128 * 1024
MAX_POLICIES: Final = 500
"""Names that a field offers; any other may be typed."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One answer as the page shows it."""

    policy: str
    request_id: str
    latency_ms: float
    output: str
    error: Mapping[str, Any] | None
    facts: tuple[tuple[str, str], ...]
    trail: Trail | None


Fields = Annotated[dict[str, str], Depends(ours(MAX_FORM))]
Text = Annotated[str, Query(max_length=253)]


def routes(site: Site) -> APIRouter:
    """``/playground``."""
    found = APIRouter()

    @found.get("/playground")
    async def empty(
        request: Request, identity: Viewer, policy: Text = "", tenant: Text = "", model: Text = ""
    ) -> Response:
        fields = dict.fromkeys(FIELDS, "") | {"policy": policy, "tenant": tenant, "model": model}
        return await _page(request, identity, fields, [], None)

    @found.post("/playground", dependencies=[Depends(needs(Role.OPERATOR))])
    async def send(request: Request, identity: Operator, sent: Fields) -> Response:
        fields = {name: sent.get(name, "") for name in FIELDS}
        problem, shown = None, []
        try:
            body = body_of({**fields, "key": sent.get("key", "")})
            answers = await played(site.parts.watcher, body, identity, request.state.request_id)
            shown = [_shown(answer) for answer in answers]
        except ProblemError as error:
            problem = error
        return await _page(request, identity, fields, shown, problem)

    async def _page(
        request: Request,
        identity: Viewer,
        fields: Mapping[str, str],
        shown: list[Shown],
        problem: ProblemError | None,
    ) -> Response:
        view = await site.parts.catalogue.view()
        scope = Scope(identity.tenants)
        policies = [one.id for one in view.policies.values() if scope.sees([tenants_of(one)])]
        return site.page(
            request,
            "playground.html",
            identity,
            status=200 if problem is None else problem.status,
            fields=fields,
            shown=shown,
            problem=problem,
            policies=policies[:MAX_POLICIES],
            tenants=sorted(identity.tenants) if identity.tenants is not None else None,
        )

    return found


def body_of(fields: Mapping[str, str]) -> PlaygroundBody:
    """The request that a form means. Raises :class:`ProblemError`."""
    if not fields["prompt"].strip():
        raise ProblemError(ErrorCode.INVALID_ARGUMENT, "there is no prompt to send", field="prompt")
    request: dict[str, Any] = {"prompt": fields["prompt"].replace("\r\n", "\n")}
    for name, key in (("model", "model"), ("tenant", "tenant_id"), ("environment", "environment")):
        if value := fields[name].strip():
            request[key] = value
    try:
        return PlaygroundBody(
            request=request,
            headers=headers_of(fields["headers"]),
            key=SecretStr(key) if (key := fields.get("key", "").strip()) else None,
            policy=object_id(fields["policy"].strip()) or None,
            compare=object_id(fields["compare"].strip()) or None,
        )
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"] if part != "[key]")
        raise ProblemError(
            ErrorCode.INVALID_ARGUMENT, f"{where}: {error.errors()[0]['msg']}", field=where
        ) from None


def headers_of(text: str) -> dict[str, str]:
    """Headers, one a line: ``name: value``. Raises :class:`ProblemError`."""
    found = {}
    for line in filter(str.strip, text.splitlines()):
        name, colon, value = line.partition(":")
        if not colon:
            raise ProblemError(
                ErrorCode.INVALID_ARGUMENT, f"a header is written as name: value, not {line[:60]!r}",
                field="headers",
            )  # fmt: skip
        if name.strip().lower() in KEY_HEADERS:
            raise ProblemError(
                ErrorCode.INVALID_ARGUMENT, "an API key goes into its own field, which no page shows again",
                field="headers",
            )  # fmt: skip
        found[name.strip()] = value.strip()
    return found


def _shown(answer: PlaygroundAnswer) -> Shown:
    found = answer.answer or {}
    usage, metadata = found.get("usage") or {}, found.get("metadata") or {}
    facts = (
        ("Provider", found.get("provider_id")),
        ("Model", metadata.get("model")),
        ("Ended", metadata.get("finish_reason")),
        ("Tokens", usage.get("total_tokens")),
    )
    return Shown(
        answer.policy or "",
        answer.request_id,
        answer.latency_ms,
        str(found.get("output") or ""),
        answer.error,
        tuple((name, str(value)) for name, value in facts if value is not None),
        None if answer.trail is None else Trail.of(answer.trail.model_dump()),
    )
