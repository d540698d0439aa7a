"""What is left of a value after masking: nothing to use, and the same wherever the value was the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamline_extensions.detectors import KINDS, find
from beamline_extensions.mask_sensitive_data.config import MaskConfig
from beamline_extensions.mask_sensitive_data.extension import KEY, KEY_FILE, MaskSensitiveData, key_from
from beamline_extensions.mask_sensitive_data.masks import Style, hashed
from beamline_sdk import ExtensionRequest, NotReadyError

from .piicorpus import with_data, without_data

HIDE = hashed(b"k" * 16, "acme")


async def masked_by(mask: MaskSensitiveData, text: str, style: Style, tenant: str = "acme") -> str:
    config = MaskConfig(mask_patterns=KINDS, style=style)
    patch = await mask.handle(ExtensionRequest(output=text, tenant_id=tenant), config)
    return text if patch.output is None else patch.output


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(["token", "partial", "hash"]))
async def test_after_masking_nothing_is_left_and_doing_it_twice_changes_nothing(
    seed: int, style: Style
) -> None:
    mask = MaskSensitiveData()
    text = " ".join(sample.text for sample in [*with_data(seed, 5), *without_data(seed, 5)])
    once = await masked_by(mask, text, style)
    assert find(once, KINDS) == []
    assert await masked_by(mask, once, style) == once


async def test_a_value_that_masking_uncovers_is_masked_as_well() -> None:
    # The card is a part of a word until the address before it is gone.
    text = "jane@example.com4111111111111111"
    assert find(text.replace("jane@example.com", "[EMAIL]"), KINDS) != []
    once = await masked_by(MaskSensitiveData(), text, "token")
    assert find(once, KINDS) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("4111 1111 1111 1111", "4111111111111111", id="blanks"),
        pytest.param("Jane@Example.com", "jane@example.com", id="case"),
        pytest.param("4111111111111111", "\uff14" + "\uff11" * 15, id="another script's digits"),
        pytest.param("de89370400440532013000", "DE89 3704 0044 0532 0130 00", id="an IBAN in small letters"),
    ],
)
def test_a_value_has_one_hash_however_it_is_spelled(one: str, other: str) -> None:
    kind = find(one, KINDS)[0].kind
    assert HIDE(kind, one) == HIDE(kind, other)


def test_a_hash_differs_by_value_by_kind_by_tenant_and_by_key() -> None:
    hashes = {
        HIDE("ssn", "536-90-4399"),
        HIDE("ssn", "536-90-4398"),
        HIDE("phone", "536-90-4399"),
        hashed(b"k" * 16, "globex")("ssn", "536-90-4399"),
        hashed(b"l" * 16, "acme")("ssn", "536-90-4399"),
    }
    assert len({one.partition(":")[2] for one in hashes}) == 5


async def test_a_process_without_a_key_has_one_of_its_own() -> None:
    one, other = MaskSensitiveData(), MaskSensitiveData()
    assert await masked_by(one, "jane@example.com", "hash") == await masked_by(
        one, "jane@example.com", "hash"
    )
    assert await masked_by(one, "jane@example.com", "hash") != await masked_by(
        other, "jane@example.com", "hash"
    )


def test_the_key_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("x" * 20 + "\n")
    assert key_from({}) is None
    assert key_from({KEY: "k" * 16}) == b"k" * 16
    assert key_from({KEY_FILE: str(file)}) == b"x" * 20


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({KEY: "short"}, id="a key that is too short"),
        pytest.param({KEY_FILE: "/nowhere/key"}, id="a file that is not there"),
    ],
)
def test_a_key_that_can_not_be_used_is_a_clear_reason_without_the_key(environment: dict[str, str]) -> None:
    with pytest.raises(NotReadyError, match="BEAMLINE_MASK_KEY") as raised:
        key_from(environment)
    assert raised.value.reason == "CredentialsMissing"
    assert "short" not in str(raised.value).replace("shorter", "")
