"""An extension's configuration: a pydantic model, validated once per distinct value.

Every request carries the current configuration, so a change in the custom resource takes effect with the next
request and without a restart. Validating each time would cost more than most extensions do; the same object
arrives over and over, so the validated model is kept (and the refusal of an invalid one as well).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

ConfigT = TypeVar("ConfigT", bound=BaseModel)

KEPT: Final = 128
"""Distinct configurations kept per process: one per policy step that overrides it, with room for edits."""


class Config(BaseModel):
    """Base for configurations: frozen, and strict about names, so that a typing mistake is an error with a
    path.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class InvalidConfigError(ValueError):
    """The configuration breaks the model; ``faults`` are sentences with the field's path, not its value."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class ConfigCache(Generic[ConfigT]):
    """Validated configurations of one model, the least recently used forgotten first."""

    def __init__(self, model: type[ConfigT], size: int = KEPT) -> None:
        self._model = model
        self._size = size
        self._kept: OrderedDict[bytes, ConfigT | InvalidConfigError] = OrderedDict()
        self._last_raw: Mapping[str, Any] | None = None
        self._last: ConfigT | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, raw: Mapping[str, Any]) -> ConfigT:
        """The model of ``raw``, the same object for equal input. Raises :class:`InvalidConfigError`."""
        if self._last is not None and raw == self._last_raw:
            return self._last
        key = orjson.dumps(raw, option=orjson.OPT_SORT_KEYS)
        found = self._kept.get(key)
        if found is None:
            found = self._validated(raw)
            self._kept[key] = found
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        if isinstance(found, InvalidConfigError):
            raise InvalidConfigError(found.faults)
        self._last_raw, self._last = raw, found
        return found

    def _validated(self, raw: Mapping[str, Any]) -> ConfigT | InvalidConfigError:
        try:
            return self._model.model_validate(raw)
        except ValidationError as error:
            return InvalidConfigError(faults_of(error))


def faults_of(error: ValidationError) -> tuple[str, ...]:
    """``config.latency_ms: Input should be greater than or equal to 0``, one sentence per fault, without
    values.
    """
    return tuple(
        f"{'.'.join(('config', *map(str, entry['loc'])))}: {entry['msg'].removeprefix('Value error, ')}"
        for entry in error.errors(include_url=False, include_context=False, include_input=False)
    )
