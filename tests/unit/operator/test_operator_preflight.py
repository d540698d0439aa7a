"""What an operator refuses to start without: one sentence each, with what helps."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from pydantic import ValidationError

from beamline_contract.crd import crd
from beamline_contract.crd_fields import schema_of
from beamline_operator.config import OperatorSettings
from beamline_operator.edges import preflight
from beamline_operator.edges.preflight import Refusal, check_cluster, stay_alone
from beamline_sdk.deployment.kube_api import KubeError

SERVED = ("extensions", "extensions/status", "routingpolicies", "routingpolicies/status")


class Api:
    """An API server that serves ``resources`` and allows everything but ``denied``."""

    def __init__(self, resources: tuple[str, ...] | None = SERVED, denied: str = "", fault: int = 0,
                 schemas: dict[str, Any] | None = None) -> None:  # fmt: skip
        self.resources = resources
        self.denied = denied
        self.fault = fault
        self.schemas = {"components": {"schemas": schemas or {}}}
        self.namespaces: set[str] = set()

    async def request(self, method: str, path: str, *, body: Any = None) -> dict[str, Any]:
        if self.fault:
            raise KubeError(self.fault, "X", "the server said no")
        if path.startswith("/openapi/"):
            return self.schemas
        if method == "GET":
            if self.resources is None:
                raise KubeError(404, "NotFound", "the server could not find the requested resource")
            return {"resources": [{"name": name} for name in self.resources]}
        asked = body["spec"]["resourceAttributes"]
        self.namespaces.add(asked["namespace"])
        return {"status": {"allowed": asked["resource"] != self.denied}}


def older() -> Any:
    """The schema of an Extension before it had ``retry``."""
    schema = deepcopy(schema_of(crd("Extension")))
    del schema["properties"]["spec"]["properties"]["retry"]
    return schema


async def test_the_schema_of_today_is_accepted() -> None:
    api = Api(schemas={"io.beamline.v1alpha1.Extension": schema_of(crd("Extension"))})
    await check_cluster(api, ())  # type: ignore[arg-type]  # as below


@pytest.mark.parametrize(
    ("api", "says"),
    [
        pytest.param(Api(resources=None), "kubectl apply -f crds/", id="no CRD at all"),
        pytest.param(Api(resources=SERVED[:2]), "routingpolicies", id="one CRD missing"),
        pytest.param(Api(resources=SERVED[:3]), "routingpolicies/status", id="an old CRD without status"),
        pytest.param(
            Api(schemas={"io.beamline.v1alpha1.Extension": older()}),
            "older than this operator, Extension lacks spec.retry: run `kubectl apply -f crds/`",
            id="a CRD without a field",
        ),
        pytest.param(Api(denied="services"), "create services", id="a right missing"),
        pytest.param(Api(denied="deployments"), "list deployments.apps", id="several rights missing"),
        pytest.param(Api(fault=401), "credentials", id="credentials refused"),
    ],
)
async def test_what_is_missing_is_one_sentence(api: Api, says: str) -> None:
    with pytest.raises(Refusal) as refusal:
        await check_cluster(api, ())  # type: ignore[arg-type]  # one method suffices
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


async def test_an_api_server_that_does_not_answer_is_no_refusal() -> None:
    with pytest.raises(KubeError):
        await check_cluster(Api(fault=503), ())  # type: ignore[arg-type]  # as above


async def test_rights_are_asked_for_in_every_namespace_that_is_served() -> None:
    api = Api()
    await check_cluster(api, ("red", "blue"))  # type: ignore[arg-type]  # as above
    assert api.namespaces == {"red", "blue"}


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEAMLINE_DATABASE_URL", "postgresql://db/beamline")
    monkeypatch.setenv("BEAMLINE_NAMESPACES", "red, blue,")
    monkeypatch.setenv("NATS_URL", "nats://nats:4222")
    monkeypatch.setenv("BEAMLINE_ALLOWED_IMAGES", "ghcr.io/ours/")
    settings = OperatorSettings()  # type: ignore[call-arg]  # from the environment
    assert settings.scope == ("red", "blue")
    assert settings.own_lease == ("red", "beamline-operator")
    core = settings.reconcile_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel", "HOME": "/"})
    assert core.nats_url == "nats://nats:4222"
    assert core.allowed_images == ("ghcr.io/ours/",)
    assert dict(core.passed_env) == {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel"}


def test_a_database_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEAMLINE_DATABASE_URL", raising=False)
    with pytest.raises(ValidationError, match="database_url"):
        OperatorSettings()  # type: ignore[call-arg]  # that is the point


@pytest.mark.parametrize("times", [(5.0, 6.0, 1.5), (9.0, 1.0, 1.5)], ids=["renewed too late", "tried late"])
def test_lease_times_that_no_leader_could_keep_are_refused(times: tuple[float, float, float]) -> None:
    duration, renew, retry = times
    with pytest.raises(ValidationError, match=r"BEAMLINE_LEASE_DURATION_S .* must be greater than"):
        OperatorSettings(
            database_url="postgresql://db/beamline",
            lease_duration_s=duration,
            lease_renew_s=renew,
            lease_retry_s=retry,
        )


async def test_who_leads_goes_on_looking_for_others_whatever_one_look_brings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = [None, KubeError(0, "Unreachable", "away"), None, Refusal("another operator")]
    seen: list[object] = []

    async def look(*asked: object) -> None:
        seen.append(asked[1:])
        if (found := looks.pop(0)) is not None:
            raise found

    monkeypatch.setattr(preflight, "check_alone", look)
    with pytest.raises(Refusal, match="another operator"):
        await stay_alone(None, ("red",), ("ops", "lease"), "2026", every_s=0)  # type: ignore[arg-type]  # unused
    assert seen == 4 * [(("red",), ("ops", "lease"), "2026")]
