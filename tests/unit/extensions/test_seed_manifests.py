"""The seeds are the contract's table, and what ships beside the code is the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from beamline_contract.extension import ExtensionSpec
from beamline_contract.names import derive_subject
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


@pytest.mark.parametrize("name", sorted(set(catalogue.names()) - {"openai_compatible"}))
def test_an_extension_ships_with_its_seed_and_accepts_its_config(name: str) -> None:
    seed = SEED_OF.get(name, name)
    assert (SHIPPED / name / "manifest.yaml").read_text() == (SEEDS / f"{seed}.yaml").read_text()
    extension = catalogue.create(name)
    extension.config_model.model_validate(TABLE[seed][4])
    assert (extension.name, extension.kind) == (name, TABLE[seed][0])


@pytest.mark.parametrize("name", catalogue.names())
def test_every_extension_has_a_readme_a_schema_and_a_manifest_that_runs_it(name: str) -> None:
    assert f"beamline extension run {name}" in (SHIPPED / name / "README.md").read_text()
    extension = catalogue.create(name)
    assert extension.config_schema()["type"] == "object"
    spec = ExtensionSpec.model_validate(
        yaml.safe_load((SHIPPED / name / "manifest.yaml").read_text())["spec"]
    )
    extension.config_model.model_validate(spec.config)
    assert spec.workload is not None
    assert list(spec.workload.command or ()) == ["beamline", "extension", "run", name]


def test_names_with_hyphens_are_the_same_and_unknown_ones_list_what_there_is() -> None:
    assert catalogue.create("pii-guard").name == "pii_guard"
    with pytest.raises(catalogue.UnknownExtensionError, match="mask_sensitive_data, mock_provider"):
        catalogue.create("nothing")


def test_derived_subjects_need_not_be_stated() -> None:
    assert derive_subject("pre", "normalize_text") == TABLE["normalize_text"][1]
