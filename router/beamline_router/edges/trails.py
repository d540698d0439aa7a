"""Which way requests went: the last ones, kept in memory, and more of them told to whoever watches.

A request leaves one entry, which is a tuple in a ring: its ids, times and the trail that it has anyway.
Nothing is rendered before somebody asks. Failed and slow ones are all kept, in a ring of their own, so that a
minute of good ones does not push out the bad one that somebody looks for. Of good ones at most
:data:`GOOD_PER_S` are kept in a second: under load the ring then reaches back for seconds instead of a tenth
of one, and the others cost nothing. No content: neither a prompt nor an answer,
nor the sentence of an error that an extension wrote, nor what a validator remarked.

A watch makes this router publish trails on NATS for at most :data:`MAX_WATCH_S`, sampled. Trails wait for the
publisher in a short queue; what does not fit is dropped and counted, so a watch never slows down requests.
Content is published only for a watch that asks for it, only where the router's own setting allows it, and on
a subject of its own. A watch ends by its time alone, also when whoever asked for it is gone.

All of it runs on the event loop. On the way of a request is :meth:`Trails.note` alone: one append, and one
look at a flag.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson
import structlog
from nats import errors
from nats.aio.client import Client

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.names import SUBJECT_ROUTER_TRAIL, SUBJECT_ROUTER_TRAIL_CONTENT

from ..core.envelope import Envelope
from ..core.request import Answer, Failure, Request, StepTrace
from ..core.route import Route
from ..core.snapshot import Snapshot

log = structlog.get_logger()

DEFAULT_KEPT: Final = 1_000
SLOW_S: Final = 5.0
"""From when on a request counts as slow, and is kept with the failed ones."""
GOOD_PER_S: Final = 200
"""Good requests that are kept per second, the first ones of each."""
MAX_WATCH_S: Final = 600.0
MAX_WATCHES: Final = 16
MAX_CONTENT: Final = 16_000
"""Characters of a prompt, and of an answer, that are published."""
_QUEUE: Final = 256
_BATCH: Final = 20
_EVERY_S: Final = 0.1


class Kept(NamedTuple):
    """What is kept of one request. ``started`` is monotonic seconds."""

    request_id: str
    trace_id: str
    door: str
    tenant: str | None
    environment: str | None
    model: str | None
    policy: str | None
    provider: str | None
    error: WireError | None
    trail: list[StepTrace]
    started: float
    seconds: float


@dataclass(slots=True)
class Watch:
    """Somebody looks on. ``until`` is monotonic seconds; ``tenant`` None is everybody's requests."""

    until: float
    sample: float
    tenant: str | None
    content: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of the kept ones; None is any. ``text`` is found in ids, names and the error's code."""

    limit: int
    policy: str | None = None
    extension: str | None = None
    tenants: frozenset[str] | None = None
    status: str | None = None
    text: str = ""


