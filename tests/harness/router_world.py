"""A small world around the core: records made from a few words, a fake clock, a scripted transport."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_router.core.pipeline import Pipeline
from beamline_router.core.request import Answer, Failure, Request
from beamline_router.core.snapshot import Snapshot, compile_snapshot
from beamline_router.core.state import Runtime
from beamline_router.fake_streams import FakeSink, FakeStreams, Item
from beamline_router.fakes import FakeClock, FakeRecorder, FakeRng, FakeTransport

ACTIONS = {"pre": "extension_pre", "validator": "extension_validator", "post": "extension_post"}


def extension(extension_id: str, kind: str, **changes: Any) -> ExtensionRecord:
    """A record; its subject is ``test.ID``. Camel-case keywords go into its spec."""
    spec = {key: changes.pop(key) for key in list(changes) if key != key.lower() or key == "concurrency"}
    values: dict[str, Any] = {
        "id": extension_id,
        "type": kind,
        "subject": f"test.{extension_id}",
        "namespace": "default",
        "name": extension_id,
        "uid": f"uid-{extension_id}",
        "generation": 1,
        "retry": 0,
        "timeout_ms": 1_000,
        "spec": spec,
        "created_at": "2026-01-01T00:00:00Z",
    }
    return ExtensionRecord(**{**values, **changes})


def policy(policy_id: str, steps: list[dict[str, Any]], **changes: Any) -> PolicyRecord:
    """A record; keywords go into its document, except ``created_at``."""
    created_at = changes.pop("created_at", "2026-01-01T00:00:00Z")
    document = {"steps": steps, **changes}
    return PolicyRecord(policy_id, "default", policy_id, f"uid-{policy_id}", 1, document, created_at)


def pre(extension_id: str = "pre", **changes: Any) -> dict[str, Any]:
    return {"action": "extension_pre", "extension_id": extension_id, **changes}


def check(extension_id: str = "check", **changes: Any) -> dict[str, Any]:
    return {"action": "extension_validator", "extension_id": extension_id, **changes}


def provider(provider_id: str = "main", **changes: Any) -> dict[str, Any]:
    return {"action": "select_provider", "provider_id": provider_id, **changes}


def providers(choices: dict[str, int], **changes: Any) -> dict[str, Any]:
    listed = [{"provider_id": key, "weight": weight} for key, weight in choices.items()]
    return {"action": "select_provider", "providers": listed, **changes}


def post(extension_id: str = "post", **changes: Any) -> dict[str, Any]:
    return {"action": "extension_post", "extension_id": extension_id, **changes}


PASS = {"verdict": "pass"}
REJECT = {"verdict": "reject", "reason": "a card number", "details": {"found": ["credit_card"]}}


def says(output: str = "hello") -> dict[str, Any]:
    """A provider's reply."""
    return {"output": output, "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}


def fails(code: str, **more: Any) -> dict[str, Any]:
    """An error reply."""
    return {"error": {"code": code, "message": f"said {code}", **more}}


@dataclass
class World:
    """Everything that a pipeline needs, scripted. The extensions pre, check, main, second, third and post are
    there.
    """

    clock: FakeClock = field(default_factory=FakeClock)
    rng: FakeRng = field(default_factory=lambda: FakeRng(0.0))
    recorder: FakeRecorder = field(default_factory=FakeRecorder)

    def __post_init__(self) -> None:
        self.transport = FakeTransport(self.clock)
        self.streams = FakeStreams(self.clock)
        self.sink = FakeSink()
        self.runtime = Runtime(self.clock, self.rng, self.recorder)
        self.pipeline = Pipeline(
            self.transport,
            self.runtime,
            self.recorder,
            self.clock,
            self.clock.sleep,
            self.rng,
            wall=self.clock.wall,
            streams=self.streams,
        )
        self.extensions: dict[str, ExtensionRecord] = {}
        for extension_id, kind in (("pre", "pre"), ("check", "validator"), ("post", "post")):
            self.have(extension_id, kind)
        for extension_id in ("main", "second", "third"):
            self.have(extension_id, "provider")
        self.answers("pre", {})
        self.answers("check", PASS)
        self.answers("post", {})
        for extension_id in ("main", "second", "third"):
            self.answers(extension_id, says(extension_id))
        self.snapshot = Snapshot.empty()

    def have(self, extension_id: str, kind: str, **changes: Any) -> None:
        """Adds or replaces an extension; takes effect with the next :meth:`route`."""
        self.extensions[extension_id] = extension(extension_id, kind, **changes)

    def lack(self, extension_id: str) -> None:
        del self.extensions[extension_id]

    def answers(self, extension_id: str, *replies: Any) -> None:
        self.transport.script(f"test.{extension_id}", *replies)

    def route(self, *steps: dict[str, Any], **changes: Any) -> None:
        """One policy that takes every request."""
        compilation = compile_snapshot(
            self.extensions.values(),
            [policy("only", list(steps), **changes)],
            revision=self.snapshot.revision + 1,
            previous=self.snapshot,
        )
        assert compilation.refused == ()
        self.snapshot = compilation.snapshot
        self.runtime.adopt(self.snapshot)

    async def ask(self, **changes: Any) -> Answer | Failure:
        """One request to its end; time jumps wherever everything waits."""
        return await self.clock.drive(self.pipeline.run(request(**changes), self.snapshot))

    async def answer(self, **changes: Any) -> Answer:
        result = await self.ask(**changes)
        assert isinstance(result, Answer), result
        return result

    async def failure(self, **changes: Any) -> Failure:
        result = await self.ask(**changes)
        assert isinstance(result, Failure), result
        return result

    def streams_from(self, extension_id: str, *scripts: list[Item]) -> None:
        self.streams.script(f"test.{extension_id}", *scripts)

    async def stream(self, **changes: Any) -> Answer | Failure:
        """One streamed request to its end, into a new ``sink``."""
        self.sink = FakeSink(takes=self.sink.takes, fail=self.sink.fail)
        return await self.clock.drive(self.pipeline.run(request(**changes), self.snapshot, self.sink))

    async def open_breaker(self, extension_id: str) -> None:
        """Fails one extension, which must end the request, until its breaker is open."""
        self.answers(extension_id, fails("INTERNAL", retryable=False))
        for _ in range(5):
            await self.failure(policy="only")
        assert self.runtime.breaker_states()[extension_id] == "open"

    def calls(self, extension_id: str) -> int:
        return len(self.transport.calls(f"test.{extension_id}"))

    def order(self) -> list[str]:
        return [sent.subject.removeprefix("test.") for sent in self.transport.sent]


def request(**changes: Any) -> Request:
    values: dict[str, Any] = {"request_id": "req-1", "tenant_id": "acme", "deadline": None, "prompt": "Hi"}
    return Request(**{**values, **changes})
