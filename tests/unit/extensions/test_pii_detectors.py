"""What counts as personal data, and what only looks like it."""

from __future__ import annotations

import pytest

from beamline_extensions.detectors import KINDS, find, find_beside
from beamline_extensions.mask_sensitive_data.config import MaskConfig
from beamline_extensions.mask_sensitive_data.extension import MaskSensitiveData
from beamline_extensions.mask_sensitive_data.masks import masked, partial, token
from beamline_extensions.pii_guard.config import GuardConfig
from beamline_extensions.pii_guard.extension import PiiGuard
from beamline_sdk import ExtensionRequest

FOUND = [
    ("credit_card", "pay with 4111111111111111 now", "4111111111111111"),
    ("credit_card", "card 4111 1111 1111 1111, please", "4111 1111 1111 1111"),
    ("credit_card", "3782-822463-10005", "3782-822463-10005"),
    ("credit_card", "item 12 4111 1111 1111 1111", "4111 1111 1111 1111"),
    ("credit_card", "5555555555554444.", "5555555555554444"),
    ("ssn", "SSN 536-90-4399", "536-90-4399"),
    ("ssn", "my ssn is 536904399", "536904399"),
    ("email", "write to jane.doe+x@mail.example.com.", "jane.doe+x@mail.example.com"),
    ("email", "<jane@example.org>", "jane@example.org"),
    ("email", "jürgen@müller.de", "jürgen@müller.de"),
    ("phone", "call +1 (415) 555-2671 today", "+1 (415) 555-2671"),
    ("phone", "415-555-2671", "415-555-2671"),
    ("phone", "+49 30 901820", "+49 30 901820"),
    ("phone", "+442079460958", "+442079460958"),
    ("phone", "tel: 4155552671", "4155552671"),
    ("phone", "0171 2345678", "0171 2345678"),
    ("iban", "to DE89 3704 0044 0532 0130 00 today", "DE89 3704 0044 0532 0130 00"),
    ("iban", "GB82WEST12345698765432", "GB82WEST12345698765432"),
    ("iban", "BE68 5390 0754 7034 with thanks", "BE68 5390 0754 7034"),
]

CLEAN = [
    pytest.param("4111111111111112", id="a card whose Luhn digit is wrong"),
    pytest.param("order 1234567890123456", id="sixteen digits of no issuer"),
    pytest.param("0000000000000000", id="zeros pass Luhn and are no card"),
    pytest.param("id 41111111111111111111111", id="a longer number that begins like a card"),
    pytest.param("000-12-3456 and 666-12-3456", id="social security numbers that are never issued"),
    pytest.param("2024-01-15 10:30", id="a date and a time"),
    pytest.param("version 10.0.0.1 at 192.168.10.25", id="network addresses"),
    pytest.param("user@host and @handle", id="an address without a domain, and a handle"),
    pytest.param("DE00 3704 0044 0532 0130 00", id="an IBAN whose check digits are wrong"),
    pytest.param("4399 5369-0439-9000", id="two numbers side by side that would be a card together"),
    pytest.param("pi is 3.14159265358979", id="a long decimal"),
    pytest.param("550e8400-e29b-41d4-a716-446655440000", id="a UUID"),
]


@pytest.mark.parametrize(("kind", "text", "value"), FOUND, ids=[f"{kind}: {text}" for kind, text, _ in FOUND])
def test_personal_data_is_found_where_it_begins_and_ends(kind: str, text: str, value: str) -> None:
    assert [(f.kind, text[f.start : f.end]) for f in find(text, KINDS)] == [(kind, value)]


@pytest.mark.parametrize("text", CLEAN)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert find(text, KINDS) == []


def test_only_the_kinds_asked_for_are_reported() -> None:
    text = "a@example.com 4111111111111111"
    assert [finding.kind for finding in find(text, ["email"])] == ["email"]


async def test_the_guard_names_the_kinds_and_never_the_value() -> None:
    request = ExtensionRequest(prompt="4111 1111 1111 1111 or 5555555555554444, jane@example.com")
    verdict = await PiiGuard().handle(request, GuardConfig())
    assert verdict.to_wire() == {
        "verdict": "reject",
        "reason": "the prompt contains personal data: credit_card, email",
        "details": {"kinds": ["credit_card", "email"], "count": 3},
    }


async def test_the_guard_only_notes_where_it_shall_not_block() -> None:
    verdict = await PiiGuard().handle(
        ExtensionRequest(prompt="jane@example.com"), GuardConfig(block_on_match=False)
    )
    assert verdict.to_wire() == {"verdict": "pass", "details": {"kinds": ["email"], "count": 1}}


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"role": "system", "content": "4111111111111111"}, id="a system message"),
        pytest.param(
            {"role": "user", "content": [{"type": "text", "text": "4111111111111111"}]}, id="a part"
        ),
        pytest.param(
            {"role": "assistant", "tool_calls": [{"function": {"arguments": '{"n":"4111111111111111"}'}}]},
            id="the arguments of a tool call",
        ),
    ],
)
async def test_the_guard_reads_every_text_of_a_conversation(message: dict[str, object]) -> None:
    request = ExtensionRequest(messages=[message, {"role": "user", "content": "hello"}])
    assert not (await PiiGuard().handle(request, GuardConfig())).passed


@pytest.mark.parametrize(
    ("style", "text", "expected"),
    [
        ("token", "Ask jane@example.com or 415-555-2671.", "Ask [EMAIL] or [PHONE]."),
        ("partial", "Ask jane@example.com or 415-555-2671.", "Ask j***@***.com or ***-***-2671."),
        ("partial", "4111 1111 1111 1111", "**** **** **** 1111"),
        ("partial", "DE89 3704 0044 0532 0130 00", "DE** **** **** **** **30 00"),
        ("token", "é jane@example.com é", "é [EMAIL] é"),
    ],
)
def test_masking_replaces_exactly_what_was_found(style: str, text: str, expected: str) -> None:
    assert masked(text, find(text, KINDS), {"token": token, "partial": partial}[style]) == expected


async def test_an_answer_without_personal_data_is_not_patched() -> None:
    patch = await MaskSensitiveData().handle(ExtensionRequest(output="hello"), MaskConfig())
    assert patch.to_wire() == {}


async def test_masking_keeps_to_its_patterns() -> None:
    request = ExtensionRequest(output="jane@example.com 4111111111111111")
    patch = await MaskSensitiveData().handle(request, MaskConfig())
    assert patch.to_wire() == {"output": "[EMAIL] 4111111111111111"}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a@" * 20_000, id="signs of addresses without an end"),
        pytest.param("4 " * 20_000, id="single digits that might all begin a card"),
        pytest.param("DE89 " * 10_000, id="beginnings of IBANs"),
        pytest.param("a." * 20_000 + "@", id="an address without a domain"),
        pytest.param("\u00e9" * 40_000 + "@x.de", id="a name longer than names may be"),
    ],
)
async def test_hostile_text_is_read_to_its_end(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert await find_beside(text, KINDS) == []
    assert capfd.readouterr().err == ""
