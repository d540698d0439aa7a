"""One request through its route with the answer streamed: the same steps as :mod:`.pipeline`, in the same
order.

Pre steps and validators run before anything is sent. The provider's chunks go through the post steps in
windows (:mod:`.windows`) into the caller's sink. The result says how it ended: an :class:`Answer` whose
output is all that was delivered, or a :class:`Failure`, after which the sink has got nothing more.

All that a post step is shown of one answer it is shown in the same version, where it has several and that
can be called.

A post step is told what it sees (``part``): a window of the answer or the end of it. One that can only judge
the whole says ``hold`` to a window, and nothing leaves before the end, which is then the whole answer.

What a post step says beside the text (metadata, context) is kept until the provider has said its own, and
laid over that, as with a whole answer; of an attempt that failed nothing of it is left.

What the provider says beside the text (tool calls) is kept to the end and goes through the same steps
(:mod:`.message_parts`), streamed or not; without enforced post steps it leaves at once.

Each post step has one entry in the trail, with the time and attempts of all its windows; a shadow post step
is sent the whole answer, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from beamline_contract.errors import ErrorCode, WireError

from .message_parts import guarded
from .replies import Patch
from .request import StepTrace
from .route import Step
from .run import Run
from .steps import StepRunner
from .stream_invoke import Delivery
from .stream_port import Sink
from .windows import WHOLE, Chain, Looked, Window

_ENDS_AS_IT_IS: Final = frozenset(
    {ErrorCode.VALIDATION_REJECTED, ErrorCode.CANCELLED, ErrorCode.STREAM_INTERRUPTED}
)
"""What a stream that was begun may end with; any other error has interrupted it."""
_WORSE = {"ok": 0, "skipped": 1, "rejected": 2, "error": 3}


class PostWindows:
    """The enforced post steps of a run as functions of text. ``ran``: they have seen the answer's text, and
    are in the trail.
    """

    def __init__(self, run: Run, steps: StepRunner, *, ran: bool = False) -> None:
        self._run = run
        self._steps = steps
        self._enforced = tuple(step for step in run.route.after if not step.shadow)
        self._trail: dict[tuple[str, str], StepTrace] = {}
        self._known: dict[tuple[str, str], StepTrace] = {}
        if ran:
            self._known = {
                (entry.step, entry.extension_id): entry
                for entry in run.trail
                if entry.action == "extension_post" and entry.outcome != "shadow"
            }
        self._draws = {step: steps.draw() for step in self._enforced if _is_drawn(step)}
        self._context: dict[str, Any] = {}
        self._metadata: dict[str, Any] = {}
        self.ending = False
        """Whether the answer is complete, so that whatever is shown of it is its end."""

    @property
    def enforced(self) -> bool:
        """Whether there is any."""
        return bool(self._enforced)

    def chain(self) -> Chain:
        """A window on each of these steps."""
        return Chain(
            [Window(partial(self._look, step)) for step in self._enforced], on_reset=self._forget_said
        )

    async def guard(self, message: Any) -> Any:
        """What stands beside the text, as these steps let it through; or the error of one that ends the
        request.
        """
        if not self._enforced or message is None:
            return message
        self._run.part = "message"
        try:
            return await guarded(message, self._all)
        finally:
            self._run.part = None

    async def _all(self, text: str) -> str | WireError:
        """``text`` after every step."""
        for step in self._enforced:
            looked = await self._look(step, text)
            if isinstance(looked, WireError):
                return looked
            text = looked.text
        return text

    async def _look(self, step: Step, text: str) -> Looked | WireError:
        run = self._run
        before = len(run.trail)
        kept = run.output, run.part, run.context, run.metadata
        run.output, run.part = text, run.part or ("end" if self.ending else "window")
        self.lay_over()
        try:
            result = await self._steps.run(run, step, self._draws.get(step))
            if isinstance(result, WireError):
                return result
            if not isinstance(result, Patch):
                return Looked(text, None)
            fields = result.fields
            self._context = {**self._context, **fields.get("context", {})}
            self._metadata = {**self._metadata, **fields.get("metadata", {})}
            return Looked(fields.get("output", text), WHOLE if result.reach is None else result.reach)
        finally:
            run.output, run.part, run.context, run.metadata = kept
            for entry in run.trail[before:]:
                self._merge(entry)
            del run.trail[before:]

    def lay_over(self) -> None:
        """Lays what the steps have said beside the text over what the run knows."""
        run = self._run
        if self._context:
            run.context = {**run.context, **self._context}
        if self._metadata:
            run.metadata = {**run.metadata, **self._metadata}

    def _forget_said(self) -> None:
        self._context, self._metadata = {}, {}

    def write_trail(self) -> None:
        """Puts one entry for each step into the run's trail."""
        self._run.trail.extend(self._trail.values())
        self._trail = {}

    def _merge(self, entry: StepTrace) -> None:
        key = (entry.step, entry.extension_id)
        known = self._known.get(key) or self._trail.setdefault(key, entry)
        if known is entry:
            return
        known.ms += entry.ms
        known.attempts += entry.attempts
        known.breaker = entry.breaker
        if _WORSE.get(entry.outcome, 3) > _WORSE.get(known.outcome, 3):
            known.outcome, known.reason = entry.outcome, entry.reason


