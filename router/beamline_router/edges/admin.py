"""The admin subjects: what a person asks of all routers, or of one, over NATS.

``beamline.router.v1.admin.VERB`` takes a JSON object and every router answers with its ``instance`` and
either ``result`` or ``error``; with ``"instance": "..."`` in the request only that router does, and the
others stay silent.

    status   what it serves: revision, age, breakers, limits, what it refused, who overloads it
    explain  ``{"request": {...}, "headers": {...}}``: which way a request would take now; nothing is called
    isolate  ``{"extension": "ID"}``: every call to it is refused until reset
    reset    ``{"extension": "ID"}``: its breakers are closed at once

Who may publish here is decided by NATS' permissions, one subject for each verb. What arrives is bounded and
checked all the same: anything else is INVALID_ARGUMENT. A message without a reply subject is not executed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
import structlog
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from beamline_contract.errors import ErrorCode, WireError
from beamline_contract.names import ADMIN_VERBS, SUBJECT_ROUTER_ADMIN, object_id
from beamline_contract.wire import MAX_BODY_BYTES

from ..core.api_keys import without_keys
from ..core.explain import explain
from ..core.intake import open_envelope, read_request, too_deep
from ..core.snapshot import Snapshot
from ..core.state import Runtime

log = structlog.get_logger()

_FIELDS: Final[dict[str, frozenset[str]]] = {
    "status": frozenset(),
    "explain": frozenset({"request", "headers"}),
    "isolate": frozenset({"extension"}),
    "reset": frozenset({"extension"}),
}
_EXTENSION: Final = re.compile(r"[a-z][a-z0-9_-]{0,252}")
_INSTANCE: Final = re.compile(r"[\x21-\x7e]{1,128}")
_MAX_HEADERS: Final = 64


class AdminError(Exception):
    """A request that is answered with an error."""

    def __init__(self, error: WireError) -> None:
        super().__init__(error.message)
        self.error = error


class Admin:
    """Answers for one router. ``status``: the result of that verb; ``now`` is monotonic seconds."""

    def __init__(
        self,
        instance: str,
        *,
        snapshot: Callable[[], Snapshot | None],
        runtime: Runtime,
        status: Callable[[], dict[str, Any]],
        now: Callable[[], float],
    ) -> None:
        self._instance = instance
        self._snapshot = snapshot
        self._runtime = runtime
        self._status = status
        self._now = now

    async def open(self, nc: Client) -> Subscription:
        """Begins to listen."""

        async def arrived(message: Msg) -> None:
            if not message.reply:
                return
            answer = self.answer(message.subject, message.data)
            if answer is None:
                return
            try:
                await nc.publish(message.reply, orjson.dumps(answer, default=str))
            except errors.Error as error:
                log.debug("admin.not_answered", error=type(error).__name__)

        return await nc.subscribe(f"{SUBJECT_ROUTER_ADMIN}.*", cb=arrived)

    def answer(self, subject: str, body: bytes) -> dict[str, Any] | None:
        """The answer to one message; None where another router is meant."""
        verb = subject.rpartition(".")[2]
        try:
            asked = _read(verb, body)
            wanted = asked.get("instance")
            if wanted is not None and wanted != self._instance:
                return None
            return {"instance": self._instance, "result": self._act(verb, asked)}
        except AdminError as refused:
            return {"instance": self._instance, "error": refused.error.to_wire()}

    def _act(self, verb: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        if verb == "status":
            return self._status()
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

    def _explain(self, asked: Mapping[str, Any], snapshot: Snapshot) -> dict[str, Any]:
        headers = without_keys({name.lower(): value for name, value in asked.get("headers", {}).items()})
        envelope = open_envelope(headers, lambda _: 1)
        request = read_request(
            orjson.dumps(asked["request"]), headers, envelope, now=self._now(), unix_ms=0.0
        )
        if isinstance(request, WireError):
            raise AdminError(request)
        return explain(request, snapshot, self._runtime)


def _read(verb: str, body: bytes) -> dict[str, Any]:
    """The request, checked. Raises :class:`AdminError`."""
    allowed = _FIELDS.get(verb)
    if allowed is None:
        raise _invalid(f"there is no such verb; there are {', '.join(ADMIN_VERBS)}")
    if len(body) > MAX_BODY_BYTES + 4096:
        raise _invalid(f"an admin request may have at most {MAX_BODY_BYTES + 4096} bytes, got {len(body)}")
    if too_deep(body):
        raise _invalid("an admin request must be balanced JSON of at most 32 levels")
    try:
        asked = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as error:
        raise _invalid(f"the admin request is not JSON: {error.msg}") from None
    if not isinstance(asked, dict):
        raise _invalid("the admin request must be a JSON object")
    unknown = asked.keys() - allowed - {"instance"}
    if unknown:
        known = ", ".join(sorted(allowed | {"instance"}))
        raise _invalid(f"unknown field {min(unknown)[:80]!r}; known are {known}", min(unknown)[:80])
    _check_text(asked, "instance", _INSTANCE, "the id of a router, as status says it", required=False)
    if "extension" in allowed:
        _check_text(asked, "extension", _EXTENSION, "the id or name of an Extension", required=True)
    if verb == "explain":
        _check_explain(asked)
    return asked


def _check_text(
    asked: Mapping[str, Any], field: str, pattern: re.Pattern[str], rule: str, *, required: bool
) -> None:
    value = asked.get(field)
    if value is None and not required:
        return
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise _invalid(f"{field} must be {rule}", field)


def _check_explain(asked: Mapping[str, Any]) -> None:
    if not isinstance(asked.get("request"), dict):
        raise _invalid("request must be an object, as POST /v1/route takes it", "request")
    headers = asked.get("headers", {})
    if (
        not isinstance(headers, dict)
        or len(headers) > _MAX_HEADERS
        or not all(isinstance(value, str) for value in headers.values())
    ):
        raise _invalid(f"headers must be an object of at most {_MAX_HEADERS} texts", "headers")


def _invalid(message: str, field: str | None = None) -> AdminError:
    details: dict[str, Any] = {} if field is None else {"field": field}
    return AdminError(WireError.of(ErrorCode.INVALID_ARGUMENT, message, details=details))
