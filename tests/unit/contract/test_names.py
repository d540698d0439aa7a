"""Ids, subjects and what may not be one."""

from __future__ import annotations

import pytest

from beamline_contract.names import RESERVED_SUBJECT_PREFIXES, derive_subject, object_id, subject_fault
from beamline_contract.objects import Extension, parse_object


def test_an_id_is_the_name_with_underscores() -> None:
    assert object_id("openai-gpt4") == "openai_gpt4"


@pytest.mark.parametrize(
    ("ext_type", "version", "subject"),
    [
        ("provider", None, "beamline.provider.x.v1"),
        ("pre", "v2", "beamline.ext.pre.x.v2"),
        ("validator", "v10", "beamline.ext.validate.x.v10"),
        ("post", "1.4", "beamline.ext.post.x.v1"),
        ("post", "v2-beta", "beamline.ext.post.x.v1"),
        ("post", "v2\n", "beamline.ext.post.x.v1"),
    ],
)
def test_a_subject_follows_from_type_id_and_major_version(
    ext_type: str, version: str | None, subject: str
) -> None:
    assert derive_subject(ext_type, "x", version) == subject  # type: ignore[arg-type]
    assert subject_fault(subject) is None


def test_the_longest_name_gives_a_valid_subject() -> None:
    manifest = {"apiVersion": "beamline.io/v1alpha1", "kind": "Extension", "metadata": {"name": "x" * 63},
                "spec": {"type": "validator"}}  # fmt: skip
    parsed = parse_object(manifest)
    assert isinstance(parsed, Extension)
    assert subject_fault(parsed.subject) is None


@pytest.mark.parametrize(
    "subject",
    ["", "one", "a..b", ".a.b", "a.b.", "a.*", "a.>", ">", "a.b c", "a.b\n", "a.b\r\nPUB x 0\r\n\r\n",
     "a.b\t", "a.\u00e9", "\uff41.b", "$SYS.REQ.x", "$SRV.PING", "a.b\x00",
     "a." + "b" * 65, ".".join(["a"] * 17),
     "a." * 127 + "aa"],
    ids=repr,
)  # fmt: skip
def test_what_is_no_plain_subject_is_refused_in_words(subject: str) -> None:
    assert (subject_fault(subject) or "").startswith("must ")


@pytest.mark.parametrize("prefix", RESERVED_SUBJECT_PREFIXES)
def test_beamlines_own_subjects_are_refused(prefix: str) -> None:
    assert "reserved" in (subject_fault(f"{prefix}v1") or "")


@pytest.mark.parametrize(
    "subject", ["a.b", "acme.llm.chat-v2", "A_B.c-d", ".".join(["a"] * 16), "a." + "b" * 64]
)
def test_plain_subjects_are_taken(subject: str) -> None:
    assert subject_fault(subject) is None
