"""Helm, kubeconform and Kubernetes' schemas, from where tests/cluster gets its control plane."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "cluster"))  # the name by which tests/cluster imports its modules too

from controlplane.binaries import (  # noqa: E402
    CHART_TOOLS,
    HELM,
    HOW_TO_GET_CHART_TOOLS,
    KUBECONFORM,
    KUBECTL,
    Binaries,
    NoControlPlaneError,
    find_or_build,
)
from controlplane.schemas import schemas_folder  # noqa: E402

from .rendering import BUNDLED, EXISTING, Chart, Rendered, merged  # noqa: E402


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds what is missing now: no test's time limit runs yet, and progress reaches the terminal."""
    if not any("chart_binaries" in getattr(item, "fixturenames", ()) for item in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext(), suppress(NoControlPlaneError):
        find_or_build(CHART_TOOLS, HOW_TO_GET_CHART_TOOLS)  # where it can't, the fixture below says so


@pytest.fixture(scope="session")
def chart_binaries() -> Binaries:
    """Helm and kubeconform; built if need be."""
    try:
        return find_or_build(CHART_TOOLS, HOW_TO_GET_CHART_TOOLS)
    except NoControlPlaneError as error:
        return _lacking(error)


@pytest.fixture(scope="session")
def kubernetes_schemas() -> Path:
    """A folder with one strict schema per kind of the pinned Kubernetes."""
    try:
        return schemas_folder()
    except NoControlPlaneError as error:
        return _lacking(error)


@pytest.fixture(scope="session")
def chart(chart_binaries: Binaries) -> Chart:
    return Chart(chart_binaries.path(HELM))


@pytest.fixture(scope="session")
def kubeconform(chart_binaries: Binaries) -> str:
    return chart_binaries.path(KUBECONFORM)


@pytest.fixture(scope="session")
def kubectl() -> str:
    """For `kubectl kustomize`, which needs no server."""
    try:
        return find_or_build((KUBECTL,), HOW_TO_GET_CHART_TOOLS).path(KUBECTL)
    except NoControlPlaneError as error:
        return str(_lacking(error))


def _lacking(error: NoControlPlaneError) -> Any:
    if os.environ.get("CI"):
        pytest.fail(str(error), pytrace=False)
    pytest.skip(str(error))


@pytest.fixture(params=["bundled", "existing"])
def either(request: pytest.FixtureRequest, chart: Chart) -> Rendered:
    """The chart with its own NATS and PostgreSQL, and with given ones."""
    values = BUNDLED if request.param == "bundled" else EXISTING
    return chart.render(merged(values, {"admin": {"enabled": True}}))