class Trails:
    """The trails of one router. ``clock`` is monotonic seconds, ``wall`` Unix seconds, ``draw`` is in [0, 1).

    ``kept`` is how many requests each ring holds; 0 keeps none. ``content`` allows watches to ask for it.
    """

    def __init__(
        self,
        instance: str,
        *,
        snapshot: Callable[[], Snapshot | None],
        clock: Callable[[], float],
        wall: Callable[[], float],
        draw: Callable[[], float],
        kept: int = DEFAULT_KEPT,
        content: bool = False,
    ) -> None:
        self._instance = instance
        self._snapshot = snapshot
        self._clock = clock
        self._wall = wall
        self._draw = draw
        self._recent: deque[Kept] = deque(maxlen=kept)
        self._notable: deque[Kept] = deque(maxlen=kept)
        self._content = content
        self._second_ends = 0.0
        self._good = 0
        self._watches: dict[str, Watch] = {}
        self._queue: deque[tuple[Kept, dict[str, Any] | None]] = deque()
        self._waiting = asyncio.Event()
        self._nc: Client | None = None
        self.dropped = 0
        """Trails that watchers missed because there were too many."""

    def note(
        self,
        door: str,
        envelope: Envelope,
        request: Request | None,
        result: Answer | Failure,
        *,
        started: float,
        seconds: float,
    ) -> None:
        """One request came to its end."""
        good = (type(result) is Answer or request is None) and seconds < SLOW_S
        kept = not good or self._room(started)
        if not kept and not self._watches:
            return
        one = Kept(
            envelope.request_id,
            envelope.trace_id,
            door,
            None if request is None else request.tenant_id,
            None if request is None else request.environment,
            None if request is None else request.model,
            result.policy_id,
            result.provider_id if isinstance(result, Answer) else None,
            None if isinstance(result, Answer) else _small(result.error),
            result.trail,
            started,
            seconds,
        )
        if kept:
            (self._recent if good else self._notable).append(one)
        if self._watches:
            self._offer(one, request, result)

    def _room(self, now: float) -> bool:
        """Whether one more good request is kept in this second."""
        if now >= self._second_ends:
            self._second_ends, self._good = now + 1.0, 0
        self._good += 1
        return self._good <= GOOD_PER_S

    def find(self, request_id: str) -> dict[str, Any] | None:
        """The trail of a request, None where it is unknown or has been pushed out; of several the newest."""
        found = [one for one in self._all() if one.request_id == request_id]
        return self.render(max(found, key=_end)) if found else None

    def recent(self, wanted: Wanted) -> list[dict[str, Any]]:
        """Trails, newest first."""
        found = sorted((one for one in self._all() if _fits(one, wanted)), key=_end, reverse=True)
        return [self.render(one) for one in found[: wanted.limit]]

    def watch(self, key: str, watch: Watch) -> None:
        """Begins or changes the watch ``key``; one that is over ends it. Raises :class:`PermissionError` and
        :class:`OverflowError`.
        """
        if watch.content and not self._content:
            raise PermissionError("content is off in this router: BEAMLINE_TRAIL_CONTENT")
        now = self._clock()
        self._watches = {name: one for name, one in self._watches.items() if one.until > now and name != key}
        if watch.until <= now:
            return
        if len(self._watches) >= MAX_WATCHES:
            raise OverflowError(f"{MAX_WATCHES} watches are on; try again when one has ended")
        self._watches[key] = watch

    def attach(self, nc: Client) -> None:
        """Publishes by ``nc`` from now on."""
        self._nc = nc

    async def run(self) -> None:
        """Publishes what watchers want until cancelled."""
        while True:
            await self._waiting.wait()
            for _ in range(min(_BATCH, len(self._queue))):
                one, content = self._queue.popleft()
                await self._publish(SUBJECT_ROUTER_TRAIL, self.render(one))
                if content is not None:
                    ids = {"request_id": one.request_id, "instance": self._instance}
                    await self._publish(SUBJECT_ROUTER_TRAIL_CONTENT, ids | {"content": content})
            if not self._queue:
                self._waiting.clear()
            await asyncio.sleep(_EVERY_S)

    def render(self, one: Kept) -> dict[str, Any]:
        """The JSON form of a trail."""
        compiled = self._snapshot()
        policies = {} if compiled is None else compiled.compiled_policies
        policy = policies.get(one.policy or "")
        groups = {} if policy is None else _groups(policy.route)
        asked = [entry for entry in one.trail if entry.action == "select_provider" and entry.outcome == "ok"]
        began = self._wall() - (self._clock() - one.started)
        return {
            "request_id": one.request_id,
            "trace_id": one.trace_id,
            "at": _rfc3339(began),
            "instance": self._instance,
            "door": one.door,
            "policy": one.policy,
            "tenant": one.tenant,
            "environment": one.environment,
            "model": one.model,
            "status": "ok" if one.error is None else "error",
            "error": None if one.error is None else _error(one.error),
            "latency_ms": round(one.seconds * 1000.0, 3),
            "provider": one.provider,
            "reason": asked[-1].why if asked else None,
            "steps": [_step(entry, one.started, groups.get(entry.step)) for entry in one.trail],
        }

    def _all(self) -> Iterator[Kept]:
        yield from self._recent
        yield from self._notable

    def _offer(self, one: Kept, request: Request | None, result: Answer | Failure) -> None:
        now, wanted, content = self._clock(), False, False
        for key, watch in tuple(self._watches.items()):
            if now >= watch.until:
                del self._watches[key]
            elif watch.tenant in {None, one.tenant} and self._draw() < watch.sample:
                wanted, content = True, content or watch.content
        if not wanted:
            return
        if len(self._queue) >= _QUEUE:
            self.dropped += 1
            return
        self._queue.append((one, content_of(request, result) if content else None))
        self._waiting.set()

    async def _publish(self, subject: str, document: dict[str, Any]) -> None:
        if self._nc is None or not self._nc.is_connected:
            return
        try:
            await self._nc.publish(subject, orjson.dumps(document, default=str))
        except errors.Error as error:
            log.debug("trail.not_sent", error=type(error).__name__)


