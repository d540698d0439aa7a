"""Providers that nobody registers: from a file, from the environment, from entry points."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import structlog

from beamline_extensions.providers import provider_factory, provider_names
from beamline_sdk.framework import BaseProvider, ExtensionProvider, ProviderConfig, ProviderFactory, SDKConfig
from beamline_sdk.registry import ProviderRegistry, RegistryConfig
from harness.model_stub import model_stub

FILE = """
providers:
  - {name: disk, kind: storage, type: part, timeout_ms: 1000}
  - {name: tape, kind: storage, type: part}
"""
PLUGIN = """
from beamline_sdk import ExtensionRequest, Patch, pre
from beamline_sdk.framework import BaseProvider, ProviderConfig

class Cellar(BaseProvider[ProviderConfig]):
    kind = "storage"

@pre
async def loud(request: ExtensionRequest, config: object) -> Patch:
    return Patch(prompt=(request.prompt or "").upper())

def neither() -> None: ...
"""
ENTRY_POINTS = """[beamline.providers]
cellar = {module}:Cellar
loud = {module}:loud
neither = {module}:neither
absent = {module}_absent:nothing
"""


class Part(BaseProvider[ProviderConfig]):
    kind = "storage"
    provider_type: ClassVar[str] = "part"
    closed: ClassVar[list[str]] = []

    async def close(self) -> None:
        Part.closed.append(self.name)


class Chat(BaseProvider[SDKConfig]):
    kind = "sdk"
    config_model: ClassVar[type[ProviderConfig]] = SDKConfig


def write(path: Path, text: str) -> None:
    path.write_text(text)


Make = Callable[..., Awaitable[ProviderRegistry]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """A registry with the discovery settings given, refreshed once."""
    made: list[ProviderRegistry] = []
    Part.closed.clear()

    async def build(environ: dict[str, str] | None = None, **discovery: Any) -> ProviderRegistry:
        factory = ProviderFactory()
        factory.add(Part)
        factory.add(Chat, "openai")
        factory.add(Chat, "anthropic")
        settings = {"auto_refresh_interval": None, **discovery}
        config = RegistryConfig.model_validate({"discovery": settings})
        registry = ProviderRegistry(config, factory=factory, environ=environ or {})
        made.append(registry)
        await registry.open()
        return registry

    yield build
    for registry in made:
        await registry.shutdown()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "providers.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A folder as `pip install --target` leaves it."""
    module = f"plugin_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / "plugins"
    info = folder / "cellar_plugin-3.1.4.dist-info"
    info.mkdir(parents=True)
    (folder / f"{module}.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cellar-plugin\nVersion: 3.1.4\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS.format(module=module))
    return folder


async def test_a_file_is_discovered_and_a_changed_file_adds_updates_and_removes(
    make: Make, file: Path
) -> None:
    registry = await make(config_path=file)
    assert registry.names() == ("disk", "tape")
    disk = registry.get("disk")
    assert registry.record("disk").metadata["source"] == "config"
    assert registry.record("disk").config.timeout_ms == 1000
    unchanged = await registry.discovery.refresh()
    assert (unchanged.added, unchanged.updated, unchanged.removed, unchanged.failed) == ([], [], [], {})
    assert registry.get("disk") is disk

    write(file, FILE.replace("1000", "2000").replace("tape", "drum"))
    result = await registry.discovery.refresh()
    assert (result.added, result.updated, result.removed) == (["drum"], ["disk"], ["tape"])
    assert registry.names() == ("disk", "drum")
    assert registry.record("disk").config.timeout_ms == 2000
    assert sorted(Part.closed) == ["disk", "tape"]


async def test_a_broken_file_takes_nothing_down_and_is_said_once(make: Make, file: Path) -> None:
    registry = await make(config_path=file)
    for text in ("providers: [", "providers: 7"):
        write(file, text)
        with structlog.testing.capture_logs() as lines:
            failed = (await registry.discovery.refresh()).failed
            await registry.discovery.refresh()
        assert str(file) in failed["file"]
        assert [line["log_level"] for line in lines] == ["warning"]
        assert registry.names() == ("disk", "tape")
    write(file, FILE.replace("1000", "soon"))
    assert "config.timeout_ms" in (await registry.discovery.refresh()).failed["disk"]
    assert registry.record("disk").config.timeout_ms == 1000, "the last good one stays"
    assert registry.has("tape")


async def test_one_bad_provider_is_a_warning_and_the_others_are_there(make: Make, file: Path) -> None:
    odd = "  - {name: odd, kind: toaster}\n  - {kind: storage}\n"
    write(file, FILE + odd + "  - {name: spare, kind: storage, type: part, enabled: false}\n")
    registry = await make(config_path=file)
    assert registry.names() == ("disk", "tape")
    results = {one.name: one for one in await registry.discovery.validate_discovered_providers()}
    valid = {name: one.valid for name, one in results.items()}
    assert valid == {
        "disk": True, "tape": True, "odd": False, "": False, "spare": True,
    }  # fmt: skip
    assert "no kind of provider is called 'toaster'" in (results["odd"].error or "")


async def test_keys_in_the_environment_are_providers_of_their_apis(make: Make) -> None:
    environ = {
        "OPENAI_API_KEY": "sk-one", "ANTHROPIC_API_KEY": "sk-two", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
        "BEAMLINE_OPENAI_TIMEOUT_MS": "1234",
    }  # fmt: skip
    registry = await make(environ)
    assert registry.names() == ("anthropic", "openai")
    config = registry.record("openai").config
    assert isinstance(config, SDKConfig)
    assert (config.api_key.get_secret_value(), config.api_endpoint) == ("sk-one", "http://127.0.0.1:1/v1")
    assert config.timeout_ms == 1234
    assert registry.record("openai").metadata["origin"] == "environment"
    environ["OPENAI_API_KEY"] = "sk-rotated"
    del environ["ANTHROPIC_API_KEY"]
    result = await registry.discovery.refresh()
    assert (result.updated, result.removed) == (["openai"], ["anthropic"])
    switched_off = await make(environ, enable_environment_discovery=False)
    assert switched_off.names() == ()


async def test_the_environment_wins_over_the_file_field_by_field_and_a_program_over_both(
    make: Make, file: Path
) -> None:
    entry = "  - {name: openai, timeout_ms: 77, api_endpoint: 'https://file', api_key_env: OTHER}\n"
    write(file, FILE + entry)
    registry = await make({"OPENAI_API_KEY": "from-environment", "OTHER": "from-file"}, config_path=file)
    config = registry.record("openai").config
    assert isinstance(config, SDKConfig)
    assert (config.api_key.get_secret_value(), config.timeout_ms) == ("from-environment", 77)
    own = Part(ProviderConfig(name="disk", version="9"))
    await registry.register(own)
    assert registry.get("disk") is own
    assert (await registry.discovery.refresh()).updated == []
    write(file, "providers: []")
    assert (await registry.discovery.refresh()).removed == ["tape"]
    assert registry.get("disk") is own


async def test_an_entry_point_is_imported_only_when_it_is_on_the_list(
    make: Make, plugins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    nothing = await make(plugin_path=plugins)
    assert nothing.names() == ()
    assert not any(name.startswith("plugin_") for name in sys.modules)
    one = await make(plugin_path=plugins, plugins=["cellar"])
    assert one.names() == ("cellar",)
    registry = await make(plugin_path=plugins, plugins=["cellar", "loud", "neither", "absent", "unheard"])
    assert registry.names() == ("cellar", "loud")
    record = registry.record("cellar")
    assert (record.metadata["source"], record.metadata["version"]) == ("plugin", "3.1.4")
    assert registry.record("loud").capabilities == ("pre",)
    failed = (await registry.discovery.refresh()).failed
    assert "neither a provider nor an extension" in failed["neither"]
    assert "No module named" in failed["absent"]


async def test_a_file_goes_before_a_plug_in(
    make: Make, plugins: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(file, "providers: [{name: cellar, kind: storage, timeout_ms: 42}]")
    registry = await make(plugin_path=plugins, plugins=["cellar"], config_path=file)
    record = registry.record("cellar")
    assert (record.config.timeout_ms, record.metadata["origin"]) == (42, "file")
    assert record.metadata["version"] == "3.1.4"


async def test_an_open_registry_looks_again_by_itself(make: Make, file: Path, tools: Any) -> None:
    registry = await make(config_path=file, auto_refresh_interval=0.02)
    write(file, FILE.replace("tape", "drum"))
    await tools.eventually(lambda: registry.names() == ("disk", "drum"), "the change was found")


async def test_a_shipped_provider_is_found_by_its_name_and_answers() -> None:
    assert "mock_provider" in provider_names()
    assert "pii_guard" not in provider_names()
    async with ProviderRegistry(factory=provider_factory(), environ={}) as registry:
        await registry.register({"name": "mock_provider", "parameters": {"mode": "echo"}})
        mock = registry.get("mock_provider")
        assert isinstance(mock, ExtensionProvider)
        response = await mock.make_request("chat", {"prompt": "hello"})
        assert response.success
        assert response.data["output"] == "Mock response to: hello [provider=mock_provider]"
        assert (await registry.check_health("mock_provider")).well


async def test_a_key_that_is_written_into_the_file_is_refused_and_not_repeated(
    make: Make, file: Path
) -> None:
    registry = await make(config_path=file)
    write(file, FILE + "  - {name: openai, api_endpoint: 'https://file', api_key: sk-canary}\n")
    with structlog.testing.capture_logs() as lines:
        failed = (await registry.discovery.refresh()).failed
    assert "api_key_env" in failed["openai"]
    assert registry.names() == ("disk", "tape")
    assert "canary" not in f"{failed}{lines}"


async def test_a_key_in_the_environment_is_the_shipped_provider_of_its_api(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The real ones, in one registry, each asked over the wire of its own API."""
    with model_stub() as url:
        for name, path in (("OPENAI", "/v1"), ("ANTHROPIC", "")):
            monkeypatch.setenv(f"{name}_API_KEY", f"key-of-{name.lower()}")
            monkeypatch.setenv(f"{name}_BASE_URL", f"{url}{path}")
        async with ProviderRegistry(factory=provider_factory()) as registry:
            assert registry.names() == ("anthropic", "openai")
            for name in registry.names():
                assert registry.record(name).status == "ready"
                assert registry.record(name).metadata["origin"] == "environment"
                response = await registry.get(name).make_request("chat", {"prompt": "hello"})
                assert response.success, response.error
                assert response.data["provider_id"] == name
                assert response.data["output"]
            monkeypatch.delenv("OPENAI_API_KEY")
            assert (await registry.discovery.refresh()).removed == ["openai"]
