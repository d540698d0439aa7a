"""The pages: one module each, whose ``routes(site)`` declares what it answers."""

from __future__ import annotations

from typing import Final

from . import (
    acts,
    audit,
    explain,
    extensions,
    overview,
    playground,
    policies,
    requests,
    routers,
)

PAGES: Final = (
    acts,
    overview,
    extensions,
    playground,
    policies,
    requests,
    explain,
    routers,
    audit,
)
"""In no order that matters: :mod:`..nav` has the one that is shown."""
