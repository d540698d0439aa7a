"""Names, defaults, statuses and events of the framework and the registry, letter by letter.

Authors' programs and dashboards hold on to them: a change of one is a change of the public interface.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from beamline_sdk.framework import (
    KINDS,
    BaseProvider,
    DeploymentConfig,
    DeploymentProvider,
    DeploymentResult,
    HealthStatus,
    ProviderConfig,
    ProviderFactory,
    SDKConfig,
    SDKProvider,
    SDKResponse,
)
from beamline_sdk.framework.configuration import PREFIX
from beamline_sdk.registry import ProviderRegistry, RegistryConfig
from beamline_sdk.registry.discovery import Discovery
from beamline_sdk.registry.events import EVENTS
from beamline_sdk.registry.records import (
    ProviderStatus,
    RegisteredProvider,
    RegistryError,
    RegistryErrorCode,
    Source,
)


def defaults(model: type[BaseModel]) -> dict[str, Any]:
    return {
        name: field.get_default(call_default_factory=True)
        for name, field in model.model_fields.items()
        if not field.is_required()
    }


@pytest.mark.parametrize(
    ("model", "required", "wanted"),
    [
        pytest.param(
            ProviderConfig,
            {"name", "version"},
            {"enabled": True, "timeout_ms": 5000, "retry_attempts": 0},
            id="of a provider",
        ),
        pytest.param(
            DeploymentConfig,
            {"name", "version"},
            {"environment": "development", "namespace": "default", "replicas": 1, "context": None},
            id="of a deployment",
        ),
        pytest.param(
            SDKConfig,
            {"name", "version", "api_endpoint", "api_key"},
            {"timeout_ms": 10_000, "rate_limit": 100},
            id="of an SDK provider",
        ),
    ],
)
def test_a_configuration_asks_for_these_fields_and_has_these_defaults(
    model: type[BaseModel], required: set[str], wanted: dict[str, Any]
) -> None:
    assert {name for name, field in model.model_fields.items() if field.is_required()} == required
    assert wanted.items() <= defaults(model).items()


def test_a_registry_checks_every_30_s_and_opens_after_5_failures_in_60_s() -> None:
    config = RegistryConfig()
    assert set(RegistryConfig.model_fields) == {"discovery", "health", "circuit_breaker", "lifecycle"}
    assert {"config_path", "plugin_path", "auto_refresh_interval", "enable_environment_discovery"} <= set(
        type(config.discovery).model_fields
    )
    assert set(type(config.health).model_fields) == {"check_interval", "timeout", "retries"}
    assert config.health.check_interval == 30
    assert (config.circuit_breaker.failure_threshold, config.circuit_breaker.monitoring_period) == (5, 60)
    assert {"init_timeout", "dispose_timeout"} <= set(type(config.lifecycle).model_fields)
    assert config.lifecycle.graceful_shutdown_timeout == 30


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        pytest.param(KINDS, "deployment sdk monitoring storage", id="kinds"),
        pytest.param(get_args(HealthStatus), "healthy unhealthy error", id="health"),
        pytest.param(get_args(ProviderStatus), "initializing ready error disposed", id="statuses"),
        pytest.param(get_args(Source), "config plugin api", id="sources"),
        pytest.param(
            [code.value for code in RegistryErrorCode],
            "INVALID_NAME ALREADY_EXISTS REGISTRATION_FAILED NOT_FOUND",
            id="codes",
        ),
        pytest.param(
            EVENTS,
            "provider-registered provider-unregistered provider-error health-status-changed "
            "circuit-breaker-opened circuit-breaker-closed",
            id="events",
        ),
    ],
)
def test_the_words_are_these_and_no_others(words: tuple[str, ...], wanted: str) -> None:
    assert sorted(words) == sorted(wanted.split())


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        pytest.param(BaseProvider, "initialize health_check cleanup", id="a provider"),
        pytest.param(SDKProvider, "make_request authenticate get_capabilities", id="an SDK provider"),
        pytest.param(DeploymentProvider, "deploy scale rollback get_status", id="a deployment provider"),
        pytest.param(ProviderFactory, "create get_available_providers", id="the factory"),
        pytest.param(
            ProviderRegistry,
            "register unregister get names has on initialize start stop restart dispose check_health "
            "shutdown",
            id="the registry",
        ),
        pytest.param(Discovery, "refresh validate_discovered_providers", id="its discovery"),
    ],
)
def test_these_methods_are_there(owner: type, names: str) -> None:
    assert [name for name in names.split() if not callable(getattr(owner, name, None))] == []


@pytest.mark.parametrize(
    ("record", "names"),
    [
        pytest.param(DeploymentResult, "success deployment_id status message metadata", id="of a deployment"),
        pytest.param(SDKResponse, "success data error latency_ms request_id", id="of a request"),
        pytest.param(
            RegisteredProvider,
            "name provider config status registered_at last_health_check capabilities metadata",
            id="of the registry",
        ),
    ],
)
def test_a_result_has_these_fields(record: type, names: str) -> None:
    assert is_dataclass(record)
    assert set(names.split()) <= {field.name for field in fields(record)}


def test_an_error_says_code_message_provider_and_context_and_the_prefix_is_ours() -> None:
    error = RegistryError("NOT_FOUND", "no such provider", provider_name="disk", context={"known": 2})
    assert (error.code, error.message) == ("NOT_FOUND", "no such provider")
    assert (error.provider_name, error.context) == ("disk", {"known": 2})
    assert PREFIX == "BEAMLINE_"
