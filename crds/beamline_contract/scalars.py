"""The small types that the custom resources are made of: names, quantities, keys, each with its bounds."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import Field, PlainValidator, StringConstraints, WithJsonSchema

from .names import NAMESPACE_PATTERN, SUBJECT_MAX_LENGTH, SUBJECT_PATTERN

ObjectName = Annotated[
    str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")
]
ResourceName = Annotated[
    str, StringConstraints(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")
]
"""The name of a Secret, ConfigMap or ServiceAccount: a DNS subdomain."""
Namespace = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=NAMESPACE_PATTERN)]
Subject = Annotated[
    str, StringConstraints(min_length=3, max_length=SUBJECT_MAX_LENGTH, pattern=SUBJECT_PATTERN)
]
EnvName = Annotated[
    str, StringConstraints(min_length=1, max_length=253, pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,252}$")
]
LabelKey = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=253,
        pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
    ),
]
"""A label's or annotation's key: an optional DNS prefix, a slash, a name of at most 63 characters."""
LabelValue = Annotated[
    str,
    StringConstraints(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"),
]
_QUANTITY = (
    r"^([0-9]{1,15}(\.[0-9]{0,9})?|\.[0-9]{1,9})(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]{1,2})?$"
)
_QUANTITY_LENGTH: Final = 32
_QUANTITY_MAX: Final = 10**15
QUANTITY_SCHEMA: Final = {
    "x-kubernetes-int-or-string": True,
    "minimum": 0,
    "maximum": _QUANTITY_MAX,
    "maxLength": _QUANTITY_LENGTH,
    "pattern": _QUANTITY,
}


def _quantity(value: Any) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _QUANTITY_MAX:
        return value
    if isinstance(value, str) and len(value) <= _QUANTITY_LENGTH and re.fullmatch(_QUANTITY, value):
        return value
    raise ValueError("must be a quantity such as 1, '500m', '0.5' or '256Mi'")


Quantity = Annotated[int | str, PlainValidator(_quantity), WithJsonSchema(QUANTITY_SCHEMA)]
"""A quantity that is not negative: an integer, or text with a decimal, binary or exponent suffix."""

_SHARE = r"^(100|[1-9]?[0-9])%$"
_SHARE_MAX: Final = 1000


def _share(value: Any) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _SHARE_MAX:
        return value
    if isinstance(value, str) and re.fullmatch(_SHARE, value):
        return value
    raise ValueError("must be a number of pods such as 1, or a share such as '25%'")


PodShare = Annotated[
    int | str,
    PlainValidator(_share),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "maximum": _SHARE_MAX,
            "maxLength": 4,
            "pattern": _SHARE,
        }
    ),
]
"""A number of pods, or a share of them in percent."""
TimeoutMs = Annotated[int, Field(ge=1, le=600_000)]
Retry = Annotated[int, Field(ge=0, le=5)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
