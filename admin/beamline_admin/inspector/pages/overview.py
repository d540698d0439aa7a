"""``/``: health at a glance, and what needs attention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from beamline_contract.projection import ExtensionRecord, PolicyRecord, complexity
from beamline_registry.port import AuditQuery, Health

from ...access import Viewer
from ...api import contains
from ...catalogue import Page, View, page_of
from ...pipeline import Stage, hints_of, match_of, stages_of

if TYPE_CHECKING:
    from ..site import Site

PAGE: Final = 25
"""Extensions, and policies, on one page."""
LAST_CHANGES: Final = 10
HEALTHY: Final = 95.0
"""Health score below which an extension needs attention."""
MAX_ATTENTION: Final = 20
"""Sentences in that list; with more than that, the first ones are the ones to begin with."""

Text = Annotated[str, Query(max_length=253)]


@dataclass(frozen=True, slots=True)
class ExtensionRow:
    """One line of the table of extensions."""

    record: ExtensionRecord
    health: Health | None
    users: int
    """Policies that name it."""


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """One drawn policy."""

    record: PolicyRecord
    match: str
    stages: Sequence[Stage]
    complexity: int


def routes(site: Site) -> APIRouter:
    """``/``."""
    found = APIRouter()

    @found.get("/")
    async def overview(
        request: Request,
        identity: Viewer,
        q: Text = "",
        after: Text = "",
        policies_after: Text = "",
    ) -> Response:
        view = await site.parts.catalogue.view()
        extensions = page_of(
            view.extensions,
            after=after,
            limit=PAGE,
            keep=lambda one: contains(q, one.id, one.name, one.namespace, one.subject, one.type),
        )
        policies = page_of(
            view.policies,
            after=policies_after,
            limit=PAGE,
            keep=lambda one: contains(q, one.id, one.name, one.namespace),
        )
        users = _users(view)
        health = {one.extension_id: one for one in await site.parts.audit.healths()}
        return site.page(
            request,
            "overview.html",
            identity,
            view=view,
            enabled=sum(one.enabled for one in view.extensions.values()),
            text=q,
            extensions=[
                ExtensionRow(record, health.get(record.id), users.get(record.id, 0))
                for record in extensions.items
            ],
            more_extensions=_link(extensions, "after", q=q, policies_after=policies_after),
            policies=[
                PolicyRow(record, match_of(record), stages_of(record, view), complexity(record.policy))
                for record in policies.items
            ],
            more_policies=_link(policies, "policies_after", q=q, after=after),
            attention=_attention(view, health.values()),
            changes=await site.parts.audit.audit(AuditQuery(limit=LAST_CHANGES)),
            healthy=HEALTHY,
        )

    return found


def _users(view: View) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for policy in view.policies.values():
        named = {node.id for stage in stages_of(policy, view) for node in (*stage.nodes, *stage.fallback)}
        for extension_id in named:
            counts[extension_id] = counts.get(extension_id, 0) + 1
    return counts


def _attention(view: View, health: Iterable[Health]) -> list[str]:
    """What somebody should look at, of all there is and not of this page alone: failing extensions first."""
    failing = [
        (one.score, one.extension_id) for one in health if one.score is not None and one.score < HEALTHY
    ]
    said = [
        f"extension {name}: health {score:.0f} % over the last five minutes"
        for score, name in sorted(failing)
    ]
    for policy in view.policies.values():
        said += [f"policy {policy.id}: {hint}" for hint in hints_of(policy, view)]
        if len(said) > MAX_ATTENTION:
            return [*said[:MAX_ATTENTION], "and more"]
    return said


def _link(page: Page[Any], name: str, **others: str) -> str | None:
    if page.next is None:
        return None
    return "/?" + urlencode({key: value for key, value in {**others, name: page.next}.items() if value})
