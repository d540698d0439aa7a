"""``beamline diff``, ``suspend`` and ``resume`` against a real API server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.processes import BEAMLINE

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"


def beamline(cluster: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*BEAMLINE, *arguments, "--kubeconfig", str(cluster.kubeconfig)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def applied(cluster: Any, namespace: str) -> str:
    cluster.kubectl("-n", namespace, "apply", "-f", str(QUICKSTART))
    return namespace


def test_a_folder_is_compared_with_the_cluster_and_what_it_does_not_hold_stays(
    cluster: Any, namespace: str, tmp_path: Path
) -> None:
    """Under names of its own: ids are one space, and who comes later than others' `default` is not routed."""
    folder, own = tmp_path / "manifests", namespace[-6:]
    shutil.copytree(QUICKSTART, folder)
    for path in folder.glob("*.yaml"):
        path.write_text(re.sub(r"{name: ([a-z-]+)}", rf"{{name: \1-{own}}}", path.read_text()))
    cluster.kubectl("-n", namespace, "apply", "-f", str(folder))
    same = beamline(cluster, "diff", str(folder), "-n", namespace)
    assert (same.returncode, same.stdout) == (0, "Nothing changes.\n"), same.stderr

    policy = folder / "policy.yaml"
    policy.write_text(policy.read_text().replace("deadlineMs: 10000", "deadlineMs: 20000"))
    (folder / "extensions.yaml").unlink()
    changed = beamline(cluster, "diff", str(folder), "-n", namespace, "-o", "json")
    assert changed.returncode == 1, changed.stderr
    found = json.loads(changed.stdout)
    assert [(one["name"], one["change"]) for one in found["objects"]] == [(f"default-{own}", "changed")]
    assert found["policies"][0]["details"] == [{"at": "deadline_ms", "from": 10000, "to": 20000}]

    pruned = beamline(cluster, "diff", str(folder), "-n", namespace, "--prune")
    assert pruned.returncode == 1
    assert f"Extension {namespace}/pii-guard-{own} removed" in pruned.stdout
    assert f"there is no Extension pii-guard-{own}" in pruned.stdout
    # Nothing of it was written.
    live = cluster.kubectl(
        "-n", namespace, "get", "rp", f"default-{own}", "-o", "jsonpath={.spec.deadlineMs}"
    )
    assert live.stdout == "10000"


def test_a_change_that_the_api_server_would_refuse_is_an_error(
    cluster: Any, applied: str, tmp_path: Path
) -> None:
    folder = tmp_path / "manifests"
    shutil.copytree(QUICKSTART, folder)
    text = (folder / "extensions.yaml").read_text()
    (folder / "extensions.yaml").write_text(text.replace("type: validator", "type: post"))
    refused = beamline(cluster, "diff", str(folder), "-n", applied)
    assert refused.returncode == 78
    assert "spec.type" in refused.stderr


def suspended(cluster: Any, namespace: str, what: str) -> str:
    return str(
        cluster.kubectl("-n", namespace, "get", *what.split("/"), "-o", "jsonpath={.spec.suspend}").stdout
    )


def test_an_object_is_suspended_and_resumed_once(cluster: Any, applied: str) -> None:
    for verb, word, wanted in (("suspend", "suspended", "true"), ("resume", "resumed", "false")):
        done = beamline(cluster, verb, "ext", "pii-guard", "-n", applied)
        assert (done.returncode, done.stdout) == (0, f"{word} Extension {applied}/pii-guard\n"), done.stderr
        assert suspended(cluster, applied, "ext/pii-guard") == wanted
        again = beamline(cluster, verb, "ext/pii-guard", "-n", applied)
        assert (again.returncode, "already" in again.stdout) == (0, True)
    # What kubectl applies next still goes through without a conflict.
    cluster.kubectl("-n", applied, "apply", "--server-side", "--force-conflicts", "-f", str(QUICKSTART))


@pytest.mark.parametrize(
    ("mark", "owner"),
    [
        (("annotate", "argocd.argoproj.io/tracking-id=shop:x"), "Argo CD application shop"),
        (
            ("label", "kustomize.toolkit.fluxcd.io/name=apps,kustomize.toolkit.fluxcd.io/namespace=flux"),
            "Flux Kustomization flux/apps",
        ),
    ],
    ids=["Argo CD", "Flux"],
)
def test_an_object_of_a_gitops_tool_is_refused_with_its_owner_unless_forced(
    cluster: Any, applied: str, mark: tuple[str, str], owner: str
) -> None:
    verb, marks = mark
    cluster.kubectl("-n", applied, verb, "rp", "default", *marks.split(","))
    refused = beamline(cluster, "suspend", "rp", "default", "-n", applied)
    assert refused.returncode == 1
    assert f"belongs to {owner}" in refused.stderr
    assert "--force" in refused.stderr
    assert suspended(cluster, applied, "rp/default") in {"", "false"}
    forced = beamline(cluster, "suspend", "rp", "default", "-n", applied, "--force")
    assert forced.returncode == 0, forced.stderr
    assert suspended(cluster, applied, "rp/default") == "true"


def test_an_object_that_is_not_there_is_one_sentence(cluster: Any, applied: str) -> None:
    done = beamline(cluster, "suspend", "ext", "nobody", "-n", applied)
    assert (done.returncode, "does not exist in namespace" in done.stderr) == (1, True)
