"""The end-to-end suite: real pods on a whole cluster. `make e2e` runs it; docs/e2e-guide.md explains it.

It is collected only where BEAMLINE_E2E_KUBECONFIG names the cluster that it may write to, so `make test` and
a bare `pytest` never touch the cluster that a person happens to be logged in to.

One installation of the chart serves most cases (``case``); it is made by the first case that wants it. Cases
that install, upgrade or remove releases themselves ask for ``bare``: then there is none, and the next case
that wants the common one makes it anew. Those run last, so that this happens once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.rig.case import Case
from e2e.rig.clients import Clients
from e2e.rig.kube import Kube
from e2e.rig.settings import Settings, SetupError
from e2e.rig.state import state
from e2e.rig.world import World

HERE = Path(__file__).resolve().parent
WANTED = bool(os.environ.get("BEAMLINE_E2E_KUBECONFIG"))
_LONGEST_CASE_S = 900


def pytest_configure(config: pytest.Config) -> None:
    """Somebody who names this folder is told what is missing; everybody else is not bothered."""
    named = any(Path(word.split("::")[0]).resolve().is_relative_to(HERE) for word in config.args)
    if WANTED or named:
        try:
            Settings.from_environment()
        except SetupError as error:
            raise pytest.UsageError(str(error)) from error


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    return True if not WANTED and collection_path.is_relative_to(HERE) else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    for item in ours:
        item.add_marker(pytest.mark.timeout(_LONGEST_CASE_S))
    ours.sort(key=lambda item: "bare" in getattr(item, "fixturenames", ()))
    items[:] = [item for item in items if not item.path.is_relative_to(HERE)] + ours


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A case that fails shows the objects as they are, before anything is cleaned up."""
    outcome: Any = yield
    report = outcome.get_result()
    world = getattr(item, "funcargs", {}).get("world")
    if report.failed and call.when in {"setup", "call"} and world is not None:
        report.sections.append(("state of the cluster", state(world.kube)))
        terminal = item.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None and call.excinfo is not None:  # whoever watches need not wait for the end
            terminal.write_line(f"\n{item.name}: {str(call.excinfo.value)[:2000]}")


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings.from_environment()


@pytest.fixture(scope="session")
def world(settings: Settings) -> Iterator[World]:
    """The cluster, with clients in pods, and the common installation once somebody asks for it."""
    kube = Kube(settings.kubeconfig)
    clients = Clients(kube, settings.image)
    made = World(settings, kube, clients)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def kube(world: World) -> Kube:
    return world.kube


@pytest.fixture
def case(world: World, request: pytest.FixtureRequest) -> Iterator[Case]:
    """A namespace of this case's own, on the common installation."""
    label = re.sub(r"[^a-z0-9]+", "-", request.path.stem.removeprefix("test_"))
    made = Case(world.kube, world.common(), world.settings.image, label)
    made.start()
    yield made
    made.clean()


@pytest.fixture
def bare(world: World) -> Iterator[World]:
    """The cluster without any installation and without definitions, for cases that install themselves."""
    world.clear()
    yield world
    world.clear()
