"""Changes of objects: found, checked, made, and waited for until routers serve them.

The order is always the same. The object is found by its registry id; the caller's generation is compared; a
GitOps tool that owns it is respected, unless an admin forces; the rules of the reconcile core are asked; and
only then the object is written, where the truth is. The registry's row follows by the reconcile core alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from beamline_contract.errors import ErrorCode
from beamline_contract.model import Fault
from beamline_contract.names import object_id
from beamline_contract.objects import BrokenObject, Kind, ObjectKey
from beamline_registry.changes import masked

from .catalogue import Catalogue
from .objects.checks import Verdict, check
from .objects.port import Author, ChangedError, Held, ObjectEvent, Objects, ObjectsError, RefusedError
from .preconditions import Request, by_id, not_owned, refuse, same_generation
from .problems import AdminCode, ProblemError
from .scope import Scope

LOOK_S: Final = 0.05
State = Literal["programmed", "waiting", "refused", "gone"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a change has come. ``routers`` is ``n/m``: so many of all that report serve it."""

    state: State
    routers: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """A change that was made, or would be. ``changes`` is field-wise, secrets masked."""

    key: ObjectKey
    generation: int
    changes: Mapping[str, Any]
    warnings: tuple[Fault, ...] = ()
    owner: str | None = None
    progress: Progress | None = None
    faults: tuple[Fault, ...] = field(default=())

    @property
    def id(self) -> str:
        """The object's id in the registry."""
        return object_id(self.key.name)


