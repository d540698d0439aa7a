"""One look at the world, for one page and one identity.

A page shows what it can. So nothing here raises because a neighbour is down: what can't be had is empty, and
:attr:`Look.troubles` says why, in sentences for the top of the page. The registry's last answer is kept and
shown with its revision.

Routers, and the objects of Extensions, are asked at most once in :data:`KEEP_S` for all pages together: a
live page is drawn again at every event, and asking is a broadcast over NATS, or a list of the API server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from beamline_contract.objects import ObjectKey
from beamline_registry.port import AuditQuery, AuditRecord, Health, RegistryAudit, RegistryError

from ..catalogue import Catalogue
from ..identity import Identity
from ..objects.port import Held, ObjectEvent
from ..problems import ProblemError
from ..routers import Routers, RoutersError
from ..writing import Writer
from .digest import Digest, Digests
from .traffic import NO_TRAFFIC, Traffic

KEEP_S: Final = 2.0
OPEN_WORDS: Final = frozenset({"open", "half-open", "isolated"})
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that can't be had, and what that means."""

    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class RouterFact:
    """One running router, or what it answered instead. ``status`` is the result of the verb of that name."""

    instance: str
    status: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def revision(self) -> int:
        """The registry revision that it serves."""
        return int(self.status.get("revision") or 0)

    @property
    def breakers(self) -> dict[str, str]:
        """Its breakers that were used, by extension; the worst where steps have their own."""
        found: dict[str, str] = {}
        for key, word in (self.status.get("breakers") or {}).items():
            name = str(key).partition("@")[0]
            if found.get(name, "closed") == "closed":
                found[name] = str(word)
        return found


@dataclass(frozen=True, slots=True)
class Breaker:
    """The breakers of one extension in all routers. ``state`` is the worst."""

    state: str
    routers: Mapping[str, str]

    @property
    def open(self) -> int:
        """In how many routers it is not closed."""
        return sum(word != "closed" for word in self.routers.values())


_WORST: Final = ("isolated", "open", "half-open", "closed")


