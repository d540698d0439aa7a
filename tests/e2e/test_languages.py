"""An extension in another language: made by `beamline new`, built into an image, run as a pod, asked."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from e2e.rig.case import Case
from e2e.rig.settings import ROOT, Settings

sys.path.insert(0, str(ROOT / "scripts"))
import build_image

FROM_SCRATCH = 'FROM scratch\nCOPY {name} /{name}\nUSER 65532:65532\nENTRYPOINT ["/{name}"]\n'


def _lacking(why: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


def _must(folder: Path, *words: str, **environment: str) -> None:
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}{done.stdout}"


def test_an_extension_in_go_serves_as_a_pod_from_its_own_image(
    case: Case, settings: Settings, tmp_path: Path
) -> None:
    """The template's own Dockerfile compiles inside an image of Go; here Go is on the machine, so the binary
    goes straight into an empty image. Manifest and code are the template's.
    """
    tool = build_image.builder()
    if shutil.which("go") is None:
        _lacking("no Go here: it compiles the extension")
    if tool is None:
        _lacking(build_image.HOW_TO_GET_ONE)
    if not settings.load_command:
        _lacking(
            "BEAMLINE_E2E_LOAD is not set: no command brings an image into this cluster (docs/e2e-guide.md)"
        )
    assert tool is not None
    name = case.named("parrot")
    folder = tmp_path / name
    new = [sys.executable, "-m", "beamline_cli", "new", name, "--kind", "provider", "--language", "go"]
    _must(tmp_path, *new, "--output", str(folder))
    _must(folder, "go", "build", "-trimpath", "-o", name, ".", CGO_ENABLED="0")
    (folder / "Dockerfile").write_text(FROM_SCRATCH.format(name=name))
    image = f"localhost/beamline-e2e/{name}:0.1.0"
    _must(folder, *build_image.BUILDERS[tool], "--tag", image, ".")
    _must(folder, *shlex.split(settings.load_command), image)

    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    manifest["metadata"]["namespace"] = case.namespace
    manifest["spec"]["workload"]["image"] = image
    case.apply(manifest, case.policy(case.provider("parrot")))
    case.ready()
    for door in ("http", "nats"):
        answer = case.install.answer(case.request("polly"), door=door)
        assert answer["output"] == "You said: polly", door
        assert answer["provider_id"] == name.replace("-", "_")
    with case.install.load(case.request()) as load:
        load.goes_on()
        load.ends_without_loss(at_least=40)
