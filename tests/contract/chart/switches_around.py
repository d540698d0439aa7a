"""Cases of test_chart_switches.py around operators and routers: admin process, NATS, migration,
and monitoring.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .rendering import Rendered

AROUND: dict[str, tuple[dict[str, Any], Callable[[Rendered], bool]]] = {
    "the admin process, which nobody but port-forward reaches": (
        {"admin": {"enabled": True}},
        lambda r: (
            r.names("Service") == ["demo-beamline-admin", "demo-beamline-router"]
            and r.pod("demo-beamline-admin")["containers"][0]["args"] == ["admin"]
            and r.pod("demo-beamline-admin")["automountServiceAccountToken"]
            and "ingress" not in r.one("NetworkPolicy", "demo-beamline-admin")["spec"]
        ),
    ),
    "an admin process that only reads": (
        {"admin": {"enabled": True, "cluster": False}},
        lambda r: (
            not r.pod("demo-beamline-admin")["automountServiceAccountToken"]
            and "models:demo-beamline-admin" not in r.names("ClusterRole")
            and "BEAMLINE_ADMIN_CLUSTER" not in str(r.pod("demo-beamline-admin"))
        ),
    ),
    "an admin process for two namespaces": (
        {"admin": {"enabled": True}, "operator": {"namespaces": ["red", "blue"]}},
        lambda r: "red,blue" in str(r.pod("demo-beamline-admin")),
    ),
    "no admin process by default": ({}, lambda r: "demo-beamline-admin" not in r.names("Deployment")),
    "an admin process with a token, a login and callers of its own": (
        {
            "admin": {
                "enabled": True,
                "tokenSecret": {"name": "admin-token"},
                "service": {"port": 80, "annotations": {"a": "b"}},
            },
            "database": {"adminKey": "admin"},
            "networkPolicy": {"adminFrom": [{"podSelector": {}}]},
        },
        lambda r: (
            r.env("demo-beamline-admin", "BEAMLINE_ADMIN_TOKEN") == {"name": "admin-token", "key": "token"}
            and r.env("demo-beamline-admin", "BEAMLINE_DATABASE_URL")["key"] == "admin"
            and r.one("Service", "demo-beamline-admin")["spec"]["ports"][0]["port"] == 80
            and r.one("NetworkPolicy", "demo-beamline-admin")["spec"]["ingress"][0]["from"]
            == [{"podSelector": {}}]
        ),
    ),
    "an nkey for NATS": (
        {"nats": {"nkeySecret": {"name": "nats-nkey"}}},
        lambda r: all(
            r.env(pod, "NATS_NKEY_FILE") == "/etc/beamline/nats-nkey/seed"
            for pod in ("demo-beamline-operator", "demo-beamline-router")
        ),
    ),
    "NATS behind a CA of one's own, with certificates, from the first byte": (
        {
            "nats": {
                "url": "tls://nats:4222",
                "tls": {"caSecret": {"name": "nats-ca"}, "clientSecret": "us", "first": True},
            }
        },
        lambda r: all(
            (
                r.env(pod, "NATS_CA_FILE"),
                r.env(pod, "NATS_CERTIFICATE_FILE"),
                r.env(pod, "NATS_KEY_FILE"),
                r.env(pod, "NATS_TLS_FIRST"),
            )
            == (
                "/etc/beamline/nats-ca/ca.crt",
                "/etc/beamline/nats-client/tls.crt",
                "/etc/beamline/nats-client/tls.key",
                "true",
            )
            for pod in ("demo-beamline-operator", "demo-beamline-router")
        ),
    ),
    "the operator waits for the migration as long as that may take": (
        {"migration": {"timeoutSeconds": 120}},
        lambda r: (
            r.pod("demo-beamline-operator")["initContainers"][0]["args"]
            == ["migrate", "--check", "--wait", "--timeout=120"]
            and r.pod("demo-beamline-migration")["containers"][0]["args"]
            == ["migrate", "--wait", "--timeout=120"]
        ),
    ),
    "more for the migration's pod": (
        {
            "migration": {
                "extraArgs": ["--check"],
                "extraEnv": [{"name": "PGAPPNAME", "value": "x"}],
                "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
                "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
                "podAnnotations": {"sidecar.istio.io/inject": "false"},
                "podLabels": {"team": "red"},
                "serviceAccountAnnotations": {"role": "x"},
                "nodeSelector": {"disk": "ssd"},
                "tolerations": [{"key": "k", "operator": "Exists"}],
                "affinity": {"nodeAffinity": {}},
                "priorityClassName": "high",
            }
        },
        lambda r: (
            (pod := r.pod("demo-beamline-migration"))["nodeSelector"] == {"disk": "ssd"}
            and pod["containers"][0]["args"][-1] == "--check"
            and pod["volumes"][-1]["name"] == pod["containers"][0]["volumeMounts"][-1]["name"] == "ca"
            and r.env("demo-beamline-migration", "PGAPPNAME") == "x"
            and r.pod("demo-beamline-operator")["initContainers"][0]["env"][-1]["name"] == "PGAPPNAME"
        ),
    ),
    "operators spread by default": (
        {},
        lambda r: len(r.pod("demo-beamline-operator")["topologySpreadConstraints"]) == 2,
    ),
    "operators not spread": (
        {"operator": {"spread": False}},
        lambda r: "topologySpreadConstraints" not in r.pod("demo-beamline-operator"),
    ),
    "nothing of the Prometheus operator by default": (
        {},
        lambda r: r.names("ServiceMonitor") == r.names("PrometheusRule") == r.names("ConfigMap") == [],
    ),
    "everything scraped": (
        {
            "admin": {"enabled": True},
            "monitoring": {
                "serviceMonitor": {"enabled": True, "labels": {"release": "p"}, "interval": "10s"}
            },
        },
        lambda r: (
            r.names("ServiceMonitor")
            == [f"demo-beamline-{name}" for name in ("admin", "extensions", "operator", "router")]
            and all(
                o["metadata"]["labels"]["release"] == "p" and o["spec"]["endpoints"][0]["interval"] == "10s"
                for o in r.objects
                if o["kind"] == "ServiceMonitor"
            )
            and r.one("Service", "demo-beamline-operator")["spec"]["ports"][0]["name"] == "metrics"
        ),
    ),
    "extensions scraped where they may be": (
        {
            "operator": {"namespaces": ["red"]},
            "monitoring": {"serviceMonitor": {"enabled": True}},
        },
        lambda r: (
            r.one("ServiceMonitor", "demo-beamline-extensions")["spec"]["namespaceSelector"]
            == {"matchNames": ["red"]}
        ),
    ),
    "alerts that link to a runbook of one's own": (
        {
            "monitoring": {
                "prometheusRule": {
                    "enabled": True,
                    "labels": {"release": "p"},
                    "runbookUrl": "https://wiki.example/beamline",
                }
            }
        },
        lambda r: all(
            rule["annotations"]["runbook_url"] == f"https://wiki.example/beamline#{rule['alert'].lower()}"
            for group in r.one("PrometheusRule", "demo-beamline")["spec"]["groups"]
            for rule in group["rules"]
            if "alert" in rule
        ),
    ),
    "dashboards for Grafana's sidecar": (
        {"monitoring": {"dashboard": {"enabled": True, "labels": {"folder": "x"}}}},
        lambda r: (
            r.one("ConfigMap", "demo-beamline-dashboard")["metadata"]["labels"].items()
            >= {"grafana_dashboard": "1", "folder": "x"}.items()
            and {
                json.loads(text)["uid"]
                for text in r.one("ConfigMap", "demo-beamline-dashboard")["data"].values()
            }
            == {"beamline", "beamline-extension", "beamline-router", "beamline-operator"}
        ),
    ),
}
