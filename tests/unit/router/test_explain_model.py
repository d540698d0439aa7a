"""What explain says of a request beside what the pipeline then does with it: the same code decides for both,
whatever strategies, versions, canaries, absent providers and open breakers come together.
"""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from beamline_router.core.explain import explain
from beamline_router.core.request import StepTrace
from harness.router_world import World, fails, providers, request, says

NAMES = ("main", "second", "third")
STRATEGIES = ("ordered", "weighted", "least_inflight", "latency", "sticky", "score")
KEYS = st.sampled_from([None, "tenant", "header:x-user"])
HINTS = st.fixed_dictionaries({}, optional={"quality": st.sampled_from([0.1, 0.9]), "latencyMs": st.just(50)})


def without_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


extensions = st.builds(
    without_none,
    there=st.sampled_from([True, True, True, False]),
    weight=st.integers(0, 2),
    stickyKey=KEYS,
    enabled=st.sampled_from([True, True, True, False]),
    versions=st.lists(st.tuples(st.integers(0, 2), HINTS), max_size=2),
    hints=HINTS,
)
steps = st.builds(
    lambda weights, **fields: providers(dict(zip(NAMES, weights, strict=False)), **without_none(**fields)),
    st.lists(st.integers(0, 2), min_size=1, max_size=3).filter(any),
    strategy=st.sampled_from(STRATEGIES),
    sticky_key=KEYS,
    fallback=st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
    canary=st.none()
    | st.builds(
        without_none,
        provider_id=st.sampled_from(NAMES),
        percent=st.sampled_from([0, 50, 100]),
        sticky_key=KEYS,
    ),
)
requests = st.fixed_dictionaries(
    {
        "tenant_id": st.text("abc", min_size=1, max_size=3),
        "request_id": st.text("rst", min_size=1, max_size=4),
    },
    optional={"headers": st.fixed_dictionaries({"x-user": st.text("uvw", min_size=1, max_size=3)})},
)


def world_of(table: dict[str, dict[str, Any]], seed: int, *, answers: bool) -> World:
    """Each provider with its versions ``NAME_v1`` and so on; all of them answer, or none does."""
    world = World(rng=Random(seed))  # type: ignore[arg-type]  # a World's is scripted, unless one wants chance
    for name, spec in table.items():
        fields = dict(spec)
        there, versions = fields.pop("there"), fields.pop("versions")
        metadata = {"score": fields.pop("hints")}
        if there:
            world.have(name, "provider", version="base", metadata=metadata, **fields)
        else:
            world.lack(name)
        for number, (weight, hints) in enumerate(versions, 1):
            one = {"versionOf": name, "version": f"v{number}", "weight": weight}
            world.have(f"{name}_v{number}", "provider", metadata={"score": hints}, **one)
    for name in world.extensions:
        world.answers(name, says(name) if answers else fails("UNAVAILABLE", retryable=False))
    return world


def named(entry: StepTrace) -> str:
    return entry.extension_id.partition("_")[0]


@given(
    st.fixed_dictionaries(dict.fromkeys(NAMES, extensions)),
    steps,
    requests,
    st.sets(st.sampled_from([*NAMES, "main_v1", "second_v1"]), max_size=3),
    st.booleans(),
    st.integers(0, 1_000),
)
async def test_the_pipeline_does_what_explain_says(  # noqa: PLR0917 -- what hypothesis draws
    table: dict[str, dict[str, Any]],
    step: dict[str, Any],
    asked: dict[str, Any],
    isolated: set[str],
    answers: bool,
    seed: int,
) -> None:
    world = world_of(table, seed, answers=answers)
    world.route(step)
    for name in isolated & world.extensions.keys():
        world.runtime.isolate(world.snapshot.compiled_extensions[name])
    (said,) = explain(request(**asked), world.snapshot, world.runtime)["steps"]
    trail = (await world.ask(**asked)).trail
    first, rest = trail[0], [entry for entry in trail if entry.why == said["strategy"]]

    assert said["first"] in {None, named(first)}
    if said["strategy"] in {"ordered", "sticky"}:
        assert said["first"] is not None
    if "canary" in said:
        assert said["canary"]["asked"] == (first.why == "canary")
    if not answers:
        assert [named(entry) for entry in trail] == order(said, rest)
    calls = {one["extension_id"]: one for one in [*said["fallback"], *said["providers"]]}
    calls |= {"canary": said["canary"]} if "canary" in said else {}
    for entry in trail:
        check_call(calls["canary" if entry.why == "canary" else named(entry)], entry)


def order(said: dict[str, Any], chosen: list[StepTrace]) -> list[str]:
    """Whom explain says the pipeline asks when nobody answers; by chance or load alone as it then did."""
    one = [said["canary"]["extension_id"]] if said.get("canary", {}).get("asked") else []
    listed = [call["extension_id"] for call in said["providers"] if call["weight"] > 0]
    scored = [(-call["score"]["total"], call) for call in said["providers"] if call.get("score")]
    if said["strategy"] == "score" and scored:
        listed = [call["extension_id"] for _, call in sorted(scored, key=lambda pair: pair[0])]
    elif said["strategy"] != "ordered" and len(listed) > 1:
        listed = [named(entry) for entry in chosen]
    return list(dict.fromkeys([*one, *listed, *(call["extension_id"] for call in said["fallback"])]))


def check_call(call: dict[str, Any], entry: StepTrace) -> None:
    """One attempt, beside what was said of its extension."""
    if "absent" in call:
        assert entry.reason == "NOT_FOUND"
        return
    assert entry.why != "weighted" or call["share"] > 0
    versions = {one["extension_id"]: one for one in call.get("versions", [call])}
    met = versions[entry.extension_id]
    assert met["live"]["available"] == (entry.breaker != "isolated")
    if "versions" in call:
        assert met["share"] > 0
        assert call.get("version", entry.version) == entry.version
        assert abs(sum(one["share"] for one in versions.values()) - 1.0) < 0.001
