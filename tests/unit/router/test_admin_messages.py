"""What the admin subject makes of good and of hostile messages."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamline_router.core.snapshot import compile_snapshot
from beamline_router.edges.admin import Admin
from beamline_router.edges.trails import Trails
from harness.router_world import World, extension, policy, provider

SUBJECT = "beamline.router.v1.admin"


def admin(world: World) -> Admin:
    world.route(provider())
    return Admin(
        "router-1",
        snapshot=lambda: world.snapshot,
        runtime=world.runtime,
        status=lambda: {"revision": 1},
        traffic=dict,
        trails=Trails(
            "router-1", snapshot=lambda: None, clock=world.clock, wall=lambda: 0.0, draw=lambda: 0.0
        ),
        now=world.clock,
    )


def ask(one: Admin, verb: str, body: Any = None) -> dict[str, Any] | None:
    raw = body if isinstance(body, bytes) else orjson.dumps({} if body is None else body)
    return one.answer(f"{SUBJECT}.{verb}", raw)


HOSTILE: list[Any] = [
    pytest.param("isolate", b"", "extension must be", id="no extension"),
    pytest.param("isolate", b"{", "is not JSON", id="broken JSON"),
    pytest.param("isolate", b"\xff\xfe", "is not JSON", id="invalid UTF-8"),
    pytest.param("isolate", b"[" * 10_000, "balanced JSON of at most 32 levels", id="ten thousand levels"),
    pytest.param("isolate", b"x" * 300_000, "at most", id="300 kB"),
    pytest.param("isolate", [], "must be a JSON object", id="a list"),
    pytest.param("isolate", {"extension": "*"}, "extension must be", id="a wildcard"),
    pytest.param("isolate", {"extension": "main\n"}, "extension must be", id="a line break"),
    pytest.param("isolate", {"extension": ["main"]}, "extension must be", id="a list for an id"),
    pytest.param("isolate", {"extension": "main", "force": True}, "unknown field 'force'", id="more fields"),
    pytest.param("isolate", {"extension": "main", "instance": 5}, "instance must be", id="a number"),
    pytest.param("status", {"extension": "main"}, "unknown field 'extension'", id="a field of another verb"),
    pytest.param("explain", {}, "request must be an object", id="nothing to explain"),
    pytest.param("explain", {"request": {}, "headers": {"a": 1}}, "headers must be", id="a header that is 1"),
    pytest.param("explain", {"request": {"prompt": 5}}, "prompt must be text", id="a prompt that is 5"),
    pytest.param("shutdown", {}, "there is no such verb", id="an unknown verb"),
    pytest.param("__init__", {}, "there is no such verb", id="a verb that is Python's"),
]


@pytest.mark.parametrize(("verb", "body", "words"), HOSTILE)
def test_what_is_wrong_is_invalid_and_changes_nothing(verb: str, body: Any, words: str) -> None:
    world = World()
    answer = ask(admin(world), verb, body)
    assert answer is not None
    assert answer["instance"] == "router-1"
    assert answer["error"]["code"] == "INVALID_ARGUMENT"
    assert words in answer["error"]["message"]
    assert set(world.runtime.breaker_states().values()) <= {"closed"}


@given(st.sampled_from(["status", "explain", "isolate", "reset", "x"]), st.binary(max_size=200))
def test_any_bytes_get_an_answer_and_never_an_exception(verb: str, body: bytes) -> None:
    answer = ask(admin(World()), verb, body)
    assert answer is not None
    assert orjson.dumps(answer)


def test_an_unknown_extension_is_not_found() -> None:
    answer = ask(admin(World()), "isolate", {"extension": "nobody"})
    assert answer is not None
    assert answer["error"]["code"] == "NOT_FOUND"


def test_a_name_means_its_id() -> None:
    world = World()
    world.have("openai_gpt4", "provider")
    answer = ask(admin(world), "isolate", {"extension": "openai-gpt4"})
    assert answer is not None
    assert answer["result"] == {"extension_id": "openai_gpt4", "breakers": {"openai_gpt4": "isolated"}}


def test_only_the_router_that_is_meant_answers() -> None:
    one = admin(World())
    assert ask(one, "status", {"instance": "router-2"}) is None
    assert ask(one, "status", {"instance": "router-1"}) == {"instance": "router-1", "result": {"revision": 1}}


async def test_isolated_means_no_call_until_reset() -> None:
    world = World()
    one = admin(world)
    ask(one, "isolate", {"extension": "main"})
    refused = await world.ask()
    assert world.calls("main") == 0
    ask(one, "reset", {"extension": "main"})
    served = await world.ask()
    assert (type(refused).__name__, type(served).__name__) == ("Failure", "Answer")


def test_isolation_survives_a_reload_and_reaches_steps_that_it_brings() -> None:
    world = World()
    ask(admin(world), "isolate", {"extension": "main"})
    own = {"circuitBreaker": {"failureThreshold": 9}}
    changed = compile_snapshot(
        [extension("main", "provider", generation=2, timeout_ms=7)],
        [policy("p", [provider(circuit_breaker=own["circuitBreaker"])])],
        revision=9,
        previous=world.snapshot,
    )
    assert not changed.refused
    world.runtime.adopt(changed.snapshot)
    call = changed.snapshot.compiled_policies["p"].route.provider.candidates[0]
    assert call.breaker_key != "main"
    assert world.runtime.breaker(call).state == "isolated"
    assert world.runtime.breaker_states()["main"] == "isolated"
    assert world.recorder.breakers[-1] == (call.breaker_key, "isolated")


def test_what_is_explained_says_what_is_known_of_breakers_and_hides_keys() -> None:
    world = World()
    one = admin(world)
    ask(one, "isolate", {"extension": "main"})
    answer = ask(one, "explain", {"request": {"prompt": "x"}, "headers": {"Authorization": "Bearer k"}})
    assert answer is not None
    (step,) = answer["result"]["steps"]
    assert step["providers"][0]["live"]["breaker"] == "isolated"
    assert "Bearer" not in str(answer)
