"""Every switch of the chart does what values.yaml says, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .rendering import EXISTING, Chart, Rendered, merged
from .snapshots import compare, difference, switch
from .switches_around import AROUND

DIGEST = "sha256:" + "a" * 64
Check = Callable[[Rendered], bool]


def _images(rendered: Rendered) -> set[str]:
    return {
        container["image"]
        for _, pod in rendered.pods()
        for container in pod["containers"] + pod.get("initContainers", [])
    }


def _everywhere(rendered: Rendered, field: str, value: Any) -> bool:
    return all(pod.get(field) == value for _, pod in rendered.pods())


def _operator(rendered: Rendered) -> dict[str, Any]:
    return rendered.pod("demo-beamline-operator")


def _router(rendered: Rendered) -> dict[str, Any]:
    return rendered.pod("demo-beamline-router")


CASES: dict[str, tuple[dict[str, Any], Check]] = {
    "an image by tag": (
        {"image": {"repository": "registry.example/b", "tag": "2.0"}},
        lambda r: _images(r) == {"registry.example/b:2.0"},
    ),
    "an image by digest": (
        {"image": {"digest": DIGEST}},
        lambda r: _images(r) == {f"ghcr.io/beamline/beamline:0.1.0@{DIGEST}"},
    ),
    "an image by the chart's own version": ({}, lambda r: _images(r) == {"ghcr.io/beamline/beamline:0.1.0"}),
    "a pull policy for every container": (
        {"image": {"pullPolicy": "Always"}},
        lambda r: all(c["imagePullPolicy"] == "Always" for _, p in r.pods() for c in p["containers"]),
    ),
    "registry credentials for every pod": (
        {"imagePullSecrets": [{"name": "regcred"}]},
        lambda r: _everywhere(r, "imagePullSecrets", [{"name": "regcred"}]),
    ),
    "another prefix of names": (
        {"fullnameOverride": "edge"},
        lambda r: r.names("Deployment") == ["edge-operator", "edge-router"],
    ),
    "another name in the prefix": (
        {"nameOverride": "lines"},
        lambda r: r.names("Deployment") == ["demo-lines-operator", "demo-lines-router"],
    ),
    "log level of all components": (
        {"logLevel": "debug"},
        lambda r: r.env("demo-beamline-router", "LOG_LEVEL") == "debug",
    ),
    "CRDs installed and kept": (
        {},
        lambda r: all(
            found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
            for found in r.objects
            if found["kind"] == "CustomResourceDefinition"
        ),
    ),
    "CRDs installed and not kept": (
        {"crds": {"keep": False}},
        lambda r: all(
            "annotations" not in o["metadata"] for o in r.objects if o["kind"] == "CustomResourceDefinition"
        ),
    ),
    "CRDs left to somebody else": (
        {"crds": {"enabled": False}},
        lambda r: r.names("CustomResourceDefinition") == [],
    ),
    "the database's URL by Secret and key": (
        {"database": {"key": "writer"}},
        lambda r: (
            r.env("demo-beamline-operator", "BEAMLINE_DATABASE_URL") == {"name": "registry", "key": "writer"}
        ),
    ),
    "routers with a login of their own": (
        {"database": {"routerKey": "reader"}},
        lambda r: (
            r.env("demo-beamline-router", "BEAMLINE_DATABASE_URL")["key"] == "reader"
            and r.env("demo-beamline-operator", "BEAMLINE_DATABASE_URL")["key"] == "url"
        ),
    ),
    "migrations with a login of their own": (
        {"database": {"migrationKey": "owner"}},
        lambda r: r.env("demo-beamline-migration", "BEAMLINE_DATABASE_URL")["key"] == "owner",
    ),
    "the database's CA in all that reach it, and nowhere else": (
        {"database": {"caSecret": {"name": "registry-ca"}}},
        lambda r: all(
            any(entry["name"] == "BEAMLINE_DATABASE_URL" for entry in container.get("env", []))
            == any(mount["name"] == "database-ca" for mount in container["volumeMounts"])
            for _, pod in r.pods()
            for container in pod["containers"] + pod.get("initContainers", [])
        ),
    ),
    "NATS credentials as a file": (
        {"nats": {"credentialsSecret": {"name": "nats-beamline"}}},
        lambda r: all(
            r.env(pod, "NATS_CREDENTIALS_FILE") == "/etc/beamline/nats/credentials"
            for pod in ("demo-beamline-operator", "demo-beamline-router")
        ),
    ),
    "migrations left to somebody else": (
        {"migration": {"enabled": False}},
        lambda r: r.names("Job") == ["demo-beamline-pre-delete"],
    ),
    "a time limit of migrations": (
        {"migration": {"timeoutSeconds": 120}},
        lambda r: r.one("Job", r.names("Job")[0])["spec"]["activeDeadlineSeconds"] == 120,
    ),
    "more operators": (
        {"operator": {"replicas": 3}},
        lambda r: r.one("Deployment", "demo-beamline-operator")["spec"]["replicas"] == 3,
    ),
    "an operator of all namespaces": (
        {},
        lambda r: (
            r.names("ClusterRole")
            == ["models:demo-beamline-operator", "models:demo-beamline-operator-pre-delete"]
            and r.env("demo-beamline-operator", "BEAMLINE_LEASE_NAMESPACE") == "models"
        ),
    ),
    "an operator of two namespaces": (
        {"operator": {"namespaces": ["red", "blue"]}},
        lambda r: (
            r.names("ClusterRole") == []
            and sorted({o["metadata"]["namespace"] for o in r.objects if o["kind"] == "Role"})
            == ["blue", "models", "red"]
            and r.env("demo-beamline-operator", "BEAMLINE_NAMESPACES") == "red,blue"
        ),
    ),
    "images that extensions may run": (
        {"operator": {"allowedImages": ["ghcr.io/beamline/", "registry.example/"]}},
        lambda r: (
            r.env("demo-beamline-operator", "BEAMLINE_ALLOWED_IMAGES")
            == "ghcr.io/beamline/,registry.example/"
        ),
    ),
    "another NATS address for extensions": (
        {
            "operator": {
                "workload": {
                    "natsUrl": "tls://edge:4222",
                    "natsCredentialsFile": "/creds",
                    "logLevel": "debug",
                }
            }
        },
        lambda r: (
            r.env("demo-beamline-operator", "BEAMLINE_WORKLOAD_NATS_URL") == "tls://edge:4222"
            and r.env("demo-beamline-operator", "BEAMLINE_WORKLOAD_NATS_CREDENTIALS_FILE") == "/creds"
            and r.env("demo-beamline-operator", "BEAMLINE_WORKLOAD_LOG_LEVEL") == "debug"
        ),
    ),
    "more routers": (
        {"router": {"replicas": 5}},
        lambda r: r.one("Deployment", "demo-beamline-router")["spec"]["replicas"] == 5,
    ),
    "a Service outside of the cluster": (
        {"router": {"service": {"type": "LoadBalancer", "port": 80, "annotations": {"a": "b"}}}},
        lambda r: (
            (service := r.one("Service", "demo-beamline-router"))["spec"]["type"] == "LoadBalancer"
            and service["spec"]["ports"][0]["port"] == 80
            and service["metadata"]["annotations"] == {"a": "b"}
        ),
    ),
    "routers by autoscaler": (
        {"router": {"autoscaling": {"enabled": True, "maxReplicas": 4}}},
        lambda r: (
            r.one("HorizontalPodAutoscaler", "demo-beamline-router")["spec"]["maxReplicas"] == 4
            and "replicas" not in r.one("Deployment", "demo-beamline-router")["spec"]
        ),
    ),
    "a share of routers that may be away": (
        {"router": {"podDisruptionBudget": {"maxUnavailable": "25%"}}},
        lambda r: r.one("PodDisruptionBudget", "demo-beamline-router")["spec"]["maxUnavailable"] == "25%",
    ),
    "no disruption budget": (
        {"router": {"podDisruptionBudget": {"enabled": False}}},
        lambda r: r.names("PodDisruptionBudget") == [],
    ),
    "routers spread by default": ({}, lambda r: len(_router(r)["topologySpreadConstraints"]) == 2),
    "routers not spread": (
        {"router": {"spread": False}},
        lambda r: "topologySpreadConstraints" not in _router(r),
    ),
    "limits of a router": (
        {"router": {"pollSeconds": 2.5, "maxInFlight": 1000000, "accessLog": False}},
        lambda r: (
            [
                r.env("demo-beamline-router", f"BEAMLINE_{name}")
                for name in ("POLL_SECONDS", "MAX_IN_FLIGHT", "ACCESS_LOG")
            ]
            == ["2.5", "1000000", "false"]
        ),
    ),
    "API keys as files of a Secret": (
        {"router": {"auth": {"existingSecret": "router-keys", "natsKeys": "required"}}},
        lambda r: (
            r.env("demo-beamline-router", "BEAMLINE_API_KEYS") == "/etc/beamline/keys"
            and r.env("demo-beamline-router", "BEAMLINE_NATS_KEYS") == "required"
            and {"name": "api-keys", "secret": {"secretName": "router-keys", "defaultMode": 0o440}}
            in _router(r)["volumes"]
            and {"name": "api-keys", "mountPath": "/etc/beamline/keys", "readOnly": True}
            in _router(r)["containers"][0]["volumeMounts"]
        ),
    ),
    "nobody without a key by default": (
        {},
        lambda r: (
            not {"BEAMLINE_ANONYMOUS", "BEAMLINE_API_KEYS"}
            & {entry["name"] for entry in _router(r)["containers"][0]["env"]}
        ),
    ),
    "callers without a key, where that is wanted": (
        {"router": {"auth": {"anonymous": True}}},
        lambda r: (
            r.env("demo-beamline-router", "BEAMLINE_ANONYMOUS") == "true"
            and "--expect" not in r.pod("demo-beamline-test")["containers"][0]["args"]
        ),
    ),
    "limits of tenants": (
        {
            "router": {
                "tenantLimits": {
                    "requestsPerSecond": 2.5,
                    "burst": 10,
                    "concurrency": 1000000,
                    "existingConfigMap": "limits",
                }
            }
        },
        lambda r: (
            [
                r.env("demo-beamline-router", f"BEAMLINE_{name}")
                for name in (
                    "TENANT_REQUESTS_PER_SECOND",
                    "TENANT_BURST",
                    "TENANT_CONCURRENCY",
                    "LIMITS_FILE",
                )
            ]
            == ["2.5", "10", "1000000", "/etc/beamline/limits/limits.yaml"]
            and any(volume.get("configMap", {}).get("name") == "limits" for volume in _router(r)["volumes"])
        ),
    ),
    "a key for helm test": (
        {"helmTest": {"apiKeySecret": {"name": "test-key"}}},
        lambda r: r.env("demo-beamline-test", "BEAMLINE_API_KEY") == {"name": "test-key", "key": "key"},
    ),
    "helm test of a closed door": (
        {},
        lambda r: "UNAUTHENTICATED" in r.pod("demo-beamline-test")["containers"][0]["args"],
    ),
    "a router's end has time for all that it waits for": (
        {"router": {"graceSeconds": 60, "preStopSeconds": 15}},
        lambda r: (
            _router(r)["terminationGracePeriodSeconds"] == 85
            and _router(r)["containers"][0]["lifecycle"]["preStop"] == {"sleep": {"seconds": 15}}
        ),
    ),
    **AROUND,
    "no network policies": ({"networkPolicy": {"enabled": False}}, lambda r: r.names("NetworkPolicy") == []),
    "other ports of neighbours": (
        {"networkPolicy": {"databasePorts": [6432], "natsPorts": [4443], "apiServerPorts": [8443]}},
        lambda r: (
            [
                [port["port"] for port in rule["ports"]]
                for rule in r.one("NetworkPolicy", "demo-beamline-operator")["spec"]["egress"]
            ]
            == [[53, 53], [8443], [6432], [4443], [9090]]
        ),
    ),
    "callers of routers by choice": (
        {"networkPolicy": {"routerFrom": [{"namespaceSelector": {"matchLabels": {"team": "web"}}}]}},
        lambda r: (
            r.one("NetworkPolicy", "demo-beamline-router")["spec"]["ingress"][0]["from"]
            == [{"namespaceSelector": {"matchLabels": {"team": "web"}}}]
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_switch_does_what_its_comment_says_and_nothing_else(chart: Chart, name: str) -> None:
    values, holds = CASES[name]
    assert holds(chart.render(merged(EXISTING, values)))
    if values:
        compare(switch(name), difference(chart.text(EXISTING), chart.text(merged(EXISTING, values))))


@pytest.mark.parametrize("component", ["operator", "router", "admin"])
def test_what_a_pod_may_get_beyond_our_own_reaches_it_whole(chart: Chart, component: str) -> None:
    more: dict[str, Any] = {
        "extraArgs": ["--one"],
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "red"},
        "serviceAccountAnnotations": {"role": "x"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "k", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "resources": {"requests": {"cpu": "1"}},
    }
    switched_on = {"admin": {"enabled": True}}
    rendered = chart.render(merged(EXISTING, switched_on, {component: more}))
    template = rendered.one("Deployment", f"demo-beamline-{component}")["spec"]["template"]
    pod, (container,) = template["spec"], template["spec"]["containers"]
    assert container["args"] == [component, "--one"]
    assert more["extraEnv"][0] in container["env"]
    assert more["extraVolumes"][0] in pod["volumes"]
    assert more["extraVolumeMounts"][0] in container["volumeMounts"]
    assert template["metadata"]["annotations"] == {"a": "b"}
    assert template["metadata"]["labels"]["team"] == "red"
    assert {name: pod[name] for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName")} == {
        name: more[name] for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName")
    }
    assert container["resources"]["requests"]["cpu"] == "1"
    account = rendered.one("ServiceAccount", f"demo-beamline-{component}")
    assert account["metadata"]["annotations"] == {"role": "x"}
