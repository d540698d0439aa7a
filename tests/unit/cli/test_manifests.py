"""Manifests are read with the line of every value, and every fault says where it is."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from beamline_contract.objects import Extension
from beamline_operator.edges.manifests import manifest_files, parse, read_file, read_text

HEAD = "apiVersion: beamline.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\n"


def extension(spec: str, name: str = "guard") -> str:
    return HEAD.format(kind="Extension", name=name) + dedent(spec).lstrip("\n")


def faults_in(text: str) -> list[str]:
    content = read_text(text, "a.yaml")
    found = [str(fault) for fault in content.faults]
    for document in content.documents:
        parsed = parse(document)
        if isinstance(parsed, tuple):
            found.extend(map(str, parsed))
    return found


STEPS = """
kind: RoutingPolicy
apiVersion: beamline.io/v1alpha1
metadata:
  name: default
spec:
  steps:
    - action: select_provider
      providers: [{extensionRef: {name: mock}}]
    - action: extension_post
      extensionRef: {name: mask}
      timeoutMs: 0
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            extension("spec:\n  type: pre\n  timeoutMs: soon\n"),
            ["a.yaml:6: spec.timeoutMs: input should be a valid integer"],
            id="a value of the wrong type",
        ),
        pytest.param(
            STEPS, ["a.yaml:12: spec.steps[1].timeoutMs: input should be greater"], id="a field inside a list"
        ),
        pytest.param(
            extension("spec:\n  timeoutMs: 5\n"),
            ["a.yaml:4: spec.type: is required"],
            id="a missing field points at its parent",
        ),
        pytest.param(
            extension("spec:\n  type: pre\n  timoutMs: 5\n"),
            ["a.yaml:6: spec.timoutMs: is not a field"],
            id="a typing error",
        ),
        pytest.param(
            HEAD.format(kind="Extension", name="guard"), ["a.yaml:1: spec: is required"], id="no spec"
        ),
        pytest.param(
            HEAD.format(kind="Extension", name="Not_A_Name") + "spec: {type: pre}\n",
            ["a.yaml:3: metadata.name: metadata.name must be a DNS label"],
            id="a name that Kubernetes refuses",
        ),
        pytest.param(
            extension("spec: {type: pre}\n").replace("v1alpha1", "v9"),
            ["a.yaml:1: apiVersion: must be beamline.io/v1alpha1"],
            id="a version from the future",
        ),
        pytest.param(
            extension("spec:\n  type: pre\n  config:\n    a: 1\n    a: 2\n"),
            ["a.yaml:8: spec.config.a: is given twice, first in line 7"],
            id="a key given twice",
        ),
        pytest.param("a: [1,\nb: 2\n", ["a.yaml:3: not valid YAML: "], id="broken YAML"),
        pytest.param(
            "a: &x [*x]\n", ["a.yaml:1: a[0]: contains itself"], id="an anchor that contains itself"
        ),
        pytest.param("x: " + "[" * 100 + "]" * 100, ["a.yaml:1: x"], id="nested without end"),
        pytest.param(
            "just text\n", ["a.yaml:1: a manifest is a mapping, this is a str"], id="no manifest at all"
        ),
        pytest.param(
            "!!python/object:os.system {}\n",
            ["a.yaml:1: not valid YAML: could not determine"],
            id="a tag of Python's",
        ),
        pytest.param(
            extension("spec: {type: pre}\n").replace("metadata: {", "metadata: {labels: [a], "),
            ["a.yaml:3: metadata: can't be read"],
            id="labels of the wrong shape",
        ),
        pytest.param(
            extension("spec:\n  type: pre\n  timeoutMs: 0\n  retry: 9\n"),
            ["a.yaml:6: spec.timeoutMs", "a.yaml:7: spec.retry"],
            id="several faults, in the order of the lines",
        ),
        pytest.param("\ufeff" + extension("spec: {type: pre}\n"), [], id="a byte order mark is fine"),
        pytest.param("---\n---\n# nothing\n---\n", [], id="empty documents are fine"),
    ],
)
def test_every_fault_has_file_line_and_field(text: str, expected: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    content = read_file(path, "a.yaml")
    found = (
        faults_in(text.removeprefix("\ufeff"))
        if content.documents
        else [str(fault) for fault in content.faults]
    )
    assert len(found) == len(expected), found
    for said, start in zip(found, expected, strict=True):
        assert said.startswith(start), said


def test_what_stands_before_a_syntax_error_is_still_read() -> None:
    content = read_text(extension("spec: {type: pre}\n") + "---\na: [\n", "a.yaml")
    assert [document.data["metadata"]["name"] for document in content.documents] == ["guard"]
    assert not content.complete


def test_values_are_read_as_kubectl_reads_them() -> None:
    text = extension("spec:\n  type: pre\n  config: {since: 2024-01-02, on: yes, 1: one}\n")
    (document,) = read_text(text, "a.yaml").documents
    assert document.data["spec"]["config"] == {"since": "2024-01-02", "true": True, "1": "one"}


def test_a_key_of_config_may_hold_dots() -> None:
    (document,) = read_text(
        extension("spec:\n  type: pre\n  config:\n    a: 1\n    a.b: 2\n"), "a.yaml"
    ).documents
    assert document.place_of("spec.config.a.b").line == 8


def test_a_list_is_its_items() -> None:
    text = "apiVersion: v1\nkind: List\nitems:\n" + "".join(
        f"- apiVersion: beamline.io/v1alpha1\n  kind: Extension\n  metadata: {{name: {name}}}\n"
        "  spec: {type: pre}\n"
        for name in ("one", "two")
    )
    documents = read_text(text, "a.yaml").documents
    parsed = [parse(document) for document in documents]
    assert [one.metadata.name for one in parsed if isinstance(one, Extension)] == ["one", "two"]
    assert [document.place.line for document in documents] == [4, 8]


def test_a_status_in_a_file_is_nobody_s_truth() -> None:
    (document,) = read_text(extension("spec: {type: pre}\nstatus: {conditions: 5}\n"), "a.yaml").documents
    parsed = parse(document)
    assert isinstance(parsed, Extension)
    assert parsed.status == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"\xff\xfe", "a.yaml:1: the file is not UTF-8", id="not UTF-8"),
        pytest.param(b"#" * (4 * 1024 * 1024 + 1), "a.yaml:1: the file is larger than 4 MiB", id="too large"),
    ],
)
def test_a_file_that_can_not_be_read_is_a_fault(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    read = read_file(path, "a.yaml")
    assert str(read.faults[0]).startswith(message)
    assert not read.complete


def test_a_file_that_is_gone_when_it_is_read_is_a_fault(tmp_path: Path) -> None:
    assert "can't be read" in str(read_file(tmp_path / "a.yaml", "a.yaml").faults[0])


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    for name in (
        "b.yaml",
        "deep/a.yml",
        ".hidden.yaml",
        ".git/c.yaml",
        "notes.txt",
        "b.yaml~",
        ".b.yaml.swp",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert [str(path.relative_to(tmp_path)) for path in manifest_files(tmp_path)] == ["b.yaml", "deep/a.yml"]
