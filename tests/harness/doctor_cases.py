"""A row for each way in which something in a cluster is not well: what is changed, which check finds it, how
grave it is, and words of what it says.
"""

from __future__ import annotations

from datetime import timedelta

from beamline_cli.doctor.patient import Verdict
from beamline_sdk.link import LinkError
from beamline_sdk.nats_probe import NatsFacts

from .doctor_world import NOW, Break, put, router, state

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/extensions.beamline.io"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/beamline/leases/beamline-operator"
F, W, S = Verdict.FAILED, Verdict.WARNING, Verdict.SKIPPED
OLD = {"gitVersion": "v1.29.4", "major": "1", "minor": "29+"}
CASES: list[tuple[str, Break, str, Verdict, str]] = [
    ("an old cluster", state(version=OLD), "kubernetes-version", F, "older than 1.30"),
    (
        "definitions that are not there",
        lambda world: world.documents["/apis/beamline.io/v1alpha1"]["resources"].pop(),
        "crds-present",
        F,
        "routingpolicies/status",
    ),
    (
        "a definition of an older release",
        put(CRD, spec__versions__0__schema={"openAPIV3Schema": {"properties": {}}}),
        "crds-fresh",
        F,
        "Extension lacks",
    ),
    (
        "objects stored in a version that nobody serves",
        put(CRD, status__storedVersions=["v1alpha0", "v1alpha1"]),
        "crds-stored",
        F,
        "stored as v1alpha0",
    ),
    (
        "a definition that is not established",
        put(CRD, status__conditions=[{"type": "NamesAccepted", "status": "False", "message": "taken"}]),
        "crds-stored",
        F,
        "NamesAccepted: taken",
    ),
    (
        "a conversion webhook of somebody else",
        put(CRD, spec__conversion={"strategy": "Webhook"}),
        "crds-stored",
        F,
        "converted by a webhook",
    ),
    (
        "a namespace that is not there",
        lambda world: world.documents.pop("/api/v1/namespaces/models"),
        "namespaces",
        F,
        "no namespace models",
    ),
    (
        "a namespace on its way out",
        put("/api/v1/namespaces/models", metadata__deletionTimestamp="2026-01-01T00:00:00Z"),
        "namespaces",
        W,
        "being deleted",
    ),
    (
        "a namespace without Pod Security",
        put("/api/v1/namespaces/models", metadata__labels={}),
        "pod-security",
        W,
        "does not enforce",
    ),
    (
        "a clock that is a little off",
        state(clock=NOW + timedelta(seconds=9)),
        "cluster-clock",
        W,
        "8.0 s ahead",
    ),
    ("a clock that is far off", state(clock=NOW - timedelta(minutes=9)), "cluster-clock", F, "behind"),
    (
        "the operator's account lacks a verb",
        state(denied={"operator create deployments"}),
        "operator-rights",
        F,
        "create deployments.apps in models",
    ),
    ("somebody who may not read logs", state(denied={"self get pods"}), "your-rights", W, "`beamline logs`"),
    ("no operator at all", lambda world: world.lists["deployments"].pop(0), "operator", W, "no operator"),
    ("an operator without a pod", put("deployments#0", status={}), "operator", F, "no pod that is available"),
    (
        "an operator without a standby",
        put("deployments#0", spec__replicas=1),
        "operator",
        W,
        "nobody stands by",
    ),
    ("a Lease that nobody holds", put(LEASE, spec={}), "operator-lease", F, "nobody holds"),
    (
        "a Lease that was not renewed",
        put(LEASE, spec__renewTime=(NOW - timedelta(seconds=40)).isoformat()),
        "operator-lease",
        F,
        "40 s ago",
    ),
    (
        "routers that are not all there",
        put("deployments#1", status__availableReplicas=1),
        "components-ready",
        F,
        "1 of 3 available",
    ),
    (
        "routers of an older release",
        put(
            "deployments#1",
            metadata__labels={"app.kubernetes.io/component": "router", "app.kubernetes.io/version": "0.0.9"},
        ),
        "versions",
        F,
        "0.0.9: beamline/beamline-router",
    ),
    (
        "an image that can't be pulled",
        put(
            "pods#0",
            status={
                "containerStatuses": [{"image": "x:9", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]
            },
        ),
        "images",
        F,
        "ImagePullBackOff of x:9",
    ),
    (
        "routers without a budget",
        lambda world: world.lists["poddisruptionbudgets"].clear(),
        "disruption-budgets",
        W,
        "no PodDisruptionBudget",
    ),
    (
        "a budget that allows nothing",
        put("poddisruptionbudgets#0", status={"expectedPods": 3, "disruptionsAllowed": 0}),
        "disruption-budgets",
        W,
        "allows no disruption",
    ),
    ("NATS is away", state(nats=LinkError("no NATS server answers")), "nats", F, "no NATS server answers"),
    ("NATS is away, as the checks behind it say", state(nats=LinkError("x")), "nats-tls", S, "`nats` failed"),
    (
        "NATS is old",
        state(nats=NatsFacts("2.9.10", 1048576, True, True, 1.0)),
        "nats-version",
        W,
        "older than 2.10",
    ),
    (
        "NATS lets anybody in",
        state(nats=NatsFacts("2.12.0", 1048576, False, True, 1.0)),
        "nats-auth",
        W,
        "nobody",
    ),
    (
        "NATS in the clear",
        state(nats=NatsFacts("2.12.0", 1048576, True, False, 1.0)),
        "nats-tls",
        W,
        "not encrypted",
    ),
    (
        "NATS takes small messages only",
        state(nats=NatsFacts("2.12.0", 65536, True, True, 1.0)),
        "nats-max-payload",
        F,
        "65536 bytes",
    ),
    (
        "NATS takes requests but not large replies",
        state(nats=NatsFacts("2.12.0", 524288, True, True, 1.0)),
        "nats-max-payload",
        W,
        "replies",
    ),
    ("no router", state(routers=[]), "routers", F, "no router answers"),
    ("a router too few", state(routers=[router("a"), router("b")]), "routers", F, "2 of 3 routers"),
    ("a router cut off", state(routers=[router("a", status="stale")]), "router-reports", W, "a is stale"),
    (
        "routers that disagree",
        state(routers=[router("a"), router("b", revision=6)]),
        "router-revisions",
        W,
        "b: 6",
    ),
    ("a table of yesterday", state(routers=[router("a", age_seconds=900.0)]), "router-tables", F, "900 s"),
    (
        "an object that a router refuses",
        state(
            routers=[
                router(
                    "a",
                    refused=[{"kind": "Extension", "id": "x", "field": "spec.subject", "reason": "taken"}],
                )
            ]
        ),
        "router-refusals",
        F,
        "Extension x: spec.subject: taken",
    ),
    (
        "routers of two releases",
        state(routers=[router("a"), router("b", version="0.0.9")]),
        "router-versions",
        W,
        "different releases",
    ),
    (
        "a router's clock",
        state(routers=[router("a", unix_ms=1_060_000.0)]),
        "router-clocks",
        F,
        "60.0 s ahead",
    ),
    ("no API keys", state(routers=[router("a", keys_total=0)]), "api-keys", W, "no API keys"),
    (
        "API keys in one router alone",
        state(routers=[router("a"), router("b", keys_total=0)]),
        "api-keys",
        F,
        "b has no",
    ),
    ("an open breaker", state(routers=[router("a", breakers={"x": "open"})]), "breakers", F, "x (open)"),
    (
        "an isolated extension",
        state(routers=[router("a", breakers={"x": "isolated"})]),
        "breakers",
        W,
        "isolated",
    ),
    (
        "an object that needs a person",
        put(
            "extensions#0", status__conditions=[{"type": "Stalled", "status": "True", "reason": "Conflicted"}]
        ),
        "stalled-objects",
        W,
        "(Conflicted)",
    ),
    (
        "an Extension that nobody has seen",
        put("extensions#0", status={}),
        "extensions-ready",
        W,
        "no operator has",
    ),
    (
        "an Extension that is not ready",
        put(
            "extensions#0",
            status__conditions__0__status="False",
            status__conditions__0__reason="WorkloadFailed",
        ),
        "extensions-ready",
        F,
        "(WorkloadFailed)",
    ),
    (
        "an Extension being rolled out",
        put("extensions#0", metadata__generation=2),
        "extensions-ready",
        W,
        "under way",
    ),
    (
        "no policy",
        lambda world: world.lists["routingpolicies"].clear(),
        "policies-programmed",
        W,
        "NOT_FOUND",
    ),
    (
        "a policy that is not in the routers",
        put(
            "routingpolicies#0",
            status__conditions__1__status="False",
            status__conditions__1__reason="NoRouters",
        ),
        "policies-programmed",
        F,
        "(NoRouters)",
    ),
    (
        "something put aside",
        put("routingpolicies#0", spec__suspend=True),
        "suspended",
        W,
        "RoutingPolicy models/def",
    ),
    (
        "a Secret that is not there",
        lambda world: world.documents.pop("/api/v1/namespaces/models/secrets/keys"),
        "provider-keys",
        F,
        "the Secret keys, which is not there",
    ),
    (
        "a Secret without the key",
        put("/api/v1/namespaces/models/secrets/keys", data={"OTHER": "x"}),
        "provider-keys",
        F,
        "the key OPENAI_API_KEY of the Secret keys",
    ),
    (
        "Secrets that may not be read",
        state(forbidden={"/secrets"}),
        "provider-keys",
        W,
        "may not read models/keys",
    ),
    (
        "a workload that says it has no key",
        put("extensions#0", status__conditions__0__reason="CredentialsMissing"),
        "provider-keys",
        F,
        "without its key",
    ),
    (
        "definitions that may not be seen",
        state(forbidden={"customresourcedefinitions"}),
        "crds-stored",
        S,
        "may not look",
    ),
]