class Writer:
    """Makes changes. ``objects`` None: this process was not told where objects live, and changes nothing."""

    def __init__(
        self,
        objects: Objects | None,
        catalogue: Catalogue,
        *,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self._objects = objects
        self._catalogue = catalogue
        self._sleep = sleep
        self._turn = asyncio.Lock()

    async def create(self, kind: Kind, namespace: str, name: str, spec: dict[str, Any], how: Request) -> Done:
        """A new object. Raises :class:`ProblemError`."""
        key = ObjectKey(kind, namespace, name)
        async with self._turn:
            everything = await self._all()
            if key in everything:
                raise ProblemError(
                    AdminCode.ALREADY_EXISTS,
                    f"{key} exists",
                    field="name",
                    hint="change it with PUT and its generation",
                )
            verdict = check(key, spec, None, everything)
            refuse(verdict.faults)
            Scope(how.identity.tenants).must_write(key, spec, everything)
            await self._guarded(lambda objects: objects.rehearse(key, spec, None))
            author = Author(how.identity.subject, how.request_id)
            await self._guarded(lambda objects: objects.put(key, spec, None, author))
        done = Done(key, 1, _changes({}, spec), verdict.warnings)
        return await self._awaited(done, how)

    async def update(
        self, kind: Kind, identifier: str, spec: dict[str, Any], generation: int | None, how: Request
    ) -> Done:
        """Puts ``spec`` in place of the object's. Raises :class:`ProblemError`."""
        async with self._turn:
            held, done = await self._prepared(kind, identifier, spec, generation, how)
            if done.changes:
                await self._guarded(lambda objects: objects.rehearse(held.key, spec, held))
                author = Author(how.identity.subject, how.request_id)
                await self._guarded(lambda objects: objects.put(held.key, spec, held, author))
        return await self._awaited(done, how)

    async def switch(self, identifier: str, enabled: bool, generation: int | None, how: Request) -> Done:
        """Enables or disables an Extension. Raises :class:`ProblemError`."""
        held = await self._found("Extension", identifier)
        return await self.update("Extension", identifier, {**held.spec, "enabled": enabled}, generation, how)

    async def delete(self, kind: Kind, identifier: str, generation: int | None, how: Request) -> Done:
        """Deletes the object. Raises :class:`ProblemError`."""
        async with self._turn:
            everything = await self._all()
            held = by_id(kind, identifier, everything)
            same_generation(held, generation, how)
            not_owned(held, how)
            Scope(how.identity.tenants).must_write(held.key, held.spec, everything)
            author = Author(how.identity.subject, how.request_id)
            await self._guarded(lambda objects: objects.delete(held, author))
        done = Done(held.key, held.generation, _changes(held.spec, {}), owner=held.owner)
        if how.wait_s is None:
            return done
        return await self._until(done, how.wait_s, self._is_gone)

    async def annotate(self, identifier: str, name: str, value: str, how: Request, *, acted: str) -> Done:
        """Sets an annotation of an Extension, and may wait until the operator has acted upon it, as the field
        ``acted`` of ``status.canary`` says. Raises :class:`ProblemError`.
        """
        async with self._turn:
            everything = await self._all()
            held = by_id("Extension", identifier, everything)
            same_generation(held, None, how)
            not_owned(held, how)
            Scope(how.identity.tenants).must_write(held.key, held.spec, everything)
            author = Author(how.identity.subject, how.request_id)
            await self._guarded(lambda objects: objects.annotate(held, name, value, author))
        before = (held.metadata.get("annotations") or {}).get(name)
        changes = {f"metadata.annotations.{name}": {"from": before, "to": value}}
        done = Done(held.key, held.generation, changes, owner=held.owner)
        if how.wait_s is None:
            return done
        return await self._until(done, how.wait_s, lambda one: self._has_acted(one, acted, value))

    async def rehearse(
        self, kind: Kind, namespace: str, name: str, spec: dict[str, Any], how: Request
    ) -> Done:
        """What a write of this object would meet; nothing is written. Raises :class:`ProblemError` only where
        that can't be said.
        """
        key = ObjectKey(kind, namespace, name)
        everything = await self._all()
        held = everything.get(key)
        if held is not None:
            Scope(how.identity.tenants).must_see(key, held.spec, everything)
        verdict = check(key, spec, held, everything)
        faults = verdict.faults
        if not faults:
            try:
                await self._objects_or_refuse().rehearse(key, spec, held)
            except RefusedError as error:
                faults = error.faults
            except ObjectsError as error:
                faults = (Fault("spec", str(error)),)
        before = held.spec if held is not None else {}
        return Done(
            key,
            held.generation if held is not None else 0,
            _compared(before, spec, held, verdict),
            verdict.warnings,
            owner=held.owner if held is not None else None,
            faults=faults,
        )

    async def propose(self, kind: Kind, identifier: str, spec: dict[str, Any], how: Request) -> Done:
        """What :meth:`update` would do, without doing it: faults and an owner are told instead of refused.
        Raises :class:`ProblemError` where the caller may not change it.
        """
        everything = await self._all()
        held = by_id(kind, identifier, everything)
        scope = Scope(how.identity.tenants)
        scope.must_write(held.key, held.spec, everything)
        scope.must_write(held.key, spec, everything)
        return await self.rehearse(kind, held.key.namespace, held.key.name, spec, how)

    async def compare(self, kind: Kind, identifier: str, spec: dict[str, Any], how: Request) -> Done:
        """:meth:`rehearse` against the object of an id."""
        held = await self._found(kind, identifier)
        return await self.rehearse(kind, held.key.namespace, held.key.name, spec, how)

    async def held(self, kind: Kind, identifier: str, how: Request) -> Held:
        """The object of an id, with its conditions. Raises :class:`ProblemError`."""
        everything = await self._all()
        held = by_id(kind, identifier, everything)
        Scope(how.identity.tenants).must_see(held.key, held.spec, everything)
        return held

    async def everything(self, kind: Kind | None = None) -> dict[ObjectKey, Held]:
        """All objects, or those of a kind. Raises :class:`ProblemError`."""
        found: dict[ObjectKey, Held] = await self._guarded(lambda objects: objects.all(kind))
        return found

    async def object(self, key: ObjectKey) -> Held | None:
        """One object, None where there is none. Raises :class:`ProblemError`."""
        found: Held | None = await self._guarded(lambda objects: objects.get(key))
        return found

    async def events(self, held: Held) -> list[ObjectEvent]:
        """What happened to an object lately. Raises :class:`ProblemError`."""
        found: list[ObjectEvent] = await self._guarded(lambda objects: objects.events(held))
        return found

    async def _prepared(
        self, kind: Kind, identifier: str, spec: dict[str, Any], generation: int | None, how: Request
    ) -> tuple[Held, Done]:
        everything = await self._all()
        held = by_id(kind, identifier, everything)
        same_generation(held, generation, how)
        not_owned(held, how)
        scope = Scope(how.identity.tenants)
        scope.must_write(held.key, held.spec, everything)
        scope.must_write(held.key, spec, everything)
        verdict = check(held.key, spec, held, everything)
        refuse(verdict.faults)
        changes = _compared(held.spec, spec, held, verdict)
        after = held.generation + (1 if changes else 0)
        return held, Done(held.key, after, changes, verdict.warnings, held.owner)

    async def _found(self, kind: Kind, identifier: str) -> Held:
        return by_id(kind, identifier, await self._all())

    async def _all(self) -> dict[ObjectKey, Held]:
        found: dict[ObjectKey, Held] = await self._guarded(lambda objects: objects.all())
        return found

    def _objects_or_refuse(self) -> Objects:
        if self._objects is None:
            raise ProblemError(
                ErrorCode.UNAVAILABLE,
                "this process was not told where objects live, so it changes nothing",
                hint="set BEAMLINE_ADMIN_CLUSTER, or BEAMLINE_ADMIN_FOLDER and BEAMLINE_ADMIN_STATE",
            )
        return self._objects

    async def _guarded(self, work: Callable[[Objects], Any]) -> Any:
        """Runs a call of the port; what it raises becomes a problem."""
        objects = self._objects_or_refuse()
        try:
            return await work(objects)
        except RefusedError as error:
            refuse(error.faults)
        except ChangedError as error:
            raise ProblemError(
                AdminCode.CONFLICT, str(error), hint="read it again, then try again"
            ) from error
        except ObjectsError as error:
            raise ProblemError(ErrorCode.UNAVAILABLE, str(error)) from error

    async def _awaited(self, done: Done, how: Request) -> Done:
        if how.wait_s is None:
            return done
        return await self._until(done, how.wait_s, self._is_programmed)

    async def _until(self, done: Done, seconds: float, look: Callable[[Done], Any]) -> Done:
        progress = Progress("waiting")
        try:
            async with asyncio.timeout(seconds):
                while True:
                    progress = await look(done)
                    if progress.state != "waiting":
                        break
                    await self._sleep(LOOK_S)
        except TimeoutError:
            pass
        return Done(done.key, done.generation, done.changes, done.warnings, done.owner, progress)

    async def _is_programmed(self, done: Done) -> Progress:
        held: Held | None = await self._guarded(lambda objects: objects.get(done.key))
        if held is None or held.generation < done.generation:
            return Progress("waiting", message="the change has not been taken in yet")
        for name in ("Accepted", "Programmed"):
            condition = held.condition(name)
            current = condition.get("observedGeneration", 0) >= done.generation
            if not current or not condition:
                return Progress("waiting", message="the operator has not looked at it yet")
            if name == "Accepted" and condition.get("status") == "False":
                return Progress("refused", message=str(condition.get("message", "")))
            if name == "Programmed":
                routers = (held.document.get("status") or {}).get("programmed")
                if condition.get("status") == "True":
                    return Progress("programmed", routers or "1/1", str(condition.get("message", "")))
                state: State = "refused" if condition.get("reason") == "Refused" else "waiting"
                return Progress(state, routers, str(condition.get("message", "")))
        return Progress("waiting")

    async def _has_acted(self, done: Done, acted: str, value: str) -> Progress:
        held: Held | None = await self._guarded(lambda objects: objects.get(done.key))
        if held is None:
            return Progress("gone", message="the object was deleted meanwhile")
        status = held.document.get("status") or {}
        canary = status.get("canary") or {}
        if canary.get(acted) != value:
            return Progress("waiting", message="the operator has not acted yet")
        return Progress("programmed", status.get("programmed"), str(canary.get("message", "")))

    async def _is_gone(self, done: Done) -> Progress:
        held = await self._guarded(lambda objects: objects.get(done.key))
        view = await self._catalogue.view()
        rows: Mapping[str, Any] = view.extensions if done.key.kind == "Extension" else view.policies
        row = rows.get(object_id(done.key.name))
        if held is None and (row is None or row.namespace != done.key.namespace):
            return Progress("gone", message=f"the registry lacks it since revision {view.revision} or before")
        return Progress("waiting", message="it is being deleted")


def _compared(
    before: Mapping[str, Any], spec: Mapping[str, Any], held: Held | None, verdict: Verdict
) -> dict[str, Any]:
    """What changes, with defaults filled in on both sides where both are valid."""
    parsed = held.parsed() if held is not None else None
    if verdict.object is not None and parsed is not None and not isinstance(parsed, BrokenObject):
        return _changes(parsed.spec.to_manifest(), verdict.object.spec.to_manifest())
    return _changes(before, spec)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "spec") -> dict[str, Any]:
    """``{path: {"from": ..., "to": ...}}``, down to where values are no mappings; secrets masked."""
    changes: dict[str, Any] = {}
    for name in sorted({*before, *after}):
        was, is_now, here = before.get(name), after.get(name), f"{path}.{name}"
        if was == is_now and type(was) is type(is_now):
            continue
        if isinstance(was, Mapping) and isinstance(is_now, Mapping):
            changes |= _changes(was, is_now, here)
        else:
            changes[here] = {"from": masked(name, was), "to": masked(name, is_now)}
    return changes
