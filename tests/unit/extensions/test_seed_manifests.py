"""The seeds are the contract's table, and what ships beside the code is the same file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from beamline_contract.extension import ExtensionSpec
from beamline_contract.names import derive_subject
from beamline_contract.objects import Extension, parse_object
from beamline_extensions import catalogue

ROOT = Path(__file__).resolve().parents[3]
SEEDS = ROOT / "examples" / "seeds"
SHIPPED = ROOT / "providers" / "beamline_extensions"

TABLE: dict[str, tuple[str, str, int, int, dict[str, Any]]] = {
    "mock_provider": ("provider", "beamline.provider.mock.v1", 1000, 0, {"mode": "echo", "latency_ms": 50}),
    "openai_gpt4": (
        "provider",
        "beamline.provider.openai_gpt4.v1",
        30000,
        2,
        {"model": "gpt-4", "max_tokens": 2048, "temperature": 0.7},
    ),
    "anthropic_claude": (
        "provider",
        "beamline.provider.anthropic_claude.v1",
        30000,
        2,
        {"model": "claude-3-opus-20240229", "max_tokens": 4096},
    ),
    "normalize_text": (
        "pre",
        "beamline.ext.pre.normalize_text.v1",
        100,
        0,
        {"lowercase": True, "trim_whitespace": True},
    ),
    "pii_guard": (
        "validator",
        "beamline.ext.validate.pii_guard.v1",
        200,
        1,
        {"patterns": ["credit_card", "ssn", "email"], "block_on_match": True},
    ),
    "mask_sensitive_data": (
        "post",
        "beamline.ext.post.mask_pii.v1",
        100,
        0,
        {"mask_patterns": ["email", "phone"]},
    ),
}

WITH_A_KEY = {"openai_gpt4": {"OPENAI_API_KEY"}, "anthropic_claude": {"ANTHROPIC_API_KEY"}}
SEED_OF = {"openai": "openai_gpt4", "anthropic": "anthropic_claude"}
"""Seeds that go by another name than the extension that they run."""


@pytest.mark.parametrize("name", sorted(TABLE))
def test_a_seed_is_as_the_contract_says(name: str) -> None:
    manifest = yaml.safe_load((SEEDS / f"{name}.yaml").read_text())
    spec = ExtensionSpec.model_validate(manifest["spec"])
    assert manifest["metadata"]["name"].replace("-", "_") == name
    assert (spec.type, spec.subject, spec.timeout_ms, spec.retry, spec.config) == TABLE[name]
    assert spec.enabled == (name not in WITH_A_KEY)
    assert spec.workload is not None
    assert {variable.name for variable in spec.workload.env} == WITH_A_KEY.get(name, set())


def test_there_are_no_other_seeds() -> None:
    assert {path.stem for path in SEEDS.glob("*.yaml")} == set(TABLE)


@pytest.mark.parametrize("name", catalogue.names())
def test_an_extension_ships_with_a_manifest_that_it_accepts(name: str) -> None:
    text = (SHIPPED / name / "manifest.yaml").read_text()
    extension, runs = catalogue.create(name), 0
    for document in yaml.safe_load_all(text):
        parsed = parse_object(document)
        assert isinstance(parsed, Extension)
        extension.config_model.model_validate(dict(parsed.spec.config))
        if parsed.spec.workload is not None:
            assert (extension.name, extension.kind) == (name, parsed.spec.type)
            runs += 1
            assert parsed.spec.workload.command == ("beamline", "extension", "run", name)
    seed = SEED_OF.get(name, name)
    if seed in TABLE:
        assert text == (SEEDS / f"{seed}.yaml").read_text()
    assert runs == 1
    assert f"beamline extension run {name}" in (SHIPPED / name / "README.md").read_text()
    assert extension.config_schema()["type"] == "object"


@pytest.mark.parametrize("name", catalogue.names())
def test_every_setting_is_described_and_in_the_readme_or_a_page_that_it_names(name: str) -> None:
    page = SHIPPED / name / "README.md"
    readme = page.read_text()
    linked = re.findall(r"\]\(([\w./-]+\.md)\)", readme)
    readme += "".join((page.parent / link).read_text() for link in linked)
    schema = catalogue.create(name).config_schema()
    for field, stated in schema["properties"].items():
        assert stated.get("description"), f"{field} has no description"
        assert f"`{field}" in readme, f"{field} is not in the README"


def test_names_with_hyphens_are_the_same_and_unknown_ones_list_what_there_is() -> None:
    assert catalogue.create("pii-guard").name == "pii_guard"
    with pytest.raises(catalogue.UnknownExtensionError, match="json_schema_validator, mask_sensitive_data"):
        catalogue.create("nothing")


def test_derived_subjects_need_not_be_stated() -> None:
    assert derive_subject("pre", "normalize_text") == TABLE["normalize_text"][1]
