"""The provider registry of an extension's own process: its bounds, the extension's record in it, and why the
extension is not up.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError

from . import logs
from .extension import Extension
from .framework.hosted import HostedConfig
from .registry import ProviderRegistry, RegistryConfig, RegistryError
from .results import NotReadyError
from .settings import RuntimeSettings, SettingsError

INITIALIZE_SECONDS: Final = 60.0
HEALTH_INTERVAL_SECONDS: Final = 10.0
HEALTH_TIMEOUT_SECONDS: Final = 5.0
STOP_SECONDS: Final = 4.0


def own_registry() -> ProviderRegistry:
    """The table of this process: no discovery, and bounds that fit into a pod's last 30 seconds."""
    return ProviderRegistry(
        RegistryConfig.model_validate(
            {
                "discovery": {"enable_environment_discovery": False, "auto_refresh_interval": None},
                "health": {
                    "check_interval": HEALTH_INTERVAL_SECONDS,
                    "timeout": HEALTH_TIMEOUT_SECONDS,
                    "retries": 0,
                },
                "lifecycle": {
                    "init_timeout": INITIALIZE_SECONDS,
                    "dispose_timeout": STOP_SECONDS,
                    "graceful_shutdown_timeout": STOP_SECONDS,
                },
            }
        )
    )


def hosted_config(extension: Extension[Any, Any], settings: RuntimeSettings) -> HostedConfig:
    """What the registry is told of ``extension``. Raises :class:`SettingsError` for an id that is no name."""
    try:
        return HostedConfig(
            name=settings.extension_id,
            version=extension.version[:64] or "0",
            settings=dict(settings.config),
        )
    except ValidationError:
        raise SettingsError(
            f"BEAMLINE_EXTENSION_ID: {settings.extension_id!r} is no name: letters, digits, '-' and '_'"
        ) from None


def why_not_up(error: RegistryError) -> tuple[str, list[str] | None]:
    """The reason for ``/readyz``, and where it was raised: an author's own reason, or the type of a fault."""
    cause = error.__cause__
    if isinstance(cause, NotReadyError):
        return str(cause), None
    phase = str(error.context.get("phase", "register")).capitalize()
    kind = type(cause or error).__name__
    return f"{phase}Failed: {kind}", None if cause is None else logs.place_of(cause)
