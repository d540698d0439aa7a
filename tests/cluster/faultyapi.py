"""A real API server with scripted faults: kmock in front of it, which passes on what no fault takes.

So an operator under test sees a real API server's objects, versions and rules, and the faults are exactly
those that the test asks for. Every request is recorded with the moment of its arrival.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import kmock
import yaml

Fault: TypeAlias = Callable[[kmock.Request], Any]
"""What a request is answered with; None passes it on."""


@dataclass(frozen=True)
class Seen:
    """One request: when, in monotonic seconds, and what."""

    at: float
    request: kmock.Request
    refused: bool


class FaultyApi:
    """The server; what it passes on, it sends with the login of ``kubeconfig``. ``fault`` may be set at any
    time; open watches heed :meth:`cut` and :meth:`mute`.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self.fault: Fault | None = None
        self.seen: list[Seen] = []
        self._cuts = 0
        self._mutes = 0
        self._config = yaml.safe_load(kubeconfig.read_text())
        self._user = self._config["users"][0]["user"]
        self._stack = contextlib.AsyncExitStack()
        self._upstream = self._config["clusters"][0]["cluster"]["server"]

    async def __aenter__(self) -> FaultyApi:
        script = await self._stack.enter_async_context(kmock.RawHandler())
        script.fallback << self._answer
        server = await self._stack.enter_async_context(kmock.Server(script))
        self.url = str(server.url).rstrip("/")
        connector = aiohttp.TCPConnector(ssl=self._trust(), limit=0)
        self._session = await self._stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        await self._stack.aclose()

    def kubeconfig(self, path: Path) -> str:
        """Credentials for this server, which needs none."""
        config = {
            **self._config,
            "clusters": [{"name": "faulty", "cluster": {"server": self.url}}],
            "users": [{"name": "faulty", "user": {"token": "unused"}}],
            "contexts": [{"name": "faulty", "context": {"cluster": "faulty", "user": "faulty"}}],
            "current-context": "faulty",
        }
        path.write_text(yaml.safe_dump(config))
        return str(path)

    def cut(self) -> None:
        """Ends every watch that is open now."""
        self._cuts += 1

    def mute(self) -> None:
        """Every watch that is open now stays open and says nothing more."""
        self._mutes += 1

    def refused(self) -> dict[str, list[float]]:
        """When requests about one object were refused, by method and path."""
        found: dict[str, list[float]] = {}
        for seen in self.seen:
            if seen.refused and seen.request.action is not kmock.action.WATCH:
                found.setdefault(f"{seen.request.method.value} {seen.request.url.path}", []).append(seen.at)
        return found

    async def _answer(self, request: kmock.Request) -> Any:
        answer = self.fault(request) if self.fault is not None else None
        self.seen.append(Seen(time.monotonic(), request, answer is not None))
        if answer is not None:
            return answer
        if request.params.get("watch") == "true":
            return kmock.Response(status=200, payload=self._watch(request))  # or it gets that of another one
        async with self._pass_on(request) as answered:
            return kmock.Response(
                status=answered.status,
                headers={"Content-Type": answered.headers.get("Content-Type", "application/json")},
                payload=await answered.read(),
            )

    async def _watch(self, request: kmock.Request) -> AsyncIterator[bytes]:
        cuts, mutes = self._cuts, self._mutes
        yield b""
        async with self._pass_on(request) as answered:
            lines = asyncio.create_task(answered.content.readline())
            try:
                while cuts == self._cuts:
                    await asyncio.wait({lines}, timeout=0.05)
                    if mutes != self._mutes or not lines.done():
                        continue
                    if not (line := lines.result()):
                        return
                    yield line
                    lines = asyncio.create_task(answered.content.readline())
            finally:
                lines.cancel()

    def _pass_on(self, request: kmock.Request) -> Any:
        kept = ("Accept", "Content-Type")
        login = {"Authorization": f"Bearer {self._user['token']}"} if "token" in self._user else {}
        return self._session.request(
            request.method.value,
            f"{self._upstream}{request.url.raw_path_qs}",
            data=request.body or None,
            headers={
                **{name: value for name, value in request.headers.items() if name.title() in kept},
                **login,
            },
            timeout=aiohttp.ClientTimeout(total=None),
        )

    def _trust(self) -> ssl.SSLContext:
        trust = ssl.create_default_context(
            cafile=self._config["clusters"][0]["cluster"]["certificate-authority"]
        )
        trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if "client-certificate" in self._user:
            trust.load_cert_chain(self._user["client-certificate"], self._user["client-key"])
        return trust


def status(code: int, reason: str, **headers: str) -> kmock.Response:
    """What an API server says instead of success."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}
    return kmock.Response(status=code, headers=headers, payload={**body, "message": f"scripted: {reason}"})
