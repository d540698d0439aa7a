"""The admin process: one HTTP server on one event loop, and a few connections to PostgreSQL that it reads
with.

It starts without waiting for the database: ``/readyz`` says when that answers, and so does every page. It
ends on ``stop``, SIGTERM or SIGINT: no new connections, answers under way finished (at most 10 s), the pool
closed.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from beamline_contract import __version__
from beamline_contract.errors import ErrorCode
from beamline_registry.port import (
    RegistryAudit,
    RegistryError,
    RegistryReader,
    RegistryUnavailableError,
    SchemaError,
)
from beamline_registry.postgres import PostgresRegistry
from beamline_sdk import logs, signals
from beamline_sdk.listening import ListenError
from beamline_sdk.waiting import ended

from .api import PREFIX, api
from .audit_api import audit_api
from .catalogue import Catalogue
from .change_api import change_api
from .events_api import events_api
from .gate import App, Gate, problem_answer
from .identity import Authenticator, LoopbackToken, Sessions, Verifier
from .inspector.site import Parts, Site
from .limits import Rate
from .live.watcher import Watcher
from .live_api import live_api
from .objects.port import Objects
from .outside import Outside, OutsideError
from .playground_api import playground_api
from .playground_stream import playground_stream
from .problems import AdminCode, ProblemError
from .routers import Routers
from .runtime_api import runtime_api
from .server import HttpServer
from .settings import AdminSettings
from .telemetry import Telemetry, probes
from .trail_api import trail_api
from .writing import Writer

log = structlog.get_logger()

EXIT_CONFIG: Final = 78
"""sysexits.h EX_CONFIG: starting again will not help until somebody changes something."""


class StartError(RuntimeError):
    """The admin process can't run; the message is one sentence for the person who started it."""

    exit_code: Final = EXIT_CONFIG


@dataclass(frozen=True, slots=True)
class RunningAdmin:
    """An admin process that listens. ``login_url`` holds the token: show it, but write it nowhere."""

    settings: AdminSettings
    http_url: str
    login_url: str


