"""Values that can't work are refused before anything is applied, with a message that says which and why."""

from __future__ import annotations

import re
from typing import Any

import pytest

from .rendering import BUNDLED, EXISTING, Chart, merged
from .snapshots import compare, refusal

TOGETHER: dict[str, tuple[dict[str, Any], str]] = {
    "nothing at all": ({}, "database.existingSecret is empty: name the Secret"),
    "no NATS": ({"database": {"existingSecret": "registry"}}, "nats.url is empty: give the address"),
    "a bundled and a given database": (
        merged(BUNDLED, {"database": {"existingSecret": "registry"}}),
        "database.existingSecret and bundled.enabled are both set",
    ),
    "a bundled and a given NATS": (
        merged(BUNDLED, {"nats": {"url": "nats://n:4222"}}),
        "nats.url and bundled.enabled are both set",
    ),
    "credentials for the bundled NATS": (
        merged(BUNDLED, {"nats": {"credentialsSecret": {"name": "c"}}}),
        "nats.credentialsSecret.name and bundled.enabled are both set",
    ),
    "a password in an address": (
        merged(EXISTING, {"nats": {"url": "nats://user:secret@n:4222"}}),
        "nats.url contains credentials",
    ),
    "a password in the address for extensions": (
        merged(EXISTING, {"operator": {"workload": {"natsUrl": "nats://user:secret@n:4222"}}}),
        "operator.workload.natsUrl contains credentials",
    ),
    "an nkey and credentials": (
        merged(EXISTING, {"nats": {"nkeySecret": {"name": "a"}, "credentialsSecret": {"name": "b"}}}),
        "nats.nkeySecret.name and nats.credentialsSecret.name are both set",
    ),
    "TLS files for an address without TLS": (
        merged(EXISTING, {"nats": {"tls": {"first": True}}}),
        "nats.tls is set but nats.url does not begin with tls://",
    ),
    "TLS for the bundled NATS": (
        merged(BUNDLED, {"nats": {"tls": {"caSecret": {"name": "ca"}}}}),
        "nats.nkeySecret or nats.tls and bundled.enabled are both set",
    ),
    "required keys of which there are none": (
        merged(EXISTING, {"router": {"auth": {"natsKeys": "required"}}}),
        "router.auth.existingSecret is empty",
    ),
    "a burst of no rate": (
        merged(EXISTING, {"router": {"tenantLimits": {"burst": 5}}}),
        "router.tenantLimits.burst is set without router.tenantLimits.requestsPerSecond",
    ),
    "bounds that cross": (
        merged(EXISTING, {"router": {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 3}}}),
        "router.autoscaling.minReplicas is 5 and maxReplicas 3",
    ),
}
ALONE: dict[str, tuple[dict[str, Any], str]] = {
    "a typing error at the top": ({"routers": {}}, "additional properties 'routers' not allowed"),
    "a typing error inside": (
        {"router": {"replcas": 3}},
        "at '/router': additional properties 'replcas' not allowed",
    ),
    "a typing error deep inside": (
        {"bundled": {"postgres": {"persistence": {"sise": "1Gi"}}}},
        "at '/bundled/postgres/persistence': additional properties 'sise' not allowed",
    ),
    "no routers": ({"router": {"replicas": 0}}, "at '/router/replicas': minimum: got 0, want 1"),
    "a number of operators in words": (
        {"operator": {"replicas": "two"}},
        "at '/operator/replicas': got string, want integer",
    ),
    "an unknown log level": ({"logLevel": "loud"}, "at '/logLevel': value must be one of"),
    "an unknown pull policy": (
        {"image": {"pullPolicy": "Sometimes"}},
        "at '/image/pullPolicy': value must be one of",
    ),
    "a digest that is none": ({"image": {"digest": "sha256:abc"}}, "at '/image/digest'"),
    "a pull secret by its bare name": (
        {"imagePullSecrets": ["regcred"]},
        "at '/imagePullSecrets/0': got string, want object",
    ),
    "an address that is no NATS": ({"nats": {"url": "http://n:4222"}}, "at '/nats/url'"),
    "a namespace that can't be": ({"operator": {"namespaces": ["Red_Team"]}}, "at '/operator/namespaces/0'"),
    "the same namespace twice": ({"operator": {"namespaces": ["a", "a"]}}, "at '/operator/namespaces'"),
    "an unknown type of Service": ({"router": {"service": {"type": "Ingress"}}}, "at '/router/service/type'"),
    "a port that can't be": ({"router": {"service": {"port": 70000}}}, "at '/router/service/port': maximum"),
    "a poll that never comes": ({"router": {"pollSeconds": 0}}, "at '/router/pollSeconds': minimum"),
    "no pause before the end": ({"router": {"preStopSeconds": 0}}, "at '/router/preStopSeconds': minimum"),
    "no ports of the database": (
        {"networkPolicy": {"databasePorts": []}},
        "at '/networkPolicy/databasePorts': minItems",
    ),
    "a migration that may take no time": (
        {"migration": {"timeoutSeconds": 5}},
        "at '/migration/timeoutSeconds': minimum",
    ),
    "a PostgreSQL that runs as root": (
        {"bundled": {"postgres": {"runAsUser": 0}}},
        "at '/bundled/postgres/runAsUser': minimum",
    ),
    "a password that would break the URL": (
        {"bundled": {"postgres": {"password": "p@ss/word"}}},
        "at '/bundled/postgres/password'",
    ),
    "a variable without a name": ({"router": {"extraEnv": [{"value": "x"}]}}, "missing property 'name'"),
    "a typing error in the admin process": (
        {"admin": {"enable": True}},
        "at '/admin': additional properties 'enable' not allowed",
    ),
    "an interval without unit": (
        {"monitoring": {"serviceMonitor": {"interval": "30"}}},
        "at '/monitoring/serviceMonitor/interval'",
    ),
    "a runbook that is no address": (
        {"monitoring": {"prometheusRule": {"runbookUrl": "runbook.md"}}},
        "at '/monitoring/prometheusRule/runbookUrl'",
    ),
    "a switch that is a word": (
        {"crds": {"enabled": "yes please"}},
        "at '/crds/enabled': got string, want boolean",
    ),
}


CASES = TOGETHER | {name: (merged(EXISTING, values), message) for name, (values, message) in ALONE.items()}


@pytest.mark.parametrize("name", CASES)
def test_values_that_can_not_work_are_refused_with_where_and_what_to_do(chart: Chart, name: str) -> None:
    values, message = CASES[name]
    said = chart.refusal(values)
    assert message in said
    compare(refusal(name), re.sub(r"validate\.yaml:[0-9:]+", "validate.yaml", said))


def test_a_refusal_never_prints_a_password(chart: Chart) -> None:
    assert "hunter2" not in chart.refusal(merged(EXISTING, {"nats": {"url": "nats://user:hunter2@n:4222"}}))


def test_a_kubernetes_that_is_too_old_is_refused(chart: Chart) -> None:
    done = chart.run(EXISTING, "--kube-version", "1.29.0")
    assert done.returncode != 0
    assert "kubeVersion: >=1.30.0-0" in done.stderr
