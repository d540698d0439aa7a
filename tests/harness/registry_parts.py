"""Providers whose life a test controls, and a registry's settings that hold nobody up."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

from beamline_sdk.framework import BaseProvider, ProviderConfig
from beamline_sdk.registry import RegistryConfig, RegistryError


class Part(BaseProvider[ProviderConfig]):
    """Notes its life; each phase fails, or waits, where the test says so."""

    kind = "storage"
    provider_type: ClassVar[str] = "part"

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self.lived: list[str] = []
        self.fails: set[str] = set()
        self.gates: dict[str, asyncio.Event] = {}
        self.sick: str | None = None

    async def open(self) -> None:
        await self._do("open")

    async def start(self) -> None:
        await self._do("start")

    async def check(self) -> str | None:
        await self._do("check")
        return self.sick

    async def stop(self) -> None:
        await self._do("stop")

    async def close(self) -> None:
        await self._do("close")

    def get_capabilities(self) -> tuple[str, ...]:
        return ("keep",)

    async def _do(self, what: str) -> None:
        self.lived.append(what)
        if what in self.gates:
            await self.gates[what].wait()
        if what in self.fails:
            raise RuntimeError(f"sk-secret: {what}")


def part(name: str = "one", *, fails: tuple[str, ...] = (), gate: str | None = None) -> Part:
    made = Part(ProviderConfig(name=name, version="1.2.3"))
    made.fails = set(fails)
    if gate is not None:
        made.gates[gate] = asyncio.Event()
    return made


def config(**sections: dict[str, Any]) -> RegistryConfig:
    quiet = {"enable_environment_discovery": False, "auto_refresh_interval": None}
    quick = {"init_timeout": 0.05, "dispose_timeout": 0.05, "graceful_shutdown_timeout": 2.0}
    health = {"timeout": 0.05, "retries": 0, "check_interval": 3600}
    return RegistryConfig.model_validate(
        {
            "discovery": quiet,
            "lifecycle": quick | sections.pop("lifecycle", {}),
            "health": health | sections.pop("health", {}),
            **sections,
        }
    )


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def refused(work: Any, code: str) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        await work
    assert caught.value.code == code
    return caught.value
