"""``rollback: auto`` with the real Deployment controller. There is no kubelet: the test says how pods are."""

from __future__ import annotations

from typing import Any

from operatorbench import WORKLOAD, Bench

from beamline_sdk.deployment.kube_api import MERGE

BAD = "ghcr.io/beamline/beamline:no-such-tag"
READY = {
    "phase": "Running",
    "conditions": [
        {"type": name, "status": "True", "lastTransitionTime": "2030-01-01T00:00:00Z"}
        for name in ("Ready", "ContainersReady", "PodScheduled")
    ],
}


async def pods(bench: Bench, image: str) -> list[dict[str, Any]]:
    path = f"/api/v1/namespaces/{bench.namespace}/pods"
    found = [item async for item in bench.api.items(path)]
    return [pod for pod in found if pod["spec"]["containers"][0]["image"] == image]


async def say(bench: Bench, image: str, status: dict[str, Any]) -> None:
    """What a kubelet would report of the pod with ``image``."""

    async def there() -> Any:
        return await pods(bench, image)

    for pod in await bench.until(there, f"a pod with {image}"):
        path = f"/api/v1/namespaces/{bench.namespace}/pods/{pod['metadata']['name']}/status"
        await bench.api.request("PATCH", path, body={"status": status}, content_type=MERGE)


async def status(bench: Bench) -> dict[str, Any]:
    found = await bench.get("Extension", "guard")
    assert found is not None
    return dict(found.get("status", {}))


async def test_an_image_that_can_t_be_pulled_gives_way_to_the_last_good_revision(bench: Bench) -> None:
    await bench.start()
    await bench.extension("guard", workload={**WORKLOAD, "rollback": "auto"})
    await say(bench, WORKLOAD["image"], READY)
    await bench.wait("Extension", "guard", "WorkloadReady", "True", "WorkloadReady")
    assert (await status(bench))["lastGood"]["image"] == WORKLOAD["image"]
    await bench.extension("guard", workload={**WORKLOAD, "image": BAD, "rollback": "auto"})
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    container = {"name": "extension", "image": BAD, "imageID": "", "ready": False, "restartCount": 0}
    await say(bench, BAD, {"phase": "Pending", "containerStatuses": [{**container, "state": waiting}]})
    told = await bench.wait("Extension", "guard", "WorkloadReady", "False", "WorkloadRolledBack")
    assert "can't be pulled" in told["message"]

    async def back() -> bool:
        deployment = await bench.get("Deployment", "guard")
        assert deployment is not None
        image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        return image == WORKLOAD["image"] and not await pods(bench, BAD)

    await bench.until(back, "the last good image")

    async def runs() -> bool:
        return "runs again" in (await bench.condition("Extension", "guard", "WorkloadReady")).get(
            "message", ""
        )

    await bench.until(runs, "the last good revision ready")
    now = await status(bench)
    assert (now["rolledBack"]["generation"], now["lastGood"]["generation"]) == (2, 1)
    await bench.wait("Extension", "guard", "Stalled", "True", "WorkloadRolledBack")
    await bench.stop()
    await bench.start(resync_s=0.5)
    before = await bench.get("Deployment", "guard")
    await bench.extension("guard", workload={**WORKLOAD, "rollback": "auto", "args": ["--again"]})

    async def tried() -> bool:
        deployment = await bench.get("Deployment", "guard")
        assert deployment is not None
        return bool(deployment["spec"]["template"]["spec"]["containers"][0].get("args") == ["--again"])

    await bench.until(tried, "another spec is another try")
    assert before is not None
    assert before["spec"]["template"]["spec"]["containers"][0]["image"] == WORKLOAD["image"]

    async def forgotten() -> bool:
        return "rolledBack" not in await status(bench)

    await bench.until(forgotten, "the end of the roll-back")
