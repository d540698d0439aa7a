"""A post step that masks personal data in the provider's answer.

An answer that is streamed comes in windows, each asked about as if it were a whole answer: masking is a
function of the text alone, and nothing is kept between two requests but the key of the style ``hash``.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from beamline_extensions.detectors import find_beside, max_length
from beamline_sdk import ExtensionRequest, NotReadyError, Patch, Post, Setup

from .config import MaskConfig
from .masks import Hider, hashed, masked, partial, token

KEY: Final = "BEAMLINE_MASK_KEY"
KEY_FILE: Final = "BEAMLINE_MASK_KEY_FILE"
SHORTEST_KEY: Final = 16
_ROUNDS: Final = 3

log = structlog.get_logger()


class MaskSensitiveData(Post[MaskConfig]):
    """Replaces what the detectors find in the output."""

    name = "mask_sensitive_data"
    version = "1.1.0"
    description = "Masks e-mail addresses, phone numbers and other personal data in answers."
    config_model = MaskConfig

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    async def initialize(self, setup: Setup) -> None:
        """Reads the key of the style ``hash``. Raises :class:`NotReadyError` where it can't be used."""
        key = key_from(os.environ)
        if key is not None:
            self._key = key
        elif setup.config.get("style") == "hash":
            log.warning("mask.key_of_this_process", extension_id=setup.extension_id, missing=KEY)

    def match_length(self, config: MaskConfig) -> int:
        """The longest of what the detectors in use look at."""
        return max_length(config.mask_patterns)

    async def handle(self, request: ExtensionRequest, config: MaskConfig) -> Patch:
        output = request.output or ""
        hide = self._hider(config, request.tenant_id)
        # What is masked may have stood beside a value and made it look like a part of a word: look again.
        for _ in range(_ROUNDS):
            findings = await find_beside(output, config.mask_patterns)
            if not findings:
                break
            output = masked(output, findings, hide)
        return Patch() if output == request.output else Patch(output=output)

    def _hider(self, config: MaskConfig, tenant_id: str) -> Hider:
        match config.style:
            case "hash":
                return hashed(self._key, tenant_id)
            case "partial":
                return partial
            case _:
                return token


def key_from(environment: Mapping[str, str]) -> bytes | None:
    """The key in ``BEAMLINE_MASK_KEY``, or in the file that ``BEAMLINE_MASK_KEY_FILE`` names; None without.

    Raises :class:`NotReadyError` for one that is shorter than 16 bytes, and for a file that can't be read.
    """
    found = environment.get(KEY, "").encode()
    path = environment.get(KEY_FILE, "")
    if not found and path:
        try:
            found = Path(path).read_bytes().strip()
        except OSError as error:
            raise NotReadyError(
                "CredentialsMissing", f"{KEY_FILE} can't be read: {type(error).__name__}"
            ) from error
    elif not found:
        return None
    if len(found) < SHORTEST_KEY:
        raise NotReadyError("CredentialsMissing", f"{KEY} must have at least {SHORTEST_KEY} bytes")
    return found
