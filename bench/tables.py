"""A registry of the size that figures are asked for: 2,000 Extensions and 5,000 RoutingPolicies.

Four fifths of the policies name a tenant, one fifth a model pattern; none of them matches the benchmark's own
request, which the one policy without conditions takes, so every rule that could match is one to look past.
"""

from __future__ import annotations

from typing import Any

from beamline_contract.projection import ExtensionRecord, PolicyRecord
from beamline_registry.port import Upsert
from beamline_registry.postgres import PostgresRegistry
from bench.world import GUARD, Step, extension_record, policy_record

EXTENSIONS = 2_000
POLICIES = 5_000
BATCH = 500


def records(version: int = 1) -> tuple[list[ExtensionRecord], list[PolicyRecord]]:
    """All of them; another ``version`` differs in every record."""
    extensions = [_extension(number, version) for number in range(EXTENSIONS)]
    policies = [policy(number, version) for number in range(POLICIES)]
    return extensions, policies


async def fill(registry: PostgresRegistry, version: int = 1) -> None:
    """Puts them into the registry, in batches as the operator writes them."""
    epoch = await registry.acquire_epoch("bench")
    extensions, policies = records(version)
    writes = [Upsert(record, "bench") for record in (*extensions, *policies)]
    for at in range(0, len(writes), BATCH):
        await registry.write(writes[at : at + BATCH], epoch=epoch)


def _extension(number: int, version: int) -> ExtensionRecord:
    step = Step(f"size_{number}", "provider", f"beamline.provider.size_{number}.v1", {})
    return extension_record(step, generation=version, config={"model": f"model-{number}", "version": version})


def policy(number: int, version: int) -> PolicyRecord:
    """One of the policies, in that version."""
    provider = Step(f"size_{number % EXTENSIONS}", "provider", "", {})
    match: dict[str, Any] = (
        {"models": [f"family-{number}-*"]} if number % 5 == 0 else {"tenants": [f"tenant-{number}"]}
    )
    return policy_record((GUARD, provider), id=f"size-{number}", match=match, priority=version)
