"""The operator process: settings, what is started in which order, and how it ends.

An operator that is fenced while the Lease is still its own is one of two that write the same registry under
two Leases. They would take it from each other for ever, so it ends, with a sentence.

Start: check the cluster and the schema (a refusal is one sentence and exit code 78), then health server and
NATS, then compete for the Lease. Leading means: a new epoch of the registry, a full list into the cache,
kopf's watches, the controller. Losing the Lease, or the registry to a newer epoch, or the watch, ends leading
in the opposite order; the process then competes again. SIGTERM does the same once and releases the Lease, so
that a standby takes over at once.

``/readyz`` says what is missing: NATS, PostgreSQL, or, for the leader, the API server. A standby that has
them is ready: it does what it is there for. Being unready restarts nothing, and no traffic depends on it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import structlog

from beamline_contract.names import GROUP
from beamline_contract.objects import KINDS
from beamline_contract.reports import RouterHealth
from beamline_registry.port import RegistryError, RegistryUnavailableError
from beamline_registry.postgres import PostgresRegistry
from beamline_sdk import logs, signals
from beamline_sdk.deployment.kube_api import KubeApi, KubeError
from beamline_sdk.deployment.kubernetes import KubernetesDeployments
from beamline_sdk.health import HealthServer, HealthServerError
from beamline_sdk.link import LinkSettings
from beamline_sdk.loops import loop_factory
from beamline_sdk.waiting import ended, first_of, sleep_unless, unless

from .config import OperatorSettings
from .core.controller import Controller
from .core.ports import StoreError
from .core.reconciler import Reconciler
from .edges.acts import Acts
from .edges.gaps import Gaps
from .edges.health_fold import HealthFold
from .edges.inputs import WatchedInputs
from .edges.kopf_edge import KopfWatch
from .edges.kube_store import KubeStore
from .edges.lease import Lease, LeaseTimes
from .edges.loop_watch import LoopWatch
from .edges.metrics import OperatorMetrics, Readings
from .edges.nats_hints import NatsHints
from .edges.owned import relist_owned
from .edges.preflight import Refusal, check_alone, check_cluster, check_lease, check_schema, stay_alone
from .edges.registry_probe import RegistryProbe

EXIT_OK: Final = 0
EXIT_UNAVAILABLE: Final = 69
"""sysexits EX_UNAVAILABLE: the API server does not answer at the start."""
EXIT_CONFIG: Final = 78
"""sysexits EX_CONFIG: somebody has to change something first."""
SWITCH_INTERVAL_S: Final = 0.0005
"""kopf decodes watch events in a thread of its own. With Python's default of 5 ms each answer of the API
server would wait that long for the interpreter while it does.
"""
GC_THRESHOLDS: Final = (10_000, 20, 20)
"""For Python's garbage collector. Thousands of objects are kept for good, and each event, request and answer
makes hundreds of small ones that go by themselves: by default it would look through them after each 700.
"""

__all__ = [
    "EXIT_CONFIG",
    "EXIT_OK",
    "EXIT_UNAVAILABLE",
    "Operator",
    "OperatorSettings",
    "Refusal",
    "main",
    "run",
]

_log = structlog.get_logger()


class Operator:
    """One operator: what it is made of, and one term of leadership after the other."""

    def __init__(self, settings: OperatorSettings, api: KubeApi, registry: PostgresRegistry) -> None:
        self.settings = settings
        self.epoch = 0
        self.watch: KopfWatch | None = None
        self.controller: Controller | None = None
        self.api = api
        self.registry = registry
        self.lease = Lease(
            api,
            *settings.own_lease,
            settings.own_identity,
            scope=settings.scope,
            times=LeaseTimes(settings.lease_duration_s, settings.lease_renew_s, settings.lease_retry_s),
        )
        self.store = KubeStore(
            api, namespaces=settings.scope, identity=settings.own_identity, allowed=lambda: self.lease.valid
        )
        self.deployments = KubernetesDeployments(api, watched=True)
        self.inputs = WatchedInputs(api, namespaces=settings.scope, silence_s=settings.watch_silence_s)
        self.loop_watch = LoopWatch()
        self.hints = NatsHints(
            LinkSettings(settings.nats_url, "beamline-operator", settings.nats_credentials_file)
        )
        self.probe = RegistryProbe(registry.ping)
        self.fold = HealthFold(registry, lambda: self.epoch)
        self.metrics = OperatorMetrics(self._readings())

    def unready(self) -> str | None:
        """What this process misses to do its part; None where nothing."""
        if not self.hints.connected:
            return "NATS is not connected"
        fault = self.probe.fault
        if self.lease.valid and self.controller is None:
            return "leading, but not started yet: PostgreSQL or the API server does not answer"
        if self.lease.valid and self.controller is not None:
            fault = self.controller.registry_fault or fault
        return f"PostgreSQL: {fault}" if fault is not None else None

    def unwell(self) -> str | None:
        """Why this process should be started again; None where it goes on."""
        if self.watch is None or not self.lease.valid:
            return None
        return self.watch.blind(time.monotonic())

    async def serve(self, stop: asyncio.Event) -> None:
        """Competes for the Lease and leads, until ``stop``."""
        while not stop.is_set():
            if not (await unless(stop, self.lease.acquire()))[0]:
                break
            try:
                await self._lead(stop)
            except (RegistryError, StoreError, KubeError, RuntimeError) as error:
                _log.warning("operator.term_ended", reason=str(error))
                await sleep_unless(stop, 1.0)
        await self.lease.release()

    async def _lead(self, stop: asyncio.Event) -> None:
        """One term. Returns when it is over, with everything it started stopped again."""
        over = asyncio.Event()
        async with AsyncExitStack() as stack:
            holder = asyncio.create_task(self._hold(over), name="lease")
            stack.push_async_callback(ended, holder)
            self.epoch = await self._new_epoch(over)
            if over.is_set():
                return
            reconciler = Reconciler(
                self.store,
                self.deployments,
                self.registry,
                self.hints,
                epoch=lambda: self.epoch,
                settings=self.settings.reconcile_settings(os.environ),
                now=lambda: datetime.now(UTC),
                inputs=self.inputs,
            )
            controller = Controller(
                reconciler,
                self.store,
                self.hints,
                self.registry,
                workers=self.settings.workers,
                resync_s=self.settings.resync_s,
                refresh=self._refresh,
                on_fenced=over.set,
                observe=self.metrics.observe,
            )
            await self._refresh()
            stack.push_async_callback(self.inputs.stop)
            await self.inputs.start()
            self.inputs.on_change = controller.enqueue_readers
            self.store.on_change = controller.enqueue
            self.hints.on_report = controller.on_router_report
            self.hints.on_health = partial(self._on_health, controller)
            self.hints.on_act = Acts(reconciler.batcher)
            self.hints.schemas.on_change = controller.enqueue_listeners
            self.hints.objects = self.store.__len__
            stack.callback(self._disconnect)
            await self.hints.probe()
            self.controller = controller
            await controller.start()
            stack.push_async_callback(controller.stop)
            self.watch = KopfWatch(
                self.api,
                namespaces=self.settings.scope,
                silence_s=self.settings.watch_silence_s,
                on_object=lambda document, deleted: _ignore(self.store.observe(document, deleted=deleted)),
                on_owned=partial(self._on_owned, controller),
            )
            self.watch.on_failure = lambda reason: over.set()
            gaps = Gaps(partial(self._close_gap, controller))
            self.watch.on_gap = gaps.opened
            stack.push_async_callback(gaps.stop)
            stack.push_async_callback(self.watch.stop)
            await self.watch.start()
            folding = asyncio.create_task(self.fold.run(), name="health-fold")
            stack.push_async_callback(ended, folding)
            alone = asyncio.create_task(
                stay_alone(self.api, self.settings.scope, self.settings.own_lease, self.lease.acquired),
                name="rivals",
            )
            alone.add_done_callback(lambda task: over.set())
            stack.push_async_callback(ended, alone)
            _log.info("operator.leading", epoch=self.epoch, identity=self.settings.own_identity)
            await first_of(stop, over)
            if alone.done():
                await alone
            if controller.fenced is not None and self.lease.valid:
                raise Refusal(
                    f"another operator writes this registry under another Lease ({controller.fenced}): "
                    "find it with `kubectl get lease -A` and stop one, or give both the same "
                    "BEAMLINE_LEASE_NAMESPACE and BEAMLINE_LEASE_NAME"
                )

    async def _new_epoch(self, over: asyncio.Event) -> int:
        """Waits for PostgreSQL where it is away: nothing can be decided without it being fenced first."""
        while not over.is_set():
            try:
                return await self.registry.acquire_epoch(self.settings.own_identity)
            except RegistryUnavailableError as error:
                _log.warning("operator.registry_unavailable", error=str(error))
                with suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), 2.0)
        return 0

    async def _hold(self, over: asyncio.Event) -> None:
        try:
            await self.lease.hold()
        finally:  # whatever ends it: nobody leads without it
            over.set()

    async def _refresh(self) -> set[tuple[str, str]]:
        """The truth, listed: kopf does not tell of deletions that happened while a watch was broken. Returns
        namespace and name of the workloads that changed unseen.
        """
        await self.store.relist()
        return await relist_owned(self.api, self.deployments, self.settings.scope)

    async def _close_gap(self, controller: Controller) -> None:
        for namespace, name in await self._refresh():
            controller.enqueue_workload(namespace, name)

    def _on_owned(
        self, controller: Controller, kind: str, document: Mapping[str, Any], deleted: bool
    ) -> None:
        self.deployments.observe(kind, document, deleted=deleted)
        controller.enqueue_workload(document["metadata"]["namespace"], document["metadata"]["name"])

    def _on_health(self, controller: Controller, report: RouterHealth) -> None:
        self.fold.add(report)
        controller.on_health(report)

    def _disconnect(self) -> None:
        self.store.on_change = _ignore
        self.hints.on_report = _ignore
        self.hints.on_health = _ignore
        self.hints.on_act = None
        self.hints.objects = lambda: 0
        self.hints.schemas.on_change = _ignore
        self.inputs.on_change = _ignore
        self.controller = None

    def _readings(self) -> Readings:
        return Readings(
            queue_depth=lambda: len(self.controller.queue) if self.controller is not None else 0,
            leading=lambda: self.lease.valid,
            routers=lambda: len(self.hints.routers()),
            objects=lambda: {kind: len(self.store.list(kind)) for kind in KINDS},
            api_calls=lambda: self.api.calls,
            drift_repairs=self._repairs,
            loop_blocks=lambda: self.loop_watch.blocks,
            watch_events=lambda: self.watch.events if self.watch is not None else 0,
            watch_age_s=self._watch_age,
        )

    def _repairs(self) -> dict[str, int]:
        rows = self.controller.drift_repairs if self.controller is not None else 0
        return {"row": rows, **self.deployments.repairs}

    def _watch_age(self) -> float | None:
        last = self.watch.last_event if self.watch is not None else None
        return asyncio.get_running_loop().time() - last if last is not None else None


async def run(
    settings: OperatorSettings, *, stop: asyncio.Event | None = None, ready: asyncio.Event | None = None
) -> None:
    """Runs one operator until ``stop``. Sets ``ready`` once probes are answered.

    Raises :class:`Refusal` where somebody has to do something first, ``KubeError`` where the API server does
    not answer.
    """
    stop = stop or asyncio.Event()
    async with AsyncExitStack() as stack:
        api = await KubeApi.connect(settings.kubeconfig, settings.kube_context)
        stack.push_async_callback(api.close)
        await check_cluster(api, settings.scope)
        await check_lease(api, *settings.own_lease)
        if (sentence := await check_schema(settings.database_url)) is not None:
            raise Refusal(sentence)
        await check_alone(api, settings.scope, settings.own_lease)
        registry = await PostgresRegistry.connect(settings.database_url, application="beamline-operator")
        stack.push_async_callback(registry.close)
        operator = Operator(settings, api, registry)
        health = HealthServer(
            settings.metrics_port,
            host=settings.metrics_host,
            ready=operator.unready,
            live=operator.unwell,
            registry=operator.metrics.registry,
        )
        await health.start()
        stack.push_async_callback(health.stop)
        await operator.loop_watch.start()
        stack.push_async_callback(operator.loop_watch.stop)
        probing = asyncio.create_task(operator.probe.run(), name="registry-probe")
        stack.push_async_callback(ended, probing)
        await operator.hints.start()
        stack.push_async_callback(operator.hints.stop)
        _log.info("operator.started", port=health.port, scope=list(settings.scope) or "all", group=GROUP)
        if ready is not None:
            ready.set()
        await operator.serve(stop)
    _log.info("operator.stopped")


def main() -> int:
    """The process: reads the environment, runs until SIGTERM or SIGINT, returns the exit code."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(*GC_THRESHOLDS)
    settings = OperatorSettings()  # type: ignore[call-arg]  # the environment gives what has no default
    logs.configure("operator", level=settings.log_level, silent=settings.log_silent)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_until_signalled(settings))
    except (Refusal, HealthServerError) as error:
        sys.stderr.write(f"beamline operator: {error}\n")
        return EXIT_CONFIG
    except RegistryError as error:
        sys.stderr.write(f"beamline operator: {error}: check BEAMLINE_DATABASE_URL\n")
        return EXIT_CONFIG
    except KubeError as error:
        sys.stderr.write(f"beamline operator: {error}\n")
        return EXIT_CONFIG if error.reason == "NoCredentials" else EXIT_UNAVAILABLE
    return EXIT_OK


async def _until_signalled(settings: OperatorSettings) -> None:
    stop = asyncio.Event()
    with signals.handled(stop):
        await run(settings, stop=stop)


def _ignore(*_: object) -> None:
    """Nobody is interested."""
