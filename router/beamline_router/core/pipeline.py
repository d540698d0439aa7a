"""One request through its route: pre > validators > provider > post, in the listed order.

What is promised:
- The request's deadline ends it, whatever timeouts and retries would allow.
- A rejection, or a validator that fails ``closed``, ends the request before the provider is called.
- A validator with ``overlap`` runs beside the provider call instead: nothing of the answer leaves before its
verdict, streamed or not, and a rejection cancels the call.
- What a post step changes or objects to in the answer's text, it changes or objects to in tool calls as well.
- A pre step that gives ``output`` answers the request: the steps after it up to the provider do not run, post
steps do.
- A post step may send the answer back (:func:`asks_again`): the providers are asked once more.
- Errors are values. :meth:`Pipeline.run` raises nothing but :class:`asyncio.CancelledError`, when its own
task is cancelled, which is passed on to the step that runs; a fault of our own becomes INTERNAL, logged by
its type only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.wire import MAX_PROVIDER_ATTEMPTS

from .deadline import effective_deadline
from .invoke import Invoker
from .ports import Recorder, Transport
from .providers import ProviderChain
from .replies import Patch
from .request import Answer, Failure, Request
from .run import Run
from .snapshot import Snapshot
from .state import Rng, Runtime
from .steps import StepRunner
from .stream_invoke import Delivery, stream_invoker
from .stream_pipeline import PostWindows, stream_rest
from .stream_port import Sink, Streams
from .tracing import trace_of

_log = structlog.get_logger()


class Pipeline:
    """Runs requests against whatever snapshot it is given.

    ``clock`` gives monotonic seconds, ``wall`` Unix seconds (for ``Beamline-Deadline-At`` alone), ``sleep``
    waits.
    """

    def __init__(  # noqa: PLR0917 -- the ports in the order in which architecture names them
        self,
        transport: Transport,
        runtime: Runtime,
        recorder: Recorder,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        rng: Rng,
        *,
        wall: Callable[[], float] = time.time,
        streams: Streams | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._runtime = runtime
        self._recorder = recorder
        self._sleep = sleep
        self._wall = wall
        self._streams = streams
        invoker = Invoker(transport, runtime, recorder, clock=clock, wall=wall, sleep=sleep, rng=rng)
        self._steps = StepRunner(invoker, recorder, clock)
        self._providers = ProviderChain(invoker, runtime, recorder, clock, rng)

    async def run(self, request: Request, snapshot: Snapshot, sink: Sink | None = None) -> Answer | Failure:
        """The answer to one request, or its one error. The snapshot stays the same to the end.

        With a ``sink`` the answer is streamed into it; an error may then come after a part of the answer.
        """
        run: Run | None = None
        try:
            route = snapshot.route_for(request)
            if route is None:
                return _no_route(request)
            deadline = effective_deadline(request.deadline, route.deadline_s, self._clock())
            run = Run(request, route, deadline, request.trace or trace_of(request, self._rng))
            error = await (self._run(run) if sink is None else self._stream(run, sink))
        except Exception as fault:  # noqa: BLE001 -- the caller gets one INTERNAL error whatever broke; content is not logged
            _log.error("pipeline.fault", request_id=request.request_id, type=type(fault).__name__)
            error = WireError(ErrorCode.INTERNAL, "a fault of the router")
            if run is None:
                return Failure(error.at(request_id=request.request_id), [])
        return run.answer() if error is None else run.failure(error)

    async def close(self) -> None:
        """Ends what still runs in the background (shadow steps)."""
        await self._steps.close()

    async def _run(self, run: Run) -> WireError | None:
        error = await self._before(run)
        if error is not None:
            return error
        if run.output is None:
            asking = self._providers.ask(run, run.route.provider)
            overlap = run.route.overlap
            error = await (self._steps.run_group(run, overlap, asking) if overlap else asking)
            if error is not None:
                return error
        error = await self._after(run)
        if error is not None and asks_again(run, error):
            failed = await self._providers.ask(run, run.route.provider)
            error = error if failed is not None else await self._after(run)
        if error is not None:
            return error
        if self._clock() >= run.deadline:
            return WireError(ErrorCode.DEADLINE_EXCEEDED, "the request's deadline is over")
        return None

    async def _after(self, run: Run) -> WireError | None:
        """Post steps."""
        said = run.output
        for step in run.route.after:
            if step.shadow:
                self._steps.shadow(run, step)
                continue
            result = await self._steps.run(run, step)
            if isinstance(result, Patch):
                run.apply_post(result)
            elif isinstance(result, WireError):
                return result
        if run.output != said and "logprobs" in run.metadata:  # they spell out the text as it was
            run.metadata = {key: value for key, value in run.metadata.items() if key != "logprobs"}
        if "message" in run.metadata and run.route.after:
            posts = PostWindows(run, self._steps, ran=True)
            guarded = await posts.guard(run.metadata["message"])
            if isinstance(guarded, WireError):
                return guarded
            posts.lay_over()
            run.metadata = {**run.metadata, "message": guarded}
        return None

    async def _stream(self, run: Run, sink: Sink) -> WireError | None:
        error = await self._before(run)
        if error is not None:
            return error

        async def ask(delivery: Delivery) -> WireError | None:
            streams = self._streams
            if streams is None:
                return WireError(ErrorCode.UNAVAILABLE, "this router does not stream")
            invoker = stream_invoker(
                streams,
                run,
                delivery,
                self._runtime,
                self._recorder,
                clock=self._clock,
                wall=self._wall,
                sleep=self._sleep,
                rng=self._rng,
            )
            chain = ProviderChain(invoker, self._runtime, self._recorder, self._clock, self._rng)
            return await chain.ask(run, run.route.provider)

        overlap = run.route.overlap
        if not overlap or run.output is not None:
            return await stream_rest(run, sink, self._steps, ask, self._clock, sleep=self._sleep)
        verdict = asyncio.Event()
        rest = stream_rest(run, sink, self._steps, ask, self._clock, sleep=self._sleep, verdict=verdict)
        return await self._steps.run_group(run, overlap, rest, passed=verdict.set)

    async def _before(self, run: Run) -> WireError | None:
        """Pre steps and validators; ends early with an error, or with ``run.output`` set."""
        steps = self._steps
        for stage in run.route.before:
            if len(stage) > 1:
                for step in stage:
                    if step.shadow:
                        steps.shadow(run, step)
                enforced = tuple(step for step in stage if not step.shadow)
                error = await steps.run_group(run, enforced)
                if error is not None:
                    return error
                continue
            step = stage[0]
            if step.shadow:
                steps.shadow(run, step)
                continue
            result = await steps.run(run, step)
            if isinstance(result, WireError):
                return result
            if isinstance(result, Patch):
                run.apply_pre(result, run.trail[-1].extension_id)
                if run.output is not None:
                    return None
        return None


def asks_again(run: Run, error: WireError) -> bool:
    """Whether a provider is asked once more because a post step sent its answer back.

    It says so by VALIDATION_REJECTED with ``retryable``. Once a request, within the six attempts and the
    deadline: a provider that fails the same way twice will fail a third time, and every time is paid for.
    """
    return (
        error.code is ErrorCode.VALIDATION_REJECTED
        and error.retryable
        and 0 < run.provider_attempts < MAX_PROVIDER_ATTEMPTS
    )


def _no_route(request: Request) -> Failure:
    what = "no policy matches this request" if request.policy is None else "no policy goes by that id"
    return Failure(WireError(ErrorCode.NOT_FOUND, what, request_id=request.request_id), [])
