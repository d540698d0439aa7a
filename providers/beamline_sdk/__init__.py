"""What an extension author imports.

``pre``, ``validator``, ``provider`` and ``post`` make an extension of an async function; ``Pre``,
``Validator``, ``Provider`` and ``Post`` are for classes; ``run`` serves one until the process is asked to
stop.
"""

from .config import Config, InvalidConfigError
from .extension import Extension, Post, Pre, Provider, Setup, Validator, post, pre, provider, validator
from .protocols import (
    AnyExtension,
    PostProtocol,
    PreProtocol,
    ProviderProtocol,
    ValidatorProtocol,
    adopt,
)
from .request import ExtensionRequest
from .results import Delta, ExtensionError, NotReadyError, Patch, ProviderReply, Verdict

__all__ = [
    "AnyExtension",
    "Config",
    "Delta",
    "Extension",
    "ExtensionError",
    "ExtensionRequest",
    "InvalidConfigError",
    "NotReadyError",
    "Patch",
    "Post",
    "PostProtocol",
    "Pre",
    "PreProtocol",
    "Provider",
    "ProviderProtocol",
    "ProviderReply",
    "Setup",
    "Validator",
    "ValidatorProtocol",
    "Verdict",
    "adopt",
    "post",
    "pre",
    "provider",
    "run",
    "validator",
]


def run(extension: AnyExtension) -> None:
    """Serves ``extension`` until SIGTERM or SIGINT; settings come from the environment.

    Raises TypeError where it is none.
    """
    from .runtime import run as run_now  # noqa: PLC0415 -- components that only share a module need no runtime

    run_now(adopt(extension))
