"""Configuration of json_schema_validator."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

from pydantic import ConfigDict, Field, field_validator

from beamline_sdk import Config

from .checking import Checker, SchemaFaultError


class JsonSchemaConfig(Config):
    """Settings of json_schema_validator."""

    model_config = ConfigDict(populate_by_name=True, protected_namespaces=())

    json_schema: Annotated[dict[str, Any], Field(alias="schema", default_factory=lambda: {"type": "object"})]
    """JSON Schema (draft 2020-12, or the one that `$schema` names) that the answer must satisfy. References
    stay inside it. Default: any object.
    """
    retry: bool = True
    """Ask the provider once more for an answer that does not satisfy it."""
    unwrap: bool = True
    """Take the JSON out of a fenced code block, and let the JSON alone be the answer."""
    max_errors: Annotated[int, Field(ge=1, le=50)] = 5
    """Faults that are reported."""

    @field_validator("json_schema")
    @classmethod
    def _is_a_schema(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            Checker(value)
        except SchemaFaultError as fault:
            raise ValueError(str(fault)) from fault
        return value

    @cached_property
    def checker(self) -> Checker:
        """The compiled schema."""
        return Checker(self.json_schema)
