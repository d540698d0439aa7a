"""The run: one connection, one instance at a time, check after check.

A check never stops those behind it: what it raises is its result, and a process that died of it is replaced,
so that one fault is one failure. Each check has a bounded time. At the end no process is left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from beamline_sdk.link import LinkError, LinkSettings, close, connect

from .caller import Caller
from .checks import CHECKS
from .processes import Launcher, LaunchError
from .results import Check, CheckResult, FailedError, NotCheckedError, Outcome, Report
from .session import READY_SECONDS, Session
from .target import Target

CHECK_SECONDS: Final = 90.0
CONNECT_SECONDS: Final = 5.0


class NobodyListensError(ConnectionError):
    """The extension can't be reached, so nothing can be said about it; the text is one sentence."""


async def run_suite(
    target: Target,
    *,
    nats_url: str,
    credentials_file: str | None = None,
    launcher: Launcher | None = None,
    checks: Sequence[Check] = CHECKS,
    on_result: Callable[[CheckResult], None] = lambda _: None,
) -> Report:
    """Checks one extension; ``on_result`` hears of each check when it ends.

    Raises :class:`NobodyListensError` where there is nobody to ask, :class:`LaunchError` where the command
    can't be started.
    """
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            nc = await connect(LinkSettings(nats_url, "conformance", credentials_file))
    except (TimeoutError, LinkError, OSError) as error:
        raise NobodyListensError(f"no NATS server answers at {nats_url}") from error
    session = Session(target, Caller(nc, target.subject), nats_url, launcher)
    try:
        await _begin(session)
        results = []
        for check in checks:
            results.append(await _run(check, session))
            on_result(results[-1])
        return Report(target.subject, target.extension_id, target.kind, tuple(results))
    finally:
        if launcher is not None:
            launcher.kill_all()
        await close(nc, grace_s=2.0)


async def _begin(session: Session) -> None:
    try:
        if session.launcher is not None:
            session.instance = await session.launch()
        else:
            await session.caller.ask(session.target.request(), seconds=10.0)
    except TimeoutError as error:
        assert session.launcher is not None
        words = session.launcher.started[-1].last_words() if session.launcher.started else ""
        raise NobodyListensError(
            f"the process did not answer on {session.target.subject} within {READY_SECONDS:g} s: {words}"
        ) from error
    except FailedError as error:
        raise NobodyListensError(f"{session.target.subject}: {error}") from error


async def _run(check: Check, session: Session) -> CheckResult:
    started = time.monotonic()
    was_running = session.instance is not None and session.instance.exit_code is None
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            outcome, detail = Outcome.PASSED, await check.run(session)
    except NotCheckedError as reason:
        outcome, detail = Outcome.NOT_CHECKED, str(reason)
    except FailedError as failure:
        outcome, detail = Outcome.FAILED, str(failure)
    except TimeoutError:
        outcome, detail = Outcome.FAILED, f"not done within {CHECK_SECONDS:g} s"
    instance = session.instance
    if was_running and instance is not None and instance.exit_code is not None and check.id != "drain":
        words = f"the process ended with exit code {instance.exit_code}: {instance.last_words()}"
        outcome, detail = Outcome.FAILED, f"{detail}; {words}"
        await _replace(session)
    return CheckResult(check, outcome, detail, time.monotonic() - started)


async def _replace(session: Session) -> None:
    """Another instance for the next check; one that can't start is that check's failure."""
    session.instance = None
    try:
        session.instance = await session.launch()
    except (FailedError, TimeoutError, LaunchError):
        session.instance = session.launcher.started[-1] if session.launcher is not None else None
