"""Retries against a plain model, written from the rules: what one call tries and what it costs, for any
replies.

The model knows nothing of the invoker: it walks over the scripted replies, counts tokens in tenths, and says
how many attempts there must be and what the caller reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from beamline_contract.errors import ErrorCode
from beamline_router.core.ports import TransportFault
from beamline_router.core.request import Answer
from harness.router_world import PASS, World, check, fails, provider


@dataclass(frozen=True)
class Said:
    """One reply: what the extension sends, and by the rules whether it is retryable and costs a token."""

    reply: Any
    code: str | None
    retryable: bool
    costs: bool


GOOD = Said(PASS, None, False, False)
REPLIES = {
    "good": GOOD,
    "unavailable": Said(fails("UNAVAILABLE"), "UNAVAILABLE", True, True),
    "internal, by its own word": Said(fails("INTERNAL"), "INTERNAL", True, True),
    "internal, final": Said(fails("INTERNAL", retryable=False), "INTERNAL", False, True),
    "malformed": Said(b"\xff", "INTERNAL", False, True),
    "the caller's fault": Said(fails("INVALID_ARGUMENT", retryable=True), "INVALID_ARGUMENT", False, False),
    "nobody listens": Said(TransportFault.NO_RESPONDERS, "UNAVAILABLE", True, True),
    "not connected": Said(TransportFault.DISCONNECTED, "UNAVAILABLE", True, False),
    "a timeout": Said(TransportFault.TIMED_OUT, "DEADLINE_EXCEEDED", True, True),
}
PATIENT = {"failureThreshold": 10_000, "minFailureRatio": 1.0, "slowCall": {"minCalls": 100_000}}


class Model:
    """The rules for one extension whose breaker never opens."""

    def __init__(self, retry: int, on_timeout: bool) -> None:
        self.retry = retry
        self.on_timeout = on_timeout
        self.tenths = 100

    def call(self, script: list[Said]) -> tuple[int, str | None]:
        """Attempts, and the code that the last of them leaves behind (None: answered)."""
        for number, said in enumerate(script, start=1):
            if said.code is None:
                self.tenths = min(100, self.tenths + 1)
                return number, None
            if said.costs:
                self.tenths = max(0, self.tenths - 10)
            timeout = said.code == "DEADLINE_EXCEEDED"
            again = said.retryable and (self.on_timeout or not timeout)
            if not again or number > self.retry or self.tenths <= 50:
                return number, said.code
        raise AssertionError("the script is longer than any call")


@settings(max_examples=120)
@given(
    kind=st.sampled_from(["validator", "provider"]),
    retry=st.integers(0, 5),
    on_timeout=st.booleans(),
    scripts=st.lists(
        st.lists(st.sampled_from(sorted(REPLIES)), min_size=6, max_size=6), min_size=1, max_size=12
    ),
)
async def test_attempts_codes_and_tokens_are_those_of_the_model(
    kind: str, retry: int, on_timeout: bool, scripts: list[list[str]]
) -> None:
    world, model = World(), Model(retry, on_timeout)
    name = "check" if kind == "validator" else "main"
    world.have(name, kind, retry=retry, retryOnTimeout=on_timeout, circuitBreaker=PATIENT)
    world.route(
        *([check(), provider("second")] if kind == "validator" else [provider()]), deadline_ms=600_000
    )
    retries = good = 0
    for words in scripts:
        script = [REPLIES[word] for word in words]
        replies = [
            said.reply if said is not GOOD or kind == "validator" else {"output": ""} for said in script
        ]
        world.answers(name, *replies)
        before = world.calls(name)
        attempts, code = model.call(script)
        result = await world.ask()
        assert world.calls(name) - before == attempts
        if isinstance(result, Answer):
            assert code is None
        else:
            assert result.error.code is ErrorCode(str(code))
            assert result.error.attempts == attempts
        assert round(world.runtime.load(name).budget.tokens * 10) == model.tenths
        retries += attempts - 1
        good += code is None
    # Half of the bucket and a tenth of every success, beside calls that never left and cost nothing.
    free = sum(words.count("not connected") for words in scripts)
    assert retries <= 5 + good / 10 + free


async def test_in_a_long_outage_and_after_it_calls_are_amplified_by_at_most_a_fifth() -> None:
    world = World()
    world.have("main", "provider", retry=5, circuitBreaker=PATIENT)
    world.route(provider())
    requests = 0
    for share in (0, 1, 3, 10, 30):  # good answers between two bad ones
        for reply in ([fails("UNAVAILABLE")] + [{"output": ""}] * share) * 20:
            world.answers("main", reply)
            await world.ask()
            requests += 1
    assert world.calls("main") <= 1.2 * requests
