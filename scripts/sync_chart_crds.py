"""Copies crds/*.yaml into the chart as templates, or with ``--check`` says if one is stale (exit code 1).

Templates and not the chart's crds/ folder: Helm never upgrades what is in there.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "crds"
CHART = ROOT / "charts" / "beamline" / "templates" / "crds"
_KEEP = """\
  {{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
"""


class NoTemplateError(ValueError):
    """A CRD can't be a template as it is."""


def template(name: str, text: str) -> str:
    """The template of one CRD. Raises :class:`NoTemplateError`."""
    if "{{" in text:
        raise NoTemplateError(f"crds/{name} contains '{{{{', which Helm would read as its own")
    if text.count("\nmetadata:\n") != 1:
        raise NoTemplateError(f"crds/{name} must have one line `metadata:` for the annotation to follow")
    body = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    head, tail = body.split("metadata:\n", 1)
    origin = f"Copied from crds/{name} by scripts/sync_chart_crds.py: edit the models, not this file."
    opening = f"{{{{- /* {origin} */ -}}}}\n{{{{- if .Values.crds.enabled }}}}\n"
    return f"{opening}{head}metadata:\n{_KEEP}{tail}{{{{- end }}}}\n"


def main(arguments: list[str]) -> int:
    """Writes or checks all copies; returns the exit code."""
    wanted = {path.name: template(path.name, path.read_text()) for path in sorted(SOURCE.glob("*.yaml"))}
    present = {path.name: path.read_text() for path in sorted(CHART.glob("*.yaml"))}
    if "--check" in arguments:
        stale = sorted(
            name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name)
        )
        if stale:
            where = CHART.relative_to(ROOT)
            print(f"stale in {where}: {', '.join(stale)}: run `python scripts/sync_chart_crds.py`")
        return 1 if stale else 0
    CHART.mkdir(parents=True, exist_ok=True)
    for name in present.keys() - wanted.keys():
        (CHART / name).unlink()
    for name, text in wanted.items():
        (CHART / name).write_text(text)
    print(f"wrote {len(wanted)} templates")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
