"""``rollback`` with the real Deployment controller. There is no kubelet: the test says how pods are."""

from __future__ import annotations

from typing import Any

import pytest
from operatorbench import WORKLOAD, Bench
from podplayer import PodPlayer, Trouble

BAD = "ghcr.io/beamline/beamline:bad"
GOOD = WORKLOAD["image"]


def auto(image: str, **more: Any) -> dict[str, Any]:
    return {**WORKLOAD, "image": image, "rollback": "auto", **more}


async def status(bench: Bench) -> dict[str, Any]:
    found = await bench.get("Extension", "guard")
    assert found is not None
    return dict(found.get("status", {}))


async def runs(bench: Bench, image: str) -> None:
    """Waits until every pod has ``image``, and the Deployment is done."""

    async def settled() -> bool:
        deployment = await bench.get("Deployment", "guard")
        pods = [
            pod["spec"]["containers"][0]["image"]
            async for pod in bench.api.items(f"/api/v1/namespaces/{bench.namespace}/pods")
            if not pod["metadata"].get("deletionTimestamp")
        ]
        return (
            deployment is not None
            and deployment["status"].get("observedGeneration") == deployment["metadata"]["generation"]
            and deployment["status"].get("availableReplicas", 0) == 1
            and deployment["spec"]["template"]["spec"]["containers"][0]["image"] == image
            and pods == [image]
        )

    await bench.until(settled, f"one pod of {image} and no other")


async def back(bench: Bench) -> dict[str, Any]:
    """Waits until the condition says that the last good revision runs again."""

    async def said() -> dict[str, Any]:
        condition = await bench.condition("Extension", "guard", "WorkloadReady")
        return condition if "runs again" in condition.get("message", "") else {}

    told = await bench.until(said, "the last good revision ready")
    assert told["reason"] == "WorkloadRolledBack"
    return dict(told)


async def images_tried(bench: Bench) -> list[str]:
    """The images of the Deployment's revisions, oldest first."""
    path = f"/apis/apps/v1/namespaces/{bench.namespace}/replicasets"
    return [
        item["spec"]["template"]["spec"]["containers"][0]["image"] async for item in bench.api.items(path)
    ]


TROUBLES: list[Any] = [
    pytest.param("image", {}, f"{BAD} can't be pulled", id="an image that can't be pulled"),
    pytest.param("crash", {}, "exits again and again (code 1): boom", id="a crash loop"),
    pytest.param("config", {}, 'secret "keys" not found', id="a Secret that is missing"),
    pytest.param(
        "unready",
        {"progressDeadlineSeconds": 10},
        "no progress within 10 s (progressDeadlineSeconds)",
        id="no progress within its deadline",
    ),
]


@pytest.mark.parametrize(("trouble", "more", "says"), TROUBLES)
async def test_a_failed_rollout_gives_way_to_the_last_good_revision_once(
    bench: Bench, trouble: Trouble, more: dict[str, Any], says: str
) -> None:
    async with PodPlayer(bench.api, bench.namespace, breaks=BAD, last_words="boom", trouble=trouble):
        await bench.start()
        await bench.extension("guard", workload=auto(GOOD, **more))
        await bench.wait("Extension", "guard", "WorkloadReady", "True", "WorkloadReady")
        assert (await status(bench))["lastGood"]["image"] == GOOD
        await bench.extension("guard", workload=auto(BAD, **more))
        told = await back(bench)
        assert says in told["message"]
        assert f"Generation 1 ({GOOD}) runs again" in told["message"]
        await runs(bench, GOOD)
        stalled = await bench.wait("Extension", "guard", "Stalled", "True", "WorkloadRolledBack")
        assert says in stalled["message"]
        await bench.wait("Extension", "guard", "Ready", "False", "WorkloadRolledBack")
        now = await status(bench)
        assert (now["rolledBack"]["generation"], now["lastGood"]["generation"]) == (2, 1)

        # The bad spec stays, and nothing flaps: not after a restart, not in a full compare.
        before = await bench.get("Deployment", "guard")
        await bench.stop()
        await bench.start(resync_s=0.3)
        await bench.extension("other", workload=None)
        await bench.wait("Extension", "other", "Synced", "True")
        after = await bench.get("Deployment", "guard")
        assert before is not None
        assert after is not None
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        assert sorted(await images_tried(bench)) == sorted([GOOD, BAD])

        # Another spec is another try, and a good one ends it.
        await bench.extension("guard", workload=auto(GOOD, args=["--again"], **more))
        await bench.wait("Extension", "guard", "WorkloadReady", "True", "WorkloadReady")
        now = await status(bench)
        assert "rolledBack" not in now
        assert now["lastGood"]["generation"] == 3


async def test_what_is_ready_until_it_exits_gives_way_too(bench: Bench) -> None:
    """Without probes a container is ready from its first moment."""
    async with PodPlayer(bench.api, bench.namespace, last_words="boom") as kubelet:
        await bench.start()
        await bench.extension("guard", workload=auto(GOOD, probes={"enabled": False}))
        await bench.wait("Extension", "guard", "WorkloadReady", "True", "WorkloadReady")
        await bench.extension("guard", workload=auto(BAD, probes={"enabled": False}))

        async def good() -> bool:
            return bool((await status(bench)).get("lastGood", {}).get("image") == BAD)

        await bench.until(good, "the bad revision taken for good")
        kubelet.spoil(BAD)
        assert "boom" in (await back(bench))["message"]
        await runs(bench, GOOD)
        assert (await status(bench))["lastGood"]["image"] == GOOD


async def test_by_hand_the_message_says_which_revision_was_good_and_nothing_is_changed(bench: Bench) -> None:
    async with PodPlayer(bench.api, bench.namespace, breaks=BAD, trouble="image"):
        await bench.start()
        await bench.extension("guard")
        await bench.wait("Extension", "guard", "WorkloadReady", "True", "WorkloadReady")
        await bench.extension("guard", workload={**WORKLOAD, "image": BAD})
        told = await bench.wait("Extension", "guard", "WorkloadReady", "False", "WorkloadFailed")
        assert f"{BAD} can't be pulled" in told["message"]
        assert f"The last good revision is that of generation 1 ({GOOD})" in told["message"]
        await bench.wait("Extension", "guard", "Stalled", "True", "WorkloadFailed")
        deployment = await bench.get("Deployment", "guard")
        assert deployment is not None
        assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == BAD
        await bench.extension("guard")
        await bench.wait("Extension", "guard", "WorkloadReady", "True", "WorkloadReady")


async def test_a_secret_that_is_missing_is_named_with_its_keys_until_it_is_there(bench: Bench) -> None:
    needs = {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "API_KEY"}}}
    async with PodPlayer(bench.api, bench.namespace, breaks=GOOD, trouble="config") as kubelet:
        await bench.start()
        await bench.extension("guard", workload={**WORKLOAD, "env": [needs]})
        told = await bench.wait("Extension", "guard", "WorkloadReady", "False", "CredentialsMissing")
        assert 'secret "keys" not found' in told["message"]
        assert "Create the Secret keys with the key API_KEY (for OPENAI_API_KEY)" in told["message"]
        await bench.wait("Extension", "guard", "Ready", "False", "CredentialsMissing")
        await bench.wait("Extension", "guard", "Stalled", "True", "CredentialsMissing")
        kubelet.spoil("nothing")  # somebody made the Secret
        await bench.wait("Extension", "guard", "WorkloadReady", "True", "WorkloadReady")