class Kept(Generic[Value]):
    """A value that is asked for at most once in :data:`KEEP_S`, however many wait for it."""

    def __init__(self, ask: Callable[[], Awaitable[Value]], clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = asyncio.Lock()
        self._until = float("-inf")
        self._value: Value | Exception | None = None

    async def get(self) -> Value:
        """The value; raises what asking raised, also for those who come within the time."""
        async with self._lock:
            if self._clock() >= self._until:
                try:
                    self._value = await self._ask()
                except (RoutersError, ProblemError) as error:
                    self._value = error
                self._until = self._clock() + KEEP_S
        if isinstance(self._value, Exception):
            raise self._value
        return self._value  # type: ignore[return-value]  # it was set above


class Sources:
    """Where pages look. ``clock`` is monotonic seconds."""

    def __init__(
        self,
        catalogue: Catalogue,
        audit: RegistryAudit,
        writer: Writer,
        routers: Routers | None,
        *,
        clock: Callable[[], float],
        traffic: Callable[[], Awaitable[Mapping[str, Any]]],
    ) -> None:
        self.catalogue = catalogue
        self.audit = audit
        self.digests = Digests()
        self.traffic = Kept(traffic, clock)
        self.measured = routers is not None
        self.routers: Kept[list[dict[str, Any]]] | None = None
        if routers is not None:
            asked = routers
            self.routers = Kept(lambda: asked.ask("status", {}), clock)
        self.extensions = Kept(lambda: writer.everything("Extension"), clock)
        self.writer = writer

    def look(self, identity: Identity) -> Look:
        """A look of ``identity``."""
        return Look(self, identity)


class Look:
    """See the module. Ask :meth:`digest` first: it says whether the registry answers."""

    def __init__(self, sources: Sources, identity: Identity) -> None:
        self._sources = sources
        self.identity = identity
        self.troubles: list[Trouble] = []
        self.registry_fails = False
        """Whether the registry did not answer in this look."""

    @property
    def whole(self) -> bool:
        """Whether the identity is bound to no tenants: routers and sums concern all of them."""
        return self.identity.tenants is None

    def words(self) -> dict[str, Any]:
        """For the template, when everything was asked: ``troubles``, ``whole``, and ``unread``: whether the
        registry does not answer.
        """
        return {"troubles": self.troubles, "whole": self.whole, "unread": self.registry_fails}

    async def digest(self) -> Digest:
        """The registry as the identity sees it; as it was, where it does not answer now."""
        try:
            view = await self._sources.catalogue.view()
        except RegistryError:
            view = self._sources.catalogue.last
            self._registry_failed(view.revision)
        return self._sources.digests.of(view).seen_by(self.identity.tenants)

    async def health(self) -> dict[str, Health]:
        """Health by extension; empty where the registry does not answer."""
        nothing: list[Health] = []
        found = await self._of_registry(self._sources.audit.healths, nothing)
        return {one.extension_id: one for one in found}

    async def audit(self, query: AuditQuery) -> list[AuditRecord]:
        """Rows of the audit log; none where the registry does not answer."""
        return await self._of_registry(lambda: self._sources.audit.audit(query), [])

    async def routers(self) -> list[RouterFact] | None:
        """Running routers by instance; None where nobody can ask them."""
        if self._sources.routers is None:
            self._say("Routers can't be asked: this process was not told where NATS is.", "Set NATS_URL.")
            return None
        try:
            answers = await self._sources.routers.get()
        except RoutersError as error:
            self._say(
                f"Routers can't be asked: {error}.",
                "They go on with what they have. Breakers, revisions and load are unknown meanwhile.",
            )
            return None
        return [
            RouterFact(
                str(answer["instance"]),
                answer.get("result") or {},
                str((answer.get("error") or {}).get("message", "")),
            )
            for answer in answers
        ]

    async def traffic(self) -> Traffic:
        """Traffic of the last minutes; without the sums of all tenants for who is bound to some."""
        if not self._sources.measured:
            return NO_TRAFFIC
        try:
            found = Traffic.of(await self._sources.traffic.get())
        except RoutersError:
            return NO_TRAFFIC  # what that means is said where routers are asked
        return found if self.whole else found.without_sums()

    async def objects(self) -> Mapping[ObjectKey, Held]:
        """The objects of Extensions, with their status; empty where this process was not told where they
        live.
        """
        try:
            return await self._sources.extensions.get()
        except ProblemError:
            return {}

    async def held(self, key: ObjectKey) -> Held | None:
        """One object; None where there is none, or it can't be had."""
        try:
            return await self._sources.writer.object(key)
        except ProblemError as error:
            self._say(f"The object can't be read: {error.detail}.", error.hint or "")
            return None

    async def events(self, held: Held) -> list[ObjectEvent] | None:
        """What happened to an object lately; None where this process may not ask."""
        try:
            return await self._sources.writer.events(held)
        except ProblemError:
            return None

    async def _of_registry(self, ask: Callable[[], Awaitable[Value]], nothing: Value) -> Value:
        """What the registry answers. One that failed once in this look is not asked again: each time would
        cost its time limit.
        """
        if self.registry_fails:
            return nothing
        try:
            return await ask()
        except RegistryError:
            self._registry_failed(self._sources.catalogue.last.revision)
            return nothing

    def _registry_failed(self, revision: int) -> None:
        self.registry_fails = True
        seen = (
            f"What follows is revision {revision}, the last that was read" if revision else "Nothing is known"
        )
        self._say(
            "The registry does not answer.",
            f"{seen}; health and the audit log are missing. Routers go on with what they have.",
        )

    def _say(self, text: str, hint: str = "") -> None:
        trouble = Trouble(text, hint)
        if trouble not in self.troubles:
            self.troubles.append(trouble)


def breakers_of(routers: Sequence[RouterFact]) -> dict[str, Breaker]:
    """The breakers of all routers, by extension."""
    found: dict[str, dict[str, str]] = {}
    for router in routers:
        for name, word in router.breakers.items():
            found.setdefault(name, {})[router.instance] = word
    return {name: Breaker(min(words.values(), key=_rank), words) for name, words in found.items()}


def _rank(word: str) -> int:
    return _WORST.index(word) if word in _WORST else 0
