"""One extension called until it answers, or until nothing more may be tried.

From the outside in: bulkhead > retry with budget > breaker > attempt timeout > transport. The result is a
value; only cancellation and faults of our own are exceptions, and they give back the permit and the place in
the bulkhead too.

Who is to blame decides what the breaker learns:

    answered, or an error reply that is the caller's fault      success / neither
    429 (RESOURCE_EXHAUSTED)                                    cooldown
    timed out after its own full timeout, no responder, an error or malformed reply    failure
    timed out because the request's deadline cut the attempt short                     neither
    we are not connected, our message is too large, cancelled                          neither
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from beamline_contract.errors import CLIENT_FAULTS, ErrorCode, WireError
from beamline_sdk.breaker import CLOSED, Breaker

from . import selection
from .deadline import SHORTEST_ATTEMPT_S, attempt_timeout, header_values
from .headers import of_attempt
from .keys import key_of
from .ports import Recorder, Transport, TransportFault
from .replies import READERS, ReplyValue
from .retry import RetryBudget, pause_before_retry
from .route import Call
from .run import Run
from .state import Rng, Runtime

Refusal = Literal["absent", "full", "open", "cooldown", "expired"]

_FAULTS: dict[TransportFault, tuple[ErrorCode, str]] = {
    TransportFault.NO_RESPONDERS: (ErrorCode.UNAVAILABLE, "no instance of the extension is listening"),
    TransportFault.TIMED_OUT: (ErrorCode.DEADLINE_EXCEEDED, "the extension did not answer in time"),
    TransportFault.DISCONNECTED: (ErrorCode.UNAVAILABLE, "the router is not connected to NATS"),
    TransportFault.TOO_LARGE: (ErrorCode.INVALID_ARGUMENT, "the request is larger than NATS carries"),
}
_TOO_LARGE = {"http_status": 413}
_NOT_ITS_FAULT = (TransportFault.DISCONNECTED, TransportFault.TOO_LARGE)


@dataclass(slots=True, kw_only=True, eq=False)
class Invocation:
    """What became of one extension: ``value`` or ``error``. ``refused`` says why no call was made at all."""

    value: ReplyValue | None = None
    error: WireError | None = None
    attempts: int = 0
    timed_out: bool = False
    refused: Refusal | None = None
    breaker: str | None = None


class Watch(Protocol):
    """What a transport that answers bit by bit knows about the attempt that has just ended."""

    @property
    def blameless(self) -> bool:
        """Whether the extension can't have caused the attempt's error."""
        ...

    @property
    def said(self) -> WireError | None:
        """The extension's own error, where the attempt's says what has become of its answer."""
        ...

    def after_first(self, done: float) -> float:
        """Seconds between the first sign of an answer and its end at ``done``."""
        ...


class Invoker:
    """Calls extensions. ``clock`` is monotonic and ``wall`` Unix time, both in seconds.

    ``watch`` belongs to a transport whose answers do not come in one piece.
    """

    def __init__(
        self,
        transport: Transport,
        runtime: Runtime,
        recorder: Recorder,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        rng: Rng,
        watch: Watch | None = None,
    ) -> None:
        self._transport = transport
        self._watch = watch
        self._runtime = runtime
        self._recorder = recorder
        self._clock = clock
        self._wall = wall
        self._sleep = sleep
        self._rng = rng

    def draw(self) -> float:
        """What decides among versions by their weights, for :meth:`version`."""
        return self._rng.random()

    def version(self, run: Run, call: Call, draw: float | None = None) -> Call:
        """The version that this request meets, of an extension that has several; else the call itself.

        With the same ``draw`` it is the same one, as long as that can be called.
        """
        if not call.versions:
            return call
        sticky = call.version_key
        return selection.version(
            call,
            self._runtime.available,
            key=None if sticky is None else key_of(sticky, run.request),
            random=0.0 if sticky is not None else self.draw() if draw is None else draw,
        )

    async def invoke(
        self, run: Run, call: Call, payload: bytes, *, max_attempts: int = 6, trial: bool = False
    ) -> Invocation:
        """Calls until answered or given up. ``trial`` asks an open breaker for one call ahead of time.

        Of a call that does not end like that ``run.broken_off_at`` says which attempt was the last.
        """
        if call.absent is not None:
            error = WireError.of(ErrorCode.NOT_FOUND, call.absent)
            return Invocation(error=error, refused="absent")
        guard = self._runtime.guard(call)
        if (whose := guard.enter(call)) is not None:
            return _full(call.concurrency if whose == "extension" else call.gate_limit, whose)
        breaker, budget = guard.breaker, guard.budget
        spans = run.request.spans
        last: Invocation | None = None
        attempt = 0
        try:
            while True:
                now = self._clock()
                timeout_s = attempt_timeout(call.timeout_s, run.deadline, now)
                if timeout_s < SHORTEST_ATTEMPT_S:
                    return last or _refused("expired", None)
                permit = breaker.trial(now) if trial and attempt == 0 else breaker.acquire(now)
                if permit is None:
                    return last or _refused_by(breaker, now)
                attempt += 1
                span = self._rng.getrandbits(64) or 1
                headers = of_attempt(
                    run.opening, span, run.trace.flags, header_values(timeout_s, self._wall()), attempt
                )
                try:
                    reply = await self._transport.request(call.subject, payload, headers, timeout_s)
                    done = self._clock()
                    value = (
                        _no_reply(reply, run)
                        if isinstance(reply, TransportFault)
                        else READERS[call.type](reply, call.extension_id)
                    )
                except BaseException as error:
                    breaker.release(permit)
                    self._broke_off(run, call, error, attempt, span, began=now)
                    raise
                if spans is not None:
                    failed = value.code.value if isinstance(value, WireError) else None
                    spans.call(span, call, attempt, now, done, failed)
                watch = self._watch
                if watch is not None:
                    now += watch.after_first(done)  # a stream has answered with its first chunk
                if not isinstance(value, WireError):
                    breaker.success(permit, done, slow=done - now >= call.slow_s)
                    budget.succeeded()
                    guard.load.observe(done - now, done)
                    self._note_answer(call, value, done - now)
                    return Invocation(value=value, attempts=attempt, breaker=_word(breaker))
                last = self._judge(
                    call,
                    value,
                    breaker,
                    permit,
                    said=value if watch is None else watch.said or value,
                    budget=budget,
                    done=done,
                    seconds=done - now,
                    blameless=reply in _NOT_ITS_FAULT or (watch is not None and watch.blameless),
                    cut_short=timeout_s < call.timeout_s,
                )
                last.attempts = attempt
                pause = pause_before_retry(
                    value,
                    timed_out=last.timed_out,
                    attempt=attempt,
                    retry=min(call.retry, max_attempts - 1),
                    retry_on_timeout=call.retry_on_timeout,
                    budget=budget,
                    remaining_s=run.deadline - done,
                    random=self._rng.random(),
                )
                if pause is None:
                    return last
                await self._sleep(pause)
        except BaseException:
            run.broken_off_at = attempt
            raise
        finally:
            guard.leave()

    def _note_answer(self, call: Call, value: ReplyValue, seconds: float) -> None:
        self._recorder.attempt(call.extension_id, False, None, seconds)
        for name in value.dropped:
            self._recorder.dropped(call.extension_id, name)

    def _broke_off(
        self, run: Run, call: Call, fault: BaseException, attempt: int, span: int, *, began: float
    ) -> None:
        """Tells recorder and trace about an attempt that a cancellation or a fault of our own ended."""
        reason = ErrorCode.INTERNAL if isinstance(fault, Exception) else ErrorCode.CANCELLED
        done = self._clock()
        self._recorder.attempt(call.extension_id, False, reason.value, done - began)
        if run.request.spans is not None:
            run.request.spans.call(span, call, attempt, began, done, reason.value)

    def _judge(
        self,
        call: Call,
        error: WireError,
        breaker: Breaker,
        permit: int,
        *,
        said: WireError,
        budget: RetryBudget,
        done: float,
        seconds: float,
        blameless: bool,
        cut_short: bool,
    ) -> Invocation:
        """Tells breaker, budget and recorder about an error, by whose fault it is.

        ``said``: the extension's own word for it, which decides. ``blameless``: the extension can't have
        caused it. ``cut_short``: the request's deadline left the attempt less than its own timeout.
        """
        code = error.code
        timed_out = code is ErrorCode.DEADLINE_EXCEEDED
        failed = False
        if said.code is ErrorCode.RESOURCE_EXHAUSTED:
            wait = said.retry_after_ms
            breaker.cooldown(permit, done, None if wait is None else wait / 1000)
        elif blameless or said.code in CLIENT_FAULTS or (timed_out and cut_short):
            breaker.release(permit)
        else:
            failed = True
            breaker.failure(permit, done, slow=seconds >= call.slow_s)
            budget.failed()
        self._recorder.attempt(call.extension_id, failed, code.value, seconds)
        return Invocation(error=error, timed_out=timed_out, breaker=_word(breaker))


def _no_reply(fault: TransportFault, run: Run) -> WireError:
    if fault is TransportFault.TOO_LARGE and not run.as_asked:
        return WireError(ErrorCode.INTERNAL, "what steps made of the request is larger than NATS carries")
    code, message = _FAULTS[fault]
    return WireError.of(code, message, details=_TOO_LARGE if fault is TransportFault.TOO_LARGE else {})


def _full(limit: int, whose: str) -> Invocation:
    words = f"{limit} calls are in flight already, which is the {whose}'s limit"
    return Invocation(error=WireError.of(ErrorCode.RESOURCE_EXHAUSTED, words), refused="full")


def _refused(why: Refusal, breaker: str | None) -> Invocation:
    error = WireError.of(ErrorCode.DEADLINE_EXCEEDED, "the request's deadline leaves no time for this step")
    return Invocation(error=error, refused=why, breaker=breaker)


def _refused_by(breaker: Breaker, now: float) -> Invocation:
    wait_s = breaker.reopens_at() - now
    wait_ms = max(1, int(wait_s * 1000)) if 0 < wait_s < float("inf") else None
    if breaker.cooling(now):
        error = WireError.of(
            ErrorCode.RESOURCE_EXHAUSTED,
            "the extension asked for a pause and still has it",
            retry_after_ms=wait_ms,
        )
        return Invocation(error=error, refused="cooldown", breaker=_word(breaker))
    error = WireError.of(
        ErrorCode.UNAVAILABLE, f"the extension's circuit breaker is {breaker.state}", retry_after_ms=wait_ms
    )
    return Invocation(error=error, refused="open", breaker=_word(breaker))


def _word(breaker: Breaker) -> str | None:
    state = breaker.state
    return None if state is CLOSED else state
