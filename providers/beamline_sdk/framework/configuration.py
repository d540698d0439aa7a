"""Where a provider's configuration comes from, and what wins.

    defaults of the model  <  file  <  environment  <  at run time

The file is YAML or JSON: ``providers:`` is a list of entries, each with ``name``, ``kind`` (default ``sdk``),
``type`` (default: the name) and the fields of its model. A key does not belong into a file, so
``api_key_env: NAME`` and ``api_key_file: PATH`` say where it is.

In the environment, ``BEAMLINE_<NAME>_<FIELD>`` sets one field: ``BEAMLINE_OPENAI_TIMEOUT_MS=9000``. Only
fields that the model has are looked for. Lists and objects are written as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson
import yaml
from pydantic import ValidationError

from ..config import faults_of
from .provider import ProviderConfig

PREFIX: Final = "BEAMLINE_"
MAX_FILE_BYTES: Final = 1024 * 1024
ModelT = TypeVar("ModelT", bound=ProviderConfig)


class ConfigurationError(ValueError):
    """The configuration is not usable; ``faults`` are sentences with the field's path, without values."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def load_config(
    model: type[ModelT],
    name: str,
    *,
    file: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ModelT:
    """The configuration of ``name``: ``file`` is its entry there, ``overrides`` what is set at run time.

    Raises :class:`ConfigurationError` that names each wrong field.
    """
    raw = merged(model, name, file=file, environ=environ, overrides=overrides)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ConfigurationError(faults_of(error)) from None


def merged(
    model: type[ProviderConfig],
    name: str,
    *,
    file: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The fields of all sources, not validated. Raises :class:`ConfigurationError` where there is no key."""
    environ = environ or {}
    raw: dict[str, Any] = {"name": name, "version": "1.0.0"}
    raw |= _with_key(dict(file or {}), environ)
    raw |= from_environment(model, name, environ)
    raw |= dict(overrides or {})
    return raw


def from_environment(model: type[ProviderConfig], name: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """The fields of ``model`` that ``BEAMLINE_<NAME>_<FIELD>`` sets; an empty variable counts as unset."""
    stem = PREFIX + re.sub(r"[^A-Z0-9]", "_", name.upper())
    found: dict[str, Any] = {}
    for field in model.model_fields:
        if field == "name":
            continue
        text = environ.get(f"{stem}_{field.upper()}", "")
        if text:
            found[field] = _value(text)
    return found


def read_file(path: Path) -> list[dict[str, Any]]:
    """The entries of a file of providers. Raises :class:`ConfigurationError` that names it."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigurationError((f"{path}: larger than {MAX_FILE_BYTES} bytes",))
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigurationError((f"{path}: can't be read: {error.strerror or error}",)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        raise ConfigurationError((f"{path}{where}: not YAML or JSON",)) from None
    entries = document.get("providers") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigurationError((f"{path}: `providers` must be a list of objects",))
    return [{str(field): value for field, value in entry.items()} for entry in entries]


def _with_key(entry: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    variable, file = entry.pop("api_key_env", None), entry.pop("api_key_file", None)
    if isinstance(variable, str):
        if not environ.get(variable):
            raise ConfigurationError((f"config.api_key_env: {variable} is not set",))
        entry["api_key"] = environ[variable]
    elif isinstance(file, str):
        try:
            entry["api_key"] = Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError((f"config.api_key_file: {file} can't be read",)) from None
    return entry


def _value(text: str) -> Any:
    if text[:1] in "[{":
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return text
