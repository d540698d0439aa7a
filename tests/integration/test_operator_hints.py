"""The operator's own connection to NATS, with a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from beamline_cli.local.nats import LocalNats
from beamline_contract.names import SUBJECT_REGISTRY_CHANGED, SUBJECT_ROUTER_STATUS
from beamline_contract.reports import Changed, RouterStatus
from beamline_operator.edges.nats_hints import NatsHints
from beamline_sdk import link
from beamline_sdk.link import LinkSettings
from harness.relay import CLOSED_FOR_GOOD, relayed


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while True:
            if condition():
                return
            await asyncio.sleep(0.02)


async def test_a_server_that_hangs_up_for_good_and_credentials_that_are_gone_cost_no_hint_for_long(
    own_nats: LocalNats, tmp_path: Path
) -> None:
    file = tmp_path / "operator.creds"
    told: asyncio.Queue[int] = asyncio.Queue()
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def hinted(message: object) -> None:
        told.put_nowait(Changed.model_validate_json(message.data).revision)  # type: ignore[attr-defined]

    router = await link.connect(LinkSettings(own_nats.url, "router"))
    await router.subscribe(SUBJECT_REGISTRY_CHANGED, cb=hinted)
    async with relayed(own_nats.port) as (port, back):
        hints = NatsHints(
            LinkSettings(f"nats://127.0.0.1:{port}", "operator", str(file)),
            on_report=lambda status: heard.put_nowait(status.instance),
        )
        with structlog.testing.capture_logs() as lines:
            await hints.start()
            await until(lambda: [line for line in lines if line["event"] == "nats.not_opened"])
            file.write_text("this server asks for none")
            for revision in (1, 2):
                await until(lambda: hints.connected)
                await hints.changed(revision)
                while await asyncio.wait_for(told.get(), 20) != revision:
                    pass
                status = RouterStatus(instance=f"router-{revision}", revision=revision, started_at="now")
                while heard.empty():
                    await router.publish(SUBJECT_ROUTER_STATUS, status.model_dump_json().encode())
                    await asyncio.sleep(0.05)
                assert heard.get_nowait() == f"router-{revision}"
                back[-1].write(CLOSED_FOR_GOOD)
                await until(lambda: not hints.connected)
        assert str(file) in next(line["error"] for line in lines if line["event"] == "nats.not_opened")
        await hints.stop()
    await link.close(router, grace_s=1.0)
