"""What a database administrator does to the registry's tables by hand is found and put right by the full
compare, at whatever generation it claims to be.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import asyncpg
from operatorbench import Bench

BY_HAND = {
    "an Extension's row edited": 'UPDATE extensions SET config = \'{"mode": "evil"}\', timeout_ms = 7 '
    "WHERE id = 'guard'",
    "the same, and routers told of it": "WITH moved AS (UPDATE registry_revision SET revision = revision + 1 "
    "RETURNING revision) UPDATE extensions SET enabled = false, revision = moved.revision FROM moved "
    "WHERE id = 'guard'",
    "an Extension's row deleted": "DELETE FROM extensions WHERE id = 'guard'",
    "an Extension's row said to be newer": "UPDATE extensions SET generation = 99 WHERE id = 'guard'",
    "an Extension's row added": "INSERT INTO extensions "
    "(id, type, subject, namespace, name, uid, generation, revision) "
    "VALUES ('evil', 'provider', 'beamline.provider.evil.v1', 'nowhere', 'evil', 'x', 1, 1)",
    "a policy's row edited": "UPDATE routing_policies SET policy = policy || '{\"priority\": 99}'",
    "a policy's row deleted": "DELETE FROM routing_policies",
    "a policy's row added": "INSERT INTO routing_policies (id, namespace, name, uid, generation, policy, "
    "revision) SELECT 'evil', namespace, name, uid, generation, policy, 1 FROM routing_policies",
}


async def test_every_change_of_a_table_by_hand_is_undone_by_the_next_full_compare(bench: Bench) -> None:
    await bench.start(resync_s=0.4)
    await bench.extension("guard", workload=None, config={"level": 1.5, "names": ["é", None]}, timeoutMs=1234)
    steps = [{"action": "select_provider", "providers": [{"extensionRef": {"name": "guard"}}]}]
    await bench.apply("RoutingPolicy", "default", {"steps": steps})
    await bench.wait("RoutingPolicy", "default", "Synced", "True")
    await bench.wait("Extension", "guard", "Synced", "True")

    async def rows() -> dict[str, Any]:
        return {name: replace(row, revision=0) for name, row in (await bench.rows()).items()}

    expected = await rows()
    administrator = await asyncpg.connect(bench.settings["database_url"])
    try:
        for what, statement in BY_HAND.items():
            before = len(await bench.audit())
            await administrator.execute(statement)
            assert await rows() != expected, what

            async def put_back() -> bool:
                return await rows() == expected

            await bench.until(put_back, f"repair of: {what}")
            assert len(await bench.audit()) > before, what
    finally:
        await administrator.close()
    await bench.wait("Extension", "guard", "Synced", "True")

    async def events() -> set[tuple[str, str]]:
        path = f"/apis/events.k8s.io/v1/namespaces/{bench.namespace}/events"
        told = {(e["regarding"]["name"], e["reason"]) async for e in bench.api.items(path)}
        return told if {("guard", "DriftRepaired"), ("default", "DriftRepaired")} <= told else set()

    await bench.until(events, "an event on each object")
    assert await bench.registry.verify_audit() > 0