async def stream_rest(
    run: Run,
    sink: Sink,
    steps: StepRunner,
    ask: Callable[[Delivery], Awaitable[WireError | None]],
    clock: Callable[[], float],
    *,
    sleep: Callable[[float], Awaitable[object]],
    verdict: asyncio.Event | None = None,
) -> WireError | None:
    """Provider and post steps of a run whose steps before are done, but for the validators whose ``verdict``
    is waited for. ``ask`` asks the provider chain.

    Provider and steps keep to the deadline by themselves. A reader that makes no room can't hold the request
    beyond it either.
    """
    posts = PostWindows(run, steps)
    delivery = Delivery(run, sink, posts.chain(), posts.guard if posts.enforced else None, verdict)
    left = run.deadline - clock()
    try:
        async with asyncio.timeout(None) as limit:
            watch = asyncio.create_task(_end_after(left, limit, sleep)) if left > 0 else None
            try:
                error = await _delivered(run, delivery, posts, ask)
            finally:
                if watch is not None:
                    watch.cancel()
    except TimeoutError:
        if not limit.expired():
            raise
        why = "the deadline passed within the stream"
        error = delivery.interrupted(why) if run.committed else _over()
    finally:
        posts.write_trail()
    if error is not None:
        return error
    posts.lay_over()
    # The message was delivered; log probabilities spell out the text as it was before the post steps.
    gone = {"message"} if run.output == "".join(delivery.parts) else {"message", "logprobs"}
    run.metadata = {key: value for key, value in run.metadata.items() if key not in gone}
    run.output = "".join(delivery.parts)  # what has left, so that a shadow sees no more of it than the caller
    for step in run.route.after:
        if step.shadow:
            steps.shadow(run, step)
    if clock() >= run.deadline and not run.committed:
        return _over()
    return None


async def _delivered(
    run: Run,
    delivery: Delivery,
    posts: PostWindows,
    ask: Callable[[Delivery], Awaitable[WireError | None]],
) -> WireError | None:
    error: WireError | None = None
    if run.output is None:
        error = await ask(delivery)
        if error is not None and run.committed and error.code is not ErrorCode.STREAM_INTERRUPTED:
            error = delivery.ended_badly(error)
    else:
        await delivery.feed(run.output)
    if error is None and delivery.error is None:
        posts.ending = True
        await delivery.finish()
    ours = delivery.error
    if ours is not None and run.committed and ours.code not in _ENDS_AS_IT_IS:
        ours = delivery.ended_badly(ours, "a step failed within the stream")
    return ours or error


def _is_drawn(step: Step) -> bool:
    return bool(step.call.versions or (step.fallback is not None and step.fallback.versions))


async def _end_after(
    seconds: float, limit: asyncio.Timeout, sleep: Callable[[float], Awaitable[object]]
) -> None:
    await sleep(seconds)
    limit.reschedule(asyncio.get_running_loop().time())


def _over() -> WireError:
    return WireError(ErrorCode.DEADLINE_EXCEEDED, "the request's deadline is over")
