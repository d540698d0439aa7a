"""The operator in process on a real API server: what it makes, keeps, repairs and removes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import pytest
from operatorbench import ALWAYS, OWNED, WORKLOAD, Bench

from beamline_contract.names import FINALIZER
from beamline_contract.reports import RouterStatus
from beamline_operator.app import EXIT_CONFIG, Operator, OperatorSettings
from beamline_operator.core.ports import StoreError
from beamline_sdk.deployment.kube_api import MERGE, KubeApi


async def test_apply_makes_a_row_conditions_and_owned_objects(bench: Bench) -> None:
    await bench.start()
    await bench.extension("mock-provider", config={"mode": "echo"}, timeoutMs=1234)
    await bench.wait("Extension", "mock-provider", "Synced", "True")
    owner = await bench.get("Extension", "mock-provider")
    assert owner is not None
    assert FINALIZER in owner["metadata"]["finalizers"]
    assert (await bench.rows())["mock_provider"].timeout_ms == 1234
    for kind in ALWAYS:
        made = await bench.until(lambda kind=kind: bench.get(kind, "mock-provider"), kind)
        (reference,) = made["metadata"]["ownerReferences"]
        assert (reference["uid"], reference["controller"]) == (owner["metadata"]["uid"], True)
    deployment = await bench.get("Deployment", "mock-provider")
    assert deployment is not None
    pod = deployment["spec"]["template"]["spec"]
    env = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    assert env["NATS_QUEUE_GROUP"] == "mock_provider"
    assert env["BEAMLINE_CONFIG"] == '{"mode":"echo"}'
    assert pod["automountServiceAccountToken"] is False
    assert (await bench.condition("Extension", "mock-provider", "Programmed"))["reason"] == "NoRouters"
    assert (await bench.condition("Extension", "mock-provider", "WorkloadReady"))[
        "reason"
    ] == "WorkloadProgressing"


async def test_pods_pass_the_restricted_pod_security_standard(bench: Bench) -> None:
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    await bench.api.request("PATCH", f"/api/v1/namespaces/{bench.namespace}", body=labels, content_type=MERGE)
    await bench.start()
    await bench.extension("guard", type="validator")

    async def pods() -> list[Any]:
        return [pod async for pod in bench.api.items(f"/api/v1/namespaces/{bench.namespace}/pods")]

    (pod,) = await bench.until(pods, "a pod that the API server let in")
    assert pod["spec"]["serviceAccountName"] == "guard"


async def test_an_edit_reaches_registry_and_deployment_but_a_config_alone_rolls_nothing(bench: Bench) -> None:
    await bench.start()
    await bench.extension("guard", config={"level": 1})
    await bench.wait("Extension", "guard", "Synced", "True")
    before = await bench.until(lambda: bench.get("Deployment", "guard"), "deployment")
    await bench.extension("guard", config={"level": 2})
    await bench.wait("Extension", "guard", "Synced", "True")
    assert (await bench.rows())["guard"].config == {"level": 2}
    await bench.extension("guard", config={"level": 2}, workload={**WORKLOAD, "replicas": 2})

    async def scaled() -> dict[str, Any]:
        found = await bench.get("Deployment", "guard")
        return found if found is not None and found["spec"]["replicas"] == 2 else {}

    after = await bench.until(scaled, "two replicas")
    assert after["spec"]["template"] == before["spec"]["template"], (
        "scaling keeps the pods and what they started with"
    )
    await bench.wait("Extension", "guard", "Synced", "True")
    assert [action for _, action in await bench.audit()] == ["created", "updated", "updated"]


async def test_delete_removes_the_row_and_what_is_owned_and_leaves_the_audit(bench: Bench) -> None:
    await bench.start()
    await bench.extension("guard")
    await bench.wait("Extension", "guard", "Synced", "True")
    await bench.delete("Extension", "guard")
    await bench.gone("Extension", "guard")
    assert await bench.rows() == {}
    for kind in OWNED:
        await bench.gone(kind, "guard")
    assert await bench.audit() == [("guard", "created"), ("guard", "deleted")]


async def test_retain_leaves_row_and_deployment(bench: Bench) -> None:
    await bench.start()
    await bench.extension("guard", deletionPolicy="Retain")
    await bench.wait("Extension", "guard", "Synced", "True")
    await bench.until(lambda: bench.get("Deployment", "guard"), "deployment")
    await bench.delete("Extension", "guard")
    await bench.gone("Extension", "guard")
    assert set(await bench.rows()) == {"guard"}
    deployment = await bench.get("Deployment", "guard")
    assert deployment is not None
    assert "ownerReferences" not in deployment["metadata"], "nothing for the garbage collector to follow"


async def test_a_disabled_extension_keeps_its_row_and_runs_nowhere(bench: Bench) -> None:
    await bench.start()
    await bench.extension("guard", enabled=False)
    await bench.wait("Extension", "guard", "WorkloadReady", "True", "WorkloadScaledToZero")
    deployment = await bench.get("Deployment", "guard")
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 0
    assert (await bench.rows())["guard"].enabled is False


async def test_of_two_with_one_subject_the_older_serves_and_the_loser_follows(bench: Bench) -> None:
    await bench.start()
    await bench.extension("first")
    await bench.wait("Extension", "first", "Synced", "True")
    await asyncio.sleep(1.1)  # creationTimestamp has whole seconds
    await bench.extension("second", subject="beamline.provider.first.v1")
    lost = await bench.wait("Extension", "second", "Accepted", "False", "Conflicted")
    assert f"{bench.namespace}/first" in lost["message"]
    await bench.delete("Extension", "first")
    await bench.wait("Extension", "second", "Synced", "True")
    assert set(await bench.rows()) == {"second"}


async def test_an_object_stored_before_its_rules_is_named_broken_and_its_row_stays(bench: Bench) -> None:
    await bench.start()
    await bench.extension("guard", config={"level": 1})
    await bench.wait("Extension", "guard", "Synced", "True")
    deep: dict[str, Any] = {}
    for _ in range(20):
        deep = {"deeper": deep}
    await bench.extension("guard", config=deep)  # the API server has no rule on depth
    broken = await bench.wait("Extension", "guard", "Accepted", "False", "Invalid")
    assert "spec.config" in broken["message"]
    assert (await bench.rows())["guard"].config == {"level": 1}
    await bench.wait("Extension", "guard", "Stalled", "True", "Invalid")


async def test_a_deployment_that_was_deleted_or_edited_by_hand_comes_back(bench: Bench) -> None:
    await bench.start()
    await bench.extension("guard")
    await bench.wait("Extension", "guard", "Synced", "True")
    before = await bench.until(lambda: bench.get("Deployment", "guard"), "deployment")
    await bench.delete("Deployment", "guard")

    async def another() -> dict[str, Any]:
        found = await bench.get("Deployment", "guard")
        return found if found is not None and found["metadata"]["uid"] != before["metadata"]["uid"] else {}

    await bench.until(another, "a new deployment")
    await bench.api.request(
        "PATCH", bench.path("Deployment", "guard"), body={"spec": {"replicas": 5}}, content_type=MERGE
    )

    async def put_back() -> bool:
        found = await bench.get("Deployment", "guard")
        return found is not None and found["spec"]["replicas"] == 1

    await bench.until(put_back, "one replica again")


async def test_a_deployment_that_somebody_else_made_is_never_taken_over(bench: Bench) -> None:
    labels = {"app": "theirs"}
    foreign = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "guard", "namespace": bench.namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "x", "image": "x:1"}]},
            },
        },
    }
    await bench.api.apply(bench.path("Deployment", "guard"), foreign, field_manager="somebody")
    await bench.start()
    await bench.extension("guard")
    failed = await bench.wait("Extension", "guard", "WorkloadReady", "False", "Conflicted")
    assert f"Deployment {bench.namespace}/guard exists and Beamline did not make it" in failed["message"]
    deployment = await bench.get("Deployment", "guard")
    assert deployment is not None
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "x:1"


async def test_a_restart_and_an_idle_cluster_write_nothing(bench: Bench) -> None:
    await bench.start()
    await bench.extension("guard", workload=None)
    steps = [{"action": "select_provider", "providers": [{"extensionRef": {"name": "guard"}}]}]
    await bench.apply("RoutingPolicy", "default", {"steps": steps})
    await bench.wait("RoutingPolicy", "default", "Synced", "True")
    await bench.wait("Extension", "guard", "Synced", "True")
    await bench.stop()
    versions, audit = await bench.versions(), await bench.audit()
    await bench.start()
    await bench.extension("later", workload=None)
    await bench.wait("Extension", "later", "Synced", "True")
    now = await bench.versions()
    assert {name: now[name] for name in versions} == versions
    assert await bench.audit() == [*audit, ("later", "created")]


async def test_what_was_deleted_or_made_while_the_operator_was_away_is_settled_at_its_start(
    bench: Bench,
) -> None:
    await bench.start()
    await bench.extension("gone", workload=None)
    await bench.wait("Extension", "gone", "Synced", "True")
    await bench.stop()
    await bench.delete("Extension", "gone")
    await bench.extension("made", workload=None)
    await bench.start()
    await bench.gone("Extension", "gone")
    await bench.wait("Extension", "made", "Synced", "True")
    assert set(await bench.rows()) == {"made"}


async def test_a_router_on_nats_makes_it_programmed_and_ready(bench: Bench, nats_server: Any) -> None:
    from nats import connect

    await bench.start()
    await bench.extension("guard", workload=None)
    await bench.wait("Extension", "guard", "Synced", "True")
    async with await connect(nats_server.url) as nc:
        status = RouterStatus(instance="r1", revision=1_000_000, started_at="2030-01-01T00:00:00Z")
        await nc.publish("beamline.router.v1.status", status.model_dump_json().encode())
        await nc.flush()
        await bench.wait("Extension", "guard", "Ready", "True", "Ready")
        leaving = status.model_copy(update={"leaving": True})
        await nc.publish("beamline.router.v1.status", leaving.model_dump_json().encode())
        await nc.flush()
        await bench.wait("Extension", "guard", "Programmed", "Unknown", "NoRouters")


async def test_of_two_operators_one_leads_and_the_other_takes_over(bench: Bench) -> None:
    await bench.start(identity="first")
    await bench.extension("a", workload=None)
    await bench.wait("Extension", "a", "Synced", "True")
    await bench.start(identity="second")
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{bench.namespace}/leases/beamline-operator"
    assert (await bench.api.request("GET", lease))["spec"]["holderIdentity"] == "first"
    task, stop = bench._running.pop(0)
    stop.set()
    await task
    await bench.extension("b", workload=None)
    await bench.wait("Extension", "b", "Synced", "True")
    assert (await bench.api.request("GET", lease))["spec"]["holderIdentity"] == "second"


async def test_a_leader_without_its_lease_writes_no_status(bench: Bench) -> None:
    api = await KubeApi.connect(bench.settings["kubeconfig"])
    operator = Operator(OperatorSettings(**bench.settings), api, bench.registry)
    await bench.extension("guard", workload=None)
    await operator.store.relist()
    (stored,) = operator.store.list("Extension")
    with pytest.raises(StoreError, match="the lease is lost") as lost:
        await operator.store.write_status(stored.key, {"observedGeneration": 1})
    assert lost.value.retryable, "a renewal may succeed late, and the object must not be forgotten"
    found = await bench.get("Extension", "guard")
    assert found is not None
    assert not found["status"]["observedGeneration"]
    await api.close()


async def test_a_database_without_schema_is_one_sentence_and_exit_code_78(
    cluster: Any, namespace: str, database_url: str
) -> None:
    environment = {
        **os.environ,
        "KUBECONFIG": str(cluster.operator_kubeconfig(namespace)),
        "BEAMLINE_DATABASE_URL": database_url,
        "BEAMLINE_NAMESPACES": namespace,
        "METRICS_PORT": "0",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "beamline_operator", env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == EXIT_CONFIG
    assert said.decode().strip().splitlines()[-1].endswith("run `beamline migrate`")


async def test_a_frozen_leader_is_replaced_and_writes_nothing_when_it_wakes_up(bench: Bench) -> None:
    short = {"lease_duration_s": 3.0, "lease_renew_s": 2.0, "lease_retry_s": 0.3}
    times = {f"BEAMLINE_{name.upper()}": str(value) for name, value in short.items()}
    environment = bench.environment(BEAMLINE_IDENTITY="frozen", **times)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "beamline_operator", env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await bench.extension("a", workload=None)
        await bench.wait("Extension", "a", "Synced", "True")
        process.send_signal(signal.SIGSTOP)
        await bench.extension("b", workload=None)
        await bench.start(identity="awake", **short)
        await bench.wait("Extension", "b", "Synced", "True")
        versions, audit = await bench.versions(), await bench.audit()
        process.send_signal(signal.SIGCONT)
        await bench.extension("c", workload=None)
        await bench.wait("Extension", "c", "Synced", "True")
        now = await bench.versions()
        assert {name: now[name] for name in versions} == versions
        assert await bench.audit() == [*audit, ("c", "created")]
        assert process.returncode is None, "it stands by"
    finally:
        process.kill()
        await process.wait()


async def test_the_full_compare_removes_rows_whose_object_was_torn_away(bench: Bench) -> None:
    await bench.start()
    await bench.extension("gone", workload=None)
    await bench.extension("kept", workload=None)
    for name in ("gone", "kept"):
        await bench.wait("Extension", name, "Synced", "True")
    await bench.stop()
    await bench.api.request(
        "PATCH", bench.path("Extension", "gone"), body={"metadata": {"finalizers": []}}, content_type=MERGE
    )
    await bench.delete("Extension", "gone")
    await bench.start(resync_s=0.5)

    async def swept() -> bool:
        return set(await bench.rows()) == {"kept"}

    await bench.until(swept, "the orphan's end")
    assert (await bench.audit())[-1] == ("gone", "deleted")
