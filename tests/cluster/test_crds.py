"""The CRDs on a real API server, and the models beside them: each bound and rule refuses, in both."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from controlplane.client import Answer, Cluster, Rest
from crdcases.bounds import BoundCase, bound_cases, nodes, spec_schema
from crdcases.objects import full, small
from crdcases.rules import ACCEPTED, RULE_CASES, RuleCase

from beamline_contract.crd import UNSEEN_STATUS, crd
from beamline_contract.model import Fault, InvalidObjectError
from beamline_contract.objects import KINDS, Kind, parse_object

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MANIFESTS = sorted(path for path in EXAMPLES.rglob("*.yaml") if "beamline.io/v1alpha1" in path.read_text())
BOUNDS = bound_cases()


def faults_in(document: dict[str, Any], old: dict[str, Any] | None = None) -> tuple[Fault, ...]:
    """What the models say about a manifest."""
    try:
        parse_object(document, old=None if old is None else parse_object(old))
    except InvalidObjectError as error:
        return error.faults
    return ()


def _is_named(field: str, answer: Answer) -> bool:
    return any(path == field for path, _ in answer.causes) or f'"{field}"' in answer.message


@pytest.mark.parametrize("path", MANIFESTS, ids=[str(path.relative_to(EXAMPLES)) for path in MANIFESTS])
def test_every_example_is_accepted_by_kubectl_and_by_the_models(
    path: Path, cluster: Cluster, namespace: str
) -> None:
    cluster.kubectl("apply", "-n", namespace, "--dry-run=server", "-f", str(path))
    cluster.kubectl("apply", "-n", namespace, "-f", str(path))
    for document in yaml.safe_load_all(path.read_text()):
        if document["apiVersion"] == "beamline.io/v1alpha1":
            assert faults_in(document) == ()


@pytest.mark.parametrize("document", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_the_server_stores_is_what_the_models_write(document: dict[str, Any], rest: Rest) -> None:
    answer = rest.create("default", document, dry_run=True)
    assert answer.accepted, answer.message
    assert parse_object(document).spec.to_manifest() == answer.body["spec"]
    assert parse_object(answer.body).spec.to_manifest() == answer.body["spec"]


@pytest.mark.parametrize("case", BOUNDS, ids=[case.id for case in BOUNDS])
def test_a_broken_bound_is_refused_by_both_with_the_field(case: BoundCase, rest: Rest) -> None:
    answer = rest.create("default", case.document, dry_run=True)
    assert not answer.accepted
    assert _is_named(case.field, answer), answer.message
    assert re.search(case.says, answer.message), answer.message
    assert case.field in [fault.path for fault in faults_in(case.document)]


@pytest.mark.parametrize("case", RULE_CASES, ids=[f"{case.kind} {case.id}" for case in RULE_CASES])
def test_a_broken_rule_is_refused_by_both_with_field_and_message(
    case: RuleCase, rest: Rest, namespace: str
) -> None:
    document, old = case.document(), full(case.kind) if case.update else None
    if old is None:
        answer = rest.create(namespace, document, dry_run=True)
    else:
        stored = rest.create(namespace, old)
        assert stored.accepted, stored.message
        document["metadata"]["resourceVersion"] = stored.body["metadata"]["resourceVersion"]
        answer = rest.replace(namespace, document, dry_run=True)
    assert answer.status == 422
    said = [message for field, message in answer.causes if field == case.field and case.says in message]
    assert said, answer.message
    words = case.models_say or case.says
    assert [
        fault
        for fault in faults_in(document, old)
        if fault.path == case.field and fault.message.startswith(words)
    ]


def test_every_rule_of_the_schemas_has_a_case_that_breaks_it() -> None:
    covered = {(case.kind, case.at, case.says) for case in RULE_CASES}
    for kind in KINDS:
        for at, node in nodes(spec_schema(kind)):
            where = ".".join(at).replace(".[]", "[]")
            for rule in node.get("x-kubernetes-validations", ()):
                broken = [
                    says
                    for a, b, says in covered
                    if (a, b) == (kind, where) and rule["message"].startswith(says)
                ]
                assert broken, f"{kind} {where}: no case breaks {rule['message']!r}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["9starts-with-a-digit", "has.dots", "x" * 64, "UPPER", "under_score", "end-"]
)
def test_a_name_that_is_no_label_is_refused_by_both(kind: Kind, name: str, rest: Rest) -> None:
    document = small(kind)
    document["metadata"]["name"] = name
    answer = rest.create("default", document, dry_run=True)
    assert not answer.accepted
    assert "metadata.name" in answer.message
    assert [fault.path for fault in faults_in(document)] == ["metadata.name"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_spec_and_an_unknown_top_level_field_are_refused_by_both(kind: Kind, rest: Rest) -> None:
    without = {name: value for name, value in small(kind).items() if name != "spec"}
    assert _is_named("spec", rest.create("default", without, dry_run=True))
    assert [fault.path for fault in faults_in(without)] == ["spec"]
    surplus = {**small(kind), "specs": {}}
    assert _is_named("specs", rest.create("default", surplus, dry_run=True))
    assert [fault.path for fault in faults_in(surplus)] == ["specs"]


def test_only_the_models_refuse_a_config_that_is_nested_too_deeply(rest: Rest) -> None:
    """OpenAPI has no word for depth, so this one is a condition in a cluster and a refusal on a laptop."""
    config: dict[str, Any] = {}
    for _ in range(17):
        config = {"a": config}
    document = small("Extension", config=config)
    assert rest.create("default", document, dry_run=True).accepted
    assert [fault.path for fault in faults_in(document)] == ["spec.config"]


def test_several_faults_are_reported_at_once_by_both(rest: Rest) -> None:
    document = small("Extension", timeoutMs=0, retry=9, weight="heavy")
    wanted = {"spec.timeoutMs", "spec.retry", "spec.weight"}
    assert wanted <= {field for field, _ in rest.create("default", document, dry_run=True).causes}
    assert {fault.path for fault in faults_in(document)} == wanted


def test_generation_counts_changes_of_the_spec_only(rest: Rest, namespace: str) -> None:
    stored = rest.create(namespace, full("Extension")).body
    path = rest.path(namespace, "Extension", "full")
    merge = "application/merge-patch+json"
    assert stored["metadata"]["generation"] == 1
    labelled = rest.request("PATCH", path, {"metadata": {"labels": {"team": "blue"}}}, merge)
    assert labelled.body["metadata"]["generation"] == 1
    status = rest.request("PATCH", f"{path}/status", {"status": {"id": "full"}}, merge)
    assert status.accepted, status.message
    assert status.body["metadata"]["generation"] == 1
    changed = rest.request("PATCH", path, {"spec": {"timeoutMs": 300}}, merge)
    assert changed.body["metadata"]["generation"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_object_says_at_once_that_nobody_has_looked_at_it(
    kind: Kind, rest: Rest, namespace: str
) -> None:
    rest.create(namespace, full(kind))
    path = rest.path(namespace, kind, "full")
    seen = rest.request("GET", path).body
    (ready,) = seen["status"]["conditions"]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "Unknown", "Pending")
    assert seen["status"]["observedGeneration"] < seen["metadata"]["generation"]


@pytest.mark.parametrize("kind", KINDS)
def test_spec_and_status_are_written_apart(kind: Kind, rest: Rest, namespace: str) -> None:
    document = full(kind)
    assert rest.create(namespace, {**document, "status": {"id": "forged"}}).body["status"] == UNSEEN_STATUS
    path, merge = rest.path(namespace, kind, "full"), "application/merge-patch+json"
    both: dict[str, Any] = {"status": {"id": "full"}, "spec": {"suspend": True}}
    written = rest.request("PATCH", f"{path}/status", both, merge).body
    assert (written["status"]["id"], written["spec"]["suspend"]) == ("full", False)
    again = rest.request("PATCH", path, {"status": {"id": "forged"}, "spec": {"suspend": True}}, merge).body
    assert (again["status"]["id"], again["spec"]["suspend"]) == ("full", True)


def test_scale_changes_the_replicas_of_the_workload(cluster: Cluster, rest: Rest, namespace: str) -> None:
    rest.create(namespace, full("Extension"))
    cluster.kubectl("scale", "ext/full", "--replicas=3", "-n", namespace)
    stored = rest.request("GET", rest.path(namespace, "Extension", "full")).body
    assert stored["spec"]["workload"]["replicas"] == 3
    assert (
        rest.request("GET", rest.path(namespace, "Extension", "full", "scale")).body["spec"]["replicas"] == 3
    )


def test_short_names_category_and_columns_are_as_a_person_on_call_wants(
    cluster: Cluster, rest: Rest, namespace: str
) -> None:
    for kind in KINDS:
        rest.create(namespace, full(kind))
    ready = {"type": "Ready", "status": "False", "reason": "NotReady", "message": "Programmed: 0 of 1",
             "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
    status = {"status": {"conditions": [ready], "programmed": "0/1", "breaker": "open", "readyReplicas": 2}}
    rest.request(
        "PATCH", rest.path(namespace, "Extension", "full", "status"), status, "application/merge-patch+json"
    )
    table = cluster.kubectl("get", "ext", "-n", namespace).stdout.splitlines()
    assert table[0].split() == ["NAME", "TYPE", "READY", "REASON", "PROGRAMMED", "BREAKER", "REPLICAS", "AGE"]
    assert table[1].split()[:7] == ["full", "pre", "False", "NotReady", "0/1", "open", "2"]
    policies = cluster.kubectl("get", "rp", "-n", namespace).stdout.splitlines()
    assert policies[0].split() == ["NAME", "PRIORITY", "READY", "REASON", "PROGRAMMED", "PROVIDERS", "AGE"]
    wide = cluster.kubectl("get", "ext", "-n", namespace, "-o", "wide").stdout.splitlines()[0].split()
    assert {"SUBJECT", "TIMEOUT", "RETRY", "ENABLED", "REVISION", "MESSAGE"} <= set(wide)
    everything = cluster.kubectl("get", "beamline", "-n", namespace, "-o", "name").stdout.split()
    assert everything == ["extension.beamline.io/full", "routingpolicy.beamline.io/full"]


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("ext.spec.timeoutMs", "Time for one attempt, milliseconds."),
        ("ext.spec.circuitBreaker.slowCall.minCalls", "below which slowness opens nothing"),
        ("rp.spec.steps.mode", "A shadow step runs and is recorded"),
    ],
)
def test_kubectl_explain_shows_what_a_field_means(field: str, words: str, cluster: Cluster) -> None:
    assert words in " ".join(cluster.kubectl("explain", field).stdout.split())


def test_server_side_apply_shares_an_object_between_two_managers(cluster: Cluster, namespace: str) -> None:
    mine = small("Extension", timeoutMs=100)
    theirs = deepcopy(mine)
    theirs["spec"] = {"type": "provider", "weight": 5}
    for manager, document in (("mine", mine), ("theirs", theirs)):
        cluster.kubectl("apply", "--server-side", f"--field-manager={manager}", "-n", namespace, "-f", "-",
                        input=json.dumps(document))  # fmt: skip
    theirs["spec"]["timeoutMs"] = 200
    conflict = cluster.kubectl("apply", "--server-side", "--field-manager=theirs", "-n", namespace, "-f", "-",
                               input=json.dumps(theirs), check=False)  # fmt: skip
    assert conflict.returncode != 0
    assert ".spec.timeoutMs" in conflict.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_has_the_crds_of_this_source_tree(kind: Kind, rest: Rest) -> None:
    wanted = crd(kind)
    stored = rest.request(
        "GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{wanted['metadata']['name']}"
    )
    established = {entry["type"]: entry["status"] for entry in stored.body["status"]["conditions"]}
    assert established["Established"] == "True"
    assert established.get("NonStructuralSchema") is None
    assert stored.body["spec"]["versions"][0]["schema"] == wanted["spec"]["versions"][0]["schema"]
