"""Tokens of an identity provider: which prove something, and how keys rotate."""

from __future__ import annotations

import time
from typing import Any

import pytest

from beamline_admin.identity import Client, Identity, Role, VerifierError
from beamline_admin.oidc import KEYS_S, REFETCH_S, OidcSettings, OidcVerifier
from harness.oidc import AUDIENCE, ISSUER, Provider

CLIENT = Client("10.0.0.1", "admin.example")


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.provider = Provider()
        self.verifier = OidcVerifier(
            OidcSettings(ISSUER, AUDIENCE), clock=lambda: self.now, fetch=self.provider.fetch
        )

    async def verify(self, token: str) -> Identity | None:
        return await self.verifier.verify(token, CLIENT)


@pytest.fixture
def world() -> World:
    return World()


async def test_role_and_tenants_come_from_claims(world: World) -> None:
    assert await world.verify(world.provider.token("admin")) == Identity("ada", Role.ADMIN)
    bound = await world.verify(world.provider.token("operator", ["acme", "shop"]))
    assert bound == Identity("ada", Role.OPERATOR, tenants=frozenset({"acme", "shop"}))
    assert await world.verify(world.provider.token("viewer", None)) == Identity(
        "ada", Role.VIEWER, tenants=frozenset()
    )
    highest = await world.verify(world.provider.token(["viewer", "operator"]))  # type: ignore[arg-type]  # a list
    assert highest is not None
    assert highest.role is Role.OPERATOR


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"role": None}, id="no role"),
        pytest.param({"role": "root"}, id="an unknown role"),
        pytest.param({"exp": -60}, id="expired"),
        pytest.param({"exp": -1}, id="expired a second ago"),
        pytest.param({"nbf": 60}, id="not valid before a minute"),
        pytest.param({"sub": "ada\nrole: admin"}, id="of somebody with two lines"),
        pytest.param({"headers": {"crit": ["exp2"], "exp2": 1}}, id="with something that must be understood"),
        pytest.param({"aud": ["other", "another"]}, id="for several others"),
        pytest.param({"exp": None}, id="without an end"),
        pytest.param({"aud": "other"}, id="for somebody else"),
        pytest.param({"aud": None}, id="for nobody"),
        pytest.param({"iss": "https://evil.example"}, id="of another issuer"),
        pytest.param({"nbf": 86_400}, id="not valid yet"),
        pytest.param({"sub": None}, id="without a subject"),
        pytest.param({"headers": {"kid": "other"}}, id="of an unknown key"),
    ],
)
async def test_what_proves_nothing(world: World, claims: dict[str, Any]) -> None:
    """``exp`` and ``nbf`` are seconds from now."""
    when = {name: int(time.time()) + claims[name] for name in ("exp", "nbf") if claims.get(name) is not None}
    assert await world.verify(world.provider.token(**{"role": "admin", **claims, **when})) is None


async def test_other_algorithms_and_other_texts_prove_nothing(world: World) -> None:
    good = world.provider.token("admin")
    head, body, signature = good.split(".")
    forged = [
        world.provider.unsigned(), world.provider.confused(), "", "a.b.c", f"{head}.{body}.",
        f"{head}.{body[:-2]}xx.{signature}", "x" * 20_000, Provider().token("admin"),
    ]  # fmt: skip
    for token in forged:
        assert await world.verify(token) is None, token[:80]
    assert await world.verify(good) is not None


async def test_keys_rotate_and_strangers_can_not_make_us_fetch_at_will(world: World) -> None:
    old = world.provider.token()
    assert await world.verify(old) is not None
    asked = world.provider.fetches
    world.provider.rotate()
    for _ in range(5):
        assert await world.verify(world.provider.token()) is None  # asked too recently
    assert world.provider.fetches == asked
    world.now += REFETCH_S
    assert await world.verify(world.provider.token()) is not None
    assert await world.verify(old) is None


async def test_while_the_provider_is_away_the_last_keys_count(world: World) -> None:
    token = world.provider.token()
    world.provider.away = True
    with pytest.raises(VerifierError):
        await world.verify(token)
    world.provider.away = False
    world.now += REFETCH_S
    assert await world.verify(token) is not None
    world.provider.away = True
    world.now += KEYS_S
    assert await world.verify(token) is not None


async def test_a_foreign_token_asks_nobody(world: World) -> None:
    assert await world.verify(world.provider.token(iss="https://kubernetes.default.svc")) is None
    assert world.provider.fetches == 0
