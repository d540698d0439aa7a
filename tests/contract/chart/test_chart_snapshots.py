"""Whole renderings, so that a change of a template shows its whole effect in a review.

What each switch changes, and what Helm says to wrong values, is compared where those are tested.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from .rendering import CHART, Chart
from .snapshots import FOLDER, compare, refusal, switch
from .test_chart_refusals import ALONE, TOGETHER
from .test_chart_switches import CASES

VALUES = sorted((CHART / "ci").glob("*.yaml"))


def _without_crds(text: str) -> str:
    """CRDs are copies, with a test of their own."""
    documents = [part for part in text.split("---\n") if part.strip()]
    return "".join(f"---\n{part}" for part in documents if "kind: CustomResourceDefinition" not in part)


def _snapshot(values: Path) -> str:
    return f"{values.stem.removesuffix('-values')}.yaml"


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_a_rendering_is_as_it_was(chart: Chart, values: Path) -> None:
    compare(_snapshot(values), _without_crds(chart.text(yaml.safe_load(values.read_text()))))


def test_every_snapshot_is_of_values_that_are_there_and_there_are_enough() -> None:
    wanted = {_snapshot(values) for values in VALUES}
    wanted |= {switch(name) for name, (values, _) in CASES.items() if values}
    wanted |= {refusal(name) for name in (*TOGETHER, *ALONE)}
    assert {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.*") if path.is_file()} == wanted
    assert len(wanted) >= 40
