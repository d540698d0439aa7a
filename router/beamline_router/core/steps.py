"""Pre, validator and post steps: one extension, its failure mode, and its entry in the trail.

A step ends with a value (its patch or verdict), with SKIPPED (it failed and is ``open``), or with the error
that ends the request. With ``fallback`` the other extension is asked once the first has failed; if that fails
too, the default mode of the type decides: pre and post are skipped, a validator ends the request.

A shadow step is sent what an enforced one would get and runs in a task of its own: the request never waits
for it, its result goes into trail and metrics only. There are at most MAX_SHADOWS of them; beyond that they
are dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, Final, TypeAlias

import orjson
import structlog

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.extension import default_failure_mode

from .invoke import Invocation, Invoker
from .ports import Recorder
from .replies import Patch, ProviderReply, Verdict
from .request import StepTrace
from .route import Call, Step
from .run import Run

MAX_SHADOWS: Final = 1_000
MAX_NOTES: Final = 2_048
"""Bytes of JSON that a validator's notes may have to be shown in the trail; longer ones are left out."""

_log = structlog.get_logger()


class Skip(Enum):
    """The step failed, and the request goes on without it."""

    SKIPPED = "skipped"


SKIPPED: Final = Skip.SKIPPED
StepResult: TypeAlias = Patch | Verdict | Skip | WireError


