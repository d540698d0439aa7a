"""The allow-list of images: what an entry lets in, and where a name ends."""

from __future__ import annotations

from typing import Any

import pytest


async def test_an_image_that_is_not_allowed_is_refused(world: Any) -> None:
    world.settings = type(world.settings)(allowed_images=("ghcr.io/ours/",))
    world.restart()
    key = world.extension("guard", workload={"image": "docker.io/theirs/x:1"})
    await world.settle()
    assert world.verdict(key, "Accepted") == ("False", "Invalid")
    assert "spec.workload.image" in world.message(key, "Accepted")
    assert not world.deployments.running


@pytest.mark.parametrize(
    ("entry", "image", "allowed"),
    [
        pytest.param("ghcr.io", "ghcr.io/x:1", True, id="a registry"),
        pytest.param("ghcr.io", "ghcr.io:5000/x:1", False, id="another port of that registry"),
        pytest.param("ghcr.io/acme/", "ghcr.io/acme/x", True, id="an entry with a slash"),
        pytest.param("ghcr.io/acme:1", "ghcr.io/acme:12", False, id="a longer tag"),
    ],
)
async def test_an_entry_of_the_allow_list(world: Any, entry: str, image: str, allowed: bool) -> None:
    world.settings = type(world.settings)(allowed_images=(entry,))
    world.restart()
    key = world.extension("guard", workload={"image": image})
    await world.settle()
    assert (world.verdict(key, "Accepted")[0] == "True") is allowed


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        pytest.param("ghcr.io/acme/x:1", True, id="below the path"),
        pytest.param("ghcr.io/acme:1", True, id="the entry itself with a tag"),
        pytest.param("ghcr.io/acme@sha256:0", True, id="the entry itself by digest"),
        pytest.param("ghcr.io/acme-evil/x:1", False, id="a path that only begins alike"),
        pytest.param("docker.io/ghcr.io/acme/x", False, id="somewhere inside"),
    ],
)
async def test_an_allowed_image_ends_where_a_name_ends(world: Any, image: str, allowed: bool) -> None:
    world.settings = type(world.settings)(allowed_images=("ghcr.io/acme",))
    world.restart()
    key = world.extension("guard", workload={"image": image})
    await world.settle()
    assert (world.verdict(key, "Accepted")[0] == "True") is allowed
