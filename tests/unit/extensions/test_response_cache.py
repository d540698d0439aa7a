"""What the cache remembers, for whom, for how long, and what it never remembers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamline_extensions.response_cache.config import CacheConfig
from beamline_extensions.response_cache.entries import ENTRY_BYTES, MARK, Entries, key_of
from beamline_extensions.response_cache.extension import ResponseCache
from beamline_sdk import ExtensionRequest


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def asked(**changes: Any) -> ExtensionRequest:
    return ExtensionRequest(**{"tenant_id": "acme", "prompt": "Hi", "policy": "p", "model": "m", **changes})


async def through(
    cache: ResponseCache, answer: str = "Hello", config: CacheConfig | None = None, **changes: Any
) -> tuple[str, bool]:
    """What a router would answer, and whether the provider was asked."""
    config = config or CacheConfig()
    after = {name: changes.pop(name) for name in ("metadata", "part") if name in changes}
    request = asked(**changes)
    patch = await cache.handle(request, config)
    request.context = {**request.context, **(patch.context or {})}
    called = patch.output is None
    request.output = answer if patch.output is None else patch.output
    for name, value in after.items():
        setattr(request, name, value)
    await cache.store.handle(request, config)
    return request.output, called


async def test_the_same_request_is_answered_once_by_the_provider() -> None:
    cache = ResponseCache(Clock())
    assert await through(cache, "one") == ("one", True)
    assert await through(cache, "two") == ("one", False)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"tenant_id": "globex"}, id="tenant"),
        pytest.param({"policy": "q"}, id="policy"),
        pytest.param({"model": "n"}, id="model"),
        pytest.param({"prompt": "Hi "}, id="prompt"),
        pytest.param({"prompt": None, "messages": [{"role": "user", "content": "Hi"}]}, id="messages"),
        pytest.param({"parameters": {"temperature": 0}}, id="parameters"),
        pytest.param({"context": {"user": "u1"}}, id="context"),
        pytest.param({"config": CacheConfig(scope="b")}, id="scope"),
    ],
)
async def test_an_answer_is_nobody_elses_who_differs_in(other: dict[str, Any]) -> None:
    cache = ResponseCache(Clock())
    await through(cache, "one")
    assert await through(cache, "two", **other) == ("two", True)


async def test_context_makes_no_difference_where_the_config_says_so() -> None:
    cache, config = ResponseCache(Clock()), CacheConfig(vary_on_context=False)
    await through(cache, "one", config, context={"user": "u1"})
    assert await through(cache, "two", config, context={"user": "u2"}) == ("one", False)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"tenant_id": ""}, id="without a tenant"),
        pytest.param({"parameters": {"tools": [{"type": "function"}]}}, id="with tools"),
        pytest.param({"context": {MARK: "bypass"}}, id="of a caller that does not want it"),
        pytest.param(
            {"context": {MARK: "hit"}, "metadata": {"finish_reason": "length"}},
            id="cut short, with a forged mark",
        ),
        pytest.param({"metadata": {"message": {"tool_calls": [{}]}}}, id="that calls a tool"),
        pytest.param({"metadata": {"finish_reason": "length"}}, id="that was cut short"),
        pytest.param({"part": "window"}, id="of which a window was streamed"),
        pytest.param({"part": "end"}, id="of which the end was streamed"),
        pytest.param({"part": "message"}, id="beside whose text a tool is called"),
        pytest.param({"answer": ""}, id="that is empty"),
        pytest.param({"config": CacheConfig(max_answer_bytes=4)}, id="that is too long"),
    ],
)  # fmt: skip
async def test_not_remembered_is_an_answer(changes: dict[str, Any]) -> None:
    cache = ResponseCache(Clock())
    await through(cache, **changes)
    assert len(cache.entries) == 0


async def test_an_answer_has_its_time_and_a_hit_does_not_prolong_it() -> None:
    clock = Clock()
    cache, config = ResponseCache(clock), CacheConfig(ttl_s=10)
    await through(cache, "one", config)
    for _ in range(3):
        clock.now += 3
        assert await through(cache, "two", config) == ("one", False)
    clock.now += 1
    assert await through(cache, "two", config) == ("two", True)


async def test_the_step_that_stores_says_whether_it_was_a_hit() -> None:
    cache = ResponseCache(Clock())
    request = asked(output="one", context={MARK: "miss"}, metadata={"model": "gpt-x"})
    assert (await cache.store.handle(request, CacheConfig())).metadata == {"cache": "miss"}
    request.context = {MARK: "hit"}
    patch = await cache.store.handle(request, CacheConfig())
    assert patch.metadata == {"cache": "hit", "model": "gpt-x"}


def count(metrics: Any) -> dict[str, float]:
    return {name: child._value.get() for name, child in metrics.items() if child._value.get()}


async def test_hits_misses_and_refusals_are_counted() -> None:
    cache = ResponseCache(Clock())
    await through(cache)
    await through(cache)
    await through(cache, part="end", prompt="other")
    assert count(cache.metrics.requests) == {"miss": 2, "hit": 1}
    assert count(cache.metrics.answers) == {"stored": 1, "hit": 1, "streamed": 1}


writes = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 300), st.floats(0, 5)), max_size=60)


@given(writes, st.integers(1, 8), st.integers(1_024, 3_000))
def test_entries_and_bytes_stay_within_their_bounds(
    wrote: list[tuple[int, int, float]], entries: int, size: int
) -> None:
    kept, config, now = Entries(), CacheConfig(max_entries=entries, max_bytes=size, ttl_s=8), 0.0
    for key, length, pause in wrote:
        now += pause
        kept.put(str(key).encode(), "x" * length, "m", now, config)
        assert len(kept) <= entries
        assert kept.size <= size
        assert kept.size == sum(one.size for one in kept._kept.values())
        found = kept.get(str(key).encode(), now)
        assert found is not None
        assert found.size >= ENTRY_BYTES


def test_the_least_recently_used_goes_first() -> None:
    kept, config = Entries(), CacheConfig(max_entries=2)
    put: Callable[[str], object] = lambda name: kept.put(name.encode(), name, "", 0, config)  # noqa: E731
    put("a")
    put("b")
    kept.get(b"a", 1)
    put("c")
    assert [kept.get(name, 1) is not None for name in (b"a", b"b", b"c")] == [True, False, True]
    assert kept.evicted == 1


def test_the_order_of_fields_is_not_part_of_a_key() -> None:
    one = key_of(asked(parameters={"a": 1, "b": 2}), CacheConfig())
    assert one == key_of(asked(parameters={"b": 2, "a": 1}), CacheConfig())
