"""One run: the extension, the way to it, and what was learned about it on the way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from .caller import Answer, Caller
from .processes import Instance, Launcher
from .results import FailedError
from .shapes import error_code, reply_faults
from .target import Target

READY_SECONDS: Final = 30.0
SLOW_PROBE_MS: Final = 300
_ASK_AGAIN_SECONDS: Final = 0.05


@dataclass
class Session:
    """``instance`` is None where the extension runs elsewhere. ``info`` is its answer on ``$SRV.INFO``."""

    target: Target
    caller: Caller
    nats_url: str
    launcher: Launcher | None = None
    instance: Instance | None = None
    info: dict[str, Any] | None = None
    _slow: bool | None = field(default=None, repr=False)

    async def answered(
        self, request: dict[str, Any], headers: dict[str, str] | None = None, **options: Any
    ) -> Answer:
        """A well-formed reply that is no error. Raises :class:`FailedError`."""
        answer = await self.well_formed(request, headers, **options)
        if error_code(answer.body) is not None:
            said = answer.body["error"].get("message", "")
            raise FailedError(
                f"an ordinary request was answered with {error_code(answer.body)}: {said} "
                "(--prompt and --config say what it can answer)"
            )
        return answer

    async def well_formed(
        self, request: dict[str, Any], headers: dict[str, str] | None = None, **options: Any
    ) -> Answer:
        """A reply that keeps the contract, errors included. Raises :class:`FailedError`."""
        answer = await self.caller.ask(request, headers, **options)
        faults = reply_faults(self.target.kind, answer.body, request)
        if faults:
            raise FailedError("; ".join(faults))
        return answer

    def schema(self) -> dict[str, Any] | None:
        """The JSON Schema that it publishes for its configuration; None where there is none."""
        text = ((self.info or {}).get("metadata") or {}).get("beamline.config_schema")
        try:
            found = orjson.loads(text) if isinstance(text, str) else None
        except orjson.JSONDecodeError:
            return None
        return found if isinstance(found, dict) else None

    def slow_request(self, milliseconds: int, text: str | None = None) -> dict[str, Any]:
        """A request that takes ``milliseconds``, of an extension that can be made slow."""
        if self.target.slow is not None:
            return self.target.request(text, **self.target.slow)
        request = self.target.request(text, parameters={"latency_ms": milliseconds})
        properties = (self.schema() or {}).get("properties")
        if isinstance(properties, dict) and "latency_ms" in properties:
            request["config"]["latency_ms"] = milliseconds
        return request

    async def can_be_slow(self) -> bool:
        """Whether :meth:`slow_request` takes effect; asked once."""
        if self._slow is None:
            answer = await self.well_formed(self.slow_request(SLOW_PROBE_MS))
            self._slow = answer.seconds * 1000 >= SLOW_PROBE_MS * 0.8
        return self._slow

    async def launch(self) -> Instance:
        """Starts an instance and waits until it answers. Raises :class:`FailedError`."""
        assert self.launcher is not None
        before = len(await self.services()) if self.instance is not None else 0
        instance = self.launcher.start(self.target, self.nats_url)
        # A process that subscribes and never speaks the services protocol is ready as well, once it answers.
        async with asyncio.timeout(READY_SECONDS):
            while instance.exit_code is None:
                if len(await self.services(least=before + 1, seconds=0.3)) > before:
                    return instance
                if before == 0 and await self._listens():
                    return instance
                await asyncio.sleep(_ASK_AGAIN_SECONDS)
        raise FailedError(f"the process ended with exit code {instance.exit_code}: {instance.last_words()}")

    async def services(self, *, least: int = 1, seconds: float = 1.0) -> list[dict[str, Any]]:
        """The answers on ``$SRV.INFO`` of those that serve the subject, one per instance."""
        found = await self.caller.heard("$SRV.INFO", seconds=seconds, least=least)
        return [one for one in found if isinstance(one, dict) and self.endpoint_of(one) is not None]

    def endpoint_of(self, info: dict[str, Any]) -> dict[str, Any] | None:
        """The endpoint of a service that is the subject under test."""
        endpoints = info.get("endpoints")
        for endpoint in endpoints if isinstance(endpoints, list) else ():
            if isinstance(endpoint, dict) and endpoint.get("subject") == self.target.subject:
                return endpoint
        return None

    async def _listens(self) -> bool:
        try:
            await self.caller.ask(self.target.request(), seconds=2.0)
        except FailedError:
            return False
        return True
