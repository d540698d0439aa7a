"""A rollout that can't succeed gives way to the last good revision, and the condition says so in words."""

from __future__ import annotations

from typing import Any

import pytest

from e2e.rig.case import Case
from e2e.rig.kube import condition, until

NO_SUCH_IMAGE = "localhost:1/beamline-e2e/no-such-image:1"
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an image that can't be pulled": ({"image": NO_SUCH_IMAGE}, NO_SUCH_IMAGE),
    "an image that crashes": (
        {"command": ["beamline", "extension", "run", "no_such_extension"]},
        "exits again and again (code 2)",
    ),
}


@pytest.mark.parametrize(("change", "named"), BAD.values(), ids=BAD.keys())
def test_a_bad_rollout_returns_to_the_last_good_revision(
    case: Case, change: dict[str, Any], named: str
) -> None:
    case.apply(
        case.extension("echo", workload={"rollback": "auto", "progressDeadlineSeconds": 60}),
        case.policy(case.provider("echo")),
    )
    case.ready()
    good = case.get("echo")["status"]["lastGood"]
    with case.install.load(case.request()) as load:
        load.goes_on()
        case.patch("echo", {"spec": {"workload": change}})
        until("it was rolled back", lambda: case.get("echo")["status"].get("rolledBack"), timeout_s=180)
        load.goes_on()
        load.ends_without_loss()
    found = case.get("echo")
    ready, stalled = condition(found, "WorkloadReady"), condition(found, "Stalled")
    assert (ready["status"], ready["reason"]) == ("False", "WorkloadRolledBack")
    assert stalled["status"] == "True"
    message = ready["message"]
    assert f"Generation {good['generation']} ({good['image']})" in message, message
    assert named in message, message
    assert found["status"]["lastGood"]["revision"] == good["revision"]
    until("only the good image runs", lambda: _runs(case) == {good["image"]})
    case.patch(
        "echo",
        {
            "spec": {
                "workload": {
                    "image": case.image,
                    "command": ["beamline", "extension", "run", "mock_provider"],
                }
            }
        },
    )
    case.ready()


def _runs(case: Case) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in case.pods("echo")}
