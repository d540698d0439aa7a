"""The configuration of a custom resource is held against the schema of the extension that runs."""

from __future__ import annotations

import asyncio
from typing import Any

from nats import connect
from operatorbench import Bench

from beamline_contract.names import SUBJECT_ROUTER_STATUS
from beamline_contract.reports import RouterStatus
from beamline_extensions.catalogue import create
from beamline_sdk.runtime import serve
from beamline_sdk.settings import RuntimeSettings

SUBJECT = "beamline.ext.pre.schema_of_mine.v1"


async def test_a_wrong_field_is_named_in_the_condition_and_corrected_by_an_edit(
    bench: Bench, nats_server: Any
) -> None:
    stop, ready = asyncio.Event(), asyncio.Event()
    settings = RuntimeSettings(
        nats_url=nats_server.url, nats_subject=SUBJECT, extension_id="schema_of_mine", metrics_port=0
    )
    running = asyncio.create_task(serve(create("normalize_text"), settings, stop=stop, ready=ready.set))
    nc = await connect(nats_server.url)
    try:
        await asyncio.wait_for(ready.wait(), 20)
        await bench.start()
        spec = {"type": "pre", "subject": SUBJECT, "config": {"lowercase": "perhaps"}}
        await bench.apply("Extension", "schema-of-mine", spec)
        status = RouterStatus(instance="r1", revision=1_000_000, started_at="2030-01-01T00:00:00Z")
        wanted = [("ConfigInvalid", "spec.config.lowercase"), ("Ready", "")]
        for reason, words in wanted:
            for _ in range(600):
                await nc.publish(SUBJECT_ROUTER_STATUS, status.model_dump_json().encode())
                found = await bench.get("Extension", "schema-of-mine") or {}
                conditions = {c["type"]: c for c in found.get("status", {}).get("conditions", ())}
                if conditions.get("Ready", {}).get("reason") == reason:
                    break
                await asyncio.sleep(0.05)
            assert conditions["Ready"]["reason"] == reason, conditions
            assert words in conditions["Ready"]["message"]
            assert conditions["Accepted"]["status"] == "True"
            await bench.apply("Extension", "schema-of-mine", {**spec, "config": {"lowercase": True}})
    finally:
        await nc.close()
        stop.set()
        await running
