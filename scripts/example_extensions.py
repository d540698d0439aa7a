"""examples/extensions/{go,node}: what ``beamline new`` makes. ``--check`` fails where they differ."""

from __future__ import annotations

import sys
from pathlib import Path

from beamline_cli.scaffold.render import Extension, render, write

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = (Extension("hello-go", "provider", "go"), Extension("hello-node", "provider", "node"))


def main() -> int:
    stale = []
    for example in EXAMPLES:
        folder = ROOT / "examples" / "extensions" / example.language
        files = render(example)
        if "--check" not in sys.argv[1:]:
            write(folder, files, force=True)
        stale += [
            f"{folder.relative_to(ROOT)}/{name}"
            for name, text in files.items()
            if not (folder / name).exists() or (folder / name).read_text(encoding="utf-8") != text
        ]
    for name in stale:
        print(f"{name} is not what `beamline new` makes")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