def content_of(request: Request | None, result: Answer | Failure) -> dict[str, Any]:
    """Prompt and answer, each cut to :data:`MAX_CONTENT` characters."""
    asked: Any = None
    if request is not None:
        asked = request.prompt
        if asked is None:
            asked = orjson.dumps(request.messages, default=str).decode()
    return {
        "prompt": None if asked is None else asked[:MAX_CONTENT],
        "answer": result.output[:MAX_CONTENT] if isinstance(result, Answer) else None,
    }


def _fits(one: Kept, wanted: Wanted) -> bool:
    if wanted.policy is not None and one.policy != wanted.policy:
        return False
    if wanted.extension is not None and all(entry.extension_id != wanted.extension for entry in one.trail):
        return False
    if wanted.tenants is not None and one.tenant not in wanted.tenants:
        return False
    code = "ok" if one.error is None else one.error.code.value
    if wanted.status is not None and wanted.status not in {code, "ok" if code == "ok" else "error"}:
        return False
    return not wanted.text or any(wanted.text in text for text in _texts(one, code))


def _texts(one: Kept, code: str) -> Iterator[str]:
    said: Iterable[str | None] = (one.request_id, one.trace_id, one.tenant, one.model, one.policy, code)
    yield from (text.casefold() for text in said if text is not None)
    yield from (entry.extension_id for entry in one.trail)


def _end(one: Kept) -> float:
    return one.started + one.seconds


def _groups(route: Route) -> dict[str, str]:
    """The parallel group of each step that is in one."""
    steps = [step for stage in route.before for step in stage]
    return {step.name: step.group for step in steps if step.group is not None}


def _step(entry: StepTrace, started: float, group: str | None) -> dict[str, Any]:
    mode = "shadow" if entry.outcome == "shadow" else "overlap" if entry.why == "overlap" else "enforce"
    return {
        "name": entry.step,
        "action": entry.action,
        "extension": entry.extension_id,
        "version": entry.version,
        "start_ms": round(max(0.0, entry.began - started) * 1000.0, 3),
        "ms": round(entry.ms, 3),
        "outcome": entry.outcome,
        "reason": entry.reason,
        "why": entry.why,
        "attempts": entry.attempts,
        "breaker": entry.breaker,
        "mode": mode,
        "parallel_group": group,
    }


def _rfc3339(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _small(error: WireError) -> WireError:
    return error.at(details={}) if error.details else error


def _error(error: WireError) -> dict[str, Any]:
    """Where it failed, and why in one word; the sentence only where this router wrote it about itself."""
    own = error.extension_id is None and error.code is not ErrorCode.INVALID_ARGUMENT
    return {
        "code": error.code.value,
        "message": error.message if own else None,
        "step": error.step,
        "extension": error.extension_id,
        "attempts": error.attempts,
        "retryable": error.retryable,
    }
