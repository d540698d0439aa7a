"""The pages: one module each, whose ``routes(site)`` declares what it answers."""

from __future__ import annotations

from typing import Final

from . import (
    audit,
    extensions,
    overview,
    policies,
    routers,
)

PAGES: Final = (
    overview,
    extensions,
    policies,
    routers,
    audit,
)
"""In no order that matters: :mod:`..nav` has the one that is shown."""
