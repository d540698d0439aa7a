"""The parts of the laptop world, and the order in which they start and stop.

Start: NATS and PostgreSQL; the schema; then, side by side, the router and the reconcile core, which starts
the extensions. Stop, the other way round, so that no answer is lost: the router finishes its requests while
the extensions still serve; the core comes to rest; the extensions, NATS' and PostgreSQL's clients, and last
the two servers.

PostgreSQL and NATS are started from the main thread, because Linux ends them when the thread that started
them ends. Meanwhile the modules of the reconcile core are imported by another one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Final

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.local.nats import LocalNats
from beamline_cli.local.postgres import LocalPartError, LocalPostgres

from .admin import AdminPart
from .plan import Plan
from .progress import Progress

if TYPE_CHECKING:
    from beamline_contract.reports import RouterHealth
    from beamline_operator.core.controller import Controller
    from beamline_operator.edges.files import Changes, FileStore
    from beamline_operator.edges.nats_hints import NatsHints
    from beamline_registry.postgres import PostgresRegistry
    from beamline_sdk.deployment.process import ProcessDeployments
    from beamline_sdk.deployment.supervisor import ProcessHealth, Supervised
    from beamline_sdk.deployment.watchdog import Watchdog

DATABASE: Final = "beamline"
POSTGRES_SETTINGS: Final = {"max_connections": "50", "shared_buffers": "32MB", "synchronous_commit": "off"}
_EPHEMERAL_SETTINGS: Final = {"fsync": "off", "full_page_writes": "off"}
_ROLES: Final = ("beamline_operator", "beamline_router")
_DOOR_VARIABLES: Final = (
    "BEAMLINE_API_KEYS",
    "BEAMLINE_ANONYMOUS",
    "BEAMLINE_NATS_KEYS",
    "BEAMLINE_LIMITS_FILE",
    "BEAMLINE_TENANT_",
    "BEAMLINE_TRAIL_CONTENT",
)
"""Keys and limits of the router's doors, and whether a watch may see content, taken over from the caller's
environment.
"""
_ROUTER_STOP_S: Final = 30.0
_LOOK_S: Final = 1.0
_PARTS: Final = (
    "asyncpg",
    "watchfiles",
    "beamline_operator.core.controller",
    "beamline_operator.edges.files",
    "beamline_operator.edges.health_fold",
    "beamline_operator.edges.nats_hints",
    "beamline_registry.migrate",
    "beamline_registry.postgres",
    "beamline_sdk.deployment.process",
)


class World:
    """Everything that runs for one ``beamline up``. Parts are there from their start on."""

    def __init__(self, plan: Plan, progress: Progress, environ: Mapping[str, str]) -> None:
        self.plan = plan
        self.on_router: Callable[[ProcessHealth], None] = _ignore
        self.on_workload: Callable[[str, str], None] = _ignore
        self.nats = LocalNats(port=plan.nats_port, log=plan.logs / "nats.log")
        settings = POSTGRES_SETTINGS | (_EPHEMERAL_SETTINGS if plan.ephemeral else {})
        self.postgres = LocalPostgres(
            plan.state_folder / "postgres" / "data", log=plan.logs / "postgres.log", settings=settings
        )
        self.store: FileStore | None = None
        self.loaded: Changes | None = None
        self.controller: Controller | None = None
        self.deployments: ProcessDeployments | None = None
        self.router: Supervised | None = None
        self.admin: AdminPart | None = None
        self.hints: NatsHints | None = None
        self._registry: PostgresRegistry | None = None
        self._fold: asyncio.Task[None] | None = None
        self._watchdog: Watchdog | None = None
        self.progress = progress
        self._environ = environ

    @property
    def url(self) -> str:
        """Where the router answers."""
        host = f"[{self.plan.host}]" if ":" in self.plan.host else self.plan.host
        return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{self.plan.port}"  # noqa: S104 -- compared only

    async def start_servers(self) -> None:
        """NATS and PostgreSQL with its schema. Raises :class:`CliError`."""
        imports = asyncio.get_running_loop().run_in_executor(None, _import_parts)
        try:
            with self.progress.step("nats", "started"):
                self.nats.start()
            with self.progress.step("postgresql", "started"):
                self.postgres.start()
        except LocalPartError as error:
            raise CliError(str(error), ExitCode.UNAVAILABLE) from error
        except OSError as error:
            raise CliError(f"a server can't be started: {error}", ExitCode.UNAVAILABLE) from error
        finally:
            await imports
        await self._prepare_database()

    async def start_core(self) -> None:
        """The router, and the reconcile core, which starts the extensions. Raises :class:`CliError`."""
        from beamline_operator.core.controller import Controller
        from beamline_operator.core.ports import StoreError
        from beamline_operator.core.reconciler import Reconciler
        from beamline_operator.core.settings import ReconcileSettings
        from beamline_operator.edges.acts import Acts
        from beamline_operator.edges.files import FileStore
        from beamline_operator.edges.health_fold import HealthFold
        from beamline_operator.edges.nats_hints import NatsHints
        from beamline_registry.postgres import PostgresRegistry
        from beamline_sdk.deployment.process import ProcessDeployments
        from beamline_sdk.deployment.watchdog import Watchdog
        from beamline_sdk.link import LinkSettings

        plan = self.plan
        self.store = FileStore(plan.folder, plan.state_folder)
        try:
            self.loaded = self.store.load()
        except StoreError as error:
            raise CliError(str(error), ExitCode.CONFIGURATION) from error
        self._watchdog = Watchdog()
        self._start_router()
        if plan.admin:
            self.admin = AdminPart(self, self._environ, self._watchdog)
            self.admin.process.start()
        url = self.postgres.url(DATABASE, "beamline_operator")
        self._registry = await PostgresRegistry.connect(url, application="beamline up")
        epoch = await self._registry.acquire_epoch(f"beamline up {os.getpid()}")
        self.hints = NatsHints(LinkSettings(self.nats.url, "beamline up"))
        self.deployments = ProcessDeployments(
            plan.logs,
            cwd=plan.folder,
            environ=self._environ,
            on_change=self._workload_changed,
            watchdog=self._watchdog,
        )
        reconciler = Reconciler(
            self.store,
            self.deployments,
            self._registry,
            self.hints,
            epoch=lambda: epoch,
            settings=ReconcileSettings(
                nats_url=self.nats.url,
                log_level=plan.log_level,
                passed_env={name: value for name, value in self._environ.items() if name.startswith("OTEL_")},
            ),
            now=lambda: datetime.now(UTC),
        )
        self.controller = Controller(reconciler, self.store, self.hints, self._registry)
        self.hints.on_report = self.controller.on_router_report
        fold = HealthFold(self._registry, lambda: epoch)
        self.hints.on_health = partial(_both, fold.add, self.controller.on_health)
        self.hints.on_act = Acts(reconciler.batcher)
        self.hints.schemas.on_change = self.controller.enqueue_listeners
        self._fold = asyncio.create_task(fold.run(), name="health-fold")
        await self.hints.start()
        await self.controller.start()

    async def keep_servers(self) -> None:
        """Starts PostgreSQL or NATS again when one of them ends: everybody else reconnects by themselves."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for name, server in (("postgresql", self.postgres), ("nats", self.nats)):
                if server.running:
                    continue
                self.progress.line("crashed", f"{name} ended; it is started again", "red")
                try:
                    server.start()
                except (LocalPartError, OSError) as error:
                    self.progress.line("failed", f"{name}: {error}", "red")
                else:
                    self.progress.line("restarted", f"{name} (process {server.pid})", "green")

    async def stop(self) -> None:
        """Stops every part that was started, in order. More than once is fine; one that fails does not keep
        the rest.
        """
        if self.admin is not None:
            await _quietly(self.admin.process.stop())
        if self.router is not None:
            await _quietly(self.router.stop())
        if self.controller is not None:
            await _quietly(self.controller.stop())
        if self.deployments is not None:
            await _quietly(self.deployments.stop())
        if self._fold is not None:
            self._fold.cancel()
            await asyncio.wait({self._fold})
        if self.hints is not None:
            await _quietly(self.hints.stop())
        if self._registry is not None:
            await _quietly(self._registry.close())
        if self._watchdog is not None:
            self._watchdog.stop()
        self.nats.stop()
        self.postgres.stop()
        if self.plan.ephemeral:
            shutil.rmtree(self.plan.state_folder, ignore_errors=True)

    def kill(self) -> None:
        """Ends every process at once."""
        if self.admin is not None:
            self.admin.process.kill()
        if self.router is not None:
            self.router.kill()
        if self.deployments is not None:
            self.deployments.kill()
        self.nats.stop(signal.SIGKILL)
        self.postgres.stop()
        if self.plan.ephemeral:
            shutil.rmtree(self.plan.state_folder, ignore_errors=True)

    def _router_changed(self, health: ProcessHealth) -> None:
        self.on_router(health)

    def _workload_changed(self, namespace: str, name: str) -> None:
        from beamline_contract.objects import ObjectKey

        if self.controller is not None:
            self.controller.enqueue(ObjectKey("Extension", namespace, name))
        self.on_workload(namespace, name)

    def _start_router(self) -> None:
        from beamline_sdk.deployment.environment import BEAMLINE, inherited
        from beamline_sdk.deployment.supervisor import ProcessSpec, Supervised, Timing

        plan = self.plan
        env = inherited(self._environ) | {
            "NATS_URL": self.nats.url,
            "BEAMLINE_DATABASE_URL": self.postgres.url(DATABASE, "beamline_router"),
            "BEAMLINE_HTTP_HOST": plan.host,
            "BEAMLINE_SNAPSHOT_FILE": str(plan.state_folder / "router-snapshot.json"),
            "LOG_LEVEL": plan.log_level,
        }
        passed = ("OTEL_", *_DOOR_VARIABLES)
        env |= {name: value for name, value in self._environ.items() if name.startswith(passed)}
        for name in env.keys() & {"BEAMLINE_API_KEYS", "BEAMLINE_LIMITS_FILE"}:
            env[name] = os.path.abspath(env[name])  # the router runs in the folder of the manifests
        spec = ProcessSpec(
            name="router",
            command=(*BEAMLINE, "router"),
            env=env,
            cwd=plan.folder,
            log=plan.logs / "router.log",
            port_variable="BEAMLINE_HTTP_PORT",
            port=plan.port,
        )
        self.router = Supervised(
            spec,
            timing=Timing(stop_s=_ROUTER_STOP_S),
            on_change=self._router_changed,
            watchdog=self._watchdog,
        )
        self.router.start()

    async def _prepare_database(self) -> None:
        import asyncpg

        from beamline_registry.migrate import migrate
        from beamline_registry.port import RegistryError

        try:
            connection = await asyncpg.connect(self.postgres.url())
            try:
                if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                    await connection.execute(f"CREATE DATABASE {DATABASE}")
                done = await migrate(self.postgres.url(DATABASE))
                if done:
                    for role in _ROLES:
                        await connection.execute(f"ALTER ROLE {role} LOGIN")
            finally:
                await connection.close()
        except (RegistryError, asyncpg.PostgresError) as error:
            raise CliError(f"the registry can't be prepared: {error}", ExitCode.CONFIGURATION) from error
        applied = f"schema created by {len(done)} migrations" if done else "schema up to date"
        self.progress.line("registry", applied)


def _both(
    first: Callable[[RouterHealth], None], then: Callable[[RouterHealth], None], report: RouterHealth
) -> None:
    first(report)
    then(report)


def _ignore(*_: object) -> None:
    """Nobody listens."""


def _import_parts() -> None:
    """What the core needs, imported while the servers start."""
    for name in _PARTS:
        import_module(name)


async def _quietly(stopping: Awaitable[None]) -> None:
    """One part that can't stop in order must not keep the others running."""
    import structlog

    try:
        await stopping
    except Exception:  # noqa: BLE001 -- see above
        structlog.get_logger().exception("up.stop_failed")
