"""A configuration is held against the schema of its extension: what the message says, and what it blocks."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from beamline_operator.core.config_schema import config_faults
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
