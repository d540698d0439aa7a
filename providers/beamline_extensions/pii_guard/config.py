"""Configuration of pii_guard."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from beamline_extensions.detectors import Kind
from beamline_sdk import Config


class GuardConfig(Config):
    """Settings of pii_guard."""

    patterns: Annotated[tuple[Kind, ...], Field(min_length=1, max_length=16)] = (
        "credit_card",
        "ssn",
        "email",
    )
    """What is looked for: credit_card, ssn, email, phone, iban."""
    block_on_match: bool = True
    """Refuse the request; false lets it pass and annotates it: kinds and count, never a value."""
