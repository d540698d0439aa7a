"""A canary, and policies that stand in each other's way, on a laptop: the same objects, files and lines."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.laptop import Up

pytestmark = pytest.mark.timeout(240)

STEPS = [{"weight": 40, "pauseSeconds": 1}, {"weight": 80, "pauseSeconds": 1}]
CANARY = {"steps": STEPS, "gates": {"minSamples": 5, "maxErrorRate": 0.2}}
FILE = "objects.yaml"


def extension(name: str, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    config = {"mode": "fixed", "answer": name, "latency_ms": 0, **spec.pop("config", {})}
    workload = {"image": "beamline:dev", "command": ["beamline", "extension", "run", "mock_provider"]}
    return {
        "apiVersion": "beamline.io/v1alpha1",
        "kind": "Extension",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"type": "provider", "retry": 0, "config": config, "workload": workload, **spec},
    }


def version(number: int, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    names = {"version": f"{number}.0", "versionOf": "chat", "canary": CANARY}
    return extension(f"chat-v{number}", annotations, **names, **spec)


def policy(name: str, **spec: Any) -> dict[str, Any]:
    steps = [{"action": "select_provider", "providers": [{"extensionRef": {"name": "chat"}}]}]
    return {
        "apiVersion": "beamline.io/v1alpha1",
        "kind": "RoutingPolicy",
        "metadata": {"name": name},
        "spec": {"steps": steps, **spec},
    }


BASE = [extension("chat"), policy("wide", priority=9), policy("small", match={"models": ["gpt-4"]})]


class Caller:
    """Somebody who keeps calling."""

    def __init__(self, up: Up) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._call, args=(up,))
        self._thread.start()

    def _call(self, up: Up) -> None:
        while not self._over.wait(0.02):
            up.route("hello")

    def stop(self) -> None:
        self._over.set()
        self._thread.join(30)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., None]:
    folder = tmp_path / "manifests"
    folder.mkdir()

    def put(*documents: dict[str, Any]) -> None:
        aside = folder / ".objects"
        aside.write_text(yaml.safe_dump_all([*BASE, *documents]))
        aside.rename(folder / FILE)

    return put


@pytest.fixture
def up(tmp_path: Path, write: Callable[..., None]) -> Iterator[Up]:
    write()
    started = Up(tmp_path)
    try:
        yield started.ready()
    finally:
        started.stop()


def test_versions_are_promoted_turned_back_and_ended_by_annotations(
    up: Up, write: Callable[..., None]
) -> None:
    assert "RoutingPolicy default/small, but Overridden: " in up.said
    assert "RoutingPolicy default/wide" in up.until_said(r"small +Overridden +(.*)").group(1)
    caller = Caller(up)
    try:
        write(version(2))
        for words in ("Step 1 of 2 \\(40 %\\)", "Step 2 of 2 \\(80 %\\)", "All 2 steps held"):
            up.until_said(f"canary +Extension default/chat-v2: {words}", 60)
        up.until_routed("hello", lambda answer: answer["output"] == "chat-v2")
        write(version(2), version(3, config={"error_rate": 1.0}))
        up.until_said("canary +Extension default/chat-v3: At step 1 of 2 .*(calls failed|its breaker)", 60)
        write(version(2), version(4))
        up.until_said("canary +Extension default/chat-v4: Step 1 of 2", 60)
        write(version(2), version(4, {"beamline.io/abort": "now"}))
        up.until_said("canary +Extension default/chat-v4: Ended by beamline.io/abort", 60)
        write(version(2), version(4, {"beamline.io/abort": "now", "beamline.io/promote": "now"}))
        up.until_said("canary +Extension default/chat-v4: Promoted by beamline.io/promote", 60)
        up.until_routed("hello", lambda answer: answer["output"] == "chat-v4")
    finally:
        caller.stop()
    shown = up.cli("get", "ext", "-o", "json", "--state", str(up.state))
    assert '"CanaryPromoted"' in shown.stdout, shown.stderr
    noted = up.cli("audit", "list", "chat_v4", "-q", "canary.state", "-o", "json", "--state", str(up.state))
    acts = [(row["changes"]["canary.state"], row["changed_by"]) for row in json.loads(noted.stdout)]
    assert [change["to"] for change, _ in acts] == ["Promoted", "Aborted"]
    assert all(who.startswith("file:") for _, who in acts), "by hand, in the file"
