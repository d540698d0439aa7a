"""The pages: one module each, whose ``routes(site)`` declares what it answers."""

from __future__ import annotations

from typing import Final

from . import acts, overview, playground, requests

PAGES: Final = (
    acts,
    overview,
    playground,
    requests,
)
"""In no order that matters: :mod:`..nav` has the one that is shown."""
