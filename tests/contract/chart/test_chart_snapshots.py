"""Whole renderings, so that a change of a template shows its whole effect in a review.

After a change that is meant: ``BEAMLINE_UPDATE_SNAPSHOTS=1 pytest tests/contract/chart -k as_it_was``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from .rendering import CHART, Chart

SNAPSHOTS = Path(__file__).resolve().parent / "snapshots"
VALUES = sorted((CHART / "ci").glob("*.yaml"))


def _without_crds(text: str) -> str:
    """CRDs are copies, with a test of their own."""
    documents = [part for part in text.split("---\n") if part.strip()]
    return "".join(f"---\n{part}" for part in documents if "kind: CustomResourceDefinition" not in part)


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_a_rendering_is_as_it_was(chart: Chart, values: Path) -> None:
    rendered = _without_crds(chart.text(yaml.safe_load(values.read_text())))
    snapshot = SNAPSHOTS / f"{values.stem.removesuffix('-values')}.yaml"
    if os.environ.get("BEAMLINE_UPDATE_SNAPSHOTS"):
        SNAPSHOTS.mkdir(exist_ok=True)
        snapshot.write_text(rendered)
    assert rendered.splitlines() == snapshot.read_text().splitlines()


def test_every_snapshot_is_of_values_that_are_there() -> None:
    wanted = {f"{values.stem.removesuffix('-values')}.yaml" for values in VALUES}
    assert {path.name for path in SNAPSHOTS.iterdir()} == wanted
