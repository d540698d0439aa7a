"""What an extension author imports.

``pre``, ``validator``, ``provider`` and ``post`` make an extension of an async function; ``Pre``,
``Validator``, ``Provider`` and ``Post`` are for classes; ``run`` serves one until the process is asked to
stop.
"""

from typing import Any

from .config import Config, InvalidConfigError
from .extension import Extension, Post, Pre, Provider, Setup, Validator, post, pre, provider, validator
from .request import ExtensionRequest
from .results import Delta, ExtensionError, NotReadyError, Patch, ProviderReply, Verdict

__all__ = [
    "Config",
    "Delta",
    "Extension",
    "ExtensionError",
    "ExtensionRequest",
    "InvalidConfigError",
    "NotReadyError",
    "Patch",
    "Post",
    "Pre",
    "Provider",
    "ProviderReply",
    "Setup",
    "Validator",
    "Verdict",
    "post",
    "pre",
    "provider",
    "run",
    "validator",
]


def run(extension: Extension[Any, Any]) -> None:
    """Serves ``extension`` until SIGTERM or SIGINT; settings come from the environment."""
    from .runtime import run as run_now  # noqa: PLC0415 -- components that only share a module need no runtime

    run_now(extension)
