"""What the chart's parts have to do with each other: labels, the bundled neighbours, the migration."""

from __future__ import annotations

from typing import Any

from .rendering import BUNDLED, EXISTING, Chart, merged


def test_a_pod_label_never_takes_the_place_of_one_that_selects(chart: Chart) -> None:
    with_label = {"router": {"podLabels": {"app.kubernetes.io/component": "other"}}}
    deployment = chart.render(merged(EXISTING, with_label)).one("Deployment", "demo-beamline-router")["spec"]
    assert (
        deployment["selector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()
    )


def test_a_try_brings_its_own_nats_and_postgresql_and_production_none(chart: Chart) -> None:
    assert chart.render(EXISTING).names("StatefulSet") == []
    assert chart.render(EXISTING).names("Secret") == []
    bundled = chart.render(BUNDLED)
    assert bundled.names("StatefulSet") == ["demo-beamline-postgres"]
    assert bundled.names("Deployment") == [
        "demo-beamline-nats",
        "demo-beamline-operator",
        "demo-beamline-router",
    ]
    secret = bundled.one("Secret", "demo-beamline-bundled")["stringData"]
    assert (
        secret["url"] == "postgresql://beamline:secret1word@demo-beamline-postgres.models.svc:5432/beamline"
    )
    assert bundled.env("demo-beamline-router", "NATS_URL") == "nats://demo-beamline-nats.models.svc:4222"


def test_a_password_that_nobody_chose_is_drawn_and_long(chart: Chart) -> None:
    secret = chart.render({"bundled": {"enabled": True}}).one("Secret", "demo-beamline-bundled")["stringData"]
    assert len(secret["password"]) == 32
    assert secret["password"] in secret["url"]


def test_the_bundled_database_may_have_a_volume(chart: Chart) -> None:
    persistence = {"enabled": True, "size": "5Gi", "storageClassName": "fast"}
    rendered = chart.render(merged(BUNDLED, {"bundled": {"postgres": {"persistence": persistence}}}))
    (claim,) = rendered.one("StatefulSet", "demo-beamline-postgres")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "5Gi"
    assert claim["spec"]["storageClassName"] == "fast"
    assert "data" not in [volume["name"] for volume in rendered.pod("demo-beamline-postgres")["volumes"]]


def test_a_new_image_is_a_new_migration_and_the_same_values_are_the_same_one(chart: Chart) -> None:
    def job(values: dict[str, Any]) -> list[str]:
        return chart.render(merged(EXISTING, values)).names("Job")

    assert job({}) == job({"router": {"replicas": 7}})
    assert job({}) != job({"image": {"tag": "0.2.0"}})


def test_helm_test_sends_a_prompt_through_the_service_of_the_routers(chart: Chart) -> None:
    values = {"router": {"service": {"port": 80}}, "helmTest": {"args": ["--tenant", "acme"], "prompt": "hi"}}
    values["helmTest"]["apiKeySecret"] = {"name": "test-key"}
    (container,) = chart.render(merged(EXISTING, values)).pod("demo-beamline-test")["containers"]
    url = "http://demo-beamline-router.models.svc:80"
    assert container["args"] == ["invoke", "--url", url, "--tenant", "acme", "hi"]
