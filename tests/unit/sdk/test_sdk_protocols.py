"""An extension need not derive from anything: what satisfies the Protocol of its kind is one."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from beamline_sdk import (
    Config,
    ExtensionRequest,
    Patch,
    PostProtocol,
    PreProtocol,
    ProviderProtocol,
    ProviderReply,
    Setup,
    ValidatorProtocol,
    Verdict,
    adopt,
    post,
    pre,
    provider,
    validator,
)


class Shout(Config):
    suffix: str = "!"


class Plain:
    """Writes the prompt in capitals."""

    kind: Literal["pre"] = "pre"
    name = "plain"
    version = "3.0.0"
    config_model = Shout

    def __init__(self) -> None:
        self.life: list[str] = []

    async def handle(self, request: ExtensionRequest, config: Shout) -> Patch | None:
        return Patch(prompt=(request.prompt or "").upper() + config.suffix)

    async def initialize(self, setup: Setup) -> None:
        self.life.append(setup.extension_id)

    async def dispose(self) -> None:
        self.life.append("dispose")


async def test_a_plain_object_of_the_right_shape_is_adopted_with_all_that_it_has() -> None:
    plain = Plain()
    typed: PreProtocol[Shout] = plain
    made = adopt(typed)
    assert (made.kind, made.name, made.version) == ("pre", "plain", "3.0.0")
    assert made.config_schema()["properties"]["suffix"]["default"] == "!"
    await made.initialize(Setup("id"))
    await made.start()
    patch = await made.handle(ExtensionRequest(prompt="a"), Shout())
    assert patch.to_wire() == {"prompt": "A!"}
    assert await made.health_check() is None
    await made.restart(Setup("again"))
    assert plain.life == ["id", "dispose", "again"]


def test_the_decorated_and_the_derived_satisfy_the_protocol_of_their_kind() -> None:
    async def handler(request: ExtensionRequest, config: Any) -> Any:
        return Verdict.ok()

    made = [decorate(name="x")(handler) for decorate in (pre, validator, provider, post)]
    protocols = (PreProtocol, ValidatorProtocol, ProviderProtocol, PostProtocol)
    for one, protocol in zip(made, protocols, strict=True):
        assert isinstance(one, protocol)
        assert adopt(one) is one


async def test_a_streaming_object_streams() -> None:
    class Chat:
        kind: Literal["provider"] = "provider"
        name = "chat"

        async def handle(self, request: ExtensionRequest, config: Any) -> ProviderReply:
            return ProviderReply("ab")

        async def stream(self, request: ExtensionRequest, config: Any) -> Any:
            yield "a"
            yield "b"

    made: Any = adopt(Chat())
    assert [part async for part in made.stream(ExtensionRequest(prompt="x"), None)] == ["a", "b"]


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        pytest.param({"kind": "toaster", "name": "x"}, "kind must be one of pre", id="a kind that is none"),
        pytest.param({"kind": "pre"}, "name must be a string", id="no name"),
        pytest.param({"kind": "pre", "name": "x"}, "handle must be an async method", id="nothing to call"),
        pytest.param(
            {"kind": "pre", "name": "x", "handle": lambda *_: None},
            "handle must be an async",
            id="a blocking handle",
        ),
    ],
)
def test_what_is_no_extension_is_told_what_it_lacks(attributes: dict[str, Any], words: str) -> None:
    thing: Any = type("Thing", (), attributes)()
    with pytest.raises(TypeError, match=words):
        adopt(thing)
