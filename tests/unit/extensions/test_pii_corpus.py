"""How well the detectors tell personal data from what looks like it, on text made from seeds and written by
hand."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum import iban as iban_number
from stdnum import luhn
from stdnum.us import ssn as ssn_number

from beamline_extensions.detectors import DETECTORS, KINDS, find, max_length
from beamline_extensions.detectors.folding import fold

from .piicorpus import MAKERS, Sample, with_data, without_data

PRECISION, RECALL = 0.98, 0.95


def s(text: str, *values: tuple[str, str]) -> Sample:
    return Sample(text, values)


HARD = [
    s("4111\u00a01111\u00a01111\u00a01111", ("credit_card", "4111\u00a01111\u00a01111\u00a01111")),
    s(
        "\uff14\uff11\uff11\uff11" + "\uff11" * 12,
        ("credit_card", "\uff14\uff11\uff11\uff11" + "\uff11" * 12),
    ),
    s("\u0664" + "\u0661" * 15, ("credit_card", "\u0664" + "\u0661" * 15)),
    s("\u096a" + "\u0967" * 15, ("credit_card", "\u096a" + "\u0967" * 15)),
    s("4\u200b111 1111\u200d 1111 1111", ("credit_card", "4\u200b111 1111\u200d 1111 1111")),
    s("4\ufe0f\u20e3" + "1\ufe0f\u20e3" * 15, ("credit_card", "4\ufe0f\u20e3" + "1\ufe0f\u20e3" * 14 + "1")),
    s("4111\u20131111\u20131111\u20131111", ("credit_card", "4111\u20131111\u20131111\u20131111")),
    s("4111.1111.1111.1111", ("credit_card", "4111.1111.1111.1111")),
    s("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", ("credit_card", "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1")),
    s("41111111 11111111", ("credit_card", "41111111 11111111")),
    s("12 4111-1111-1111-1111", ("credit_card", "4111-1111-1111-1111")),
    s("4111-1111-1111-1111 123", ("credit_card", "4111-1111-1111-1111")),
    s("\u5361\u53f74111111111111111\u8c22\u8c22", ("credit_card", "4111111111111111")),
    s("room AB12 DE89 3704 0044 0532 0130 00", ("iban", "DE89 3704 0044 0532 0130 00")),
    s("de89370400440532013000", ("iban", "de89370400440532013000")),
    s("DE89-3704-0044-0532-0130-00", ("iban", "DE89-3704-0044-0532-0130-00")),
    s("SSN: 536.90.4399", ("ssn", "536.90.4399")),
    s("ssn\uff1a536904399", ("ssn", "536904399")),
    s("536\u201190\u20114399", ("ssn", "536\u201190\u20114399")),
    s("\u8054\u7cfbjane@example.com\u8c22\u8c22", ("email", "jane@example.com")),
    s("\u7528\u6237@\u4f8b\u5b50.\u516c\u53f8", ("email", "\u7528\u6237@\u4f8b\u5b50.\u516c\u53f8")),
    s("jane\uff20example.com", ("email", "jane\uff20example.com")),
    s("mailto:jane@example.com?subject=x", ("email", "jane@example.com")),
    s("https://x.example/?to=jane@example.com", ("email", "jane@example.com")),
    s("tel. 555-2671", ("phone", "555-2671")),
    s("Tel: 030 901820", ("phone", "030 901820")),
    s("+49 (0)30 901820", ("phone", "+49 (0)30 901820")),
    s("t\u00e9l : 01.23.45.67.89", ("phone", "01.23.45.67.89")),
    s("0171 2345678 0171 2345679", ("phone", "0171 2345678"), ("phone", "0171 2345679")),
    s("rendezvous on 2026-01-15 at 10:30, room 415"),
    s("0.4111111111111111"),
    s("order 4111111111111112 of 2024-11-02"),
    s("4111 1111\n1111 1111"),
    s("@user@mastodon.example and icon@2x.png"),
    s("https://user:secret@db.example.com/x and git@github.com:a/b.git"),
    s("10.0.0.1 192.168.100.200:8080 fe80::1"),
    s("978-3-16-148410-0"),
    s("1 000 000 000 000 000"),
    s("078-05-1120 was printed in an advertisement"),
    s("1234567890123 1234567890128"),
    s("DE00 3704 0044 0532 0130 00"),
    s("DE88370400440532013000 and NL92ABNA0417164300"),
    s("+0 123 456 789 and +999 123 456 789"),
]


def measured(samples: Iterable[Sample]) -> tuple[float, float, list[tuple[str, str]]]:
    """Precision, recall, and what was wrong. A value counts as found only with its exact ends and kind."""
    right = wrong = missed = 0
    faults: list[tuple[str, str]] = []
    for sample in samples:
        got = Counter((one.kind, sample.text[one.start : one.end]) for one in find(sample.text, KINDS))
        want = Counter(sample.values)
        right += (got & want).total()
        for name, difference in (("found", got - want), ("missed", want - got)):
            faults += [(name, f"{value!r} in {sample.text!r}") for value in difference.elements()]
        wrong += (got - want).total()
        missed += (want - got).total()
    return right / (right + wrong), right / (right + missed), faults


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_on_texts_made_from_a_seed_precision_and_recall_are_high(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    precision, recall, faults = measured([*with_data(seed, 1_000), *without_data(seed + 1, 1_000)])
    with capsys.disabled():
        print(f"\npersonal data, seed {seed}: precision {precision:.4f}, recall {recall:.4f}")
    assert (precision >= PRECISION, recall >= RECALL) == (True, True), faults[:20]


def test_on_hand_written_hard_cases_precision_and_recall_are_high(capsys: pytest.CaptureFixture[str]) -> None:
    precision, recall, faults = measured(HARD)
    with capsys.disabled():
        print(f"\npersonal data, {len(HARD)} hard cases: precision {precision:.4f}, recall {recall:.4f}")
    assert (precision >= PRECISION, recall >= RECALL) == (True, True), faults


@given(st.sampled_from(["4", "51", "2221", "37", "6011"]), st.text("0123456789", min_size=8, max_size=13))
def test_a_card_is_exactly_what_the_reference_says_it_is(prefix: str, rest: str) -> None:
    number = (prefix + rest)[:16]
    lengths = {"4": {13, 16}, "37": {15}}.get(prefix, {16})
    assert bool(find(number, ["credit_card"])) == (luhn.is_valid(number) and len(number) in lengths)


@given(
    st.sampled_from(["DE", "NL", "GB", "FR", "ES", "NO", "IT", "PL", "SE"]),
    st.text("0123456789ABC", min_size=10, max_size=25),
)
def test_an_iban_is_exactly_what_the_reference_says_it_is(country: str, bban: str) -> None:
    number = country + iban_number.calc_check_digits(f"{country}00{bban}") + bban
    assert bool(find(number, ["iban"])) == iban_number.is_valid(number, check_country=False)


@given(st.from_regex(r"\A[0-9]{3}-[0-9]{2}-[0-9]{4}\Z"))
def test_a_social_security_number_is_exactly_what_the_reference_says_it_is(number: str) -> None:
    assert bool(find(number, ["ssn"])) == ssn_number.is_valid(number)


@given(st.text(max_size=200))
def test_folding_leads_back_to_where_a_character_stood(text: str) -> None:
    folded = fold(text)
    for position, character in enumerate(folded.text):
        start, end = folded.place(position, position + 1)
        assert end == start + 1
        assert fold(text[start:end]).text == character


@settings(max_examples=50)
@given(st.integers(0, 10**6))
def test_no_find_is_longer_than_its_detector_declares(seed: int) -> None:
    for sample in with_data(seed, 20):
        for one in find(sample.text, KINDS):
            assert one.end - one.start <= DETECTORS[one.kind].max_length <= max_length(KINDS)


SIZE = 256 * 1024
HOSTILE = {
    "single digits that might all begin a card": "4 ",
    "groups that might all begin a card": "4111 ",
    "cards whose Luhn digit is wrong": "4111 1111 1111 1112 ",
    "rows with blanks and hyphens": "4111-1111 ",
    "beginnings of IBANs": "DE89 ",
    "IBANs whose check digits are wrong": "GB82 WEST 1234 5698 7654 33 ",
    "beginnings of addresses": "a@",
    "addresses with a domain of one letter": "a@b.c ",
    "beginnings of phone numbers": "+1 ",
    "phone numbers without an end": "0171-",
    "words that announce a number": "tel ",
    "one character without width after each digit": "4\u200b",
    "full-width digits": "\uff14\uff11\uff11\uff11 ",
    "real cards": "4111 1111 1111 1111 ",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_costs_time_in_proportion_to_its_length(
    text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = (text * (SIZE // len(text.encode()) + 1))[:SIZE]
    began = time.thread_time()
    find(whole, KINDS, at_most=1_000)
    assert time.thread_time() - began < 1.0  # measured: 0.004 to 0.1 s
    assert capfd.readouterr().err == ""


def test_every_kind_has_its_maker_and_its_detector() -> None:
    assert set(MAKERS) == set(KINDS) == set(DETECTORS)
