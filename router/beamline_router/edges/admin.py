"""The admin subjects: what a person asks of all routers, or of one, over NATS.

``beamline.router.v1.admin.VERB`` takes a JSON object and every router answers with its ``instance`` and
either ``result`` or ``error``; with ``"instance": "..."`` in the request only that router does, and the
others stay silent.

    status   what it serves: revision, age, breakers, limits, what it refused, who overloads it
    explain  ``{"request": {...}, "headers": {...}}``: which way a request would take now; nothing is called
    isolate  ``{"extension": "ID"}``: every call to it is refused until reset
    reset    ``{"extension": "ID"}``: its breakers are closed at once
    traffic  counters since the start: requests, extensions, policies and their steps
    recent   ``{"limit": 50, ...}``: trails of the last requests that fit, newest first, without content
    trace    ``{"request_id": "..."}``: the trail of one request
    watch    ``{"watch": "ID", "seconds": 60, "sample": 1}``: trails are published meanwhile (:mod:`.trails`)

Who may publish here is decided by NATS' permissions, one subject for each verb. What arrives is bounded and
checked all the same: anything else is INVALID_ARGUMENT. A message without a reply subject is not executed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
import structlog
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.names import SUBJECT_ROUTER_ADMIN, object_id

from ..core.api_keys import without_keys
from ..core.envelope import open_envelope
from ..core.explain import explain
from ..core.intake import read_request
from ..core.snapshot import Snapshot
from ..core.state import Runtime
from .admin_messages import MAX_LIMIT, AdminError, read
from .trails import Trails, Wanted, Watch

log = structlog.get_logger()


class Admin:
    """Answers for one router. ``status``, ``traffic``: the results of those verbs; ``now`` is monotonic
    seconds.
    """

    def __init__(
        self,
        instance: str,
        *,
        snapshot: Callable[[], Snapshot | None],
        runtime: Runtime,
        status: Callable[[], dict[str, Any]],
        traffic: Callable[[], dict[str, Any]],
        trails: Trails,
        now: Callable[[], float],
    ) -> None:
        self._instance = instance
        self._snapshot = snapshot
        self._runtime = runtime
        self._status = status
        self._traffic = traffic
        self._trails = trails
        self._now = now

    async def open(self, nc: Client) -> Subscription:
        """Begins to listen."""

        async def arrived(message: Msg) -> None:
            if not message.reply:
                return
            answer = self.answer(message.subject, message.data)
            if answer is None:
                return
            body = orjson.dumps(answer, default=str)
            if len(body) > nc.max_payload:
                body = orjson.dumps(self._too_large(nc.max_payload))
            try:
                await nc.publish(message.reply, body)
            except errors.Error as error:
                log.debug("admin.not_answered", error=type(error).__name__)

        return await nc.subscribe(f"{SUBJECT_ROUTER_ADMIN}.*", cb=arrived)

    def answer(self, subject: str, body: bytes) -> dict[str, Any] | None:
        """The answer to one message; None where another router is meant."""
        verb = subject.rpartition(".")[2]
        try:
            asked = read(verb, body)
            wanted = asked.get("instance")
            if wanted is not None and wanted != self._instance:
                return None
            return {"instance": self._instance, "result": self._act(verb, asked)}
        except AdminError as refused:
            return {"instance": self._instance, "error": refused.error.to_wire()}

    def _too_large(self, limit: int) -> dict[str, Any]:
        """The answer where the answer does not fit: silence would read as a router that is not there."""
        error = WireError.of(
            ErrorCode.INTERNAL,
            f"the answer is larger than the {limit} bytes that NATS carries here: ask for less",
            retryable=False,
        )
        return {"instance": self._instance, "error": error.to_wire()}

    def _act(self, verb: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        if verb == "status":
            return self._status()
        if verb == "traffic":
            return self._traffic()
        if verb in {"recent", "trace", "watch"}:
            return self._trail(verb, asked)
        snapshot = self._snapshot()
        if snapshot is None:
            raise AdminError(WireError.of(ErrorCode.UNAVAILABLE, "this router has not read the registry yet"))
        if verb == "explain":
            return self._explain(asked, snapshot)
        name = asked["extension"]
        extension = snapshot.compiled_extensions.get(object_id(name))
        if extension is None:
            raise AdminError(WireError.of(ErrorCode.NOT_FOUND, f"this router knows no extension {name}"))
        if verb == "isolate":
            self._runtime.isolate(extension)
        else:
            self._runtime.reset(extension)
        log.warning(f"breaker.{verb}", extension_id=extension.id, by="admin subject")
        states = self._runtime.breaker_states()
        own = f"{extension.id}@"
        return {
            "extension_id": extension.id,
            "breakers": {
                key: state for key, state in states.items() if key == extension.id or key.startswith(own)
            },
        }

    def _trail(self, verb: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        if verb == "recent":
            return {"requests": self._trails.recent(_wanted(asked))}
        if verb == "trace":
            found = self._trails.find(asked["request_id"])
            if found is None:
                raise AdminError(
                    WireError.of(ErrorCode.NOT_FOUND, "this router does not remember that request")
                )
            return found
        seconds = float(asked.get("seconds", 0))
        watch = Watch(
            self._now() + seconds,
            float(asked.get("sample", 0)),
            asked.get("tenant"),
            asked.get("content", False),
        )
        try:
            self._trails.watch(asked["watch"], watch)
        except PermissionError as error:
            raise AdminError(WireError.of(ErrorCode.PERMISSION_DENIED, str(error))) from error
        except OverflowError as error:
            raise AdminError(WireError.of(ErrorCode.RESOURCE_EXHAUSTED, str(error))) from error
        log.info("trail.watched", seconds=seconds, sample=watch.sample, content=watch.content)
        return {"seconds": seconds, "dropped": self._trails.dropped}

    def _explain(self, asked: Mapping[str, Any], snapshot: Snapshot) -> dict[str, Any]:
        headers = without_keys({name.lower(): value for name, value in asked.get("headers", {}).items()})
        envelope = open_envelope(headers, lambda _: 1)
        request = read_request(
            orjson.dumps(asked["request"]), headers, envelope, now=self._now(), unix_ms=0.0
        )
        if isinstance(request, WireError):
            raise AdminError(request)
        return explain(request, snapshot, self._runtime)


def _wanted(asked: Mapping[str, Any]) -> Wanted:
    tenants = asked.get("tenants")
    return Wanted(
        limit=asked.get("limit", MAX_LIMIT),
        policy=None if asked.get("policy") is None else object_id(asked["policy"]),
        extension=None if asked.get("extension") is None else object_id(asked["extension"]),
        tenants=None if tenants is None else frozenset(tenants),
        status=asked.get("status"),
        text=(asked.get("q") or "").casefold(),
    )
