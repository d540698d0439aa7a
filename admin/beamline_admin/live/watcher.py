"""What looks at routers and registry again and again, and tells listeners what is new.

Counters are asked for all the time, every :data:`.traffic.INTERVAL_S`, because charts begin before somebody
looks at them. Everything else is asked for only while somebody listens. One look at a time for each thing; a
look that fails is tried again at the next turn, because every source says by itself that it is away. Trails
come without being asked for, by subscriptions that NATS' client renews.

``run`` ends when it is cancelled; :meth:`Watcher.close` ends the streams before that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from beamline_contract.names import SUBJECT_ROUTER_TRAIL, SUBJECT_ROUTER_TRAIL_CONTENT
from beamline_registry.port import RegistryAudit, RegistryError

from ..catalogue import Catalogue, View
from ..identity import Identity
from ..objects.port import Objects
from ..routers import Routers, RoutersError
from ..scope import Scope, concerned_rows, tenants_of
from .canaries import canaries
from .hub import Hub
from .traffic import INTERVAL_S, Point, Traffic
from .trails import TrailStore

log = structlog.get_logger()

LOOK_S: Final = 1.0
"""How often the registry is asked for changes while somebody listens to them."""
GRACE_S: Final = 60.0
"""How long changes are still looked for when nobody listens to them any more."""
_WORST: Final = ("closed", "half-open", "open", "isolated")


class Watcher:
    """The state of what lives, and the tasks that keep it up to date. ``wall`` is Unix seconds, ``first`` as
    :class:`.hub.Hub` has it.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        audit: RegistryAudit,
        *,
        routers: Routers | None = None,
        objects: Objects | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        first: int = 0,
    ) -> None:
        self.hub = Hub(first)
        self.trails = TrailStore(clock)
        self.routers = routers
        self._catalogue = catalogue
        self._audit = audit
        self._objects = objects
        self._clock = clock
        self._wall = wall
        self._traffic = Traffic()
        self._looked: float | None = None
        self._turn = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._view: View | None = None
        self._wanted = float("-inf")
        """When somebody listened to objects last."""

    async def view(self) -> View:
        """The registry as it is now. Raises :class:`RegistryError`."""
        return await self._catalogue.view()

    async def run(self) -> None:
        """Looks until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(_again(LOOK_S, self.look_at_objects))
            group.create_task(_again(INTERVAL_S, self.look_at_state))
            if self.routers is not None:
                group.create_task(_again(INTERVAL_S, self.look_at_traffic))
                group.create_task(_again(INTERVAL_S, self.follow))

    def close(self) -> None:
        """Ends every stream."""
        self.hub.close()

    async def traffic(self, minutes: float = 30.0) -> dict[str, Any]:
        """The document of traffic; asks the routers where the last look is too old."""
        async with self._turn:
            if self._looked is None or self._clock() - self._looked > 2 * INTERVAL_S:
                await self._ask_traffic()
        return self._traffic.document(minutes)

    def points(self, extension: str) -> list[Point]:
        """How one extension was called within the last half hour, in slots of :data:`.traffic.SLOT_S`."""
        return self._traffic.points(extension)

    async def statuses(self) -> list[dict[str, Any]]:
        """What every router serves. Raises :class:`RoutersError`."""
        return [] if self.routers is None else await self.routers.ask("status", {})

    async def breakers(self, statuses: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """Breakers and scores by extension. Raises :class:`RoutersError` and :class:`RegistryError`."""
        found: dict[str, dict[str, Any]] = {}
        for health in await self._audit.healths():
            found[health.extension_id] = {"state": "closed", "score": health.score, "routers": {}}
        for answer in await self.statuses() if statuses is None else statuses:
            for key, state in ((answer.get("result") or {}).get("breakers") or {}).items():
                name = str(key).partition("@")[0]
                entry = found.setdefault(name, {"state": "closed", "score": None, "routers": {}})
                instance = answer["instance"]
                entry["routers"][instance] = _worse(entry["routers"].get(instance, "closed"), str(state))
                entry["state"] = _worse(entry["state"], str(state))
        return {"extensions": dict(sorted(found.items()))}

    async def canaries(self, who: Identity) -> dict[str, Any]:
        """The canaries that ``who`` may see. Raises :class:`RegistryError`."""
        view = await self._catalogue.view()
        return _seen_canaries(await canaries(view, self._objects), view, who)

    async def look_at_traffic(self) -> None:
        """Asks for counters, and tells listeners the new document."""
        async with self._turn:
            await self._ask_traffic()
        self.trails.expire()
        if self.hub.wanted("traffic"):
            document = self._traffic.document()
            self.hub.publish("traffic", lambda _: document)

    async def look_at_state(self) -> None:
        """Routers, breakers and canaries, for those who listen to them."""
        if self.routers is not None and self.hub.wanted("routers", "breakers"):
            statuses = await self.statuses()
            document = {"routers": statuses}
            self.hub.publish("routers", lambda _: document)
            found = await self.breakers(statuses)
            self.hub.publish("breakers", lambda _: found)
        if self.hub.wanted("canaries"):
            view = await self._catalogue.view()
            listed = await canaries(view, self._objects)
            self.hub.publish("canaries", lambda who: _seen_canaries(listed, view, who))

    async def look_at_objects(self) -> None:
        """Tells what came, changed and went in the registry since the last look; also for a while after the
        last listener left, who may only have lost the connection.
        """
        if self.hub.wanted("objects"):
            self._wanted = self._clock()
        async with self._looking:
            if self._clock() - self._wanted > GRACE_S:
                if self._view is not None:
                    self._view = None
                    self.hub.forget()
                return
            before, now = self._view, await self._catalogue.view()
            self._view = now
            if before is None or before.revision == now.revision:
                return
            for event, concerned in _changes(before, now):
                self._publish_object(event, concerned)

    async def expect_objects(self) -> None:
        """From when this returns on, changes are told: a listener is about to join. Where the registry does
        not answer now, from when it does.
        """
        self._wanted = self._clock()
        try:
            await self.look_at_objects()
        except RegistryError as error:
            log.debug("admin.look_failed", error=str(error)[:200])

    async def follow(self) -> None:
        """Subscribes to what routers publish, where it is not done yet."""
        assert self.routers is not None
        await self.routers.follow(SUBJECT_ROUTER_TRAIL, self.heard)
        await self.routers.follow(SUBJECT_ROUTER_TRAIL_CONTENT, self.heard_content)

    def heard(self, body: bytes) -> None:
        """A trail came."""
        trail = self.trails.take(body)
        if trail is not None:
            self.hub.publish("trail", lambda who: self.trails.shown(trail, who))

    def heard_content(self, body: bytes) -> None:
        """The content of a request came: its trail is told again to those who may see it."""
        request_id = self.trails.take_content(body)
        if request_id is not None:
            self.hub.publish("trail", lambda who: _with_content(self.trails.get(request_id, who)))

    async def _ask_traffic(self) -> None:
        if self.routers is None:
            return
        answers = await self.routers.ask("traffic", {})
        self._looked = self._clock()
        told = [(one["instance"], one["result"]) for one in answers if isinstance(one.get("result"), dict)]
        self._traffic.take(told, self._wall())

    def _publish_object(self, event: dict[str, Any], concerned: list[frozenset[str]]) -> None:
        self.hub.publish("objects", lambda who: event if Scope(who.tenants).sees(concerned) else None)


async def _again(seconds: float, look: Callable[[], Awaitable[None]]) -> None:
    """``look`` now and every ``seconds``, whatever becomes of a single one."""
    while True:
        try:
            await look()
        except (RoutersError, RegistryError) as error:
            log.debug("admin.look_failed", error=str(error)[:200])
        except Exception as error:  # noqa: BLE001 -- charts must not end with one odd answer
            log.warning("admin.look_failed", error=type(error).__name__)
        await asyncio.sleep(seconds)


def _changes(before: View, now: View) -> list[tuple[dict[str, Any], list[frozenset[str]]]]:
    events: list[tuple[dict[str, Any], list[frozenset[str]]]] = []
    tables: tuple[tuple[str, Any, Any], ...] = (
        ("Extension", before.extensions, now.extensions),
        ("RoutingPolicy", before.policies, now.policies),
    )
    for kind, old, new in tables:
        for identifier in sorted(old.keys() | new.keys()):
            was, is_now = old.get(identifier), new.get(identifier)
            if was is is_now or (was is not None and is_now is not None and was == is_now):
                continue
            record = was if is_now is None else is_now
            action = "removed" if is_now is None else "added" if was is None else "changed"
            event = {
                "kind": kind,
                "id": identifier,
                "generation": record.generation,
                "action": action,
                "revision": now.revision,
            }
            view = before if is_now is None else now
            concerned = concerned_rows(identifier, view) if kind == "Extension" else [tenants_of(record)]
            events.append((event, concerned))
    return events


def _seen_canaries(listed: list[dict[str, Any]], view: View, who: Identity) -> dict[str, Any]:
    scope = Scope(who.tenants)
    return {"canaries": [one for one in listed if scope.sees(concerned_rows(one["id"], view))]}


def _with_content(trail: dict[str, Any] | None) -> dict[str, Any] | None:
    return trail if trail is not None and "content" in trail else None


def _worse(one: str, other: str) -> str:
    known = [word for word in (one, other) if word in _WORST]
    return max(known, key=_WORST.index, default="closed")
