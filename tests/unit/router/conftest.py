"""The fixture of the router's unit tests: a pure world, see ``harness.router_world``."""

from __future__ import annotations

import pytest

from harness.router_world import World


@pytest.fixture
def world() -> World:
    """A scripted router core of this test alone."""
    return World()
