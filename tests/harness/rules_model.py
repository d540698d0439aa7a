"""The rules of the pipeline as plainly as they can be interpreted: docs/invocation-flow.md and
docs/routing-policy.md put into statements, one after the other.

Nothing is compiled, cached or fast, and nothing of the router is used but the clock that stands still.
Replies say by themselves what they are (:class:`Said`), because how they are read has tests of its own. So
have strategies, versions, shadow steps, slow calls and the window of a breaker: here providers are ordered,
and failures never age.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

from beamline_contract.errors import CLIENT_FAULTS
from beamline_router.core.ports import TransportFault
from beamline_router.fakes import FakeClock

from .rules_breaker import Blame, Breaker

MARGIN_S = 0.010
SHORTEST_S = 0.001
MOST_ATTEMPTS = 6
LONGEST_PAUSE_S = 1.0
FALL_BACK_ON = {"RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL", "STREAM_INTERRUPTED"}
OPEN, COOLING = ("UNAVAILABLE", "open"), ("RESOURCE_EXHAUSTED", "cooldown")
DEFAULT_MODE = {"pre": "open", "validator": "closed", "post": "open"}


class Said(NamedTuple):
    """One scripted reply: what the transport is given, and what the rules call it.

    ``value`` is what an answer says, ``code`` that of an error; ``blame``: what the breaker learns.
    """

    reply: Any
    value: Mapping[str, Any] | None = None
    code: str | None = None
    retryable: bool = False
    pause_s: float | None = None
    blame: Blame = "good"
    after_s: float = 0.0


SILENT = Said(TransportFault.TIMED_OUT, None, "DEADLINE_EXCEEDED", True, blame="bad", after_s=inf)


@dataclass
class Extension:
    """As its resource states it. ``threshold`` failures open its breaker for ``recovery_s``; one that was
    there and is ``enabled`` no more is absent.
    """

    kind: str
    timeout_s: float
    retry: int
    threshold: int
    recovery_s: float
    concurrency: int
    said: list[Said]
    enabled: bool = True


@dataclass
class Ended:
    """How one extension was left: a value, or an error. ``refused`` says why it was not even asked."""

    value: Mapping[str, Any] | None = None
    code: str | None = None
    retryable: bool = False
    attempts: int = 0
    refused: str | None = None
    breaker: str | None = None
    step: str = ""
    extension_id: str = ""

    def refuse(self, code: str, why: str) -> None:
        """Nobody was asked."""
        self.code, self.retryable, self.refused = code, True, why


class Entry(NamedTuple):
    """One line of the trail."""

    extension_id: str
    outcome: str
    attempts: int
    reason: str | None
    breaker: str | None
    why: str | None
    ms: float


class Call(NamedTuple):
    """What one extension was sent. ``told``: what of the body steps change."""

    at: float
    extension_id: str
    attempt: int
    timeout_s: float
    told: tuple[Any, ...]


@dataclass
class Request:
    """One request on its way, and in the end how it left: ``error`` or ``output``."""

    deadline: float
    prompt: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    output: str | None = None
    provider_id: str = ""
    asked: int = 0
    trail: list[Entry] = field(default_factory=list)
    error: Ended | None = None


class Rules:
    """A router by the book, for one policy. ``steps`` as in the policy's document."""

    def __init__(
        self, extensions: Mapping[str, Extension], steps: list[dict[str, Any]], deadline_s: float
    ) -> None:
        self.clock = FakeClock()
        self.calls: list[Call] = []
        self.breakers = {name: Breaker(one.threshold, one.recovery_s) for name, one in extensions.items()}
        self.tokens: dict[str, float] = defaultdict(lambda: 10.0)
        self.places: dict[str, int] = defaultdict(int)
        self._extensions = extensions
        self._said = {name: list(extension.said) for name, extension in extensions.items()}
        self._steps = steps
        self._deadline_s = deadline_s

    async def request(self, prompt: str, left_s: float) -> Request:
        """One request, from its arrival to its end."""
        request = Request(self.clock.now + min(left_s, self._deadline_s), prompt)
        request.error = await self._run(request)
        return request

    async def _run(self, request: Request) -> Ended | None:
        provider = next(step for step in self._steps if step["action"] == "select_provider")
        place = self._steps.index(provider)
        overlap = [step for step in self._steps[:place] if step.get("overlap")]
        waiting = self._steps[: place - len(overlap)]
        while waiting and request.output is None:
            stage = [waiting.pop(0)]
            while "group" in stage[0] and waiting and waiting[0].get("group") == stage[0]["group"]:
                stage.append(waiting.pop(0))
            error = await self._stage(request, stage)
            if error is not None:
                return error
        if request.output is None:
            judges = [self._step(request, step) for step in overlap]
            error = await self._side_by_side([*judges, self._provider(request, provider)])
            if error is not None:
                return error
        after = self._steps[place + 1 :]
        error = await self._after(request, after)
        sent_back = error is not None and error.code == "VALIDATION_REJECTED" and error.retryable
        if (
            sent_back
            and 0 < request.asked < MOST_ATTEMPTS
            and await self._provider(request, provider) is None
        ):
            error = await self._after(request, after)
        if error is None and self.clock.now >= request.deadline:
            return Ended(code="DEADLINE_EXCEEDED")
        return error

    async def _stage(self, request: Request, stage: list[dict[str, Any]]) -> Ended | None:
        return await self._side_by_side([self._step(request, step) for step in stage])

    async def _after(self, request: Request, steps: list[dict[str, Any]]) -> Ended | None:
        for step in steps:
            error = await self._stage(request, [step])
            if error is not None:
                return error
        return None

    async def _side_by_side(self, jobs: list[Coroutine[Any, Any, Ended | None]]) -> Ended | None:
        """The first error ends the others; of two at once that of the one listed first."""
        if len(jobs) == 1:
            return await jobs[0]
        tasks = [asyncio.ensure_future(job) for job in jobs]
        try:
            while waiting := [task for task in tasks if not task.done()]:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                errors = [task.result() for task in tasks if task.done() and task.result() is not None]
                if errors:
                    return errors[0]
            return None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _step(self, request: Request, step: dict[str, Any]) -> Ended | None:
        """A pre, validator or post step; None where the request goes on."""
        name = step["extension_id"]
        kind = step["action"].removeprefix("extension_")
        mode = step.get("failure_mode", DEFAULT_MODE[kind])
        why = "overlap" if step.get("overlap") else None
        began = self.clock.now
        ended = await self._asked(request, name, step, why, began)
        if ended.code is not None and mode == "fallback":
            self._note(request, ended, "error", why, began)
            began = self.clock.now
            ended = await self._asked(request, step["fallback_id"], {}, why, began)
            mode = DEFAULT_MODE[kind]
        ended.step = name
        if ended.code is not None:
            self._note(request, ended, "skipped" if mode == "open" else "error", why, began)
            return None if mode == "open" else ended
        assert ended.value is not None
        if ended.value.get("verdict") == "reject":
            ended.code = "VALIDATION_REJECTED"
            self._note(request, ended, "rejected", why, began)
            return ended
        self._note(request, ended, "ok", why, began)
        request.prompt = ended.value.get("prompt", request.prompt)
        request.parameters = {**request.parameters, **ended.value.get("parameters", {})}
        if "output" in ended.value:
            request.output = ended.value["output"]
            request.provider_id = request.provider_id or ended.extension_id
        return None

    async def _provider(self, request: Request, step: dict[str, Any]) -> Ended | None:
        """The providers in their order, and the fallback list behind them, until one answers."""
        order = {choice["provider_id"]: "ordered" for choice in step["providers"]}
        for name in step["fallback"]:
            order.setdefault(name, "fallback")
        error: Ended | None = None
        asked = False
        refused: list[str] = []
        for name, why in order.items():
            if request.asked >= MOST_ATTEMPTS:
                break
            over = step if why == "ordered" else {}
            ended = await self._one_provider(request, name, over, why)
            if ended.code is None:
                return None
            if ended.refused == "expired" and error is not None:
                return error
            if ended.refused in {None, "full", "expired"}:
                asked, error = True, ended
            elif not asked:
                error = ended
            if ended.refused == "open":
                refused.append(name)
            goes_on = ended.code in FALL_BACK_ON or ended.code == "DEADLINE_EXCEEDED"
            if ended.refused == "expired" or (ended.refused is None and not goes_on):
                return error
        able = [name for name in refused if self.breakers[name].may_try(self.clock.now)]
        if asked or not able:
            return error
        hope = min(able, key=lambda name: self.breakers[name].reopens)
        over = step if order[hope] == "ordered" else {}
        ended = await self._one_provider(request, hope, over, "last trial")
        return None if ended.code is None else ended

    async def _one_provider(self, request: Request, name: str, over: dict[str, Any], why: str) -> Ended:
        began = self.clock.now
        ended = await self._asked(request, name, over, why, began)
        request.asked += ended.attempts
        self._note(request, ended, "ok" if ended.code is None else "error", why, began)
        ended.step, ended.attempts = "provider", request.asked
        if ended.value is not None:
            request.output, request.provider_id = ended.value["output"], name
        return ended

    async def _asked(
        self, request: Request, name: str, over: dict[str, Any], why: str | None, began: float
    ) -> Ended:
        """One extension asked; where that is cancelled the trail says so."""
        ended = Ended(extension_id=name)
        try:
            await self._ask(request, ended, over, trial=why == "last trial")
        except asyncio.CancelledError:
            ended.code = "CANCELLED"
            ended.breaker = None
            self._note(request, ended, "error", why, began)
            raise
        return ended

    async def _ask(self, request: Request, ended: Ended, over: dict[str, Any], *, trial: bool) -> None:
        """Outer to inner: place, retry with budget, breaker, timeout."""
        name = ended.extension_id
        extension = self._extensions[name]
        if not extension.enabled:
            ended.refuse("NOT_FOUND", "absent")
            return
        timeout_s = over.get("timeout_ms", extension.timeout_s * 1000) / 1000
        retry = over.get("retry", extension.retry)
        if extension.kind == "provider":
            retry = min(retry, MOST_ATTEMPTS - request.asked - 1)
        breaker = self.breakers[name]
        gate = f"{name} of {id(over)}" if "concurrency" in over else None
        if self.places[name] >= extension.concurrency or (gate and self.places[gate] >= over["concurrency"]):
            ended.refuse("RESOURCE_EXHAUSTED", "full")
            return
        places = [name] if gate is None else [name, gate]
        for place in places:
            self.places[place] += 1
        told = (
            request.prompt,
            dict(request.parameters),
            request.output if extension.kind == "post" else None,
        )
        try:
            while True:
                now = self.clock.now
                left_s = min(timeout_s, request.deadline - now - MARGIN_S)
                if left_s < SHORTEST_S:
                    if not ended.attempts:
                        ended.refuse("DEADLINE_EXCEEDED", "expired")
                    return
                number = breaker.admits(now, trial=trial and not ended.attempts)
                if number is None:
                    if not ended.attempts:
                        ended.breaker = breaker.word
                        cooling = now < breaker.cooled
                        ended.refuse(*COOLING if cooling else OPEN)
                    return
                ended.attempts += 1
                self.calls.append(Call(now, name, ended.attempts, left_s, told))
                said = self._said[name].pop(0) if len(self._said[name]) > 1 else self._said[name][0]
                blame: Blame = "nobody"
                try:
                    await self.clock.wait(min(said.after_s, left_s))
                    if said.after_s > left_s:
                        said = SILENT
                    cut_short = said.code == "DEADLINE_EXCEEDED" and left_s < timeout_s
                    blame = "nobody" if cut_short else said.blame
                finally:
                    breaker.learns(number, blame, self.clock.now, said.pause_s)
                ended.code, ended.value, ended.retryable = said.code, said.value, said.retryable
                ended.breaker = breaker.word
                if said.code is None:
                    self.tokens[name] = min(10.0, self.tokens[name] + 0.1)
                    return
                if blame == "bad":
                    self.tokens[name] = max(0.0, self.tokens[name] - 1.0)
                if ended.attempts > retry or not said.retryable or said.code in CLIENT_FAULTS:
                    return
                if said.code == "RESOURCE_EXHAUSTED":
                    return
                if said.code == "DEADLINE_EXCEEDED" and extension.kind == "provider":
                    return
                pause_s = said.pause_s or 0.0
                if self.tokens[name] < 5.05 or pause_s > LONGEST_PAUSE_S:
                    return
                if pause_s + MARGIN_S >= request.deadline - self.clock.now:
                    return
                await self.clock.wait(pause_s)
        finally:
            for place in places:
                self.places[place] -= 1

    def _note(self, request: Request, ended: Ended, outcome: str, why: str | None, began: float) -> None:
        ms = round((self.clock.now - began) * 1000, 3)
        request.trail.append(
            Entry(ended.extension_id, outcome, ended.attempts, ended.code, ended.breaker, why, ms)
        )
