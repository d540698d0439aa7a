"""What is seen only of a process of one's own: its probes, its end and its log."""

from __future__ import annotations

import asyncio
from typing import Final

from .processes import EXIT_SECONDS, Instance
from .results import FailedError, NotCheckedError
from .session import Session

_IN_FLIGHT: Final = 24
_WORK_MS: Final = 400
_PAYLOAD_SHOWN: Final = "the log of an instance holds a prompt"


def _own(session: Session) -> Instance:
    if session.instance is None:
        raise NotCheckedError("needs a process of its own: --command or --image")
    return session.instance


async def probes(session: Session) -> str:
    """All three answer 200 while it serves."""
    instance = _own(session)
    for path in ("/healthz", "/readyz", "/metrics"):
        status = await instance.probe(path)
        if status != 200:
            raise FailedError(f"GET {path} on METRICS_PORT {'answers ' + str(status) if status else 'fails'}")
    return "all three on METRICS_PORT"


async def drain(session: Session) -> str:
    """SIGTERM while requests are in work: each is answered, and the process ends with 0."""
    instance = _own(session)
    requests = [session.slow_request(_WORK_MS) for _ in range(_IN_FLIGHT)]
    goal = session.caller.sent + _IN_FLIGHT
    asked = [asyncio.create_task(session.answered(request)) for request in requests]
    # All requests are with the server before the signal: the flush comes back behind them.
    while session.caller.sent < goal:  # noqa: ASYNC110 -- a counter of this loop, for a moment
        await asyncio.sleep(0.005)
    await session.caller.nc.flush()
    await asyncio.sleep(_WORK_MS / 4000)
    instance.terminate()
    found = await asyncio.gather(*asked, return_exceptions=True)
    lost = [one for one in found if isinstance(one, BaseException)]
    code = await instance.exited()
    if lost:
        raise FailedError(f"{len(lost)} of {_IN_FLIGHT} requests were lost: {lost[0]}")
    if code is None:
        raise FailedError(f"it still runs {EXIT_SECONDS:g} s after SIGTERM")
    if code != 0:
        raise FailedError(f"it ended with exit code {code}: {instance.last_words()}")
    return f"{_IN_FLIGHT} requests in work, all answered"


async def logs(session: Session) -> str:
    """The canary is in no line that any instance has printed, at log level debug."""
    _own(session)
    assert session.launcher is not None
    lines = 0
    for instance in session.launcher.started:
        output = instance.output()
        lines += output.count("\n")
        if session.target.canary in output:
            line = next(line for line in output.splitlines() if session.target.canary in line)
            raise FailedError(f"{_PAYLOAD_SHOWN}: {line[:120]}")
    return f"{lines} lines at level debug"
