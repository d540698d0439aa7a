"""The provider registry: what it keeps, refuses, says and forgets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beamline_sdk.framework import ProviderConfig, ProviderFactory
from beamline_sdk.registry import (
    EVENTS,
    CircuitOpenError,
    ProviderRegistry,
    RegistryConfig,
    RegistryError,
    RegistryEvent,
)
from harness.registry_parts import Clock, Part, config, part, refused


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(clock: Clock) -> ProviderRegistry:
    factory = ProviderFactory()
    factory.add(Part)
    return ProviderRegistry(config(), factory=factory, clock=clock, draw=lambda: 0.0)


@pytest.fixture
def heard(registry: ProviderRegistry) -> list[tuple[str, str]]:
    events: list[tuple[str, str]] = []
    registry.on("*", lambda event: events.append((event.name, event.provider_name)))
    return events


async def test_what_is_registered_is_initialized_ready_and_found(
    registry: ProviderRegistry, heard: list[tuple[str, str]]
) -> None:
    one = part()
    record = await registry.register(one)
    assert (record.name, record.status, record.capabilities) == ("one", "ready", ("keep",))
    assert record.metadata["source"] == "api"
    assert record.metadata["version"] == "1.2.3"
    assert record.registered_at.tzinfo is not None
    assert record.last_health_check is None
    assert registry.get("one") is one
    assert (registry.names(), registry.has("one"), len(registry)) == (("one",), True, 1)
    assert one.lived == ["open"]
    assert heard == [("provider-registered", "one")]


async def test_a_configuration_is_made_by_the_factory(registry: ProviderRegistry) -> None:
    entry = {"name": "two", "kind": "storage", "type": "part", "timeout_ms": 7}
    record = await registry.register(entry)
    assert isinstance(record.provider, Part)
    assert record.config.timeout_ms == 7
    typed = ProviderConfig(name="three", version="9")
    assert (await registry.register(typed, kind="storage", provider_type="part")).metadata["version"] == "9"
    assert registry.names() == ("three", "two")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param("a b", id="a blank"),
        pytest.param("../etc", id="a path"),
        pytest.param("a\n", id="a line break at the end"),
        pytest.param("x" * 254, id="too long"),
        pytest.param(7, id="a number"),
        pytest.param(None, id="nothing"),
    ],
)
async def test_what_is_no_name_is_refused(registry: ProviderRegistry, name: object) -> None:
    await refused(registry.register({"name": name, "kind": "storage", "type": "part"}), "INVALID_NAME")
    assert registry.names() == ()


async def test_a_name_is_taken_once(registry: ProviderRegistry) -> None:
    first, second = part(), part()
    await registry.register(first)
    error = await refused(registry.register(second), "ALREADY_EXISTS")
    assert error.provider_name == "one"
    assert second.lived == []
    assert registry.get("one") is first


async def test_a_name_is_reserved_before_the_first_await(registry: ProviderRegistry) -> None:
    slow = part(gate="open")
    registering = asyncio.create_task(registry.register(slow))
    await asyncio.sleep(0)
    await refused(registry.register(part()), "ALREADY_EXISTS")
    assert not registry.has("one")
    slow.gates["open"].set()
    assert (await registering).status == "ready"


@pytest.mark.parametrize("how", ["raises", "hangs", "cancelled"])
async def test_a_failed_registration_leaves_nothing_behind(
    registry: ProviderRegistry, heard: list[tuple[str, str]], tools: Any, how: str
) -> None:
    one = part(fails=("open",)) if how == "raises" else part(gate="open")
    if how == "cancelled":
        registering = asyncio.create_task(registry.register(one))
        await tools.eventually(lambda: one.lived, "it is being opened")
        registering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await registering
    else:
        error = await refused(registry.register(one), "REGISTRATION_FAILED")
        wanted = "RuntimeError" if how == "raises" else "TimeoutError"
        assert error.context == {"phase": "initialize", "error": wanted}
        assert "sk-secret" not in str(error)
        assert heard == [("provider-error", "one")]
    assert one.lived == ["open", "close"]
    assert (registry.names(), registry.has("one")) == ((), False)
    assert (await registry.register(part())).status == "ready"


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"name": "x", "kind": "toaster"}, "no kind of provider is called 'toaster'"),
        ({"name": "x", "kind": "storage", "type": "none"}, "no storage provider is of type 'none'"),
        ({"name": "x", "kind": "storage", "type": "part", "timeout_ms": "soon"}, "config.timeout_ms"),
    ],
)
async def test_what_can_not_be_made_is_said_in_a_sentence(
    registry: ProviderRegistry, what: dict[str, Any], words: str
) -> None:
    error = await refused(registry.register(what), "REGISTRATION_FAILED")
    assert words in error.message
    assert error.context["phase"] == "create"


async def test_an_unregistered_provider_is_stopped_cleaned_up_and_forgotten(
    registry: ProviderRegistry, heard: list[tuple[str, str]]
) -> None:
    one = part(fails=("stop", "close"))
    await registry.register(one)
    await registry.start("one")
    await registry.unregister("one")
    assert one.lived == ["open", "start", "stop", "close"]
    assert heard[-1] == ("provider-unregistered", "one")
    for look in (registry.get, registry.record, registry.breaker_state):
        with pytest.raises(RegistryError) as caught:
            look("one")
        assert caught.value.code == "NOT_FOUND"
    await refused(registry.unregister("one"), "NOT_FOUND")


async def test_a_name_is_free_again_only_when_its_last_holder_has_ended(
    registry: ProviderRegistry, tools: Any
) -> None:
    one = part(gate="close")
    await registry.register(one)
    leaving = asyncio.create_task(registry.unregister("one"))
    await asyncio.sleep(0)
    assert not registry.has("one")
    await refused(registry.register(part()), "ALREADY_EXISTS")
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    one.gates["close"].set()
    await tools.eventually(lambda: "one" not in registry._reserved, "the name is free")
    assert (await registry.register(part())).status == "ready"


async def test_a_program_goes_before_what_was_discovered(registry: ProviderRegistry) -> None:
    found, chosen = part(), part()
    await registry.register(found, source="config")
    assert (await registry.register(chosen)).metadata["source"] == "api"
    assert registry.get("one") is chosen
    assert found.lived == ["open", "close"]
    await refused(registry.replace(part(), source="config"), "ALREADY_EXISTS")
    broken = part(fails=("open",))
    await refused(registry.replace(broken), "REGISTRATION_FAILED")
    assert registry.get("one") is chosen
    assert chosen.lived == ["open"]


async def test_a_restart_is_stop_cleanup_initialize_start(registry: ProviderRegistry) -> None:
    one = part()
    await registry.register(one)
    assert (await registry.start("one")).started
    await registry.start("one")
    one.lived.clear()
    record = await registry.restart("one")
    assert one.lived == ["stop", "close", "open", "start"]
    assert (record.status, record.started) == ("ready", True)


async def test_a_failed_restart_is_a_status_and_an_event_and_can_be_repaired(
    registry: ProviderRegistry, heard: list[tuple[str, str]]
) -> None:
    one = part()
    await registry.register(one)
    one.fails = {"open"}
    error = await refused(registry.restart("one"), "REGISTRATION_FAILED")
    assert error.context == {"phase": "restart", "error": "RuntimeError"}
    assert registry.record("one").status == "error"
    assert heard[-1] == ("provider-error", "one")
    await refused(registry.start("one"), "REGISTRATION_FAILED")
    one.fails = set()
    assert (await registry.initialize("one")).status == "ready"
    assert (await registry.start("one")).started


async def test_a_disposed_provider_stays_in_the_table_and_may_live_again(registry: ProviderRegistry) -> None:
    one = part()
    await registry.register(one)
    await registry.start("one")
    assert (await registry.dispose("one")).status == "disposed"
    assert (await registry.dispose("one")).status == "disposed"
    assert one.lived == ["open", "start", "stop", "close"]
    assert registry.has("one")
    assert await registry.check_all() == {}
    assert (await registry.initialize("one")).status == "ready"


async def test_one_phase_for_all_reports_each_by_name(registry: ProviderRegistry) -> None:
    for name in ("a", "b", "c"):
        await registry.register(part(name, fails=("start",) if name == "b" else ()))
    done = await registry.all("start")
    assert [(name, error is None) for name, error in done.items()] == [("a", True), ("b", False), ("c", True)]
    assert registry.record("b").status == "error"


async def test_a_change_of_health_is_an_event_and_the_same_health_is_none(
    registry: ProviderRegistry, heard: list[tuple[str, str]]
) -> None:
    one = part()
    await registry.register(one)
    changes: list[RegistryEvent] = []
    registry.on("health-status-changed", changes.append)
    said: list[Any] = [None, None, "the disk is full", "the disk is full", None]
    for sick in said:
        one.sick = sick
        await registry.check_health("one")
    one.fails = {"check"}
    assert (await registry.check_health("one")).status == "error"
    assert [(event.details["from"], event.details["to"]) for event in changes] == [
        ("healthy", "unhealthy"),
        ("unhealthy", "healthy"),
        ("healthy", "error"),
    ]
    record = registry.record("one")
    assert record.last_health_check is not None
    assert record.health is not None
    assert "sk-secret" not in record.health.message


async def test_a_check_that_hangs_is_unhealthy_and_holds_up_nobody(registry: ProviderRegistry) -> None:
    await registry.register(part("hangs", gate="check"))
    await registry.register(part("fine"))
    found = await registry.check_all()
    assert {name: health.status for name, health in found.items()} == {
        "hangs": "unhealthy",
        "fine": "healthy",
    }


async def test_health_checks_open_the_breaker_and_close_it_again(
    registry: ProviderRegistry, clock: Clock, heard: list[tuple[str, str]]
) -> None:
    one = part()
    await registry.register(one)
    one.sick = "away"
    for _ in range(4):
        await registry.check_health("one")
    assert registry.breaker_state("one") == "closed"
    await registry.check_health("one")
    assert registry.breaker_state("one") == "open"
    with pytest.raises(CircuitOpenError) as caught:
        async with registry.guard("one"):
            raise AssertionError("not called")
    assert caught.value.retry_after_s == pytest.approx(30.0)
    one.sick = None
    await registry.check_health("one")
    assert registry.breaker_state("one") == "open", "before its time a check is no probe"
    clock.now += 31
    for _ in range(3):
        await registry.check_health("one")
    assert registry.breaker_state("one") == "closed"
    names = [name for name, _ in heard if name.startswith("circuit")]
    assert names == ["circuit-breaker-opened", "circuit-breaker-closed"]


async def test_guarded_calls_feed_the_breaker_and_a_cancelled_one_does_not(
    registry: ProviderRegistry,
) -> None:
    await registry.register(part())
    for _ in range(10):
        with pytest.raises(asyncio.CancelledError):
            async with registry.guard("one"):
                raise asyncio.CancelledError
    for _ in range(5):
        assert registry.breaker_state("one") == "closed"
        with pytest.raises(ValueError, match="x"):
            async with registry.guard("one"):
                raise ValueError("x")
    assert registry.breaker_state("one") == "open"


async def test_all_six_events_are_said_and_a_listener_that_fails_harms_nobody(
    registry: ProviderRegistry,
) -> None:
    heard: list[str] = []

    def broken(event: RegistryEvent) -> None:
        raise RuntimeError("listener")

    async def later(event: RegistryEvent) -> None:
        await asyncio.sleep(0)
        heard.append("later")

    registry.on("provider-registered", broken)
    off = registry.on("provider-registered", later)
    registry.on("*", lambda event: heard.append(event.name))
    await registry.register(part())
    off()
    await registry.register(part("two"))
    await registry.shutdown()
    assert heard.count("later") == 1
    assert heard.count("provider-registered") == 2
    assert len(EVENTS) == 6
    with pytest.raises(ValueError, match="no event is called 'provider-eaten'"):
        registry.on("provider-eaten", print)  # type: ignore[arg-type]


async def test_a_shutdown_ends_all_at_once_and_leaves_the_stubborn(registry: ProviderRegistry) -> None:
    good, stubborn = part("good"), part("stubborn", gate="close")
    for one in (good, stubborn):
        await registry.register(one)
        await registry.start(one.name)
    assert await registry.shutdown() == {}
    assert good.lived == ["open", "start", "stop", "close"]
    assert stubborn.lived == ["open", "start", "stop", "close"]
    assert registry.names() == ()
    assert await registry.shutdown() == {}
    await refused(registry.register(part()), "REGISTRATION_FAILED")


async def test_a_shutdown_has_one_time_limit_whatever_the_providers_do() -> None:
    bounds = {"dispose_timeout": 600.0, "graceful_shutdown_timeout": 0.3}
    registry = ProviderRegistry(config(lifecycle=bounds))
    await registry.register(part("stubborn", gate="close"))
    async with asyncio.timeout(5):
        assert await registry.shutdown() == {"stubborn": "it did not end"}


async def test_a_registration_under_way_at_the_shutdown_is_undone(registry: ProviderRegistry) -> None:
    slow = part(gate="open")
    registering = asyncio.create_task(registry.register(slow))
    await asyncio.sleep(0)
    ending = asyncio.create_task(registry.shutdown())
    await asyncio.sleep(0)
    slow.gates["open"].set()
    await refused(registering, "REGISTRATION_FAILED")
    assert await ending == {}
    assert slow.lived == ["open", "close"]
    assert registry.names() == ()


async def test_many_that_want_one_name_at_the_same_time_get_it_once(registry: ProviderRegistry) -> None:
    tries = [part() for _ in range(50)]
    done = await asyncio.gather(*map(registry.register, tries), return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in done) == 1
    assert {one.code for one in done if isinstance(one, RegistryError)} == {"ALREADY_EXISTS"}
    assert sum("open" in one.lived for one in tries) == 1


def test_the_settings_of_the_environment_name_section_and_field() -> None:
    environ = {
        "BEAMLINE_REGISTRY_HEALTH_CHECK_INTERVAL": "7",
        "BEAMLINE_REGISTRY_DISCOVERY_PLUGINS": "a, b",
        "BEAMLINE_REGISTRY_LIFECYCLE_INIT_TIMEOUT": "",
    }
    settings = RegistryConfig.from_environment(environ)
    assert settings.health.check_interval == 7
    assert settings.discovery.plugins == ("a", "b")
    defaults = RegistryConfig()
    assert settings.lifecycle == defaults.lifecycle
    assert (defaults.health.check_interval, defaults.lifecycle.graceful_shutdown_timeout) == (30.0, 30.0)
    with pytest.raises(ValueError, match=r"config\.health\.check_interval"):
        RegistryConfig.from_environment({"BEAMLINE_REGISTRY_HEALTH_CHECK_INTERVAL": "often"})
