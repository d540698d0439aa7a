"""The fakes of the core's ports: a clock that only moves when told, a scripted transport, a recorder that
remembers.

They ship with the router so that whoever tests against the core (the edges, the CLI, an embedder) scripts the
same behaviour. Nothing here waits in real time: :meth:`FakeClock.drive` runs an awaitable and jumps to the
next timer whenever all tasks are waiting.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import orjson

from .core.ports import TransportFault

T = TypeVar("T")
_TURNS_UNTIL_IDLE = 30


class FakeClock:
    """Monotonic seconds that stand still until moved. Call it for the time; ``wall`` is a fixed offset from
    it.
    """

    def __init__(self, start: float = 1_000.0) -> None:
        self.now = start
        self.slept: list[float] = []
        self._timers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = 0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        """Unix seconds, 1.7e9 after the monotonic ones."""
        return 1_700_000_000.0 + self.now

    async def wait(self, seconds: float) -> None:
        """Waits in this clock's time."""
        if seconds <= 0:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._timers, (self.now + seconds, self._order, waiter))
        await waiter

    async def sleep(self, seconds: float) -> None:
        """As :meth:`wait`, and noted in ``slept``: what the code under test calls its pauses."""
        self.slept.append(seconds)
        await self.wait(seconds)

    async def settle(self) -> None:
        """Lets every task run until it waits."""
        for _ in range(_TURNS_UNTIL_IDLE):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        """Moves time, waking in order what waits for it."""
        target = self.now + seconds
        await self.settle()
        while self._timers and self._timers[0][0] <= target:
            await self._fire()
        self.now = target
        await self.settle()

    async def drive(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs ``work`` to its end, jumping from timer to timer."""
        task = asyncio.ensure_future(work)
        while True:
            await self.settle()
            if task.done():
                return task.result()
            if not self._timers:
                task.cancel()
                raise RuntimeError("everything waits and no timer is set")
            await self._fire()

    async def _fire(self) -> None:
        at, _, waiter = heapq.heappop(self._timers)
        if waiter.done():
            return
        self.now = max(self.now, at)
        waiter.set_result(None)
        await self.settle()


@dataclass(frozen=True, slots=True)
class Sent:
    """One message that the transport was given, and when."""

    subject: str
    payload: bytes
    headers: Mapping[str, str]
    timeout_s: float
    at: float

    @property
    def body(self) -> dict[str, Any]:
        """The payload as an object."""
        loaded: dict[str, Any] = orjson.loads(self.payload)
        return loaded


@dataclass(frozen=True, slots=True)
class After:
    """A reply that takes its time; beyond the timeout it becomes TIMED_OUT."""

    seconds: float
    reply: Reply


Reply: TypeAlias = "bytes | dict[str, Any] | TransportFault | After | Exception | Callable[[Sent], Reply]"


class FakeTransport:
    """Answers by script: per subject a reply for always, or a list that is used up and whose last entry
    stays.

    A subject without a script has no responders.
    """

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock if clock is not None else FakeClock()
        self.sent: list[Sent] = []
        self.cancelled: list[str] = []
        self._scripts: dict[str, list[Reply]] = {}

    def script(self, subject: str, *replies: Reply) -> None:
        """Sets what a subject answers from now on."""
        self._scripts[subject] = list(replies)

    def calls(self, subject: str) -> list[Sent]:
        """What was sent to one subject."""
        return [sent for sent in self.sent if sent.subject == subject]

    async def request(
        self, subject: str, payload: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> bytes | TransportFault:
        """As the port says; an exception in the script is raised, as a broken library would."""
        sent = Sent(subject, payload, dict(headers), timeout_s, self.clock.now)
        self.sent.append(sent)
        replies = self._scripts.get(subject)
        if not replies:
            return TransportFault.NO_RESPONDERS
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        try:
            return await self._resolve(reply, sent)
        except asyncio.CancelledError:
            self.cancelled.append(subject)
            raise

    async def _resolve(self, reply: Reply, sent: Sent) -> bytes | TransportFault:
        if isinstance(reply, After):
            if reply.seconds > sent.timeout_s:
                await self.clock.wait(sent.timeout_s)
                return TransportFault.TIMED_OUT
            await self.clock.wait(reply.seconds)
            return await self._resolve(reply.reply, sent)
        if isinstance(reply, TransportFault):
            if reply is TransportFault.TIMED_OUT:
                await self.clock.wait(sent.timeout_s)
            return reply
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, bytes):
            return reply
        if isinstance(reply, dict):
            return orjson.dumps(reply)
        return await self._resolve(reply(sent), sent)


@dataclass
class FakeRecorder:
    """Remembers everything it was told, in order."""

    steps: list[tuple[str, str, str, str | None]] = field(default_factory=list)
    attempts: list[tuple[str, bool, str | None]] = field(default_factory=list)
    drops: list[tuple[str, str]] = field(default_factory=list)
    breakers: list[tuple[str, str]] = field(default_factory=list)

    def step(
        self, extension_id: str, extension_type: str, outcome: str, reason: str | None, seconds: float
    ) -> None:
        """Remembers a step, without its duration."""
        self.steps.append((extension_id, extension_type, outcome, reason))

    def attempt(self, extension_id: str, failed: bool, reason: str | None, seconds: float) -> None:
        """Remembers a call, without its duration."""
        self.attempts.append((extension_id, failed, reason))

    def dropped(self, extension_id: str, what: str) -> None:
        """Remembers what was ignored."""
        self.drops.append((extension_id, what))

    def breaker(self, extension_id: str, state: str) -> None:
        """Remembers a breaker's new state."""
        self.breakers.append((extension_id, state))


class FakeRng:
    """Randomness that is a script: floats in turn, the last one for ever; bits count up from 1."""

    def __init__(self, *floats: float) -> None:
        self._floats = list(floats) or [0.5]
        self._bits = 0

    def random(self) -> float:
        """The next float of the script."""
        return self._floats.pop(0) if len(self._floats) > 1 else self._floats[0]

    def getrandbits(self, k: int, /) -> int:
        """1, 2, 3, ... whatever ``k`` is."""
        self._bits += 1
        return self._bits
