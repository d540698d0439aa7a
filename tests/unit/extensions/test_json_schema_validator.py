"""Which answers satisfy a schema, what is said about others, and what no answer can do."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from beamline_extensions.json_schema_validator.checking import Checker
from beamline_extensions.json_schema_validator.config import JsonSchemaConfig
from beamline_extensions.json_schema_validator.extension import JsonSchemaValidator
from beamline_sdk import ExtensionError, ExtensionRequest, Patch

SCHEMA = {
    "type": "object",
    "required": ["items"],
    "additionalProperties": False,
    "properties": {
        "items": {"type": "array", "items": {"properties": {"price": {"type": "number", "minimum": 0}}}},
        "code": {"pattern": "^[a-z]+$"},
    },
}


async def checked(output: str, *, part: str | None = None, **config: Any) -> Patch:
    request = ExtensionRequest(output=output, part=part)
    return await JsonSchemaValidator().handle(
        request, JsonSchemaConfig.model_validate({"schema": SCHEMA, **config})
    )


async def refused(output: str, **config: Any) -> ExtensionError:
    with pytest.raises(ExtensionError) as raised:
        await checked(output, **config)
    return raised.value


async def test_an_answer_that_satisfies_the_schema_is_left_alone() -> None:
    assert (await checked('{"items": [{"price": 1}], "code": "a"}')).to_wire() == {}


@pytest.mark.parametrize(
    ("output", "path", "rule"),
    [
        pytest.param("certainly! {}", "$", "json", id="words around it"),
        pytest.param("", "$", "json", id="nothing"),
        pytest.param("{}", "$", "required", id="a field is missing"),
        pytest.param('{"items": [{"price": 1}, {"price": -1}]}', "$.items[1].price", "minimum", id="a bound"),
        pytest.param('{"items": [{"price": "4111"}]}', "$.items[0].price", "type", id="a type"),
        pytest.param('{"items": [], "code": "A1"}', "$.code", "pattern", id="a pattern"),
        pytest.param('{"items": [], "a b": 1}', '$["a b"]', "additionalProperties", id="an odd name"),
    ],
)
async def test_a_wrong_answer_is_sent_back_with_the_path_and_never_the_value(
    output: str, path: str, rule: str
) -> None:
    error = await refused(output)
    assert (error.code, error.retryable) == ("VALIDATION_REJECTED", True)
    assert error.details["path"] == path
    assert error.details["faults"][0] == {"path": path, "rule": rule}
    assert "4111" not in repr(error.to_wire_error().to_wire())


async def test_it_is_final_where_the_config_says_so() -> None:
    assert not (await refused("{}", retry=False)).retryable


async def test_every_fault_up_to_the_limit_is_reported() -> None:
    output = orjson.dumps({"items": [{"price": -1}] * 9}).decode()
    assert len((await refused(output)).details["faults"]) == 5
    assert len((await refused(output, max_errors=7)).details["faults"]) == 7


async def test_a_fenced_block_is_unwrapped_unless_the_config_says_otherwise() -> None:
    assert (await checked('```json\n{"items": []}\n```\n')).output == '{"items": []}'
    assert (await refused('```json\n{"items": []}\n```', unwrap=False)).details["path"] == "$"


async def test_a_part_of_a_stream_is_held_and_its_end_is_checked() -> None:
    assert (await checked('{"items"', part="window")).to_wire() == {"hold": True}
    assert (await checked("arguments of a tool call", part="message")).to_wire() == {}
    assert (await refused("{}", part="end")).details["path"] == "$"


async def test_an_answer_that_only_calls_tools_passes() -> None:
    request = ExtensionRequest(output="", metadata={"message": {"tool_calls": [{}]}})
    assert (await JsonSchemaValidator().handle(request, JsonSchemaConfig())).to_wire() == {}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        pytest.param({"type": "objekt"}, r"\$\.type", id="a type that does not exist"),
        pytest.param(
            {"$ref": "https://example.com/s.json"}, "inside the schema", id="a reference to elsewhere"
        ),
        pytest.param({"$ref": "file:///etc/passwd"}, "inside the schema", id="a reference to a file"),
        pytest.param({"properties": {"a": {"$ref": "#/$defs/b"}}}, "", id="a reference that leads nowhere"),
        pytest.param({"properties": {"a": {"pattern": "(?=x)"}}}, "RE2", id="a pattern that is not linear"),
        pytest.param({"patternProperties": {"(": {}}}, "patternProperties", id="a pattern that is none"),
    ],
)
async def test_a_schema_that_can_not_work_is_refused_or_never_satisfied(
    schema: dict[str, Any], says: str
) -> None:
    if says:
        with pytest.raises(ValidationError, match=says):
            JsonSchemaConfig.model_validate({"schema": schema})
    else:
        with pytest.raises(ExtensionError):
            await checked('{"a": 1}', schema=schema)


@pytest.mark.parametrize(
    "output",
    [
        pytest.param("[" * 900 + "]" * 900, id="nested deeply"),
        pytest.param('{"items":' * 20_000, id="nested without an end"),
        pytest.param('{"items": [], "code": "' + "a" * 200_000 + '!"}', id="a string that almost fits"),
    ],
)
async def test_a_hostile_answer_is_refused_in_time(output: str) -> None:
    recursive = {"properties": {"code": {"pattern": "^(a+)+$"}}, "items": {"$ref": "#"}, "type": "object"}
    began = time.thread_time()
    await refused(output, schema=recursive)
    assert time.thread_time() - began < 2.0


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "xa"]), inner, max_size=3)
    ),
    max_leaves=6,
)
keywords = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["object", "array", "string", "integer"]),
        "required": st.just(["a"]),
        "properties": st.just({"a": {"type": "integer"}}),
        "patternProperties": st.just({"^x": {"type": "string", "pattern": "b"}}),
        "additionalProperties": st.sampled_from([False, {"type": "array"}]),
        "items": st.just({"minimum": 0}),
    },
)


@given(values, keywords)
def test_it_agrees_with_the_library_on_every_schema_and_value(value: Any, schema: dict[str, Any]) -> None:
    found = Checker(schema).faults(orjson.dumps(value).decode(), 5)
    assert (found == []) == Draft202012Validator(schema).is_valid(value)
