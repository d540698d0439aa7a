"""Files that are reread: what is seen, and what a fault leaves in force."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from beamline_router.edges.key_files import SourceError, Watched


def words(documents: list[tuple[str, object]]) -> list[object]:
    if any(document == "faulty" for _, document in documents):
        raise ValueError("a faulty word")
    return [document for _, document in documents]


def watched(path: Path) -> Watched[list[object]]:
    return Watched("words", path, words)


def test_a_change_is_seen_and_nothing_is_read_without_one(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    path.write_text("one")
    source = watched(path)
    assert source.value == ["one"]
    assert not source.look()
    path.write_text("another")
    assert source.look()
    assert source.value == ["another"]


def test_a_secret_mounted_as_a_folder_is_followed_through_its_swap(tmp_path: Path) -> None:
    """Kubernetes writes a new folder and swaps the link ``..data``."""
    for name, word in (("..1", "one"), ("..2", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys.yaml").write_text(word)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "keys.yaml").symlink_to("..data/keys.yaml")
    source = watched(tmp_path)
    assert source.value == ["one"]
    (tmp_path / "..new").symlink_to("..2")
    os.replace(tmp_path / "..new", tmp_path / "..data")
    assert source.look()
    assert source.value == ["two"]


def test_a_file_that_leaves_the_folder_takes_its_content_along(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(name)
    source = watched(tmp_path)
    (tmp_path / "a.yaml").unlink()
    assert source.look()
    assert source.value == ["b.yaml"]


@pytest.mark.parametrize(
    "content",
    [
        *(b"faulty", b"a: [", b"\xff\xfe", b"a: &a [*a"),
        *(b"expires: 2026-13-45", b"burst: 0x_", b"id: !!bool x", b"id: !!timestamp x"),
    ],
)
def test_a_fault_leaves_the_last_good_content_in_force_and_a_repair_is_taken(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "words.yaml"
    path.write_text("one")
    source = watched(path)
    path.write_bytes(content)
    assert not source.look()
    assert source.value == ["one"]
    assert source.fault is not None
    path.write_text("repaired")
    assert source.look()
    assert source.value == ["repaired"]
    assert source.fault is None


def test_a_source_that_goes_away_leaves_its_last_content(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    path.write_text("one")
    source = watched(path)
    path.unlink()
    assert not source.look()
    assert source.value == ["one"]


@pytest.mark.parametrize(
    ("content", "words_of_it"),
    [
        pytest.param(None, "can't be read", id="no file"),
        pytest.param(b"secret: [", "is not YAML at line", id="no YAML"),
        pytest.param(b"secret: 2026-13-45", "is not YAML", id="a value that YAML can't read"),
        pytest.param(b"faulty", "a faulty word", id="a content that its reader refuses"),
    ],
)
def test_at_the_start_a_fault_is_a_sentence_that_does_not_quote_the_file(
    tmp_path: Path, content: bytes | None, words_of_it: str
) -> None:
    path = tmp_path / "words.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=words_of_it) as raised:
        watched(path)
    assert "secret" not in str(raised.value)


def test_what_an_editor_leaves_beside_a_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text("one")
    (tmp_path / ".keys.yaml.swp").write_bytes(b"\x00\xff")
    assert watched(tmp_path).value == ["one"]
