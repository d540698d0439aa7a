"""What tokens cost: the operator's word, and nobody else's.

Prices differ by contract and change without notice, so none ship with the code: a table here would be wrong
soon, and wrong money looks like right money. ``prices`` of the configuration is all there is; a call of a
model without one is counted by ``provider_unpriced_requests_total`` and adds nothing to
``provider_cost_usd_total``. Discounts (cached input, batch) are not seen here: state what you pay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field

from beamline_sdk import Config

_DATED: Final = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4}|latest)$")
Dollars = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]


class Price(Config):
    """US dollars for a million tokens."""

    input: Dollars
    output: Dollars


def price_of(model: str, prices: Mapping[str, Price]) -> Price | None:
    """The price of ``model``, else of the model it is a dated version of (``gpt-4-0613``: ``gpt-4``); None
    where neither is stated.
    """
    found = prices.get(model)
    return prices.get(_DATED.sub("", model)) if found is None else found


def cost_usd(price: Price, prompt_tokens: int, completion_tokens: int) -> float:
    """Dollars for so many tokens."""
    return (price.input * prompt_tokens + price.output * completion_tokens) / 1_000_000
