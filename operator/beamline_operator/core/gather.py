"""The one reader: everything that a decision about an object may rest on, at one moment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from beamline_contract.extension import ExtensionRef
from beamline_contract.names import object_id
from beamline_contract.objects import Extension, ObjectKey, RoutingPolicy
from beamline_contract.projection import ExtensionRecord, extension_record, policy_record
from beamline_contract.references import Reference, permission_fault, refs_of, target_of
from beamline_contract.reports import RouterStatus
from beamline_sdk.deployment.port import DeploymentError, DeploymentRequest, Deployments, DeploymentStatus

from .canary import ABORT, PROMOTE, CanaryStatus, Facts, advance, held, remembered
from .checks import is_held_back
from .health import HealthBoard
from .images import is_allowed
from .index import ObjectIndex
from .ledger import Ledger
from .overrides import Override, overrides_of
from .ports import Hints, Inputs, ObjectStore, StoredObject
from .rollback import LastGood, RolledBack, judged, last_good, proven, returned, revision_of, rolled_back
from .samples import SampleBoard
from .settings import ReconcileSettings
from .versions import Family, base_of, blocked_by, failed_because, family_of, standing, weigh
from .view import MAX_ANNOTATION, Attempts, Record, View
from .workload import desired_workload


@dataclass(frozen=True, slots=True)
class _Work:
    """What shall run, how it is, the last revision that was good, and the one that failed."""

    desired: DeploymentRequest | None = None
    observed: DeploymentStatus | None = None
    good: LastGood | None = None
    rollback: RolledBack | None = None


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
        samples: SampleBoard,
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
        self._samples = samples
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
        work = _Work()
        if isinstance(stored, Extension) and self._deployments is not None:
            work, attempts = await self._work(stored, attempts, now)
        row = self._ledger.get(key)
        routers = tuple(sorted(self._hints.routers(), key=lambda router: router.instance))
        view = View(
            object=stored,
            now=now,
            record=record_of(stored, denied),
            row=row,
            rival=self._index.rival(key),
            references=references,
            desired=work.desired,
            workload=work.observed,
            routers=routers,
            unheard=self._hints.unheard(),
            attempts=attempts,
            allowed_images=self._settings.allowed_images,
            health=self._health.read(object_id(key.name), self._clock()) if key.kind == "Extension" else None,
            holders=self._holders(stored, routers),
            config_schema=self._hints.config_schema(stored.subject)
            if isinstance(stored, Extension)
            else None,
            overrides=self._overrides(stored),
            good=work.good,
            rollback=work.rollback,
            patience=0.0 if row is None else row.since + self._settings.patience_s - self._clock(),
        )
        if isinstance(stored, Extension) and isinstance(view.record, ExtensionRecord):
            record, canary = self._divide(stored, view.record, view)
            view = replace(view, record=record, canary=canary)
        return view

    async def _work(self, extension: Extension, attempts: Attempts, now: datetime) -> tuple[_Work, Attempts]:
        """What shall run for an Extension, how it is, and whether an earlier revision runs in its place."""
        assert self._deployments is not None, "asked for only where there is something to run it"
        asked = desired_workload(extension, self._settings, self._inputs)
        if asked is None:
            return _Work(), attempts
        revision = revision_of(asked.workload, asked.inputs)
        good, back = last_good(extension.status), rolled_back(extension, revision)
        desired = asked
        if back is not None and good is not None:
            desired = self._returned(extension, good)
        if attempts.workload_unread:
            return _Work(desired, None, good, back), attempts
        try:
            observed = await self._deployments.get_status(
                extension.metadata.namespace, extension.metadata.name, desired
            )
        except DeploymentError as error:
            unread = replace(_with_deploy_fault(attempts, error), workload_unread=True)
            return _Work(desired, None, good, back), unread
        if back is None and not extension.spec.suspend:
            verdict = judged(extension, revision, asked, observed, now)
            if verdict is not None:
                earlier = self._returned(extension, verdict[1])
                allowed = is_allowed(earlier.workload.image, self._settings.allowed_images)
                # A Secret that was rotated to a bad value: there is no other.
                if allowed and earlier.hash != asked.hash:
                    desired, (back, good) = earlier, verdict
        if back is None:
            good = proven(extension, revision, desired, observed, now)
        return _Work(desired, observed, good, back), attempts

    def _returned(self, extension: Extension, good: LastGood) -> DeploymentRequest:
        desired = desired_workload(returned(extension, good), self._settings, self._inputs)
        assert desired is not None, "the last good revision is a workload"
        return desired

    def _divide(
        self, extension: Extension, record: ExtensionRecord, view: View
    ) -> tuple[ExtensionRecord, CanaryStatus | None]:
        """The row with its share of the traffic, and what is remembered of the canary; ``view`` is what else
        is known of the extension.
        """
        family = family_of(extension, self._store.get, self._index.referrers(base_of(extension)))
        spec = extension.spec
        canary = None
        if spec.canary is not None:
            canary = standing(extension)
            known = remembered(extension.status)
            # What the registry did not hear of is not lived through: no step while it is away.
            away = view.attempts.registry_fault is not None
            if not (spec.suspend or extension.metadata.deleting) and is_held_back(view):
                canary = held(spec.canary, known or canary)
            elif not (spec.suspend or extension.metadata.deleting or away):
                failed = failed_because(view.desired, view.workload)
                if view.rollback is not None:
                    failed = f"its workload failed: {view.rollback.message}"
                notes = extension.metadata.annotations
                facts = Facts(
                    now=view.now,
                    samples=self._samples.since(extension.id, canary.mark),
                    breaker=self._health.breaker(extension.id),
                    blocked=blocked_by(extension, family, view.desired, view.workload)
                    or self._not_divided(extension, family, canary),
                    failed=failed,
                    # Of a base that is suspended nobody can take the requests: whoever promotes has to wait.
                    promote=notes.get(PROMOTE, "")[:MAX_ANNOTATION]
                    if family.base is None or not family.base.spec.suspend
                    else (known or canary).promote,
                    abort=notes.get(ABORT, "")[:MAX_ANNOTATION],
                )
                canary = advance(spec.canary, canary.revision, known, facts)
                self._samples.since(extension.id, canary.mark)  # a step that begins is counted from now on
        return weigh(record, extension, family, canary), canary

    def _not_divided(self, extension: Extension, family: Family, canary: CanaryStatus) -> str | None:
        """A step counts once the base's row has given up its part."""
        if not canary.step or family.base is None:
            return None
        row = self._ledger.get(family.base.key)
        wanted = weigh(extension_record(family.base), extension, family, canary)
        if row is not None and isinstance(row.record, ExtensionRecord) and row.record.weight == wanted.weight:
            return None
        return "the registry does not hold this step's weights yet; see the condition Synced of the base."

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

    def _overrides(self, stored: StoredObject) -> tuple[Override, ...]:
        if not isinstance(stored, RoutingPolicy):
            return ()

        def targets(ref: ExtensionRef) -> Iterator[Extension]:
            key = target_of(stored, ref)
            for one in (key, *sorted(self._index.referrers(key))):
                found = self._store.get(one)
                if isinstance(found, Extension) and (one == key or found.spec.version_of == key.name):
                    yield found

        return overrides_of(stored, targets, self._hints.config_schema)

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
