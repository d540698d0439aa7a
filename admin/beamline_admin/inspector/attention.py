"""What somebody should look at, the worst first. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from beamline_registry.port import Health

from ..objects.port import Held
from .digest import Digest
from .look import Breaker, RouterFact

HEALTHY: Final = 95.0
"""Health score below which an extension needs attention."""
FAILING: Final = 50.0
MAX_ATTENTION: Final = 20
"""Sentences in that list; with more than that, the first ones are the ones to begin with."""
_MAX_LISTED: Final = 3


@dataclass(frozen=True, slots=True)
class Attention:
    """One sentence: ``what`` and ``id`` are what it is about, ``look`` how bad it is."""

    look: Literal["bad", "warn"]
    what: Literal["extension", "policy", "router"]
    id: str
    text: str

    @property
    def href(self) -> str:
        """Where to look."""
        return "/routers" if self.what == "router" else f"/{_PLACES[self.what]}/{self.id}"


_PLACES: Final = {"extension": "extensions", "policy": "policies"}


@dataclass(frozen=True, slots=True)
class Found:
    """``more`` sentences were left out."""

    items: Sequence[Attention]
    more: int


def attention(
    digest: Digest,
    health: Mapping[str, Health],
    routers: Sequence[RouterFact],
    breakers: Mapping[str, Breaker],
    objects: Mapping[Any, Held],
) -> Found:
    """Everything that needs somebody, of all there is and not of one page alone."""
    items = [
        *_breakers(digest, breakers),
        *_failing(digest, health),
        *_not_ready(digest, objects),
        *_routers(digest, routers),
        *_policies(digest),
    ]
    items.sort(key=lambda item: item.look != "bad")
    return Found(items[:MAX_ATTENTION], max(0, len(items) - MAX_ATTENTION))


def _breakers(digest: Digest, breakers: Mapping[str, Breaker]) -> Iterator[Attention]:
    for name, breaker in sorted(breakers.items()):
        if breaker.state != "closed" and name in digest.extensions:
            where = f"in {breaker.open} of {len(breaker.routers)} routers that use it"
            yield Attention("bad", "extension", name, f"breaker {breaker.state} {where}")


def _failing(digest: Digest, health: Mapping[str, Health]) -> Iterator[Attention]:
    low = [
        (one.score, one.extension_id)
        for one in health.values()
        if one.score is not None and one.score < HEALTHY and one.extension_id in digest.extensions
    ]
    for score, name in sorted(low):
        look: Literal["bad", "warn"] = "bad" if score < FAILING else "warn"
        yield Attention(look, "extension", name, f"health {score:.0f} % over the last five minutes")


def _not_ready(digest: Digest, objects: Mapping[Any, Held]) -> Iterator[Attention]:
    for held in objects.values():
        if held.id not in digest.extensions:
            continue
        ready, stalled = held.condition("Ready"), held.condition("Stalled")
        if stalled.get("status") == "True":
            yield Attention("bad", "extension", held.id, f"stalled: {stalled.get('message', '')}")
        elif ready.get("status") == "False" and digest.extensions[held.id].enabled:
            yield Attention("warn", "extension", held.id, f"not ready: {ready.get('message', '')}")


def _routers(digest: Digest, routers: Sequence[RouterFact]) -> Iterator[Attention]:
    for router in routers:
        if router.error:
            yield Attention("bad", "router", router.instance, router.error)
            continue
        if router.status.get("status") != "ready":
            yield Attention("warn", "router", router.instance, f"is {router.status.get('status')}")
        if 0 < router.revision < digest.revision:
            behind = f"serves revision {router.revision}, the registry is at {digest.revision}"
            yield Attention("warn", "router", router.instance, behind)
        for refused in (router.status.get("refused") or ())[:_MAX_LISTED]:
            what = f"refuses {refused.get('kind')} {refused.get('id')}: {refused.get('field')}"
            yield Attention("bad", "router", router.instance, f"{what}: {refused.get('reason')}")


def _policies(digest: Digest) -> Iterator[Attention]:
    for line, hints in digest.hinted():
        for hint in hints:
            look: Literal["bad", "warn"] = "bad" if "not in the registry" in hint else "warn"
            yield Attention(look, "policy", line.record.id, hint)
