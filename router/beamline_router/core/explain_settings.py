"""Where each effective setting of a call comes from: the policy's step, the extension, or a default.

A stored extension holds its defaults written out, so one that states the default's value counts as default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from beamline_contract.extension import CircuitBreaker, ExtensionSpec
from beamline_sdk.breaker import BreakerSettings

from .retry import DEFAULT_BUDGET
from .route import Call, CompiledExtension

_FIELDS: Final = ExtensionSpec.model_fields
_DEFAULTS: Final = {
    "timeout_ms": _FIELDS["timeout_ms"].default,
    "retry": _FIELDS["retry"].default,
    "concurrency": _FIELDS["concurrency"].default,
    "circuit_breaker": BreakerSettings.of(CircuitBreaker()),
}
_OPTIONAL: Final = {"retry_on_timeout": "retryOnTimeout", "failure_mode": "failureMode"}


def origins(call: Call, document: Mapping[str, Any], extension: CompiledExtension) -> dict[str, Any]:
    """By setting ``step``, ``extension`` or ``default``; of ``config`` the keys that the step lays over it.

    ``document`` is the stored step, empty for a call that no step changes (a fallback).
    """
    own = {
        "timeout_ms": extension.timeout_ms,
        "retry": extension.retry,
        "concurrency": extension.concurrency,
        "circuit_breaker": extension.breaker,
    }
    found: dict[str, Any] = {
        name: _origin(document.get(name) is not None, own[name] != default)
        for name, default in _DEFAULTS.items()
    }
    for name, field in _OPTIONAL.items():
        if name != "failure_mode" or call.type != "provider":
            found[name] = _origin(
                document.get(name) is not None, extension.record.spec.get(field) is not None
            )
    found["retry_budget"] = _budget_of(call, document, extension)
    found["config"] = sorted(document.get("config") or ())
    return found


def _budget_of(call: Call, document: Mapping[str, Any], extension: CompiledExtension) -> str:
    if document.get("retry_budget") is not None:
        return "step"
    if call.budget is None or call.budget is DEFAULT_BUDGET:
        return "default"
    return "extension" if call.budget is extension.budget else "policy"


def _origin(by_step: bool, by_extension: bool) -> str:
    if by_step:
        return "step"
    return "extension" if by_extension else "default"
