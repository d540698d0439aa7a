"""However many tenants, models and policies callers invent, and whatever extensions answer, a router's
metrics keep their number of series.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from .conftest import Served, Site, extension, policy, provider_reply, running

HOSTILE = 'x"} 1\nfake_total{a="\\'
CALLERS = 1_000
SHED = {"resource_exhausted", "overload"}
"""Words of requests that a busy machine makes the router refuse: at most three series, now or later."""
AT_ONCE = 10


async def series(served: Served) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    text = (await served.http.get("/metrics")).text
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def hostile(request: dict[str, Any]) -> dict[str, Any]:
    """An extension that says something new in every field of every answer."""
    new = request["prompt"]
    if int(new.rpartition(" ")[2]) % 3 == 0:
        return {"error": {"code": f"{HOSTILE}{new}", "message": new, "retryable": False, new: new}}
    reply = provider_reply(request)
    told = {f"{HOSTILE}{new}": new, "tenant_id": new, "deadline": new, "provider_id": f"{HOSTILE}{new}"}
    return {**reply, **told, "metadata": {"model": new, "finish_reason": new, new: new}}


async def test_a_thousand_tenants_models_and_policies_and_hostile_words_add_no_series(site: Site) -> None:
    record = extension("hostile", "provider", retry=0)
    await site.respond(site.nc, "hostile", record.subject, hostile)
    steps = [{"action": "select_provider", "provider_id": "hostile", "fallback": ["echo"]}]
    await site.put(record, policy("default", steps, generation=2))
    async with running(site.settings(tenant_concurrency=10_000)) as served:

        async def call(number: int) -> int:
            headers = {"x-request-id": f"r{number}", "x-team": f"team {number}", "user-agent": f"a{number}"}
            body: dict[str, Any] = {
                "prompt": f"prompt {number}",
                "tenant_id": f"tenant-{number}",
                "environment": f"env-{number}",
                "model": f"vendor/model-{number}:latest",
            }
            match number % 5:
                case 1:
                    body["policy"] = f"policy-{number}"
                case 2:
                    body["model"] = body["tenant_id"] = f"{HOSTILE}{number}"
                case 3:
                    body[f"{HOSTILE}{number}"] = number
            return (await served.route(body, **headers)).status_code

        async def all_of(numbers: range) -> set[int]:
            found: set[int] = set()
            for start in numbers[::AT_ONCE]:
                found |= set(await asyncio.gather(*map(call, range(start, start + AT_ONCE))))
            return found

        assert await all_of(range(100)) >= {200, 400, 404}
        before = await series(served)
        await all_of(range(100, CALLERS + 100))
        after = await series(served)
        assert {one for one in after - before if not SHED & {value for _, value in one[1]}} == set()
        assert len(after) < 400
        text = (await served.http.get("/metrics")).text
        invented = ("tenant-", "model-", "policy-", "env-", "team ", "prompt ", "fake_total", "r105")
        assert not [word for word in invented if word in text]
        assert 'extension_dropped_total{extension_id="hostile",what="tenant_id"}' in text