class StepRunner:
    """Runs steps other than select_provider."""

    def __init__(self, invoker: Invoker, recorder: Recorder, clock: Callable[[], float]) -> None:
        self._invoker = invoker
        self._recorder = recorder
        self._clock = clock
        self._shadows: set[asyncio.Task[None]] = set()

    def draw(self) -> float:
        """For :meth:`run`, where one answer is shown to a step in several parts."""
        return self._invoker.draw()

    async def run(self, run: Run, step: Step, draw: float | None = None) -> StepResult:
        """Runs one enforced step; the error, if any, says where it happened. ``draw``: which version it
        meets.
        """
        began = self._clock()
        call = step.call
        if call.versions:
            call = self._invoker.version(run, call, draw)
        try:
            done = await self._invoker.invoke(run, call, run.payload(call))
        except BaseException as fault:
            self._note_broken(run, step, call, fault, began)
            raise
        last_resort = step.failure_mode
        if done.error is not None and step.fallback is not None:
            self._note(run, step, call, "error", done, began=began)
            began = self._clock()
            call = self._invoker.version(run, step.fallback, draw)
            try:
                done = await self._invoker.invoke(run, call, run.payload(call))
            except BaseException as fault:
                self._note_broken(run, step, call, fault, began)
                raise
            last_resort = default_failure_mode(call.type)
        value, error = done.value, done.error
        if error is None:
            if isinstance(value, Verdict) and not value.passed:
                self._note(run, step, call, "rejected", done, began=began)
                return _rejection(step, call, value, done.attempts)
            self._note(run, step, call, "ok", done, began=began)
            assert value is not None
            assert not isinstance(value, ProviderReply)
            if isinstance(value, Verdict) and value.details and len(orjson.dumps(value.details)) <= MAX_NOTES:
                run.trail[-1].notes = value.details
            return value
        if last_resort == "open":
            self._note(run, step, call, "skipped", done, began=began)
            return SKIPPED
        self._note(run, step, call, "error", done, began=began)
        return error.at(step=step.name, extension_id=call.extension_id, attempts=done.attempts)

    async def run_group(
        self,
        run: Run,
        steps: tuple[Step, ...],
        beside: Coroutine[Any, Any, WireError | None] | None = None,
        *,
        passed: Callable[[], None] | None = None,
    ) -> WireError | None:
        """Runs validators side by side; the first that ends the request ends the others too.

        ``beside`` runs with them (the provider call that validators with ``overlap`` judge). What it found
        leaves here only when every one of them has passed; until then it is cancelled with the rest.
        ``passed`` is called once they have, and ``beside`` may still run.
        """
        tasks: list[asyncio.Task[StepResult | None]] = [
            asyncio.create_task(self.run(run, step)) for step in steps
        ]
        if beside is not None:
            tasks.append(asyncio.create_task(beside))
        try:
            error = await _first_error(tasks, len(steps), passed)
        except BaseException as fault:
            await _end(run, tasks, told=fault)
            raise
        if error is not None:
            await _end(run, tasks)
        return error

    def shadow(self, run: Run, step: Step) -> None:
        """Starts a shadow step and returns at once."""
        call = self._invoker.version(run, step.call)
        entry = StepTrace(
            step.name,
            step.action,
            call.extension_id,
            "shadow",
            0.0,
            attempts=0,
            version=call.version,
            began=self._clock(),
        )
        run.trail.append(entry)
        if len(self._shadows) >= MAX_SHADOWS:
            self._recorder.dropped(call.extension_id, "shadow")
            return
        task = asyncio.create_task(self._run_shadow(run, call, run.payload(call), entry))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def close(self) -> None:
        """Ends shadow steps that still run, and returns when they have."""
        tasks = list(self._shadows)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_shadow(self, run: Run, call: Call, payload: bytes, entry: StepTrace) -> None:
        began = self._clock()
        outcome, reason = "ok", None
        try:
            done = await self._invoker.invoke(run, call, payload)
        except asyncio.CancelledError:
            self._recorder.step(call.extension_id, call.type, "error", "CANCELLED", self._clock() - began)
            raise
        except Exception as fault:  # noqa: BLE001 -- nobody awaits this task, so its faults end here
            _log.error("pipeline.shadow_fault", extension_id=call.extension_id, type=type(fault).__name__)
            outcome, reason = "error", ErrorCode.INTERNAL.value
            entry.attempts = run.broken_off_at
        else:
            entry.attempts = done.attempts
            if done.error is not None:
                outcome, reason = "error", done.error.code.value
            elif isinstance(done.value, Verdict) and not done.value.passed:
                outcome, reason = "rejected", ErrorCode.VALIDATION_REJECTED.value
        seconds = self._clock() - began
        entry.ms, entry.reason = seconds * 1000, reason
        self._recorder.step(call.extension_id, call.type, outcome, reason, seconds)
        if (spans := run.request.spans) is not None:
            spans.step(
                entry.step,
                call,
                outcome,
                reason=reason,
                attempts=entry.attempts,
                why="shadow",
                began=began,
                seconds=seconds,
            )

    def _note_broken(self, run: Run, step: Step, call: Call, fault: BaseException, began: float) -> None:
        code = ErrorCode.INTERNAL if isinstance(fault, Exception) else ErrorCode.CANCELLED
        ended = Invocation(error=WireError.of(code, ""), attempts=run.broken_off_at)
        self._note(run, step, call, "error", ended, began=began)

    def _note(
        self, run: Run, step: Step, call: Call, outcome: str, done: Invocation, *, began: float
    ) -> None:
        seconds = self._clock() - began
        reason = None
        if done.error is not None:
            reason = done.error.code.value
        elif outcome == "rejected":
            reason = ErrorCode.VALIDATION_REJECTED.value
        run.trail.append(
            StepTrace(
                step.name,
                step.action,
                call.extension_id,
                outcome,
                seconds * 1000,
                done.attempts,
                reason,
                done.breaker,
                call.version,
                "overlap" if step.overlap else None,
                began=began,
            )
        )
        self._recorder.step(call.extension_id, call.type, outcome, reason, seconds)
        if (spans := run.request.spans) is not None:
            spans.step(
                step.name,
                call,
                outcome,
                reason=reason,
                attempts=done.attempts,
                why=run.trail[-1].why,
                began=began,
                seconds=seconds,
            )


async def _first_error(
    tasks: list[asyncio.Task[StepResult | None]], judges: int, passed: Callable[[], None] | None
) -> WireError | None:
    pending = set(tasks)
    while pending:
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        # In the listed order, so that of two that end at once the same one speaks every time.
        for task in tasks:
            if task.done() and isinstance(result := task.result(), WireError):
                return result
        if passed is not None and pending.isdisjoint(tasks[:judges]):
            passed()
            passed = None
    return None


async def _end(
    run: Run, tasks: list[asyncio.Task[StepResult | None]], *, told: BaseException | None = None
) -> None:
    """Cancels those that still run, and returns when they have ended. A fault of our own that broke one of
    them is logged here, unless it is ``told`` elsewhere.
    """
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception) and result is not told:
            _log.error("pipeline.fault", request_id=run.request.request_id, type=type(result).__name__)


def _rejection(step: Step, call: Call, verdict: Verdict, attempts: int) -> WireError:
    return WireError(
        ErrorCode.VALIDATION_REJECTED,
        verdict.reason or "a validator rejected the request",
        step=step.name,
        extension_id=call.extension_id,
        attempts=attempts,
        details=verdict.details,
    )
