"""The one reader: everything that a decision about an object may rest on, at one moment."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime

from beamline_contract.names import object_id
from beamline_contract.objects import Extension, ObjectKey, RoutingPolicy
from beamline_contract.projection import extension_record, policy_record
from beamline_contract.reports import RouterStatus
from beamline_sdk.deployment.port import DeploymentError, Deployments, DeploymentStatus

from .checks.references import permission_fault
from .health import HealthBoard
from .index import ObjectIndex, refs_of, target_of
from .ledger import Ledger
from .ports import Hints, Inputs, ObjectStore, StoredObject
from .settings import ReconcileSettings
from .view import Attempts, Record, Reference, View
from .workload import desired_workload


class Gatherer:
    """Reads store, index, ledger, routers' reports and the workload's state."""

    def __init__(
        self,
        store: ObjectStore,
        deployments: Deployments | None,
        hints: Hints,
        *,
        index: ObjectIndex,
        ledger: Ledger,
        settings: ReconcileSettings,
        health: HealthBoard,
        clock: Callable[[], float],
        inputs: Inputs | None = None,
    ) -> None:
        self._store = store
        self._deployments = deployments
        self._hints = hints
        self._index = index
        self._ledger = ledger
        self._settings = settings
        self._inputs = inputs
        self._health = health
        self._clock = clock

    async def gather(self, key: ObjectKey, attempts: Attempts, now: datetime) -> View | None:
        """The view of ``key``, or None where the object does not exist (any more)."""
        stored = self._store.get(key)
        if stored is None:
            return None
        references = tuple(self._references(stored))
        denied = {
            object_id(ref.ref.name) for ref in references if permission_fault(key.namespace, ref) is not None
        }
        desired = None
        if isinstance(stored, Extension) and self._deployments is not None:
            desired = desired_workload(stored, self._settings, self._inputs)
        observed: DeploymentStatus | None = None
        if desired is not None and self._deployments is not None:
            try:
                observed = await self._deployments.get_status(key.namespace, key.name, desired)
            except DeploymentError as error:
                attempts = _with_deploy_fault(attempts, error)
        routers = tuple(sorted(self._hints.routers(), key=lambda router: router.instance))
        return View(
            object=stored,
            now=now,
            record=record_of(stored, denied),
            row=self._ledger.get(key),
            rival=self._index.rival(key),
            references=references,
            desired=desired,
            workload=observed,
            routers=routers,
            attempts=attempts,
            allowed_images=self._settings.allowed_images,
            health=self._health.read(object_id(key.name), self._clock()) if key.kind == "Extension" else None,
            holders=self._holders(stored, routers),
            config_schema=self._hints.config_schema(stored.subject)
            if isinstance(stored, Extension)
            else None,
        )

    def _holders(self, stored: StoredObject, routers: tuple[RouterStatus, ...]) -> dict[str, ObjectKey]:
        """The objects behind the ids that routers name in their remarks on this one."""
        own = object_id(stored.metadata.name)
        others = {
            notice.other_id
            for router in routers
            for notice in router.notices
            if (notice.kind, notice.id) == (stored.kind, own) and notice.other_id
        }
        found = {other: self._index.holder_of_id(stored.kind, other) for other in others}
        return {other: key for other, key in found.items() if key is not None}

    def _references(self, stored: StoredObject) -> list[Reference]:
        found = []
        for path, ref, wanted in refs_of(stored):
            target_key = target_of(stored, ref)
            target = self._store.get(target_key)
            found.append(
                Reference(
                    path=path,
                    ref=ref,
                    wanted=wanted,
                    target_key=target_key,
                    target=target,
                    rival=self._index.rival(target_key) if target is not None else None,
                    namesake=self._index.holder_of_id("Extension", object_id(ref.name)),
                )
            )
        return found


def record_of(stored: StoredObject, denied: Collection[str] = ()) -> Record | None:
    """The registry row that an object asks for; None for a broken one."""
    if isinstance(stored, Extension):
        return extension_record(stored, denied)
    if isinstance(stored, RoutingPolicy):
        return policy_record(stored, denied)
    return None


def _with_deploy_fault(attempts: Attempts, error: DeploymentError) -> Attempts:
    return replace(
        attempts,
        deploy_fault=str(error),
        deploy_retryable=error.retryable,
        deploy_conflict=error.conflict,
    )
