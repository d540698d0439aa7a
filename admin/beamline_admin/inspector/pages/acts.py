"""``/extensions/{id}/{act}`` and ``/policies/{id}/weights``: confirm a change, make it, see what came of it.

Each is a page that works without scripts; ``static/acts.js`` shows it in a dialog of the page one is on.
GET changes nothing. POST wants the page's own word (:mod:`...page_calls`) and the role, whatever the page had
shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from ...access import Admin, ObjectId, Operator, needs
from ...identity import Identity, Role
from ...preconditions import Request as How
from ..acting import WAIT_S, WORDS, Act, Acting, Proposal, outcome_of
from ..differences import lines_of
from ..forms import ours
from ..weights import groups_of, laid_into

if TYPE_CHECKING:
    from ..site import Site


Fields = Annotated[dict[str, str], Depends(ours())]


def routes(site: Site) -> APIRouter:
    """The routes. The role comes first: who may not act is told so, whatever else is wrong."""
    found = APIRouter()
    parts = site.parts
    acting = Acting(parts.catalogue, parts.writer, parts.routers)

    @found.get("/extensions/{identifier}/{act}")
    async def ask(request: Request, identity: Operator, identifier: ObjectId, act: Act) -> Response:
        proposal = await acting.propose(act, identifier, _how(request, identity))
        return site.page(
            request, "act.html", identity, id=identifier, act=act, words=WORDS[act], plan=proposal
        )

    @found.post("/extensions/{identifier}/{act}", dependencies=[Depends(needs(Role.OPERATOR))])
    async def do(
        request: Request, identity: Operator, identifier: ObjectId, act: Act, fields: Fields
    ) -> Response:
        how = _how(request, identity, fields)
        outcome = await acting.act(act, identifier, _generation(fields), how)
        title = WORDS[act].done.format(id=identifier)
        return site.page(request, "act_done.html", identity, title=title, outcome=outcome)

    @found.get("/policies/{identifier}/weights")
    async def ask_weights(request: Request, identity: Admin, identifier: ObjectId) -> Response:
        how, asked = _how(request, identity), dict(request.query_params)
        held = await parts.writer.held("RoutingPolicy", identifier, how)
        groups = groups_of(held.spec, asked)
        spec = laid_into(held.spec, groups)
        done = await parts.writer.propose("RoutingPolicy", identifier, spec, how)
        proposal = Proposal(
            tuple(lines_of(done.changes)),
            done.generation,
            done.owner,
            tuple(map(str, done.faults)),
            tuple(map(str, done.warnings)),
        )
        return site.page(
            request, "weights.html", identity, id=identifier, groups=groups, asked=bool(asked), plan=proposal
        )

    @found.post("/policies/{identifier}/weights", dependencies=[Depends(needs(Role.ADMIN))])
    async def do_weights(request: Request, identity: Admin, identifier: ObjectId, fields: Fields) -> Response:
        how = _how(request, identity, fields)
        held = await parts.writer.held("RoutingPolicy", identifier, how)
        spec = laid_into(held.spec, groups_of(held.spec, fields))
        done = await parts.writer.update("RoutingPolicy", identifier, spec, _generation(fields), how)
        title = f"{identifier} has new weights"
        return site.page(request, "act_done.html", identity, title=title, outcome=outcome_of(done))

    return found


def _how(request: Request, identity: Identity, fields: dict[str, str] | None = None) -> How:
    force = fields is not None and fields.get("force") == "true"
    return How(identity, request.state.request_id, force, WAIT_S)


def _generation(fields: dict[str, str]) -> int | None:
    text = fields.get("generation", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None
