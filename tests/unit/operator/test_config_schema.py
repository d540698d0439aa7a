"""A configuration is held against the schema of its extension: what the message says, and what it blocks."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from beamline_contract.objects import RoutingPolicy, parse_object
from beamline_operator.core.config_schema import config_faults, override_faults
from beamline_operator.core.overrides import overridden
from beamline_operator.edges.schemas import FORGET_S, MAX_SCHEMA_BYTES, PublishedSchemas

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "latency_ms": {"type": "number", "minimum": 0},
        "patterns": {"type": "array", "items": {"enum": ["ssn", "email"]}},
        "limits": {"type": "object", "properties": {"words": {"type": "integer"}}},
    },
}


@pytest.mark.parametrize(
    ("config", "path"),
    [
        pytest.param({"latency_ms": -1}, "spec.config.latency_ms: ", id="a number below its minimum"),
        pytest.param({"patterns": ["ssn", "iban"]}, "spec.config.patterns[1]: ", id="the second of a list"),
        pytest.param({"limits": {"words": "ten"}}, "spec.config.limits.words: ", id="a field within a field"),
        pytest.param({"patern": []}, "spec.config: ", id="a name that is not known"),
    ],
)
def test_a_fault_names_the_path_of_the_field(config: dict[str, Any], path: str) -> None:
    (fault,) = config_faults(SCHEMA, config)
    assert fault.startswith(path)


def test_all_faults_are_told_at_once() -> None:
    assert len(config_faults(SCHEMA, {"latency_ms": "x", "limits": {"words": "ten"}})) == 2


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"type": "nonsense"}, id="no JSON Schema"),
        pytest.param({"$ref": "http://127.0.0.1:9/schema"}, id="a reference that leads out of it"),
        pytest.param({"$ref": "#"}, id="a reference to itself"),
    ],
)
def test_a_schema_that_cannot_be_used_speaks_against_nothing(schema: dict[str, Any]) -> None:
    assert config_faults(schema, {"latency_ms": -1}) == ()


async def test_a_config_that_the_running_extension_refuses_is_told_and_holds_nothing_back(world: Any) -> None:
    key = world.extension(config={"latency_ms": -1})
    subject = world.store.get(key).subject
    await world.settle()
    world.report()
    await world.settle()
    assert world.verdict(key, "Ready") == ("True", "Ready")

    world.hints.schemas[subject] = SCHEMA
    world.controller.enqueue_listeners(subject)
    await world.settle()
    assert world.verdict(key, "Accepted") == ("True", "Accepted")
    assert world.verdict(key, "Ready") == ("False", "ConfigInvalid")
    assert "spec.config.latency_ms" in world.message(key, "Ready")

    world.extension(config={"latency_ms": -2})
    await world.settle()
    assert (await world.rows())["guard"].config == {"latency_ms": -2}

    world.hints.schemas.clear()
    world.controller.enqueue_listeners(subject)
    world.report()
    await world.settle()
    assert world.verdict(key, "Ready") == ("True", "Ready")


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        pytest.param(SCHEMA, "spec.config.latency_ms", id="config breaks it"),
        pytest.param({"type": "nonsense"}, "spec.configSchema", id="it is none itself"),
    ],
)
async def test_an_object_that_breaks_its_own_schema_is_not_accepted(
    world: Any, schema: dict[str, Any], told: str
) -> None:
    key = world.extension(config={"latency_ms": -1}, configSchema=schema)
    await world.settle()
    assert world.verdict(key, "Accepted") == ("False", "Invalid")
    assert told in world.message(key, "Accepted")
    assert await world.rows() == {}


def answer(schema: object, subject: str = "beamline.ext.pre.x.v1") -> bytes:
    metadata = {
        "beamline.config_schema": schema if isinstance(schema, str) else orjson.dumps(schema).decode()
    }
    return orjson.dumps({"metadata": metadata, "endpoints": [{"subject": subject}]})


def test_a_schema_is_told_when_it_changes_and_forgotten_with_its_extension() -> None:
    now = [0.0]
    told: list[str] = []
    schemas = PublishedSchemas(clock=lambda: now[0])
    schemas.on_change = told.append
    schemas.take(answer(SCHEMA))
    schemas.take(answer(SCHEMA))
    assert schemas.get("beamline.ext.pre.x.v1") == SCHEMA
    assert len(told) == 1
    schemas.take(answer({"type": "object"}))
    assert len(told) == 2
    now[0] = FORGET_S + 1
    schemas.forget_silent()
    assert schemas.get("beamline.ext.pre.x.v1") is None
    assert len(told) == 3


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"{", id="half a message"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"metadata": null, "endpoints": []}', id="no metadata"),
        pytest.param(answer("not JSON"), id="a schema that is no JSON"),
        pytest.param(answer("[1]"), id="a schema that is a list"),
        pytest.param(answer('{"x": "' + "x" * MAX_SCHEMA_BYTES + '"}'), id="a schema without bound"),
        pytest.param(
            orjson.dumps({"metadata": {"beamline.config_schema": "{}"}, "endpoints": [7]}), id="no endpoint"
        ),
    ],
)
def test_an_answer_that_makes_no_sense_is_dropped(payload: bytes) -> None:
    schemas = PublishedSchemas()
    schemas.take(payload)
    assert schemas.get("beamline.ext.pre.x.v1") is None


STEP = "spec.steps[0].config"


def with_step_config(world: Any, config: dict[str, Any], **step: Any) -> Any:
    choice = {"extensionRef": {"name": "guard"}}
    selects = {"action": "select_provider", "providers": [choice], "config": config, **step}
    return world.policy(steps=[selects])


async def settled(world: Any) -> None:
    await world.settle()
    world.report()
    await world.settle()


async def test_a_step_that_lays_a_refused_value_over_an_extensions_config_is_named_with_its_path(
    world: Any,
) -> None:
    key = world.extension(config={"patterns": ["ssn"]})
    subject = world.store.get(key).subject
    policy = with_step_config(world, {"latency_ms": -1})
    await settled(world)
    assert world.verdict(policy, "Ready") == ("True", "Ready")

    world.hints.schemas[subject] = SCHEMA
    world.controller.enqueue_listeners(subject)
    await settled(world)
    assert world.verdict(key, "Ready") == ("True", "Ready"), "the extension's own configuration is fine"
    assert world.verdict(policy, "Accepted") == ("True", "Accepted")
    assert world.verdict(policy, "Ready") == ("False", "ConfigInvalid")
    assert world.message(policy, "Ready").startswith(f"{STEP}.latency_ms: -1 is less than the minimum of 0")
    assert "Extension guard" in world.message(policy, "Ready")

    with_step_config(world, {"latency_ms": 1})
    await settled(world)
    assert world.verdict(policy, "Ready") == ("True", "Ready")


async def test_a_step_is_looked_at_again_when_the_extension_below_it_changes(world: Any) -> None:
    limits = {"type": "object", "maxProperties": 1}
    key = world.extension(configSchema=limits)
    policy = with_step_config(world, {"latency_ms": 1})
    await settled(world)
    assert world.verdict(policy, "Ready") == ("True", "Ready")
    world.extension(configSchema=limits, config={"patterns": []})
    await world.settle()
    assert world.verdict(key, "Accepted") == ("True", "Accepted")
    assert world.verdict(policy, "Ready") == ("False", "ConfigInvalid")
    assert world.message(policy, "Ready").startswith(f"{STEP}: ")


async def test_a_version_of_the_extension_has_its_say_about_the_step_as_well(world: Any) -> None:
    world.extension()
    new = world.extension("guard-two", versionOf="guard", version="v2")
    policy = with_step_config(world, {"latency_ms": -1})
    world.hints.schemas[world.store.get(new).subject] = SCHEMA
    await settled(world)
    assert world.verdict(policy, "Ready") == ("False", "ConfigInvalid")
    assert "Extension guard-two" in world.message(policy, "Ready")


def test_what_an_extensions_own_config_breaks_is_not_told_of_the_step() -> None:
    assert override_faults(SCHEMA, {"latency_ms": -1}, {"patterns": ["ssn"]}, STEP) == ()
    assert override_faults(SCHEMA, {"latency_ms": -1}, {"latency_ms": 1}, STEP) == ()
    (fault,) = override_faults(SCHEMA, {"latency_ms": -1}, {"patterns": ["iban"]}, STEP)
    assert fault.startswith(f"{STEP}.patterns[0]: ")


def test_a_canary_gets_the_steps_config_and_a_fallback_its_own_only() -> None:
    refs = {
        "action": "select_provider",
        "config": {"latency_ms": -1},
        "providers": [{"extensionRef": {"name": "chosen"}}],
        "canary": {"extensionRef": {"name": "tried"}, "percent": 5},
        "fallback": [{"extensionRef": {"name": "spare"}}],
    }
    kind = {"apiVersion": "beamline.io/v1alpha1", "kind": "RoutingPolicy"}
    policy = parse_object({**kind, "metadata": {"name": "p"}, "spec": {"steps": [refs]}})
    assert isinstance(policy, RoutingPolicy)
    assert [ref.name for _, _, ref in overridden(policy)] == ["chosen", "tried"]


SECRET = "sk-in-the-wrong-place"
HOLDER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "number": {"type": "integer", "minimum": 0},
        "one_of": {"enum": ["a", "b"]},
        "form": {"pattern": "^x$"},
        "short": {"maxLength": 3},
        "few": {"type": "array", "maxItems": 1, "uniqueItems": True},
        "fixed": {"const": 1},
    },
    "additionalProperties": {"type": "boolean"},
}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        pytest.param(
            {"number": SECRET}, "spec.config.number: this text is not of type 'integer'", id="a text"
        ),
        pytest.param(
            {"number": -1}, "spec.config.number: -1 is less than the minimum of 0", id="a number is shown"
        ),
        pytest.param(
            {"one_of": SECRET}, "spec.config.one_of: this text is not one of ['a', 'b']", id="not listed"
        ),
        pytest.param(
            {"form": SECRET}, "spec.config.form: this text is not one of the forms", id="no such form"
        ),
        pytest.param({"short": SECRET}, "spec.config.short: this text is too long", id="too long"),
        pytest.param({"few": [SECRET, SECRET]}, "spec.config.few: this list", id="in a list"),
        pytest.param(
            {"few": {"a": SECRET}}, "spec.config.few: this object is not of type", id="in an object"
        ),
        pytest.param(
            {"more": SECRET}, "spec.config.more: this text is not of type 'boolean'", id="a field of its own"
        ),
    ],
)
def test_a_fault_names_its_path_and_never_repeats_a_text_of_the_config(
    config: dict[str, Any], told: str
) -> None:
    faults = config_faults(HOLDER, config)
    assert faults[0].startswith(told)
    assert SECRET not in " ".join(faults)
