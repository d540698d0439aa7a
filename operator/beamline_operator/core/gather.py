"""The one reader: everything that a decision about an object may rest on, at one moment."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from beamline_contract.names import object_id
from beamline_contract.objects import Extension, ObjectKey, RoutingPolicy
from beamline_contract.projection import extension_record, policy_record
from beamline_sdk.deployment.port import DeploymentError, Deployments, DeploymentStatus

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
        inputs: Inputs | None = None,
    ) -> None:
        self._store = store
        self._deployments = deployments
        self._hints = hints
        self._index = index
        self._ledger = ledger
        self._settings = settings
        self._inputs = inputs

    async def gather(self, key: ObjectKey, attempts: Attempts, now: datetime) -> View | None:
        """The view of ``key``, or None where the object does not exist (any more)."""
        stored = self._store.get(key)
        if stored is None:
            return None
        desired = None
        if isinstance(stored, Extension) and self._deployments is not None:
            desired = desired_workload(stored, self._settings, self._inputs)
        observed: DeploymentStatus | None = None
        if desired is not None and self._deployments is not None:
            try:
                observed = await self._deployments.get_status(key.namespace, key.name, desired)
            except DeploymentError as error:
                attempts = _with_deploy_fault(attempts, error)
        return View(
            object=stored,
            now=now,
            record=record_of(stored),
            row=self._ledger.get(key),
            rival=self._index.rival(key),
            references=tuple(self._references(stored)),
            desired=desired,
            workload=observed,
            routers=tuple(sorted(self._hints.routers(), key=lambda router: router.instance)),
            attempts=attempts,
            allowed_images=self._settings.allowed_images,
        )

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


def record_of(stored: StoredObject) -> Record | None:
    """The registry row that an object asks for; None for a broken one."""
    if isinstance(stored, Extension):
        return extension_record(stored)
    if isinstance(stored, RoutingPolicy):
        return policy_record(stored)
    return None


def _with_deploy_fault(attempts: Attempts, error: DeploymentError) -> Attempts:
    return replace(
        attempts,
        deploy_fault=str(error),
        deploy_retryable=error.retryable,
        deploy_conflict=error.conflict,
    )
