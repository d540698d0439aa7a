"""Trails that routers published while somebody watched: the last ones, and content only as long as it may be.

Content is kept apart from trails, so that it can be forgotten at once: when the watch that asked for it ends.
What arrives comes from NATS, where others may publish too, so it is bounded and checked for its shape.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from ..identity import Identity, Role

KEPT: Final = 500
MAX_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which trails; None is any."""

    policy: str | None = None
    extension: str | None = None
    tenant: str | None = None
    status: str | None = None
    q: str = ""


class TrailStore:
    """The last trails, by request. ``clock`` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._trails: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._content: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._content_until = 0.0

    def allow_content(self, seconds: float) -> None:
        """Content that arrives within ``seconds`` is kept for so long."""
        self._content_until = max(self._content_until, self._clock() + seconds)

    def take(self, body: bytes) -> dict[str, Any] | None:
        """Keeps a trail; None where it is none."""
        found = _read(body)
        if found is None or not isinstance(found.get("steps"), list):
            return None
        found.pop("content", None)
        return self.keep(found)

    def keep(self, trail: dict[str, Any]) -> dict[str, Any]:
        """Keeps a trail that a router answered with."""
        request_id = str(trail["request_id"])
        self._trails[request_id] = trail
        self._trails.move_to_end(request_id)
        while len(self._trails) > KEPT:
            self._trails.popitem(last=False)
        return trail

    def take_content(self, body: bytes) -> str | None:
        """Keeps the content of a request; its id, or None where it is none, or content is off."""
        self.expire()
        found = _read(body)
        if found is None or not self._content_until or not isinstance(found.get("content"), dict):
            return None
        request_id = str(found["request_id"])
        self._content[request_id] = found["content"]
        while len(self._content) > KEPT:
            self._content.popitem(last=False)
        return request_id

    def expire(self) -> None:
        """Forgets all content once nobody watches it any more."""
        if self._content_until and self._clock() >= self._content_until:
            self._content_until = 0.0
            self._content.clear()

    def get(self, request_id: str, who: Identity) -> dict[str, Any] | None:
        """One trail, as far as ``who`` may see it."""
        found = self._trails.get(request_id)
        return None if found is None else self.shown(found, who)

    def list(self, who: Identity, wanted: Wanted) -> list[dict[str, Any]]:
        """Those that fit and ``who`` may see, newest first."""
        shown = (self.shown(one, who) for one in reversed(self._trails.values()))
        return [one for one in shown if one is not None and fits(one, wanted)]

    def shown(self, trail: dict[str, Any], who: Identity) -> dict[str, Any] | None:
        """``trail`` for ``who``: None of another tenant, with its content for an admin."""
        if who.tenants is not None and trail.get("tenant") not in who.tenants:
            return None
        self.expire()
        content = self._content.get(str(trail["request_id"]))
        if content is None or not who.role.covers(Role.ADMIN):
            return trail
        return {**trail, "content": content}


def fits(trail: Mapping[str, Any], wanted: Wanted) -> bool:
    """Whether ``trail`` is among the wanted ones."""
    steps = [step for step in trail.get("steps") or () if isinstance(step, dict)]
    if wanted.policy is not None and trail.get("policy") != wanted.policy:
        return False
    if wanted.extension is not None and all(step.get("extension") != wanted.extension for step in steps):
        return False
    if wanted.tenant is not None and trail.get("tenant") != wanted.tenant:
        return False
    code = str((trail.get("error") or {}).get("code", "ok"))
    if wanted.status is not None and wanted.status not in {code, trail.get("status")}:
        return False
    text = wanted.q.casefold()
    said = [trail.get(name) for name in ("request_id", "trace_id", "tenant", "model", "policy")]
    return not text or any(
        text in str(one).casefold() for one in (*said, code, *(step.get("extension") for step in steps))
    )


def _read(body: bytes) -> dict[str, Any] | None:
    if len(body) > MAX_BYTES:
        return None
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    good = isinstance(found, dict) and isinstance(found.get("request_id"), str)
    return found if good and 0 < len(found["request_id"]) <= 128 else None
