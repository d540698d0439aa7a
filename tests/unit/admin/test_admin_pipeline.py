"""How a policy is drawn, and what is said about it."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_admin.catalogue import View
from beamline_admin.pipeline import Node, Stage, hints_of, match_of, stages_of
from beamline_contract.projection import ExtensionRecord, PolicyRecord

CLOSED = ("off",)


def view(*ids: str) -> View:
    return View(
        1,
        {
            key: ExtensionRecord(key, "pre", key, "default", key, key, 1, enabled=key not in CLOSED)
            for key in sorted(ids)
        },
    )


def policy(*steps: dict[str, Any], **fields: Any) -> PolicyRecord:
    return PolicyRecord("p", "default", "p", "u", 1, {"steps": list(steps), "fallback": [], **fields})


PRE = {"action": "extension_pre", "extension_id": "a"}
ASK = {"action": "select_provider", "provider_id": "m", "fallback": []}


def check(extension_id: str, **fields: Any) -> dict[str, Any]:
    return {"action": "extension_validator", "extension_id": extension_id, **fields}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param(
            policy(PRE, check("v"), ASK, {"action": "extension_post", "extension_id": "z"}),
            [
                Stage("pre", (Node("a"),)),
                Stage("validator", (Node("v"),)),
                Stage("provider", (Node("m"),)),
                Stage("post", (Node("z"),)),
            ],
            id="steps in order",
        ),
        pytest.param(
            policy(check("v", group="g"), check("w", group="g"), check("x", group="h"), check("y")),
            [
                Stage("validator", (Node("v"), Node("w"))),
                Stage("validator", (Node("x"),)),
                Stage("validator", (Node("y"),)),
            ],
            id="validators of one group side by side",
        ),
        pytest.param(
            policy(
                {
                    "action": "select_provider",
                    "providers": [{"provider_id": "m", "weight": 90}, {"provider_id": "n", "weight": 10}],
                    "fallback": [],
                },
                fallback=["o"],
            ),
            [Stage("provider", (Node("m", "90 of 100"), Node("n", "10 of 100")), (Node("o"),))],
            id="weights, and the policy's fallback where the step has none",
        ),
        pytest.param(
            policy({**ASK, "fallback": ["n"]}, fallback=["o"]),
            [Stage("provider", (Node("m"),), (Node("n"),))],
            id="the step's own fallback first",
        ),
        pytest.param(
            policy(check("v", mode="shadow", fallback_id="w")),
            [Stage("validator", (Node("v", "shadow"),), (Node("w"),))],
            id="a shadow step with an extension to ask instead",
        ),
        pytest.param(
            policy(check("off", mode="shadow"), check("gone")),
            [
                Stage("validator", (Node("off", "shadow, disabled", "disabled"),)),
                Stage("validator", (Node("gone", "unknown", "unknown"),)),
            ],
            id="what is disabled or unknown says so",
        ),
    ],
)
def test_a_policy_is_drawn_in_stages(record: PolicyRecord, expected: list[Stage]) -> None:
    assert stages_of(record, view(*"avwxyzmno", "off")) == expected


def test_hints_name_each_broken_reference_once_and_say_when_a_policy_is_complex() -> None:
    record = policy(*(check(name) for name in ("v", "v", "gone", "gone", "off")), ASK)
    assert hints_of(record, view("v", "m", "off")) == [
        "gone is not in the registry",
        "off is disabled: its step is skipped or fails",
        "complexity 16 is above 10: put validators into one group, or use fewer steps or fallbacks",
    ]
    assert hints_of(policy(PRE, ASK), view("a", "m")) == []


@pytest.mark.parametrize(
    ("match", "words"),
    [
        pytest.param({}, "every request", id="nothing"),
        pytest.param(
            {
                "tenants": ["acme", "b"],
                "models": ["gpt-*"],
                "environments": [],
                "headers": {},
                "percent": 100,
            },
            "tenants acme, b · models gpt-*",
            id="only what is given",
        ),
        pytest.param(
            {"headers": {"x-key": "secret"}, "percent": 5}, "header x-key · 5 %", id="never a header's value"
        ),
    ],
)
def test_a_match_is_put_in_words(match: dict[str, Any], words: str) -> None:
    assert match_of(policy(PRE, match=match)) == words
