"""The select_provider step: who is asked, and who is asked next.

A canary comes first for its share of the requests, so that one that can't answer costs them only time. The
strategy chooses one (``ordered`` and ``score`` list them all), then comes the fallback list. Of an
extension with versions one is drawn, each time anew. The next one is asked
when the one before was unknown or disabled, had no responder, an open breaker or a full bulkhead, answered
429, UNAVAILABLE or INTERNAL, or timed out and does not forbid it (``retryOnTimeout: false``;
docs/decisions/0002). A fault of the caller ends the request. All of them together make at most six attempts.
When every one was refused by its breaker, the one that reopens first gets one last trial, whether the draw
had chosen it or not; one that is isolated or was asked to pause does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.wire import MAX_PROVIDER_ATTEMPTS

from . import selection
from .invoke import Invocation, Invoker
from .keys import key_of, within
from .ports import Recorder
from .replies import ProviderReply
from .request import StepTrace
from .route import Call, ProviderStep
from .run import Run
from .state import Rng, Runtime

_FALL_BACK_ON = frozenset(
    {ErrorCode.RESOURCE_EXHAUSTED, ErrorCode.UNAVAILABLE, ErrorCode.INTERNAL, ErrorCode.STREAM_INTERRUPTED}
)


_BY_ITS_BREAKER: Final = frozenset({"open", "cooldown"})
_LAST_TRIAL: Final = "last trial"


class ProviderChain:
    """Runs select_provider steps."""

    def __init__(
        self, invoker: Invoker, runtime: Runtime, recorder: Recorder, clock: Callable[[], float], rng: Rng
    ) -> None:
        self._invoker = invoker
        self._runtime = runtime
        self._recorder = recorder
        self._clock = clock
        self._rng = rng

    async def ask(self, run: Run, step: ProviderStep) -> WireError | None:
        """Puts a provider's answer into the run; returns the error where none of them answers."""
        refused: list[Call] = []
        called = False
        failed: WireError | None = None
        for call, why in self.order(run, step):
            if run.provider_attempts >= MAX_PROVIDER_ATTEMPTS:
                break
            done = await self._ask_one(run, step, call, why)
            if done.error is None:
                return None
            if done.refused == "expired" and failed is not None:
                return failed  # it says why there is no time left; who would have been next does not
            if done.refused is None or done.refused in {"full", "expired"}:
                called = True
                failed = done.error
            else:
                if done.refused in _BY_ITS_BREAKER:
                    refused.append(call)
                failed = failed if called else done.error
            if run.committed:
                return done.error
            if not falls_back(call, done):
                return failed
        if refused and not called and (hope := self._last_hope(step, refused)) is not None:
            done = await self._ask_one(run, step, hope, _LAST_TRIAL)
            return done.error
        return failed

    def order(self, run: Run, step: ProviderStep) -> list[tuple[Call, str]]:
        """Whom to ask, in order, each once, and why."""
        candidates: Sequence[Call] = step.candidates
        if step.versioned:
            candidates = [self._invoker.version(run, call) for call in candidates]
        strategy = step.strategy
        if len(candidates) > 1 and strategy == "score":
            scored = selection.scored(candidates, step.weights, self._runtime.expected_ms)
            candidates = [call for call, _ in scored]
        elif len(candidates) > 1 and strategy != "ordered":
            candidates = (self._choose(run, step, candidates),)
        canary = step.canary
        if canary is None and not step.fallback and len(candidates) == 1:
            return [(candidates[0], strategy)]
        once: dict[str, tuple[Call, str]] = {}
        if canary is not None and within(canary.percent, canary.salt, key_of(canary.sticky_key, run.request)):
            once[canary.call.named] = (self._invoker.version(run, canary.call), "canary")
        for call in candidates:
            if call.weight > 0 and call.named not in once:
                once[call.named] = (call, strategy)
        for call in step.fallback:
            if call.named not in once:
                once[call.named] = (self._invoker.version(run, call), "fallback")
        return list(once.values())

    def _last_hope(self, step: ProviderStep, refused: list[Call]) -> Call | None:
        """Of those refused, and of those among which they were drawn, the one that reopens first and can be
        tried now.
        """
        drawn_from = [call for call in (*step.candidates, *step.fallback) if call.weight > 0]
        siblings = [
            leaf
            for call in drawn_from
            for leaf in [one for one in call.versions if one.share > 0] or call.versions[:1] or (call,)
        ]
        breaker, now = self._runtime.breaker, self._clock()
        able = [
            call for call in (*refused, *siblings) if call.absent is None and breaker(call).could_try(now)
        ]
        return min(able, key=lambda call: breaker(call).reopens_at(), default=None)

    def _choose(self, run: Run, step: ProviderStep, candidates: Sequence[Call]) -> Call:
        able = selection.eligible(candidates, self._runtime.available)
        random = self._rng.random
        match step.strategy:
            case "least_inflight":
                index = selection.better_of_two(able, self._in_flight, random(), random())
            case "latency":
                index = selection.better_of_two(able, self._latency, random(), random())
            case "sticky":
                index = selection.sticky(able, key_of(step.sticky_key or "tenant", run.request))
            case _:
                index = selection.weighted(able, random())
        return able[index]

    def _in_flight(self, call: Call) -> float:
        return self._runtime.load(call.extension_id).in_flight

    def _latency(self, call: Call) -> float:
        load = self._runtime.load(call.extension_id)
        return selection.expected_latency(load.latency_s, self._clock() - load.last_at, load.in_flight)

    async def _ask_one(self, run: Run, step: ProviderStep, call: Call, why: str) -> Invocation:
        began = self._clock()
        left = MAX_PROVIDER_ATTEMPTS - run.provider_attempts
        try:
            done = await self._invoker.invoke(
                run, call, run.payload(call), max_attempts=left, trial=why is _LAST_TRIAL
            )
        except BaseException as fault:
            code = ErrorCode.INTERNAL if isinstance(fault, Exception) else ErrorCode.CANCELLED
            ended = Invocation(attempts=run.broken_off_at)
            self._note(run, step, call, why, "error", ended, code.value, began)
            raise
        run.provider_attempts += done.attempts
        if done.error is None:
            assert isinstance(done.value, ProviderReply)
            run.apply_provider(done.value, call.extension_id, self._clock() - began)
            self._note(run, step, call, why, "ok", done, None, began)
        else:
            self._note(run, step, call, why, "error", done, done.error.code.value, began)
            done.error = done.error.at(
                step=step.name, extension_id=call.extension_id, attempts=run.provider_attempts
            )
        return done

    def _note(  # noqa: PLR0917 -- one line of the trail, in its order
        self,
        run: Run,
        step: ProviderStep,
        call: Call,
        why: str,
        outcome: str,
        done: Invocation,
        reason: str | None,
        began: float,
    ) -> None:
        seconds = self._clock() - began
        run.trail.append(
            StepTrace(
                step.name,
                "select_provider",
                call.extension_id,
                outcome,
                seconds * 1000,
                done.attempts,
                reason,
                done.breaker,
                call.version,
                why,
                began=began,
            )
        )
        self._recorder.step(call.extension_id, "provider", outcome, reason, seconds)
        if (spans := run.request.spans) is not None:
            spans.step(
                step.name,
                call,
                outcome,
                reason=reason,
                attempts=done.attempts,
                why=why,
                began=began,
                seconds=seconds,
            )


def falls_back(call: Call, done: Invocation) -> bool:
    """Whether the next provider may be asked after this one's failure."""
    if done.refused == "expired" or done.error is None:
        return False
    if done.refused is not None:
        return True
    if done.timed_out:
        return call.fallback_on_timeout
    return done.error.code in _FALL_BACK_ON