async def run(
    settings: AdminSettings,
    *,
    ready: Callable[[RunningAdmin], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Runs until ``stop`` is set or SIGTERM or SIGINT arrives. ``ready`` is called once, when it listens.

    Raises :class:`StartError` where it can't run: the address is taken, or the database URL is none.
    """
    stop = stop or asyncio.Event()
    try:
        registry = await PostgresRegistry.connect(settings.database_url, application="beamline admin")
    except RegistryError as error:
        raise StartError(str(error)) from error
    try:
        token = settings.token.get_secret_value()
        outside = await Outside.open(settings, registry)
    except OutsideError as error:
        await registry.close()
        raise StartError(str(error)) from error
    try:
        watcher = Watcher(
            Catalogue(registry),
            registry,
            routers=outside.routers,
            objects=outside.objects,
            first=time.time_ns() // 1_000,
        )
        app = application(
            registry,
            registry,
            token,
            objects=outside.objects,
            routers=outside.routers,
            verifiers=outside.verifiers,
            rate=settings.rate,
            watcher=watcher,
            content=settings.trail_content,
        )
        server = HttpServer(app, settings.http_host, settings.http_port)
        url = f"http://{_authority(settings.http_host)}:{server.port}"
        with signals.handled(stop):
            try:
                server.start()
                looking = asyncio.create_task(watcher.run(), name="watcher")
                log.info("admin.listening", url=url)
                if ready is not None:
                    ready(RunningAdmin(settings, url, f"{url}/?{urlencode({'token': token})}"))
                await server.until(stop)
            finally:
                log.info("admin.stopping")
                watcher.close()
                await server.stop()
                await ended(looking)
    except ListenError as error:
        raise StartError(str(error)) from error
    finally:
        await outside.close()
        await registry.close()


def main() -> int:
    """``python -m beamline_admin``: settings from the environment; returns the exit code."""
    try:
        settings = AdminSettings.from_environment()
        logs.configure("admin", level=settings.log_level, silent=settings.log_silent)
        asyncio.run(run(settings, ready=announce))
    except (StartError, ValueError) as error:
        sys.stderr.write(f"beamline admin: {error}\n")
        return EXIT_CONFIG
    return 0


def announce(running: RunningAdmin) -> None:
    """Tells the person at the terminal where to click. On stdout: a token has no place in a log."""
    generated = running.settings.token_is_generated
    sys.stdout.write(f"inspector: {running.login_url if generated else running.http_url}\n")
    sys.stdout.flush()


def application(
    reader: RegistryReader,
    audit: RegistryAudit,
    token: str,
    *,
    clock: Callable[[], float] = time.monotonic,
    objects: Objects | None = None,
    routers: Routers | None = None,
    verifiers: Sequence[Verifier] = (),
    rate: float = 1_000.0,
    watcher: Watcher | None = None,
    content: bool = False,
) -> App:
    """The ASGI application: the gate, and behind it API, pages and probes.

    ``clock`` is monotonic seconds; ``rate`` is requests per second and caller. ``watcher`` is one that runs;
    without it one is made that only looks when asked. ``content`` lets admins ask for prompts and answers.
    """
    tokens = Authenticator([LoopbackToken(token), *verifiers])
    telemetry, sessions = Telemetry(), Sessions(clock, tokens)
    catalogue = Catalogue(reader)
    return Gate(
        web(
            catalogue,
            audit,
            tokens,
            sessions,
            telemetry,
            objects=objects,
            routers=routers,
            watcher=watcher,
            content=content,
        ),
        tokens=tokens,
        sessions=sessions,
        telemetry=telemetry,
        rate=Rate(rate, max(1, int(2 * rate)), clock),
    )


def web(
    catalogue: Catalogue,
    audit: RegistryAudit,
    tokens: Authenticator,
    sessions: Sessions,
    telemetry: Telemetry,
    *,
    objects: Objects | None = None,
    routers: Routers | None = None,
    watcher: Watcher | None = None,
    content: bool = False,
) -> FastAPI:
    """What stands behind the gate. FastAPI's own documentation pages load scripts from elsewhere, so they are
    off.
    """
    app = FastAPI(
        title="Beamline admin API",
        version=__version__,
        summary="See what runs, who changed it, and change it: extensions, policies, routers, audit.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        separate_input_output_schemas=False,
        redirect_slashes=False,
    )
    writer = Writer(objects, catalogue)
    watcher = watcher or Watcher(catalogue, audit, routers=routers, objects=objects)
    site = Site(Parts(catalogue, audit, writer, routers, watcher), tokens, sessions)
    app.include_router(probes(catalogue, telemetry))
    app.include_router(
        api(
            catalogue,
            audit,
            audit_api(catalogue, audit),
            change_api(writer),
            runtime_api(routers, catalogue),
            live_api(watcher, catalogue, writer),
            events_api(watcher),
            trail_api(watcher, content=content),
            playground_api(watcher),
            playground_stream(watcher),
        )
    )
    app.include_router(site.routes(), include_in_schema=False)

    def answer(request: Request, error: ProblemError) -> Response:
        path, request_id = request.url.path, request.state.request_id
        if path.startswith("/api/"):
            return problem_answer(error, request_id)
        return site.problem(request, error, request_id)

    @app.exception_handler(ProblemError)
    async def refused(request: Request, error: ProblemError) -> Response:
        return answer(request, error)

    @app.exception_handler(RegistryError)
    async def unavailable(request: Request, error: RegistryError) -> Response:
        log.warning("admin.registry_failed", error=str(error), request_id=request.state.request_id)
        if not isinstance(error, RegistryUnavailableError | SchemaError):
            return await broken(request, error)
        problem = ProblemError(
            ErrorCode.UNAVAILABLE,
            "the registry does not answer",
            hint="routers go on with what they have; try again",
        )
        return answer(request, problem)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        """The gate logs it; the answer says nothing about it."""
        return answer(
            request, ProblemError(ErrorCode.INTERNAL, f"the admin process failed ({type(error).__name__})")
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:])
        message = "is not a parameter here" if first["type"] == "extra_forbidden" else first["msg"]
        return answer(request, ProblemError(ErrorCode.INVALID_ARGUMENT, f"{field}: {message}", field=field))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            problem = ProblemError(
                AdminCode.NOT_FOUND, "there is nothing at this path", hint=f"the API is under {PREFIX}"
            )
        else:
            problem = ProblemError(ErrorCode.INVALID_ARGUMENT, str(error.detail), status=error.status_code)
        response = answer(request, problem)
        response.headers.update(error.headers or {})
        if error.status_code == 405 and (methods := allowed(app, request.url.path)):
            response.headers["allow"] = ", ".join(methods)
        return response

    return app


def allowed(app: FastAPI, path: str) -> list[str]:
    """The methods of ``path`` by the OpenAPI document; none for a page. A path that is named there as it is
    goes before those that only fit it.
    """
    paths: dict[str, Any] = app.openapi()["paths"]
    if path in paths:
        return sorted(method.upper() for method in paths[path])
    return sorted(
        {
            method.upper()
            for template, methods in paths.items()
            if re.fullmatch(re.sub(r"{[a-z_]+}", "[^/]+", template), path)
            for method in methods
        }
    )


def _authority(host: str) -> str:
    return f"[{host}]" if ":" in host else host
