"""One document of a YAML file changes; every other byte stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from beamline_admin.objects.yaml_text import TextError, as_text, read_documents

FILE = """# The file's own comment.
kind: Extension
metadata: {name: first}
spec:
  type: pre
---
# About the second one.
kind: Extension
metadata: {name: second}   # beside
spec:
  type: "validator"  # quoted
  config: {patterns: [a, b], block: true}
  steps:
    - {one: 1}
    # between
    - two: 2
---

kind:   Weird
metadata:   { name:   third }
"""


def read(tmp_path: Path, text: str = FILE) -> Any:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    return read_documents(path)


def test_comments_order_quotes_and_other_documents_stay(tmp_path: Path) -> None:
    documents = read(tmp_path)
    spec = {**documents.data[1]["spec"], "enabled": False}
    spec["config"] = {"patterns": ["a", "b"], "block": False}
    text = documents.with_change(1, {"spec": spec}, {"annotations": {"x": "y"}})
    first, _, third = FILE.split("---\n")
    assert text.startswith(first)
    assert text.endswith("---\n" + third)
    for kept in ("# About the second one.", "# beside", '"validator"  # quoted', "# between", "    - two: 2"):
        assert kept in text, kept
    assert "{patterns: [a, b], block: false}" in text
    assert list(yaml.safe_load_all(text))[1]["spec"] == spec


def test_changing_back_gives_the_first_text_again(tmp_path: Path) -> None:
    documents = read(tmp_path)
    spec = documents.data[1]["spec"]
    there = documents.with_change(1, {"spec": {**spec, "type": "post"}}, {})
    again = read(tmp_path, there)
    assert again.with_change(1, {"spec": spec}, {}) == FILE


@pytest.mark.parametrize(
    "value",
    ["yes", "on", "1", "1.5", "null", "2026-01-01", "a: b", "# no", "", " x ", "ünï", "a\nb", "0o7", "1_0"],
)
def test_a_text_stays_that_text_for_every_reader(tmp_path: Path, value: str) -> None:
    documents = read(tmp_path)
    text = documents.with_change(0, {"spec": {"type": "pre", "config": {value or "k": value}}}, {})
    assert next(iter(yaml.safe_load_all(text)))["spec"]["config"] == {value or "k": value}
    assert yaml.safe_load(as_text({"spec": {"v": value}})) == {"spec": {"v": value}}


def test_removing_a_document_leaves_the_others_untouched(tmp_path: Path) -> None:
    first, _, third = FILE.split("---\n")
    assert read(tmp_path).without(1) == first + "---\n" + third
    assert read(tmp_path, first).without(0).strip() == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("a: [", "not valid YAML", id="broken YAML"),
        pytest.param("a: &x {b: 1}\nspec: *x\n", "edit the file", id="an anchor that others share"),
    ],
)
def test_what_can_not_be_changed_safely_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(TextError, match=why):
        read(tmp_path, text).with_change(0, {"spec": {"b": 2}}, {})


def test_a_file_that_was_saved_meanwhile_is_noticed(tmp_path: Path) -> None:
    documents = read(tmp_path)
    assert documents.current
    documents.path.write_text(FILE + "# more\n")
    assert not documents.current
