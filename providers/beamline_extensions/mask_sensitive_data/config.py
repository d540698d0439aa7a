"""Configuration of mask_sensitive_data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from beamline_extensions.detectors import Kind
from beamline_sdk import Config


class MaskConfig(Config):
    """Settings of mask_sensitive_data."""

    mask_patterns: Annotated[tuple[Kind, ...], Field(min_length=1, max_length=16)] = ("email", "phone")
    """What is masked: credit_card, ssn, email, phone, iban."""
    style: Literal["token", "partial", "hash"] = "token"
    """token: `[EMAIL]`. partial: `j***@***.com`, `***-***-4567`; enough to recognise, too little to use.
    hash: `[EMAIL:kfmcnpjbaglhidoe]`, the same for the same value of the same tenant; see the README on its
    key.
    """
