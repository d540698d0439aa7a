"""No value of the chart is without effect: each one, given a mark of its own, shows in what is rendered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from .rendering import CHART, EXISTING, Chart, merged
from .test_chart_switches import CASES

COMPONENTS = ("operator", "router", "admin")
FOR_PODS = (
    "extraArgs", "extraEnv", "extraVolumes", "extraVolumeMounts", "podAnnotations", "podLabels",
    "nodeSelector", "tolerations", "affinity", "priorityClassName", "serviceAccountAnnotations",
)  # fmt: skip
"""Proven for each component by `test_what_a_pod_may_get_beyond_our_own_reaches_it_whole`."""
ON: dict[str, Any] = {
    "admin": {"enabled": True, "tokenSecret": {"name": "token"}},
    "nats": {"url": "tls://nats:4222", "tls": {"caSecret": {"name": "ca"}}},
    "database": {"caSecret": {"name": "ca"}},
    "helmTest": {"apiKeySecret": {"name": "k"}},
    "router": {"autoscaling": {"enabled": True}},
}
BUNDLED_PLAIN: dict[str, Any] = {
    "bundled": {"enabled": True, "postgres": {"password": "secret1word"}},
    "database": {"existingSecret": ""},
    "nats": {"url": ""},
}
BUNDLED_ON = merged(BUNDLED_PLAIN, {"bundled": {"postgres": {"persistence": {"enabled": True}}}})
CREDENTIALS = merged(ON, {"nats": {"credentialsSecret": {"name": "c"}}})
NKEY = merged(ON, {"nats": {"nkeySecret": {"name": "n"}}})
MARKED: dict[str, tuple[dict[str, Any], Any, str]] = {
    "admin.tokenSecret.key": (ON, "mark-a", "mark-a"),
    "bundled.nats.image": (BUNDLED_ON, "registry.example/nats:mark", "registry.example/nats:mark"),
    "bundled.postgres.image": (BUNDLED_ON, "registry.example/pg:mark", "registry.example/pg:mark"),
    "bundled.postgres.password": (BUNDLED_ON, "markpassword1", "markpassword1"),
    "bundled.postgres.persistence.size": (BUNDLED_ON, "77Gi", "77Gi"),
    "bundled.postgres.persistence.storageClassName": (BUNDLED_ON, "mark-class", "mark-class"),
    "bundled.postgres.runAsUser": (BUNDLED_ON, 7071, "7071"),
    "database.caSecret.key": (ON, "mark-b", "mark-b"),
    "database.existingSecret": (ON, "mark-secret", "mark-secret"),
    "helmTest.apiKeySecret.key": (ON, "mark-c", "mark-c"),
    "helmTest.args": (ON, ["--tenant", "mark-t"], "mark-t"),
    "helmTest.prompt": (ON, "mark prompt", "mark prompt"),
    "nats.tls.caSecret.key": (ON, "mark-e", "mark-e"),
    "operator.rollOnRotation": (ON, True, "configmaps"),
    "router.autoscaling.minReplicas": (ON, 4, '"minReplicas": 4'),
    "router.autoscaling.targetCPUUtilizationPercentage": (ON, 61, '"averageUtilization": 61'),
    "nats.credentialsSecret.key": (CREDENTIALS, "mark-d", "mark-d"),
    "nats.nkeySecret.key": (NKEY, "mark-f", "mark-f"),
    "bundled.postgres.persistence.enabled": (BUNDLED_PLAIN, True, "volumeClaimTemplates"),
}  # fmt: skip


def leaves(node: Any, at: str = "") -> Iterator[str]:
    """Paths of single values, a list being one."""
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from leaves(value, f"{at}.{name}".lstrip("."))
    else:
        yield at


def resources() -> list[str]:
    """Paths of everything's resources."""
    return [
        path for path in leaves(yaml.safe_load((CHART / "values.yaml").read_text())) if ".resources." in path
    ]


def nested(path: str, value: Any) -> dict[str, Any]:
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


def rendered(chart: Chart, *layers: dict[str, Any]) -> str:
    return json.dumps(chart.render(merged(EXISTING, *layers)).objects)


@pytest.mark.parametrize("path", MARKED)
def test_a_value_reaches_what_is_rendered(chart: Chart, path: str) -> None:
    base, value, mark = MARKED[path]
    assert mark not in rendered(chart, base)
    assert mark in rendered(chart, base, nested(path, value))


@pytest.mark.parametrize("base", [ON, BUNDLED_ON], ids=["existing neighbours", "bundled ones"])
def test_the_resources_of_every_container_are_those_that_were_given(
    chart: Chart, base: dict[str, Any]
) -> None:
    bundled = base is BUNDLED_ON
    paths = [path for path in resources() if path.startswith("bundled.") == bundled]
    marks = {
        path: f"{3001 + number}{'m' if path.endswith('cpu') else 'Mi'}" for number, path in enumerate(paths)
    }
    text = rendered(chart, base, *(nested(path, mark) for path, mark in marks.items()))
    assert [path for path, mark in marks.items() if f'"{mark}"' not in text] == []
    assert paths


def test_every_value_has_a_case_somewhere() -> None:
    stated = (
        {path for values, _ in CASES.values() for path in leaves(values)} | MARKED.keys() | set(resources())
    )
    stated.add("bundled.enabled")  # a case of many tests
    stated |= {f"{component}.{name}" for component in COMPONENTS for name in FOR_PODS}
    values = set(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))
    without = {
        path
        for path in values
        if not any(one == path or one.startswith(f"{path}.") or path.startswith(f"{one}.") for one in stated)
    }
    assert without == set()
    assert len(CASES) >= 40
