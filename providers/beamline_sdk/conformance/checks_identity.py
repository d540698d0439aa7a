"""What it says it is, what it answers, and whose configuration and trace it uses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from .results import FailedError, NotCheckedError
from .session import Session
from .shapes import error_code

_SEMVER: Final = re.compile(r"^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$")
_WRONG: Final[Mapping[str, Any]] = {
    "string": {"not": "a string"},
    "integer": {"not": "a number"},
    "number": {"not": "a number"},
    "boolean": {"not": "a truth value"},
    "array": {"not": "a list"},
    "object": "not an object",
}
"""A value of another type for each type of JSON Schema."""


async def service(session: Session) -> str:
    """$SRV.PING, INFO and STATS, for all, by name and by instance."""
    infos = await session.services()
    if not infos:
        raise FailedError(f"no answer on $SRV.INFO names an endpoint on {session.target.subject}")
    info = session.info = infos[0]
    name, instance = info.get("name"), info.get("id")
    if not isinstance(name, str) or not name or not isinstance(instance, str) or not instance:
        raise FailedError("$SRV.INFO holds no name or no id")
    if not _SEMVER.match(str(info.get("version"))):
        raise FailedError(f"version {info.get('version')!r} is no semantic version, such as 1.0.0")
    metadata = info.get("metadata")
    kind = metadata.get("beamline.type") if isinstance(metadata, dict) else None
    if kind != session.target.kind:
        raise FailedError(f"metadata beamline.type is {kind!r}, not {session.target.kind!r}")
    if not any(isinstance(one, dict) and one.get("id") == instance for one in await _pinged(session, name)):
        raise FailedError(f"no answer on $SRV.PING.{name}")
    for verb in ("PING", "INFO", "STATS"):
        said = (await session.caller.ask(b"", subject=f"$SRV.{verb}.{name}.{instance}", seconds=2.0)).body
        wanted = f"io.nats.micro.v1.{verb.lower()}_response"
        if not isinstance(said, dict) or said.get("type") != wanted:
            raise FailedError(f"the answer on $SRV.{verb} has another type than {wanted}")
        endpoint = session.endpoint_of(said)
        if verb == "STATS" and (endpoint is None or not isinstance(endpoint.get("num_requests"), int)):
            raise FailedError("$SRV.STATS does not count the requests of the endpoint")
    return f"{name} {info['version']}, {kind}"


async def _pinged(session: Session, name: str) -> list[Any]:
    return await session.caller.heard(f"$SRV.PING.{name}", seconds=2.0)


async def schema(session: Session) -> str:
    """The JSON Schema in the metadata."""
    if session.info is None:
        raise NotCheckedError("$SRV.INFO did not answer")
    found = session.schema()
    if found is None:
        raise FailedError("metadata beamline.config_schema is missing, or is no JSON object in a text")
    if found.get("type") != "object":
        raise FailedError("the schema does not say that the configuration is an object")
    return f"{len(found.get('properties') or {})} properties"


async def contract(session: Session) -> str:
    """One ordinary request, and for all but post steps one with messages."""
    target = session.target
    answer = await session.answered(target.request())
    if target.kind != "post":
        request = target.request()
        request["messages"] = [{"role": "user", "content": request.pop("prompt")}]
        await session.well_formed(request)
    return f"answered in {answer.seconds * 1000:.0f} ms"


async def config(session: Session) -> str:
    """A value of the wrong type must be refused, and the next request be answered again."""
    properties = (session.schema() or {}).get("properties")
    for name, property_schema in (properties or {}).items():
        expected = property_schema.get("type") if isinstance(property_schema, dict) else None
        if not isinstance(expected, str) or expected not in _WRONG:
            continue
        wrong = {**session.target.config, name: _WRONG[expected]}
        answer = await session.well_formed(session.target.request(config=wrong))
        if error_code(answer.body) is None:
            raise FailedError(f"config.{name} was sent as something else than {expected}, and not refused")
        await session.answered(session.target.request())
        return f"refuses a wrong config.{name}, request by request"
    raise NotCheckedError("its schema has no property with a plain type")


async def trace(session: Session) -> str:
    """Whole replies and errors carry the request's trace context."""
    wanted = uuid4().hex
    headers = {"traceparent": f"00-{wanted}-00f067aa0ba902b7-01", "tracestate": "conformance=1"}
    for what, request in (("a reply", session.target.request()), ("an error", b"not JSON")):
        answer = await session.caller.ask(request, headers)
        given = answer.headers.get("traceparent", "")
        if wanted not in given:
            raise FailedError(f"{what} came back with traceparent {given!r}")
        if answer.headers.get("tracestate") != headers["tracestate"]:
            raise FailedError(f"{what} came back without tracestate")
    return "on replies and on errors"
