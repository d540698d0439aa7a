"""One request through its route with the answer streamed: the same steps as :mod:`.pipeline`, in the same
order.

Pre steps and validators run before anything is sent. The provider's chunks go through the post steps in
windows (:mod:`.windows`) into the caller's sink. The result says how it ended: an :class:`Answer` whose
output is all that was delivered, or a :class:`Failure`, after which the sink has got nothing more.

A post step is told whether it sees a part of the answer or the end of it (``window``). One that can only
judge the whole answers ``hold`` to a part: nothing leaves before the end, which is then the whole answer.

Each post step has one entry in the trail, with the time and attempts of all its windows; a shadow post step
is sent the whole answer, once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from beamline_contract.errors import ErrorCode, WireError

from .replies import Patch
from .request import StepTrace
from .run import Run
from .steps import StepRunner
from .stream_invoke import Delivery
from .stream_port import Sink
from .windows import Window

_HELD: Final = "\0"
_WORSE = {"ok": 0, "skipped": 1, "rejected": 2, "error": 3}


class PostWindows:
    """The enforced post steps of a run as one function of text."""

    def __init__(self, run: Run, steps: StepRunner) -> None:
        self._run = run
        self._steps = steps
        self._enforced = tuple(step for step in run.route.after if not step.shadow)
        self._trail: dict[tuple[str, str], StepTrace] = {}
        self.ending = False

    def window(self) -> Window:
        """A window on these steps."""
        return Window(self.apply if self._enforced else None)

    async def apply(self, text: str) -> str | WireError:
        """``text`` after every step, or the error of one that ends the request."""
        run = self._run
        before = len(run.trail)
        kept, run.output = run.output, text
        run.window = "end" if self.ending else "part"
        held = False
        try:
            for step in self._enforced:
                result = await self._steps.run(run, step)
                if isinstance(result, WireError):
                    return result
                if isinstance(result, Patch):
                    held = held or bool(result.fields.get("hold"))
                    run.apply_post(result)
            # A text whose two sides never add up to the whole is one that no window lets go of.
            return f"{run.output}{_HELD}" if held and not self.ending else run.output or ""
        finally:
            run.output, run.window = kept, None
            for entry in run.trail[before:]:
                self._merge(entry)
            del run.trail[before:]

    def write_trail(self) -> None:
        """Puts one entry for each step into the run's trail."""
        self._run.trail.extend(self._trail.values())
        self._trail = {}

    def _merge(self, entry: StepTrace) -> None:
        known = self._trail.setdefault((entry.step, entry.extension_id), entry)
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
) -> WireError | None:
    """Provider and post steps of a run whose steps before are done. ``ask`` asks the provider chain."""
    posts = PostWindows(run, steps)
    delivery = Delivery(run, sink, posts.window())
    try:
        error: WireError | None = None
        if run.output is None:
            error = await ask(delivery)
        else:
            await delivery.feed(run.output)
        if error is None and delivery.error is None:
            posts.ending = True
            await delivery.finish()
        error = delivery.error or error
    finally:
        posts.write_trail()
    if error is not None:
        return error
    for step in run.route.after:
        if step.shadow:
            steps.shadow(run, step)
    run.output = "".join(delivery.parts)
    if clock() >= run.deadline and not run.committed:
        return WireError(ErrorCode.DEADLINE_EXCEEDED, "the request's deadline is over")
    return None
