"""What tokens cost, so that ``provider_cost_usd_total`` means something without any setting.

The table holds list prices in US dollars for a million tokens, as the vendors' pricing pages
(openai.com/api/pricing, claude.com/pricing) showed them in November 2025. Prices change: ``prices`` of the
configuration wins, and a model that is in neither is counted as unknown and costs nothing here. Discounts
(cached input, batch, contracts) are not known to us, so the sum is an upper estimate of the bill.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field

from beamline_sdk import Config

PRICES_AS_OF: Final = "2025-11"
_DATED: Final = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4}|latest)$")
Dollars = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]


class Price(Config):
    """US dollars for a million tokens."""

    input: Dollars
    output: Dollars


def _table(text: str) -> dict[str, Price]:
    rows = (line.split() for line in text.strip().splitlines())
    return {name: Price(input=float(inp), output=float(out)) for name, inp, out in rows}


LIST_PRICES: Final[Mapping[str, Price]] = _table(
    """
    gpt-3.5-turbo 0.50 1.50
    gpt-4 30 60
    gpt-4-turbo 10 30
    gpt-4o 2.50 10
    gpt-4o-mini 0.15 0.60
    gpt-4.1 2 8
    gpt-4.1-mini 0.40 1.60
    gpt-4.1-nano 0.10 0.40
    gpt-5 1.25 10
    gpt-5-mini 0.25 2
    gpt-5-nano 0.05 0.40
    o1 15 60
    o3 2 8
    o3-mini 1.10 4.40
    o4-mini 1.10 4.40
    claude-3-haiku 0.25 1.25
    claude-3-opus 15 75
    claude-3-5-haiku 0.80 4
    claude-3-5-sonnet 3 15
    claude-3-7-sonnet 3 15
    claude-sonnet-4 3 15
    claude-sonnet-4-5 3 15
    claude-haiku-4-5 1 5
    claude-opus-4 15 75
    claude-opus-4-1 15 75
    claude-opus-4-5 5 25
    """
)


def price_of(model: str, own: Mapping[str, Price], table: Mapping[str, Price]) -> Price | None:
    """The price of ``model`` or of the model it is a dated version of; ``own`` wins over ``table``."""
    undated = _DATED.sub("", model)
    for prices in (own, table):
        for name in (model, undated):
            if name in prices:
                return prices[name]
    return None


def cost_usd(price: Price, prompt_tokens: int, completion_tokens: int) -> float:
    """Dollars for so many tokens."""
    return (price.input * prompt_tokens + price.output * completion_tokens) / 1_000_000
