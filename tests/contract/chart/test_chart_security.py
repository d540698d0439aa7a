"""What the chart runs is hardened, and may do exactly what docs/deployment.md gives a reason for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import AliasChoices
from pydantic_settings import BaseSettings

from beamline_admin import rbac as admin_rbac
from beamline_admin.settings import AdminSettings
from beamline_operator.app import OperatorSettings
from beamline_operator.edges.preflight import NEEDED
from beamline_router.settings import RouterSettings
from beamline_sdk.link_security import VARIABLES

from .rendering import BUNDLED, EXISTING, ROOT, Chart, Rendered, merged

Rule = tuple[str, str, str]
"""(API group, resource, verb)."""
ALLOWED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
HOST = ("hostNetwork", "hostPID", "hostIPC", "hostUsers")


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["containers"], *pod.get("initContainers", [])]


def _restricted_faults(pod: dict[str, Any]) -> Iterator[str]:
    """What Pod Security "restricted" and we have against a pod."""
    yield from (f"{field} is set" for field in HOST if field in pod)
    security = pod["securityContext"]
    if not security["runAsNonRoot"] or security["runAsUser"] == 0:
        yield "may run as root"
    if security["seccompProfile"] != {"type": "RuntimeDefault"}:
        yield "has no seccomp profile"
    for volume in pod.get("volumes", []):
        yield from (
            f"volume {volume['name']} is a {kind}" for kind in volume.keys() - ALLOWED_VOLUMES - {"name"}
        )
    for container in _containers(pod):
        name, security = container["name"], container["securityContext"]
        if security["allowPrivilegeEscalation"] or security["privileged"]:
            yield f"{name} may gain privileges"
        if security["capabilities"] != {"drop": ["ALL"]}:
            yield f"{name} keeps capabilities"
        if not security["readOnlyRootFilesystem"]:
            yield f"{name} may write its image"
        if not container["resources"].get("requests") or "memory" not in container["resources"].get(
            "limits", {}
        ):
            yield f"{name} is not bounded"
        if any("hostPort" in port for port in container.get("ports", [])):
            yield f"{name} takes a port of the node"


def test_every_pod_obeys_pod_security_restricted(either: Rendered) -> None:
    assert {owner: list(_restricted_faults(pod)) for owner, pod in either.pods()} == {
        owner: [] for owner, _ in either.pods()
    }


def test_only_the_operator_the_admin_process_and_the_hook_get_a_token_for_the_api_server(
    either: Rendered,
) -> None:
    with_token = [owner for owner, pod in either.pods() if pod["automountServiceAccountToken"]]
    assert sorted(with_token) == [
        "demo-beamline-admin",
        "demo-beamline-operator",
        "demo-beamline-pre-delete",
    ]
    accounts = [found for found in either.objects if found["kind"] == "ServiceAccount"]
    assert not any(account["automountServiceAccountToken"] for account in accounts)


def test_no_probe_and_no_command_needs_a_shell(either: Rendered) -> None:
    for _, pod in either.pods():
        for container in _containers(pod):
            commands = [container.get("command", []), container.get("args", [])]
            commands += [
                container[probe].get("exec", {}).get("command", [])
                for probe in ("startupProbe", "livenessProbe", "readinessProbe")
                if probe in container
            ]
            assert not [
                word
                for command in commands
                for word in command
                if re.fullmatch(r"(.*/)?(ba|da|a)?sh|-c", word)
            ]


def test_a_database_url_and_a_password_are_nowhere_but_in_a_secret(chart: Chart) -> None:
    rendered = chart.render(BUNDLED)
    elsewhere = json.dumps([found for found in rendered.objects if found["kind"] != "Secret"])
    assert "secret1word" not in elsewhere
    for _, pod in rendered.pods():
        for container in _containers(pod):
            by_value = [entry["name"] for entry in container.get("env", []) if "value" in entry]
            assert not {"BEAMLINE_DATABASE_URL", "POSTGRES_PASSWORD"} & set(by_value)


def test_every_pod_is_under_a_network_policy_and_none_may_do_everything(either: Rendered) -> None:
    policies = [found["spec"] for found in either.objects if found["kind"] == "NetworkPolicy"]
    for found in either.objects:
        if found["kind"] in {"Deployment", "StatefulSet", "Job"}:
            labels = found["spec"]["template"]["metadata"]["labels"].items()
            matching = [spec for spec in policies if spec["podSelector"]["matchLabels"].items() <= labels]
            assert len(matching) == 1, found["metadata"]["name"]
            assert matching[0]["policyTypes"] == ["Ingress", "Egress"]
            assert all(
                rule.get("ports") for way in ("ingress", "egress") for rule in matching[0].get(way, [])
            )


def test_the_pods_of_the_chart_are_never_picked_by_a_workload_of_the_same_name(either: Rendered) -> None:
    """The operator picks an Extension's pods by part-of=beamline and instance=NAME, maybe the release's."""
    for found in either.objects:
        if found["kind"] in {"Deployment", "StatefulSet", "Job"}:
            assert "app.kubernetes.io/part-of" not in found["spec"]["template"]["metadata"]["labels"]


def _rules(roles: list[dict[str, Any]]) -> set[Rule]:
    return {
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _documented(heading: str) -> set[Rule]:
    """The rules of the table below a heading of docs/deployment.md."""
    text = (ROOT / "docs" / "deployment.md").read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rules: set[Rule] = set()
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 4 and cells[0] != "API group":
            group = "" if cells[0] == "core" else cells[0].strip("`")
            words = [re.findall(r"`([^`]+)`", cell) for cell in cells[1:3]]
            rules |= {(group, resource, verb) for resource in words[0] for verb in words[1]}
            assert cells[3], f"no reason for {cells}"
    return rules


@pytest.mark.parametrize("namespaces", [[], ["red", "blue"]], ids=["in all namespaces", "in two namespaces"])
def test_the_operator_may_do_exactly_what_the_documentation_gives_a_reason_for(
    chart: Chart, namespaces: list[str]
) -> None:
    rendered = chart.render(merged(EXISTING, {"operator": {"namespaces": namespaces}}))
    roles = [
        found
        for found in rendered.objects
        if found["kind"] in {"Role", "ClusterRole"} and "pre-delete" not in found["metadata"]["name"]
    ]
    lease = [role for role in roles if role["metadata"]["name"].endswith("-lease")]
    served = [role for role in roles if role not in lease]
    assert [role["metadata"].get("namespace") for role in served] == (namespaces or [None])
    for role in served:
        assert _rules([role]) == _documented("What the operator may do")
    assert _rules(lease) == _documented("What the operator may do in its own namespace")
    assert "*" not in {word for rule in _rules(roles) for word in rule}


def test_the_operator_may_do_what_it_asks_for_at_its_start(chart: Chart) -> None:
    rendered = chart.render(EXISTING)
    granted = _rules([rendered.one("ClusterRole", "models:demo-beamline-operator")])
    asked = {
        (group, f"{resource}/{sub}" if sub else resource, verb)
        for group, resource, sub, verbs in NEEDED
        for verb in verbs
    }
    assert asked <= granted


def test_the_lease_that_the_operator_may_write_is_the_one_that_it_uses(chart: Chart) -> None:
    rendered = chart.render(EXISTING)
    environment = {
        entry["name"]: entry.get("value")
        for entry in rendered.pod("demo-beamline-operator")["containers"][0]["env"]
    }
    named = [
        rule["resourceNames"]
        for rule in rendered.one("Role", "demo-beamline-operator-lease")["rules"]
        if "resourceNames" in rule
    ]
    assert named == [[environment["BEAMLINE_LEASE_NAME"]]]


def test_every_binding_points_at_a_role_and_an_account_of_the_chart(either: Rendered) -> None:
    for binding in (found for found in either.objects if found["kind"].endswith("RoleBinding")):
        assert binding["roleRef"]["name"] in either.names(binding["roleRef"]["kind"])
        (subject,) = binding["subjects"]
        name = binding["metadata"]["name"]
        component = next((one for one in ("pre-delete", "admin") if one in name), "operator")
        assert subject["name"] == f"demo-beamline-{component}"


@pytest.mark.parametrize("namespaces", [[], ["red", "blue"]], ids=["in all namespaces", "in two namespaces"])
def test_the_admin_process_may_do_exactly_what_it_declares_and_the_documentation_gives_a_reason_for(
    chart: Chart, namespaces: list[str]
) -> None:
    values = {"admin": {"enabled": True}, "operator": {"namespaces": namespaces}}
    rendered = chart.render(merged(EXISTING, values))
    roles = [
        found
        for found in rendered.objects
        if found["kind"] in {"Role", "ClusterRole"} and found["metadata"]["name"].endswith("-admin")
    ]
    everywhere = [role for role in roles if role["kind"] == "ClusterRole"]
    within = [role for role in roles if role["kind"] == "Role"]
    assert [role["metadata"]["namespace"] for role in within] == namespaces
    objects, reviews = ({"rules": list(part)} for part in (admin_rbac.OBJECTS, admin_rbac.REVIEWS))
    assert _rules(everywhere) == _rules([reviews] if namespaces else [objects, reviews])
    for role in within:
        assert _rules([role]) == _rules([objects])
    assert _rules([objects, reviews]) == _documented("What the admin process may do")


def test_an_admin_process_that_only_reads_has_no_rights_and_no_token(chart: Chart) -> None:
    rendered = chart.render(merged(EXISTING, {"admin": {"enabled": True, "cluster": False}}))
    assert not any(name.endswith("-admin") for name in rendered.names("ClusterRole"))
    assert rendered.pod("demo-beamline-admin")["automountServiceAccountToken"] is False


def _names(settings: type[BaseSettings]) -> set[str]:
    """The environment variables that a settings class reads."""
    names: set[str] = set()
    for field, info in settings.model_fields.items():
        alias = info.validation_alias
        if isinstance(alias, AliasChoices):
            names |= {str(choice) for choice in alias.choices}
        else:
            names.add(str(alias) if alias else f"BEAMLINE_{field.upper()}")
    return names


@pytest.mark.parametrize(
    ("component", "settings"),
    [("operator", OperatorSettings), ("router", RouterSettings), ("admin", AdminSettings)],
)
def test_every_variable_of_a_component_is_one_that_it_reads(
    chart: Chart, component: str, settings: type[BaseSettings]
) -> None:
    everything = {
        "nats": {
            "url": "tls://n:4222",
            "credentialsSecret": {"name": "c"},
            "tls": {"caSecret": {"name": "c"}, "clientSecret": "c", "first": True},
        },
        "admin": {"enabled": True, "tokenSecret": {"name": "t"}},
        "operator": {"workload": {"natsCredentialsFile": "/c"}, "namespaces": ["a"]},
    }
    (container,) = chart.render(merged(EXISTING, everything)).pod(f"demo-beamline-{component}")["containers"]
    assert {entry["name"] for entry in container["env"]} <= _names(settings) | set(VARIABLES.values())


def test_the_variables_of_a_component_are_accepted_by_it(
    chart: Chart, monkeypatch: pytest.MonkeyPatch
) -> None:
    for component, settings in (("operator", OperatorSettings), ("router", RouterSettings)):
        (container,) = chart.render(EXISTING).pod(f"demo-beamline-{component}")["containers"]
        for entry in container["env"]:
            monkeypatch.setenv(entry["name"], entry.get("value", "postgresql://u:p@registry:5432/beamline"))
        assert settings().database_url == "postgresql://u:p@registry:5432/beamline"  # type: ignore[attr-defined]
