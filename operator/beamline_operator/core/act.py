"""The one writer: carries out a plan and tells what came of each step as a value.

The order inside a plan is fixed: registry, workload, finalizer on or off. A fault in the registry does not
keep the workload from being applied, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import structlog

from beamline_contract.conditions import EventReason
from beamline_contract.objects import ObjectKey
from beamline_registry.port import (
    FencedError,
    InvalidRecordError,
    Note,
    Outcome,
    RegistryDeniedError,
    RegistryError,
    RegistryUnavailableError,
    Remove,
    Upsert,
    Write,
)
from beamline_sdk.deployment.port import DeploymentError, DeploymentRequest, Deployments

from .batcher import Batcher
from .ledger import Ledger
from .plan import Plan
from .ports import Event, ObjectStore
from .view import Attempts, Row

_log = structlog.get_logger()


_ADOPTED: Final = Event(
    EventReason.ADOPTED,
    "Took over the workload that an earlier Extension of this name left behind (deletionPolicy Retain).",
)


class Actor:
    """Writes to store, registry and deployments."""

    def __init__(
        self,
        store: ObjectStore,
        deployments: Deployments | None,
        batcher: Batcher,
        ledger: Ledger,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._deployments = deployments
        self._batcher = batcher
        self._ledger = ledger
        self._clock = clock

    async def carry_out(self, key: ObjectKey, plan: Plan, attempts: Attempts) -> Attempts:
        """The attempts after this plan.

        Raises :class:`FencedError` where another operator took over, and ``StoreError`` where the finalizer
        could not be written.
        """
        if plan.note is not None:
            attempts = await self._note(key, plan.note, attempts)
        if plan.writes and attempts.registry_fault is None:
            attempts = await self.write(key, plan.writes, attempts)
        if plan.deploy is not None:
            attempts = await self._deploy(key, plan.deploy, attempts)
            if plan.adopts and attempts.deploy_fault is None:
                await self._store.record_event(key, _ADOPTED)
        if plan.undeploy or plan.release:
            attempts = await self._part_with(key, attempts, keep=plan.release)
        if plan.finalizer is True:
            await self._store.set_finalizer(key, True)
            attempts = replace(attempts, finalizer=True)
        if plan.finalizer is False:
            await self._store.set_finalizer(key, False)
            self._ledger.forget(key)
            attempts = replace(attempts, finalizer=False)
        return attempts

    async def publish(self, key: ObjectKey, old: Mapping[str, Any], plan: Plan) -> bool:
        """Writes the status where it says something new, then the events. Whether it wrote.

        In this order an event is told at most once: a leader that dies in between leaves a status that says
        it all, and no event. The other order would tell one twice, and Kubernetes forgets events anyway.
        """
        changed = dict(old) != dict(plan.status)
        if changed:
            await self._store.write_status(key, plan.status)
        for event in plan.events:
            await self._store.record_event(key, event)
        return changed

    async def write(self, key: ObjectKey, writes: tuple[Write, ...], attempts: Attempts) -> Attempts:
        """Writes in one transaction; an unreachable registry is a value, a lost lease is raised."""
        try:
            result = (await self._batcher.submit(*writes))[-1]
        except FencedError:
            raise
        except InvalidRecordError as error:
            _log.warning("reconcile.registry_refused", object=str(key), error=str(error))
            return replace(attempts, registry_refusal=str(error))
        except RegistryError as error:
            _log.warning("reconcile.registry_fault", object=str(key), error=str(error))
            return _faulty(attempts, error)
        write = writes[-1]
        if isinstance(write, Upsert) and result.outcome in {Outcome.WRITTEN, Outcome.UNCHANGED}:
            self._ledger.put(key, Row(write.record, result.revision, self._clock()))
        if isinstance(write, Remove) and result.outcome is not Outcome.STALE:
            self._ledger.forget(key)
            if result.outcome is Outcome.WRITTEN:
                removed = Event(
                    EventReason.REMOVED, f"Removed from the registry (revision {result.revision})."
                )
                await self._store.record_event(key, removed)
        return replace(attempts, write=result, evicted=len(writes) > 1)

    async def _note(self, key: ObjectKey, note: Note, attempts: Attempts) -> Attempts:
        """What somebody did. Where the registry does not answer, nothing is lived through in this pass, and
        the next one notes it.
        """
        try:
            await self._batcher.submit(note)
        except FencedError:
            raise
        except InvalidRecordError as error:
            _log.warning("reconcile.note_refused", object=str(key), error=str(error))
        except RegistryError as error:
            _log.warning("reconcile.registry_fault", object=str(key), error=str(error))
            return _faulty(attempts, error)
        return replace(attempts, noted=True)

    async def _deploy(self, key: ObjectKey, request: DeploymentRequest, attempts: Attempts) -> Attempts:
        assert self._deployments is not None, "no plan deploys where there is nothing to deploy with"
        try:
            await self._deployments.deploy(request)
        except DeploymentError as error:
            _log.warning(
                "reconcile.deploy_fault", object=str(key), error=str(error), retryable=error.retryable
            )
            return replace(
                attempts,
                deploy_fault=str(error),
                deploy_retryable=error.retryable,
                deploy_conflict=error.conflict,
            )
        what = f"{request.workload.image} x {request.replicas}"
        applied = f"Applied the workload of generation {request.generation}: {what}."
        await self._store.record_event(key, Event(EventReason.WORKLOAD_APPLIED, applied))
        return replace(attempts, deployed=request.hash)

    async def _part_with(self, key: ObjectKey, attempts: Attempts, *, keep: bool) -> Attempts:
        """Ends the workload; with ``keep`` it goes on, without an owner."""
        if self._deployments is not None:
            try:
                if keep:
                    await self._deployments.release(key.namespace, key.name)
                else:
                    await self._deployments.delete(key.namespace, key.name)
            except DeploymentError as error:
                fault = "reconcile.release_fault" if keep else "reconcile.undeploy_fault"
                _log.warning(fault, object=str(key), error=str(error))
                return replace(attempts, deploy_fault=str(error), deploy_retryable=error.retryable)
        return replace(attempts, released=True) if keep else replace(attempts, undeployed=True)


def _faulty(attempts: Attempts, error: RegistryError) -> Attempts:
    answered = not isinstance(error, RegistryUnavailableError) or isinstance(error, RegistryDeniedError)
    return replace(attempts, registry_fault=str(error) or type(error).__name__, registry_answered=answered)
